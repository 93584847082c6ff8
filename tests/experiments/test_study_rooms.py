import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.distill import rooms
from experiments import study_rooms
from experiments.studies import room_gradients
from geojax.diffusion.schedule import scaled_linear
from geojax.geometry.occupancy import full_grid
from geojax.io.media import read_image
from geojax.methods.text_to_3d import State, embed_views
from geojax.models.fields import Field
from geojax.priors.mixture import mixture_prior
from tests.experiments.binaries import run, tiny_flags

PROMPT = "a room with red walls and a brown wooden floor"


def flags(inpainting, out):
    # One kind of step: each takes seconds to compile.
    tiny = {"steps": 4, "checkpoint_every": 2, "picture_every": 4, "large_from": 1.0}
    tiny |= {"shaded_share": 0.0, "inside.free.candidates": 4, "inside.free.samples": 4}
    return [
        "--config=configs/distill/rooms.py",
        *tiny_flags(inpainting, **tiny),
        "--draws=4",
        f"--out={out}",
    ]


def test_the_whole_study(inpainting_folder, clip_folder, tmp_path):
    out = tmp_path / "study"
    everything = [*flags(inpainting_folder, out), f"--clip={clip_folder}"]
    # Broken off after the first half of the first run, and taken up.
    done = run("study_rooms", *everything, "--rules=random", "--config.stop_after=2")
    assert done.returncode == 0, done.stderr[-3000:]
    assert len((out / "random-0" / "metrics.jsonl").read_text().splitlines()) == 2
    done = run("study_rooms", *everything, "--rules=random,schedule")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "resumed at step 2" in done.stdout
    result = json.loads((out / "study_rooms.json").read_text())
    assert list(result["runs"]) == ["random", "schedule"] and len(result["beside"]) == 19
    for rule, (summary,) in result["runs"].items():
        assert len(summary["opacities"]) == len(summary["depths"]) == 4
        assert 0.0 <= summary["near"] <= 1.0 and 0.0 < summary["opacity"] <= 1.0
        assert -1.0 <= summary["clip"] <= 1.0 and 1 <= summary["clip_rank"] <= 20
        for stage in ("start", "end"):
            pulls = summary["pulls"][stage]
            assert 0.0 <= pulls["within"] <= 1.0
            assert {pulls[name]["mean"] is None for name in ("pull_within", "pull_free")} != {True}
        assert result["overall"][rule]["clip"]["mean"] == summary["clip"]
        config = json.loads((out / f"{rule}-0" / "config.json").read_text())
        assert config["inside"]["rule"] == rule
        for name in ("views.png", "plan.png", "turn.mp4", "summary.json"):
            assert (out / f"{rule}-0" / name).stat().st_size > 100
    sheet = read_image(out / "rooms.png").rgb
    # Two rows of nine pictures of 16 pixels, with captions.
    assert sheet.shape[0] == 18 + 2 * 18 - 2 and sheet.shape[1] > 9 * 18
    assert (out / "opacity.png").stat().st_size > 1000


def test_wrong_flags_come_before_work(inpainting_folder, tmp_path):
    out, absent = tmp_path / "out", tmp_path / "absent"
    for more, message in (
        (["--rules=random,best"], "--rules=random,best must be different ones of random, free"),
        (["--rules=free,free"], "--rules=free,free must be different"),
        (["--config=configs/distill/worlds.py"], "no fields `inside`"),
        ([f"--clip={absent}"], f"--clip={absent}: no such folder"),
        (["--config.loss=vsd"], "config.loss='vsd'"),
        (["--prompt= "], "--prompt is empty"),
        (["--config.inside.start=(2.0,0.0,0.0)"], "config.inside.start="),
    ):
        first, *base = flags(inpainting_folder, out)
        if "worlds" in more[0]:
            first, more = more[0], []
            base = [flag for flag in base if "inside" not in flag]
        done = run("study_rooms", first, *base, *more)
        assert done.returncode != 0 and message in done.stderr, (more, done.stderr[-500:])
    assert not out.exists()


def test_the_prompt_is_ranked_among_twenty_rooms():
    beside = study_rooms.prompts_beside(PROMPT)
    assert beside[0] == PROMPT and len(set(beside)) == len(beside) == 20
    assert len(study_rooms.prompts_beside("a cellar")) == 21

    class Clip:
        def rank(self, images, prompts):
            assert prompts == beside
            return np.asarray([[0.5, 0.9] + [0.1] * 18, [0.5, 0.3] + [0.1] * 18])[: len(images)]

    found = study_rooms.agreement(Clip(), np.zeros((2, 4, 4, 3), np.float32), PROMPT)
    assert found == {"clip": 0.5, "clip_rank": 2, "clip_says": beside[1]}


RED, BLUE = (0.9, 0.1, 0.1), (0.1, 0.1, 0.9)


@pytest.mark.parametrize(("fog", "behind", "sign"), [(BLUE, RED, 1.0), (RED, BLUE, -1.0)])
def test_what_hides_the_right_colour_is_pulled_away(fog, behind, sign):
    """A prior of plain red pictures, a fog about all cameras, and a wall."""
    config = rooms.get_config("random")
    config.update(small_size=8, large_size=8, guidance=1.0, samples=24)
    config.inside.half = (0.3, 0.3, 0.2)
    means = jnp.broadcast_to(jnp.asarray(RED), (1, 8, 8, 3))
    prior = mixture_prior(scaled_linear(), means, 1e-3, ["x"])

    def apply(params, points):
        wall = jnp.linalg.norm(points, axis=-1) > 0.7
        colour = jnp.where(wall[:, None], jnp.asarray(behind)[None], jnp.asarray(fog)[None])
        return jnp.where(wall, 50.0, params), colour

    field = Field(lambda key: jnp.float32(5.0), apply)
    grid, step = full_grid(4, 1.0), jnp.asarray(0, jnp.int32)
    state = State(jnp.float32(5.0), (), grid, step, jax.random.key(0))
    views = embed_views(prior, "x", [[""]], np.zeros(1))
    measure = room_gradients.pulls_at(config, field, prior, 8)
    pull, within = jax.device_get(measure(jax.random.key(1), state, prior.params, views))
    assert (sign * pull > 0.0).all() and within.all()
    thin = state._replace(params=jnp.float32(0.5))
    _, within = jax.device_get(measure(jax.random.key(1), thin, prior.params, views))
    # In the air, although the wall is near.
    assert not within.any()
    within = ~within
    found = room_gradients.summary(pull, within)
    assert found["within"] == 1.0 and found["pull_free"]["mean"] is None
    assert found["pull_within"]["mean"] == pytest.approx(pull.mean(), rel=1e-5)
