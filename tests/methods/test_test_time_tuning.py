"""Equations of geojax.methods.test_time_tuning."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from geojax.methods.test_time_tuning import (
    decoder_loss,
    depth_loss,
    relative_depth_loss,
    scale_invariant_error,
    tune,
)

KEYS = jax.random.split(jax.random.key(0), 4)
IMAGE = jax.random.uniform(KEYS[0], (1, 4, 6, 3))
OTHER = jax.random.uniform(KEYS[1], (1, 4, 6, 3))
MASK = jnp.zeros((1, 4, 6), bool).at[:, :, 4:].set(True)
DEPTH = jax.random.uniform(KEYS[2], (1, 4, 6), minval=0.5, maxval=5.0)


def both(painted, known):
    return jnp.where(MASK[..., None], painted, known)


def test_decoder_loss_is_zero_where_both_halves_are_met():
    assert float(decoder_loss(both(OTHER, IMAGE), OTHER, IMAGE, MASK)) == 0.0


def test_decoder_loss_by_hand():
    rebuilt = both(OTHER + 0.1, IMAGE - 0.2)
    # A third of the pixels is painted; means are over all of them.
    wanted = 0.01 / 3 + 100.0 * 0.04 * 2 / 3
    assert float(decoder_loss(rebuilt, OTHER, IMAGE, MASK)) == pytest.approx(wanted, rel=1e-5)


def test_preservation_alone_is_zero_iff_the_known_pixels_agree():
    def preserved(rebuilt):
        return float(decoder_loss(rebuilt, rebuilt, IMAGE, MASK))

    assert preserved(both(OTHER, IMAGE)) == 0.0
    assert preserved(both(OTHER, IMAGE).at[0, 0, 0, 0].add(0.1)) > 0.0


def test_what_is_not_known_may_be_nan():
    known = jnp.where(MASK[..., None], jnp.nan, IMAGE)
    value, gradient = jax.value_and_grad(lambda r: decoder_loss(r, OTHER, known, MASK))(OTHER)
    assert np.isfinite(float(value)) and np.isfinite(np.asarray(gradient)).all()


def test_targets_pass_no_gradient():
    gradients = jax.grad(decoder_loss, (1, 2))(IMAGE, OTHER, OTHER, MASK)
    assert not any(np.asarray(g).any() for g in gradients)


@pytest.mark.parametrize("loss", [depth_loss, relative_depth_loss])
def test_depth_losses_are_zero_at_the_truth_and_look_at_the_known(loss):
    known = ~MASK
    depth = jnp.where(known, DEPTH, jnp.nan)
    disparity = jnp.where(known, 1.0 / DEPTH, 7.0)
    value, gradient = jax.value_and_grad(loss)(disparity * 1.1, depth, known)
    assert float(loss(disparity, depth, known)) == pytest.approx(0.0, abs=1e-6)
    assert float(value) > 0.0
    assert np.isfinite(np.asarray(gradient)).all()
    assert not np.asarray(gradient)[np.asarray(MASK)].any()
    assert float(loss(disparity, depth, jnp.zeros_like(known))) == 0.0


def test_depth_losses_by_hand():
    assert float(depth_loss(0.5 / DEPTH, DEPTH, ~MASK)) == pytest.approx(
        float(jnp.mean(DEPTH[:, :, :4])), rel=1e-5
    )
    assert float(relative_depth_loss(0.5 / DEPTH, DEPTH, ~MASK)) == pytest.approx(np.log(2.0))
    assert float(depth_loss(jnp.zeros_like(DEPTH), DEPTH, ~MASK)) == pytest.approx(
        float(jnp.mean(100.0 - DEPTH[:, :, :4])), rel=1e-5
    )


def test_scale_invariant_error():
    known = jnp.ones_like(MASK)
    assert float(scale_invariant_error(3.0 * DEPTH, DEPTH, known)) == pytest.approx(0.0, abs=1e-5)
    half = DEPTH.at[:, :2].mul(jnp.e)
    assert float(scale_invariant_error(half, DEPTH, known)) == pytest.approx(0.5, rel=1e-4)


def test_tuning_descends_and_leaves_the_original():
    start = {"shift": jnp.zeros((1, 1, 1, 3))}

    def loss(p):
        return decoder_loss(OTHER + p["shift"], OTHER, OTHER + 0.3, MASK)

    with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an int
        tuned, losses = jax.jit(lambda p: tune(loss, p, optax.adam(0.02), 60))(start)
    assert losses.shape == (60,) and float(losses[-1]) < 0.05 * float(losses[0])
    assert float(loss(start)) == pytest.approx(float(losses[0]), rel=1e-5)
    # The weight 100 of what is known wins over the painted third.
    np.testing.assert_allclose(np.asarray(tuned["shift"]), 0.3, atol=0.03)


def test_no_steps_change_nothing_and_fewer_are_refused():
    start = {"a": jnp.ones(3)}
    tuned, losses = tune(lambda p: jnp.sum(p["a"] ** 2), start, optax.sgd(0.1), 0)
    np.testing.assert_array_equal(np.asarray(tuned["a"]), np.ones(3))
    assert losses.shape == (0,)
    with pytest.raises(ValueError, match="steps=-1"):
        tune(lambda p: jnp.sum(p["a"] ** 2), start, optax.sgd(0.1), -1)
