"""Equations of geojax.methods.gradient_statistics, and the toy whose answers are known."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.diffusion.schedule import Schedule
from geojax.methods.gradient_statistics import (
    gradient_statistics,
    merged,
    moments,
    nested_statistics,
    statistics,
)
from geojax.methods.score_distillation import diffuse
from geojax.priors.mixture import Mixture, mixture_eps

DRAWS = jax.random.normal(jax.random.key(0), (7, 2, 3)) + 0.5


def test_against_the_definitions():
    found = statistics(moments(DRAWS))
    g = np.asarray(DRAWS, np.float64).reshape(7, 6)
    mean = g.mean(0)
    variance = ((g - mean) ** 2).sum() / 6
    pairs = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in itertools.combinations(g, 2)]
    np.testing.assert_allclose(float(found.variance), variance, rtol=1e-5)
    np.testing.assert_allclose(float(found.signal), mean @ mean - variance / 7, rtol=1e-4)
    np.testing.assert_allclose(float(found.snr), (mean @ mean - variance / 7) / variance, rtol=1e-4)
    np.testing.assert_allclose(float(found.cosine), np.mean(pairs), rtol=1e-4)
    np.testing.assert_allclose(float(found.norm), np.linalg.norm(g, axis=1).mean(), rtol=1e-5)


def test_moments_of_parts_are_merged():
    both = merged(moments(DRAWS[:3]), moments(DRAWS[3:]))
    for a, b in zip(statistics(both), statistics(moments(DRAWS)), strict=True):
        np.testing.assert_allclose(float(a), float(b), rtol=1e-5)


def test_equal_draws_have_no_variance_and_cosine_one():
    found = statistics(moments(jnp.broadcast_to(DRAWS[:1], DRAWS.shape)))
    assert float(found.variance) == pytest.approx(0.0, abs=1e-5)
    assert float(found.cosine) == pytest.approx(1.0, abs=1e-5)


def test_no_signal_is_estimated_without_bias():
    draws = jax.random.normal(jax.random.key(1), (400, 16, 10))
    signals = jax.vmap(lambda d: statistics(moments(d)).signal)(draws)
    # The plain square of the mean would be 10 / 16.
    assert abs(float(jnp.mean(signals))) < 3.0 * float(jnp.std(signals)) / 20.0


def test_a_gradient_of_zero_points_nowhere():
    found = statistics(moments(jnp.zeros((3, 4))))
    assert all(float(value) == 0.0 for value in found)
    some = statistics(moments(jnp.asarray([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])))
    assert float(some.cosine) == pytest.approx((1.0 + 0.0 + 0.0) / 3.0)


def test_too_few_draws_are_refused():
    with pytest.raises(ValueError, match="1 batches of 1 draws"):
        gradient_statistics(jax.random.key(0), lambda key: jnp.zeros((1, 4)), 1)


def nested_draw(spread, noise, dimensions=40, count=4):
    """Gaussian cameras around 1 with Gaussian noise around them, two kinds of it in a tree."""

    def draw(key):
        camera_key, noise_key = jax.random.split(key)
        mean = 1.0 + spread * jax.random.normal(camera_key, (dimensions,))
        g = mean[None] + noise * jax.random.normal(noise_key, (count, dimensions))
        return {"g": g, "double": 2.0 * g}

    return draw


@pytest.mark.parametrize(("spread", "noise"), [(0.5, 0.0), (0.0, 0.7), (0.5, 0.7)])
def test_variance_of_noise_and_of_cameras_are_told_apart(spread, noise):
    draw = nested_draw(spread, noise)
    run = jax.jit(lambda key: nested_statistics(key, draw, 600))
    found = run(jax.random.key(4))
    g = found["g"]
    assert float(g.noise) == pytest.approx(40 * noise**2, rel=0.05, abs=1e-4)
    assert float(g.camera) == pytest.approx(40 * spread**2, rel=0.08, abs=0.15 * noise**2 * 40 / 4)
    assert float(g.signal) == pytest.approx(40.0, rel=0.05)
    assert float(found["double"].noise) == pytest.approx(4.0 * float(g.noise), rel=1e-4, abs=1e-5)
    assert float(found["double"].snr) == pytest.approx(float(g.snr), rel=1e-4)


def test_cameras_that_disagree_cancel():
    """Half of them want one thing, half the opposite: all variance, no signal, cosine 0."""

    def draw(key):
        sign = jnp.where(jax.random.bernoulli(key), 1.0, -1.0)
        return jnp.broadcast_to(sign, (2, 8))

    found = nested_statistics(jax.random.key(0), draw, 1000)
    assert float(found.noise) == 0.0 and float(found.camera) == pytest.approx(8.0, rel=0.02)
    assert abs(float(found.snr)) < 0.01 and abs(float(found.cosine)) < 0.01


def test_one_camera_or_one_draw_is_refused():
    for draws, cameras in ((2, 1), (1, 2)):
        with pytest.raises(ValueError, match=f"{cameras} cameras of {draws} draws"):
            nested_statistics(jax.random.key(0), lambda key, n=draws: jnp.zeros((n, 3)), cameras)


# Eight modes on a circle of radius 4, variance .05, seen from the middle.
ANGLES = 2.0 * np.pi * np.arange(8) / 8
RING = Mixture(
    jnp.asarray(4.0 * np.stack([np.cos(ANGLES), np.sin(ANGLES)], -1), jnp.float32),
    jnp.asarray(0.05),
)


def toy(abar, weights, scale=1.0, noise_free=False):
    schedule = Schedule(jnp.asarray([abar]))
    x, t = jnp.zeros((2000, 2)), jnp.zeros(2000, jnp.int32)
    prompts = jnp.broadcast_to(jnp.asarray(weights, jnp.float32), (2000, 8))

    def draw(key):
        z, noise = diffuse(key, schedule, x, t)
        eps = mixture_eps(RING, schedule, z, t, prompts)
        return scale * (eps - (0.0 if noise_free else 1.0) * noise)

    return jax.jit(lambda key: gradient_statistics(key, draw, 100))(jax.random.key(3))


ONE, ALL = [1.0] + [0.0] * 7, [1.0] * 8


@pytest.mark.parametrize(
    ("abar", "mean", "variance"), [(0.5, 3.8095, 0.004535), (0.1, 1.3260, 6.105e-5)]
)
def test_a_condition_gives_a_direction(abar, mean, variance):
    found = toy(abar, ONE)
    assert np.sqrt(float(found.signal)) == pytest.approx(mean, rel=0.01)
    s2 = 1.0 - abar
    assert variance == pytest.approx(2.0 * (s2 / (0.05 * abar + s2) - 1.0) ** 2, rel=1e-3)
    assert float(found.variance) == pytest.approx(variance, rel=0.01)
    assert float(found.cosine) > 0.99


@pytest.mark.parametrize(("abar", "variance"), [(0.5, 10.69), (0.1, 0.66)])
def test_without_a_condition_there_is_none(abar, variance):
    found = toy(abar, ALL)
    assert float(found.variance) == pytest.approx(variance, rel=0.01)
    assert abs(float(found.signal)) < 1e-3 * float(found.variance)
    assert abs(float(found.cosine)) < 0.01


def test_several_gradients_of_the_same_noise():
    def draw(key):
        noise = jax.random.normal(key, (10, 3))
        return {"once": noise, "twice": 2.0 * noise, "other": {"shifted": noise + 1.0}}

    found = gradient_statistics(jax.random.key(5), draw, 20)
    alone = gradient_statistics(jax.random.key(5), lambda key: draw(key)["twice"], 20)
    assert float(found["twice"].variance) == float(alone.variance)
    np.testing.assert_allclose(
        float(found["other"]["shifted"].variance), float(found["once"].variance), rtol=1e-4
    )


def test_weight_scales_variance_and_leaves_the_ratio():
    once, twice = toy(0.5, ALL), toy(0.5, ALL, scale=2.0)
    assert float(twice.variance) == pytest.approx(4.0 * float(once.variance), rel=1e-5)
    assert float(twice.cosine) == pytest.approx(float(once.cosine), abs=1e-6)


def test_the_noise_leaves_the_mean_and_changes_the_variance():
    with_noise, without = toy(0.5, ONE), toy(0.5, ONE, noise_free=True)
    assert float(without.signal) == pytest.approx(float(with_noise.signal), rel=0.01)
    assert float(without.variance) > 100.0 * float(with_noise.variance)
