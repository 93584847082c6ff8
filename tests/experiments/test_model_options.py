from pathlib import Path

import jax.numpy as jnp
import pytest

from configs.distill import stable_diffusion
from experiments.model_options import NAMES, model_options, parse_lora
from geojax.priors.stable_diffusion import load_stable_diffusion


def test_nothing_is_set_by_default():
    assert model_options(stable_diffusion.get_config()) == {}
    assert model_options({"seed": 3, "lora": None}) == {}


def test_what_is_set_are_arguments_of_the_loader(family, tmp_path):
    adaptation = tmp_path / "a.safetensors"
    adaptation.touch()
    fields = {
        "revision": "main",
        "variant": "fp16",
        "dtype": "bfloat16",
        "lora": f"{adaptation}:0.5",
        "tokenizer": "elsewhere",
        "prediction_type": "epsilon",
    }
    options = model_options({**fields, "steps": 3})
    assert set(options) == set(NAMES)
    assert options["dtype"] == jnp.bfloat16 and options["lora"] == ((adaptation, 0.5),)
    # A variant that is not there is asked for, and missed: the option arrives.
    with pytest.raises(FileNotFoundError, match="fp16"):
        load_stable_diffusion(family, **model_options({"variant": "fp16"}))
    prior = load_stable_diffusion(family, **model_options({"dtype": "bfloat16"}))
    assert prior.params["unet"]["conv_in"]["kernel"].dtype == jnp.bfloat16


def test_adaptations(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).touch()
    assert parse_lora("a:0.8, b") == ((Path("a"), 0.8), (Path("b"), 1.0))
    with pytest.raises(FileNotFoundError, match="no file c"):
        parse_lora("a,c:2")
    with pytest.raises(ValueError, match="'much' of a is not a number"):
        parse_lora("a:much")
    with pytest.raises(ValueError, match="expected FILE"):
        parse_lora("a,")


def test_an_unknown_type_is_refused():
    with pytest.raises(ValueError, match="dtype='half' is not one of"):
        model_options({"dtype": "half"})
