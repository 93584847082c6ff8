"""Equations of geojax.methods.depth_training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from geojax.methods.depth_training import FLOOR, depth_loss, depth_step, log_error
from geojax.methods.train_state import init_state

DEPTH = jax.random.uniform(jax.random.key(0), (2, 8, 8), minval=0.5, maxval=9.0)
ALL = jnp.ones((2, 8, 8), bool)


def test_true_disparity_costs_nothing():
    loss, metrics = depth_loss(1.0 / DEPTH, DEPTH, ALL, 0.5)
    assert float(loss) < 1e-6 and float(metrics["edges"]) < 1e-6


def test_a_factor_costs_its_logarithm_and_no_edges():
    loss, metrics = depth_loss(1.1 / DEPTH, DEPTH, ALL, 0.5)
    assert float(loss) == pytest.approx(np.log(1.1), rel=1e-4)
    assert float(metrics["edges"]) == pytest.approx(0.0, abs=1e-5)


def test_edges_of_one_wrong_pixel():
    disparity = (1.0 / DEPTH).at[0, 4, 4].mul(jnp.e)
    _, metrics = depth_loss(disparity, DEPTH, ALL, 0.5)
    # Of each stride k and direction, 2 differences of 1 (1 at stride 4) among 2 * 8 * (8 - k).
    wanted = sum(2 * n / (2 * 8 * (8 - k)) for k, n in ((1, 2), (2, 2), (4, 1)))
    assert float(metrics["edges"]) == pytest.approx(wanted, rel=1e-4)
    assert float(metrics["relative_error"]) == pytest.approx(1 / 128, rel=1e-4)


def test_unknown_depth_does_not_count_and_passes_no_gradient():
    known = ALL.at[:, :, :3].set(False)
    depth = jnp.where(known, DEPTH, jnp.nan)

    def loss(d):
        return depth_loss(d, depth, known, 0.5)[0]

    value, gradient = jax.value_and_grad(loss)(2.0 / DEPTH)
    assert float(value) == pytest.approx(np.log(2.0), rel=1e-4)
    assert np.isfinite(np.asarray(gradient)).all()
    assert not np.asarray(gradient)[:, :, :3].any()
    assert np.asarray(gradient)[:, :, 3:].any()


def test_nothing_known_is_finite():
    loss, _ = depth_loss(1.0 / DEPTH, DEPTH, jnp.zeros_like(ALL), 0.5)
    assert float(loss) == 0.0


def test_disparity_has_a_floor():
    error = log_error(jnp.zeros((1, 1, 1)), jnp.full((1, 1, 1), 100.0), jnp.ones((1, 1, 1), bool))
    assert float(error[0, 0, 0]) == pytest.approx(np.log(FLOOR * 100.0), abs=1e-5)


def test_training_finds_a_disparity():
    optimiser = optax.adam(0.05)
    params = {"d": jnp.full((1, 1, 1), 1.0)}
    step = depth_step(
        lambda p, image: jnp.broadcast_to(p["d"], image.shape[:3]),
        optimiser,
        edge_weight=0.5,
        decay=0.9,
    )
    state = init_state(jax.random.key(0), params, optimiser)
    image, depth = jnp.zeros((2, 8, 8, 3)), jnp.full((2, 8, 8), 4.0)
    for _ in range(60):
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an int
            state, _ = step(state, image, depth, ALL)
    assert float(state.average["d"][0, 0, 0]) == pytest.approx(0.25, rel=0.15)
