import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.distill import worlds
from experiments.studies import field_gradients, gradients, outcomes
from geojax.diffusion.schedule import scaled_linear
from geojax.geometry.occupancy import full_grid
from geojax.methods.text_to_3d import embed_views, init_state
from geojax.models.clip import CLIPText, CLIPTextConfig
from geojax.models.fields import VoxelField, as_field
from geojax.priors.mixture import mixture_prior
from geojax.weights.folder import load_config, save_component
from tests.experiments.binaries import run, tiny_flags
from tests.weights.tiny_family import random_params


def flags(family, out):
    # One kind of step: each takes seconds to compile.
    tiny = {"steps": 4, "checkpoint_every": 2, "picture_every": 4}
    tiny |= {"large_from": 1.0, "shaded_share": 0.0}
    return [
        "--config=configs/distill/worlds.py",
        *tiny_flags(family, **tiny),
        "--seeds=1",
        "--batches=1",
        "--views=2",
        "--cameras=2",
        "--times=100,900",
        f"--out={out}",
    ]


def test_the_whole_study(family, clip_folder, tmp_path):
    out = tmp_path / "study"
    # The same denoiser, which hears of no caption in other words.
    other = shutil.copytree(family, tmp_path / "other")
    text = CLIPText(CLIPTextConfig.from_dict(fields := load_config(family / "text_encoder")))
    save_component(other / "text_encoder", random_params(text, 9), fields, overwrite=True)
    more = [f"--clip={clip_folder}", f"--uncaptioned={other}"]
    done = run("study_gradients", *flags(family, out), *more)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((out / "study.json").read_text())
    assert list(result["runs"]) == ["conditional", "unconditional", "uncaptioned"]
    for summary in (s for mode in result["runs"].values() for s in mode):
        assert len(summary["opacities"]) == len(summary["occupied"]) == 4
        assert summary["picture_steps"] == [4] and len(summary["clip"]) == 1
        # 24 views of 12 kinds.
        assert 1 / 12 <= summary["agreement"] <= 1.0 and 1 / 12 <= summary["confidence"] <= 1.0
    configs = [json.loads((out / f"{m}-0" / "config.json").read_text()) for m in result["runs"]]
    assert [c["guidance"] for c in configs] == [5.0, 0.0, 0.0]
    assert set(result["gradients"]) == {"start", "half way", "end"}
    for kinds in result["gradients"].values():
        picture, field = kinds["picture"], kinds["field"]
        assert set(picture) >= {"none", "kind", "colour", "view", "condition", "view, g=100"}
        assert set(field) == {"none", "view", "guided", "uncaptioned"}
        for names in (picture, field):
            assert names["uncaptioned"]["signal"] != names["none"]["signal"]
            for figures in names.values():
                assert all(len(values) == 2 for values in figures.values())
                assert np.isfinite([v for values in figures.values() for v in values]).all()
    for name in ("gradients.png", "field_gradients.png", "outcome.png"):
        assert (out / name).stat().st_size > 1000


def test_bad_input_comes_before_work(family, tmp_path):
    absent = tmp_path / "absent"
    for more, message in (
        (["--prompt=a squirrel"], "names no object"),
        (["--times=100,1000"], "--times=100,1000 must be whole numbers in 0..999"),
        (["--times=abc"], "--times=abc must be"),
        (["--config.loss=csd"], "config.loss='csd'"),
        (["--config.stop_after=2"], "config.stop_after=2"),
        ([f"--uncaptioned={absent}"], f"--uncaptioned={absent}: no such folder"),
    ):
        done = run("study_gradients", *flags(family, tmp_path / "out"), *more)
        assert done.returncode != 0 and message in done.stderr
    assert not (tmp_path / "out").exists()


def test_what_is_found_is_sure_and_alike_from_all_sides():
    """The committed judge, asked of the exact solid and of noise."""
    model = "geojax/assets/worlds-64"
    exact = outcomes.recognition_of_exact(model, "a red mug", 64)
    assert exact["agreement"] > 0.9 and exact["confidence"] > 0.9
    run = {**exact, "opacity": 0.3, "collapsed": False}
    assert outcomes.is_found(run)
    for change in ({"opacity": 0.04}, {"collapsed": True}, {"agreement": 0.4}, {"confidence": 0.4}):
        assert not outcomes.is_found(run | change)
    noise = np.random.default_rng(0).uniform(0.4, 0.6, (24, 64, 64, 3)).astype(np.float32)
    assert outcomes.recognition(model, noise)["confidence"] < exact["confidence"]


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


def test_in_the_field_too_the_caption_is_a_signal_on_which_cameras_agree():
    """The same prior, whose modes are plain colours; the field is grey, between them."""
    size = 8
    means = jnp.stack([jnp.full((size, size, 3), c) for c in (-0.9, 0.9)])
    prior = mixture_prior(scaled_linear(), 0.5 + 0.5 * means, 0.01, ["ball", "other"])
    config = worlds.get_config()
    changes = {"small_size": size, "samples": 12, "capacity": 1024, "guidance": 5.0}
    changes |= {"cameras.focal": (4.0, 4.0), "cameras.target_std": 0.0}
    config.update_from_flattened_dict(changes)
    radius = config.field.radius
    voxels = VoxelField(
        channels=3, radius=radius, ball=radius, size=6, bias=3.0, feature_activation=jax.nn.sigmoid
    )
    field = as_field(voxels)
    state = init_state(jax.random.key(0), field, optax.sgd(0.1), full_grid(4, radius))
    prompt = embed_views(prior, "ball", [["", ""]], np.zeros(1))
    measure = field_gradients.field_gradients_at(config, field, prior, 8)
    found = field_gradients.by_time(measure, (state, prior.params, None), prompt, [500], 0)
    assert found["view"]["snr"][0] > 5.0 * abs(found["none"]["snr"][0])
    assert found["view"]["cosine"][0] > 0.1 > found["none"]["cosine"][0]
    assert found["guided"]["signal"][0] > found["view"]["signal"][0]


def test_captions_grow():
    texts = gradients.captions_of("house", "orange", "an", ", front view")
    assert list(texts.values()) == [
        "",
        "a house",
        "an orange house",
        "an orange house, front view",
    ]
