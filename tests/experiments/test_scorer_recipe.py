"""A recipe whose renderings are scored, through the very tools that `distill` makes of it."""

import jax
import numpy as np
import pytest

from configs.distill import worlds
from experiments import distill
from tests.experiments.binaries import TINY


@pytest.fixture(scope="module")
def scored(clip_folder, tmp_path_factory):
    """The variant `clip` on a tiny pair of towers, and its tools."""
    model = tmp_path_factory.mktemp("scored") / "family"
    model.mkdir()
    (model / "clip").symlink_to(clip_folder)
    config = worlds.get_config("clip")
    config.update_from_flattened_dict(TINY | {"model": str(model)})
    distill.check_config(config, "a red mug")
    return config, distill.prepare(config)


def test_a_step_follows_the_score(scored):
    config, tools = scored
    views = distill.embed_prompt(config, "a red mug", tools.model)
    # A side of its own for each name of a view: the score hears them.
    sides = np.asarray(views.embeddings).reshape(32, -1)
    assert len(np.unique(sides.round(5), axis=0)) == 32
    state = distill.initial_state(config, tools)
    before = jax.tree.map(np.asarray, state.params)
    with jax.numpy_dtype_promotion("standard"):
        state, metrics = tools.steps[False, False](state, tools.model.params, views)
    assert np.isfinite(float(metrics["score"])) and float(metrics["gradient_norm"]) > 0.0
    assert float(metrics["finite_gradient"]) == float(metrics["finite_residual"]) == 1.0
    moved = jax.tree.map(lambda a, b: np.any(a != np.asarray(b)), before, state.params)
    assert all(jax.tree.leaves(moved))


def test_what_needs_a_denoiser_says_so(scored):
    with pytest.raises(ValueError, match="this needs a recipe with a denoiser"):
        scored[1].prior.encode  # noqa: B018
