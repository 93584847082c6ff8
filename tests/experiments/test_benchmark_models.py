"""The comparison of models with PyTorch's, on a tiny model."""

import dataclasses
import importlib.util

import numpy as np
import pytest

from configs.walk import stable_diffusion
from experiments.benchmarks import models, random_model, random_walk, worker
from experiments.walking.models import load_models
from geojax.models.clip import CLIPText
from geojax.models.clip_vision import CLIP
from geojax.models.unet import UNet
from geojax.models.vae import VAE
from geojax.weights.folder import abstract_params
from geojax.worlds import vocabulary
from tests.golden.networks import parameter_count
from tests.parity.full_size_cases import TINY
from tests.weights.tiny_family import TEXT, UNET, VAE_CONFIG


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    size = vocabulary.write_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    tokens = {"vocab_size": size, "bos_token_id": size - 2, "eos_token_id": size - 1}
    text = dataclasses.replace(TEXT, **tokens)
    networks = random_model.Networks(UNet(UNET), VAE(VAE_CONFIG), CLIPText(text))
    path = tmp_path_factory.mktemp("random") / "model"
    random_model.write_random_model(path, networks)
    return path


def test_the_random_model_is_the_original_at_full_size():
    counts = {
        name: parameter_count(abstract_params(module))
        for name, module in random_model.STABLE_DIFFUSION_1._asdict().items()
    }
    assert counts == {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480}


def test_the_random_walk_is_scenescapes_at_full_size():
    found = random_walk.SCENESCAPE
    modules = (*found.inpainting, found.depth, found.clip)
    counts = [parameter_count(abstract_params(module)) for module in modules]
    assert counts == [865_925_124, 83_653_863, 340_387_840, 343_030_465, 427_616_513]


def test_a_walk_loads_the_random_networks(tmp_path):
    size = vocabulary.write_tokenizer(tmp_path / "tokenizer")
    tokens = {"vocab_size": size, "bos_token_id": size - 2, "eos_token_id": size - 1}
    clip = TINY["clip_l14"].module.config
    small = random_walk.WalkNetworks(
        random_model.Networks(
            UNet(dataclasses.replace(UNET, in_channels=9)),
            VAE(VAE_CONFIG),
            CLIPText(dataclasses.replace(TEXT, **tokens)),
        ),
        TINY["dpt_large"].module,
        CLIP(
            dataclasses.replace(clip, text_config=dataclasses.replace(clip.text_config, **tokens))
        ),
    )
    random_walk.write_random_walk(tmp_path / "walk", small)
    config = stable_diffusion.get_config()
    for name in ("model", "depth.model", "clip"):
        folder = {"model": "inpainting", "depth.model": "depth"}.get(name, name)
        config.update_from_flattened_dict({name: str(tmp_path / "walk" / folder)})
    loaded = load_models(config)
    assert loaded.prior.extra_channels == 5
    assert loaded.clip is not None


def test_without_pytorch_geojax_is_measured_alone(folder, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "torch" else find(name, *a)
    )
    options = models.Options(folder=str(folder), tasks=("encode",))
    figures = models.measure(options, 1)
    assert "pip install -e '.[torch]'" in capsys.readouterr().out
    (row,) = figures["rows"]
    assert row["torch"] is None and row["ratio"] is None
    assert row["geojax"]["seconds"] > 0.0
    # Python with JAX takes a tenth of a gigabyte; a wrong unit would be off by a thousand.
    assert 5e7 < row["geojax"]["peak_bytes"] < 5e9
    assert models.table(figures).splitlines()[-1].split()[2:4] == ["-", "-"]


def test_an_unknown_task_is_refused():
    with pytest.raises(ValueError, match=r"unknown tasks \['depth'\]"):
        models.Options(tasks=("unet", "depth"))


def test_a_worker_that_fails_says_why(tmp_path):
    settings = ["unet", str(tmp_path / "absent"), str(tmp_path / "inputs.npz"), "1", "1", ""]
    with pytest.raises(RuntimeError, match="FileNotFoundError"):
        worker.Worker(["experiments.benchmarks.models_geojax", *settings])


@pytest.mark.parity
def test_both_sides_give_the_same(folder, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
    figures = models.measure(models.Options(folder=str(folder), steps=2), 1)
    assert [row["task"] for row in figures["rows"]] == list(models.TASKS)
    for row in figures["rows"]:
        assert row["error"] < 1e-3, row
        ratio = row["ratio"]["seconds"]
        assert ratio == pytest.approx(row["geojax"]["seconds"] / row["torch"]["seconds"])
    assert np.isfinite([row["geojax"]["cpu_seconds"] for row in figures["rows"]]).all()
    assert len(models.table(figures).splitlines()) == 2 + len(models.TASKS)
