import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.methods import timesteps

T = 1000


@functools.partial(jax.jit, static_argnums=(0, 2))
def draws(sampler, key, count, low, high):
    return sampler(key, count, (low, high), T)


@pytest.mark.parametrize("sampler", [timesteps.uniform, timesteps.stratified])
def test_draws_fill_the_range_and_both_ends(sampler):
    t = np.asarray(draws(sampler, jax.random.key(0), 40_000, 0.02, 0.98))
    assert t.dtype == np.int32
    assert (t.min(), t.max()) == (20, 980)
    counts = np.bincount(t, minlength=981)[20:]
    np.testing.assert_allclose(t.mean(), 500, atol=6)
    np.testing.assert_allclose(counts[:31].sum() + counts[-31:].sum(), 62 / 961 * 40_000, rtol=0.1)


def test_stratified_draws_cover_every_part_in_random_order():
    t = np.asarray(draws(timesteps.stratified, jax.random.key(1), 8, 0.0, 0.999))
    assert np.array_equal(np.sort(t) // 125, np.arange(8)) and not np.array_equal(np.sort(t), t)


@pytest.mark.parametrize("sampler", [timesteps.uniform, timesteps.stratified])
def test_edges(sampler):
    assert np.asarray(draws(sampler, jax.random.key(0), 8, 0.29, 0.29)).tolist() == [290] * 8
    assert np.asarray(draws(sampler, jax.random.key(0), 8, 1.0, 1.0)).tolist() == [999] * 8


def test_linear_annealing():
    at = jax.jit(lambda step: timesteps.linear_range(step, (0.02, 0.98), (0.02, 0.5), 5000))
    for step, high in [(0, 0.98), (2500, 0.74), (5000, 0.5), (9999, 0.5)]:
        np.testing.assert_allclose(at(step), (0.02, high), rtol=1e-5)


def test_jump():
    at = jax.jit(lambda step: timesteps.jump_range(step, (0.02, 0.98), (0.02, 0.5), 5000))
    for step, high in [(0, 0.98), (4999, 0.98), (5000, 0.5), (9999, 0.5)]:
        np.testing.assert_allclose(at(step), (0.02, high), rtol=1e-6)


def test_square_root_annealing():
    at = jax.jit(lambda step: timesteps.sqrt_annealed(step, 400, 3, (0.02, 0.98), T))
    for step, t in [(0, 980), (100, 500), (400, 20), (500, 20)]:
        assert np.asarray(at(step)).tolist() == [t] * 3
    assert at(0).dtype == jnp.int32
    falling = np.asarray([int(at(step)[0]) for step in range(0, 401, 10)])
    assert (np.diff(falling) < 0).all()
    assert falling[0] - falling[1] > 3 * (falling[-2] - falling[-1])  # quick at first


def test_dreamtime():
    weights = timesteps.dreamtime_weights(T)
    np.testing.assert_allclose(weights.sum(), 611.854, atol=2e-3)
    np.testing.assert_allclose(weights[499:800], 1.0)
    assert weights[0] < 1e-5 and 0.8 < weights[-1] < 0.81
    at = jax.jit(lambda step: timesteps.dreamtime(step, 100, 2, weights))
    for step, t in [(0, 1000), (10, 930), (25, 834), (50, 681), (75, 528), (90, 431)]:
        assert np.asarray(at(step)).tolist() == [t] * 2
    falling = np.asarray([int(at(step)[0]) for step in range(0, 101, 5)])
    assert (np.diff(falling) < 0).all() and falling[-1] >= 1
    assert int(at(150)[0]) == falling[-1]
