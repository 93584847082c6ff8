"""The loop of a distillation without its networks: alarms, ends, and what it says it cost."""

import json
import time

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.distill import worlds
from experiments import distill, spending
from geojax.diffusion.schedule import scaled_linear
from geojax.io.metric_log import PeakMemory, read_metrics
from geojax.methods.radiance import Rendering
from geojax.models.fields import Field
from geojax.priors.prior import pixel_prior
from geojax.priors.stable_diffusion import load_stable_diffusion
from tests.experiments.binaries import TINY

PROMPT = "a squirrel"  # not of the world: nothing is measured


class Pictures:
    """What the report asks of a state, as if every picture were of one opacity."""

    def __init__(self, opacity=0.2, density=9.0):
        self.opacity, self.peak = opacity, density

    def __call__(self, state, views, *, normals=False):
        shape = (len(views.azimuth), views.camera.height, views.camera.width)
        plain, colour = np.full(shape, self.opacity), np.full((*shape, 3), 0.5)
        return Rendering(colour, plain, plain, colour, plain, plain, plain, 0.0, 0)

    def density(self, params, points):
        return self.peak * (np.linalg.norm(points, axis=-1) < 0.3)


def make_tools(opacity=0.2, faults=None, seen=None, **pictures):
    """Steps that do nothing but count; `faults` are figures by step, `seen` gets their kinds."""

    def make(kind):
        def step(state, prior_params, views):
            number = int(state.step)
            if seen is not None:
                seen.append((number, *kind))
            names = ("finite_rendering", "finite_residual", "finite_gradient")
            figures = dict.fromkeys(names, 1.0) | {"opacity": opacity, "dropped": 0.25}
            figures |= (faults or {}).get(number, {})
            x = jnp.full(3, figures.pop("x", 1.0))
            return state._replace(step=state.step + 1, params={"x": x}), figures

        return step

    field = Field(
        lambda key: {"x": jnp.zeros(3)},
        lambda params, points: (jnp.ones(len(points)), jnp.ones((len(points), 3))),
    )
    prior = pixel_prior(
        {}, lambda *_: None, lambda texts: jnp.zeros((len(texts), 2, 3)), scaled_linear(), 16
    )
    steps = {(a, b): make((a, b)) for a in (False, True) for b in (False, True)}
    return distill.Tools(prior, field, optax.adam(1e-2), steps, Pictures(**pictures))


def make_config(**changes):
    config = worlds.get_config()
    config.update_from_flattened_dict(TINY | {"shaded_share": 0.5, "picture_every": 3} | changes)
    return config


def go(folder, tools=None, *, started=None, **changes):
    config, tools = make_config(**changes), tools or make_tools()
    with distill.open_object(config, PROMPT, folder, tools) as run:
        return distill.distill(config, PROMPT, run, tools, started)


@pytest.mark.parametrize(
    ("every", "left"),
    [(4, "the checkpoint of step 4 is from before"), (9, "no checkpoint was made before")],
)
def test_what_is_not_finite_is_named_with_what_is_left(tmp_path, every, left):
    tools = make_tools(faults={5: {"finite_residual": 0.0}})
    with pytest.raises(FloatingPointError, match=f"step 5: the prior's prediction.*; {left}"):
        go(tmp_path, tools, checkpoint_every=every)
    assert (tmp_path / "checkpoints" / "4").is_dir() == (every == 4)
    assert not (tmp_path / "summary.json").exists()
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == list(range(6))


def test_a_field_that_is_not_finite_is_not_saved(tmp_path):
    """Every figure of step 7 was fine, its update was not."""
    tools = make_tools(faults={7: {"x": np.inf}})
    with pytest.raises(FloatingPointError, match=r"step 7: the field .* checkpoint of step 4"):
        go(tmp_path, tools)
    assert not (tmp_path / "checkpoints" / "8").exists()


@pytest.mark.parametrize(("opacity", "name"), [(0.0, "empty"), (0.99, "solid"), (0.2, None)])
def test_a_collapse_is_said_while_it_runs_and_at_the_end(tmp_path, caplog, opacity, name):
    # One picture's worth of it does not count; nor does what came before it was good again.
    recovers = {step: {"opacity": 0.2} for step in range(3, 6)}
    tools = make_tools(opacity, faults=recovers)
    tools.pictures.opacity = opacity
    summary = go(tmp_path, tools, steps=15)
    said = [r.getMessage() for r in caplog.records if "has collapsed" in r.getMessage()]
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["collapsed"] for line in lines] == [
        float(bool(name) and not 3 <= step < 6) for step in range(15)
    ]
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    if name is None:
        assert not said and summary["collapsed"] is False and summary["collapse"] is None
        return
    assert summary["collapsed"] is True and summary["collapse"].startswith(name)
    # Pictures at 3 (collapsed), 6 (good), 9, 12, 15: the alarm is at the third in a row.
    assert [text.split(",")[0] for text in said] == [
        "step 14: the object has collapsed",
        "the object has collapsed",
    ]


def test_without_a_surface_there_is_no_mesh_and_no_old_one(tmp_path, caplog):
    assert go(tmp_path, stop_after=6)["mesh"] == "mesh.glb"
    old = (tmp_path / "mesh.glb").read_bytes()
    summary = go(tmp_path, make_tools(density=4.0))
    assert summary["mesh"] is None
    assert json.loads((tmp_path / "summary.json").read_text())["mesh"] is None
    assert not (tmp_path / "mesh.glb").exists()
    assert (tmp_path / "mesh_earlier.glb").read_bytes() == old
    assert "at most 4" in caplog.text and "it is now mesh_earlier.glb" in caplog.text


def test_a_run_that_stops_early_is_the_same_run(tmp_path):
    seen, whole = [], []
    summary = go(tmp_path / "a", make_tools(seen=seen), stop_after=5)
    assert summary["steps"] == 5
    assert (tmp_path / "a" / "views.png").exists()
    # The second time it goes on; asked for less than there is, it reports what there is.
    assert go(tmp_path / "a", make_tools(seen=seen))["steps"] == 12
    assert go(tmp_path / "a", make_tools(seen=seen), stop_after=3)["steps"] == 12
    go(tmp_path / "b", make_tools(seen=whole))
    assert seen == whole and len(whole) == 12
    # Sizes and lights are those of the recipe's twelve steps.
    assert [large for _, large, _ in whole] == [False] * 6 + [True] * 6
    lines = read_metrics(tmp_path / "a" / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(12))
    assert {line["dropped"] for line in lines} == {0.25}


def test_another_length_is_another_run(tmp_path):
    go(tmp_path, stop_after=4)
    longer = make_config(steps=24)
    for check in (
        lambda: distill.check_object(longer, PROMPT, tmp_path),
        lambda: distill.open_object(longer, PROMPT, tmp_path, make_tools()),
    ):
        with pytest.raises(ValueError, match="steps: the run has 12, this command 24"):
            check()
    distill.check_object(make_config(stop_after=9, picture_every=1), PROMPT, tmp_path)


def test_time_and_memory_are_those_of_all_processes(tmp_path, monkeypatch):
    def peak(size):
        monkeypatch.setattr(spending, "peak_memory", lambda: PeakMemory(size, None))

    def ago(seconds):
        return time.monotonic() - seconds

    peak(10**15)
    first = go(tmp_path, stop_after=4, started=ago(1000))
    assert 1000 <= first["seconds"] < 1100
    assert first["seconds_steps"] < 100
    peak(10**9)
    second = go(tmp_path, stop_after=8, started=ago(500))
    assert 500 <= second["seconds"] - first["seconds"] < 600
    assert second["peak_memory_bytes"] == 10**15
    # After a kill there is no summary of the step it comes back to: the checkpoint knows.
    (tmp_path / "summary.json").unlink()
    third = go(tmp_path, started=ago(300))
    assert 1800 <= third["seconds"] < 1900
    assert third["peak_memory_bytes"] == 10**15


def test_the_space_asked_for_is_that_of_the_state(tmp_path):
    config, tools = make_config(**{"grid_resolution": 100}), make_tools()
    grid = 100**3 * 5  # a float and a bool a cell
    assert 4 * grid < distill.needed_bytes(config, tools) < 4.5 * grid
    config.picture_size = 4096
    assert distill.needed_bytes(config, tools) > 4 * grid + 72 * 3 * 4096**2


def test_a_long_prompt_keeps_the_names_of_its_views(family, caplog):
    prior, config = load_stable_diffusion(family), worlds.get_config()
    long = "a red mug " + "in the middle of nowhere " * 5
    views = distill.embed_prompt(config, long, prior)
    front, back = views.embeddings[0, 0], views.embeddings[0, 4]
    assert np.abs(front - back).max() > 1e-3
    (said,) = [r.getMessage() for r in caplog.records if "over the limit" in r.getMessage()]
    assert "limit of 24 tokens" in said and "nowhere in the middle of nowhere' was cut" in said
    short = distill.embed_prompt(config, "a red mug", prior)
    assert len([r for r in caplog.records if "over the limit" in r.getMessage()]) == 1
    whole = prior.embed(["a red mug" + config.view_suffixes[0][4]])[0]
    np.testing.assert_allclose(short.embeddings[0, 4], whole, atol=1e-5)
