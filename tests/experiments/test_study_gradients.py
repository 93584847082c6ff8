import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.studies import gradients
from geojax.diffusion.schedule import scaled_linear
from geojax.priors.mixture import mixture_prior
from tests.experiments.binaries import run, tiny_flags


def flags(family, out, **changes):
    return [
        "--config=configs/distill/worlds.py",
        *tiny_flags(family, steps=4, checkpoint_every=2, picture_every=4, **changes),
        "--seeds=1",
        "--batches=1",
        "--views=2",
        "--times=100,900",
        f"--out={out}",
    ]


def test_the_whole_study(family, tmp_path):
    out = tmp_path / "study"
    done = run("study_gradients", *flags(family, out))
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((out / "study.json").read_text())
    assert set(result["runs"]) == {"conditional", "unconditional"}
    assert [len(s["opacities"]) for mode in result["runs"].values() for s in mode] == [4, 4]
    configs = [json.loads((out / f"{m}-0" / "config.json").read_text()) for m in result["runs"]]
    assert [c["guidance"] for c in configs] == [5.0, 0.0]
    assert set(result["gradients"]) == {"start", "half way", "end"}
    for names in result["gradients"].values():
        assert set(names) >= {"none", "kind", "colour", "view", "condition", "view, g=100"}
        for figures in names.values():
            assert all(len(values) == 2 for values in figures.values())
            assert np.isfinite([v for values in figures.values() for v in values]).all()
    for name in ("gradients.png", "opacity.png"):
        assert (out / name).stat().st_size > 1000
    again = run("study_gradients", *flags(family, out))
    assert again.returncode == 0 and again.stdout.count("finished before") == 2


def test_bad_input_comes_before_work(family, tmp_path):
    for more, message in (
        (["--prompt=a squirrel"], "names no object"),
        (["--times=100,1000"], "0..999"),
    ):
        done = run("study_gradients", *flags(family, tmp_path / "out"), *more)
        assert done.returncode != 0 and message in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_condition_that_names_a_mode_has_a_signal_and_none_has_less():
    """On a closed-form prior: two modes, seen from the middle between them."""
    means = jnp.stack([jnp.full((2, 2, 1), -1.0), jnp.full((2, 2, 1), 1.0)])
    prior = mixture_prior(scaled_linear(), means, 0.05, ["a red mug, front view", "other"])
    measure = gradients.gradients_at(prior, 4)
    both, first = prior.embed([""])[0], prior.embed(["a red mug, front view"])[0]
    conditions = jnp.stack([both, both, first, first])
    found = jax.device_get(
        measure(
            jax.random.key(0), prior.params, jnp.zeros((1, 2, 2, 1)), jnp.asarray(500), conditions
        )
    )
    assert found["view"].snr > 10.0 * abs(found["none"].snr)
    assert found["view"].cosine > 0.9 > found["none"].cosine
    # The same noise: what is asked twice is answered alike, and guidance 1 is the plain prediction.
    assert found["colour"].variance == pytest.approx(float(found["view"].variance))
    assert found["view, g=5"].norm > found["view"].norm


def test_captions_grow():
    texts = gradients.captions_of("house", "orange", "an", ", front view")
    assert list(texts.values()) == [
        "",
        "a house",
        "an orange house",
        "an orange house, front view",
    ]
