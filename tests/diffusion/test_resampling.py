"""RePaint's walk, and its samples of a Gaussian with correlated halves, whose answer is known."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.diffusion.resampling import resampling, resampling_walk
from geojax.diffusion.samplers import EULER_ANCESTRAL
from geojax.diffusion.schedule import scaled_linear

SCHEDULE = scaled_linear()
CORRELATION = 0.9
COVARIANCE = jnp.array([[1.0, CORRELATION], [CORRELATION, 1.0]])


def denoise(z, t):
    """Exact for x ~ N(0, COVARIANCE): eps = s (alpha^2 C + s^2)^-1 z."""
    alpha, s = SCHEDULE.alpha(t)[:, None, None], SCHEDULE.s(t)[:, None, None]
    noised = alpha**2 * COVARIANCE[None] + s**2 * jnp.eye(2)[None]
    return s[..., 0] * jnp.linalg.solve(noised, z[..., None])[..., 0]


def paper_walk(steps, jump, repeats):
    """The published schedule: t counts down from N - 1 to -1, and up where jumps are left."""
    jumps = {t: repeats - 1 for t in range(0, steps - jump, jump)}
    t, times = steps, []
    while t >= 1:
        t -= 1
        times.append(t)
        if jumps.get(t, 0) > 0:
            jumps[t] -= 1
            for _ in range(jump):
                t += 1
                times.append(t)
    times.append(-1)
    return times


@pytest.mark.parametrize(("steps", "jump", "repeats"), [(30, 10, 3), (25, 4, 2), (7, 1, 5)])
def test_the_walk_is_the_papers(steps, jump, repeats):
    times = paper_walk(steps, jump, repeats)
    down = [a for a, b in itertools.pairwise(times) if b < a]
    assert resampling_walk(steps, 0, jump, repeats).tolist() == [steps - 1 - t for t in down]


def test_the_walk_without_jumps_or_with_a_late_start():
    assert resampling_walk(5, repeats=1).tolist() == [0, 1, 2, 3, 4]
    # Nothing above the level of the start is visited.
    assert resampling_walk(6, 3, jump=2, repeats=2).tolist() == [3, 4, 3, 4, 5]
    assert resampling_walk(6, 4, jump=2, repeats=9).tolist() == [4, 5]
    for bad in ({"jump": 0}, {"repeats": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            resampling_walk(5, **bad)


@functools.cache
def painted(name):
    """Second halves of 4000 samples, where the first half is known to be 1.5."""
    sampler = {"plain": EULER_ANCESTRAL, "resampled": resampling(jump=5, repeats=8)}[name]
    known = 1.5
    noise_key = jax.random.key(3)

    def constrain(z, i, alpha, s):
        noise = jax.random.normal(jax.random.fold_in(noise_key, i), z.shape)
        return jnp.where(jnp.array([[True, False]]), alpha * known + s * noise, z)

    @jax.jit
    def run(z):
        return sampler.sample(jax.random.key(4), denoise, SCHEDULE, z, 40, constrain=constrain)

    x = run(jax.random.normal(jax.random.key(5), (4000, 2)))
    np.testing.assert_allclose(x[:, 0], known, rtol=1e-6)
    return np.asarray(x[:, 1])


def test_resampling_finds_what_agrees_with_the_known():
    """The truth is N(rho a, 1 - rho^2); replacement alone hears too little of the known half."""
    error = {name: CORRELATION * 1.5 - painted(name).mean() for name in ("plain", "resampled")}
    assert error["plain"] > 0.3
    assert abs(error["resampled"]) < error["plain"] / 3
    np.testing.assert_allclose(painted("resampled").std(), np.sqrt(1 - CORRELATION**2), rtol=0.15)


def test_going_up_and_down_leaves_the_distribution_alone():
    sampler = resampling(jump=10, repeats=2)
    run = jax.jit(lambda z: sampler.sample(jax.random.key(6), denoise, SCHEDULE, z, 300))
    x = np.asarray(run(jax.random.normal(jax.random.key(7), (4000, 2))))
    np.testing.assert_allclose(np.cov(x.T), COVARIANCE, atol=0.08)
    np.testing.assert_allclose(x.mean(axis=0), 0.0, atol=0.05)
