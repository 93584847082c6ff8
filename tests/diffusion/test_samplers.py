"""Samplers on a Gaussian, whose probability flow and whose samples are known.

With x ~ N(m, v): eps = s (z - alpha m) / (alpha^2 v + s^2), and the flow takes y = z / alpha to
m + (y - m) sqrt(v / (v + sigma^2)).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.diffusion import samplers
from geojax.diffusion.schedule import linear, scaled_linear

SCHEDULE = scaled_linear()
MEAN, VARIANCE = 0.7, 0.04
DETERMINISTIC = [samplers.sample_ddim, samplers.sample_euler, samplers.sample_dpm_solver]
STOCHASTIC = [samplers.sample_ddim_stochastic, samplers.sample_euler_ancestral]


def gaussian_denoise(variance):
    def denoise(z, t):
        assert t.dtype == jnp.int32 and t.shape == z.shape[:1]
        alpha, s = SCHEDULE.alpha(t)[:, None], SCHEDULE.s(t)[:, None]
        return s * (z - alpha * MEAN) / (alpha**2 * variance + s**2)

    return denoise


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def run(sampler, z, steps, start=0, variance=VARIANCE):
    return sampler(gaussian_denoise(variance), SCHEDULE, z, steps, start=start)


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def run_stochastic(sampler, key, z, steps, start=0):
    return sampler(key, gaussian_denoise(VARIANCE), SCHEDULE, z, steps, start=start)


def flow(z, first, last):
    """The exact flow from the time step `first` to `last`, in EDM's frame, y = z / alpha."""
    alpha = SCHEDULE.alpha(jnp.array(first))
    variance = VARIANCE + np.asarray(SCHEDULE.sigma(jnp.array([first, last]))) ** 2
    shrink = np.sqrt(variance[1] / variance[0])
    return MEAN + (np.asarray(z) / float(alpha) - MEAN) * shrink


def test_time_steps_are_stable_diffusions():
    t = samplers.time_steps(SCHEDULE, 50)
    assert t.tolist() == list(range(981, 0, -20))
    assert samplers.time_steps(SCHEDULE, 1).tolist() == [1]
    t = samplers.dpm_time_steps(SCHEDULE, 20)
    assert t.tolist() == list(range(941, 47, -47))


def test_trailing_time_steps_begin_at_the_end():
    assert samplers.trailing_time_steps(SCHEDULE, 1).tolist() == [999]
    assert samplers.trailing_time_steps(SCHEDULE, 4).tolist() == [999, 749, 499, 249]
    assert samplers.trailing_time_steps(SCHEDULE, 3).tolist() == [999, 666, 332]
    for steps in (0, -1, 1001):
        with pytest.raises(ValueError, match=f"cannot take {steps} steps"):
            samplers.trailing_time_steps(SCHEDULE, steps)


def test_one_trailing_step_finds_the_mean():
    """Of all pictures that could be behind the noise; a leading one begins at t = 1, in noise."""
    z = jax.random.normal(jax.random.key(0), (64, 2))
    trailing = functools.partial(samplers.sample_ddim, times=samplers.trailing_time_steps)
    alpha, s = SCHEDULE.alpha(jnp.array(999)), SCHEDULE.s(jnp.array(999))
    eps = gaussian_denoise(VARIANCE)(z, jnp.full(64, 999))
    expected = SCHEDULE.alpha(jnp.array(0)) * (z - s * eps) / alpha
    expected += SCHEDULE.s(jnp.array(0)) * eps
    np.testing.assert_allclose(run(trailing, z, 1), expected, atol=1e-5)
    # sigma is 15 there: what the noise says of x is 0.04 / 15 of it.
    assert np.abs(expected - MEAN).max() < 0.13
    assert np.abs(run(samplers.sample_ddim, z, 1) - MEAN).max() > 1.0


@pytest.mark.parametrize("steps", [0, -1, 1000, 2000])
def test_impossible_numbers_of_steps(steps):
    with pytest.raises(ValueError, match=f"cannot take {steps} steps"):
        samplers.time_steps(SCHEDULE, steps)


def test_strength():
    assert samplers.start_index(50, 0.8) == 10  # 40 steps run
    assert samplers.start_index(50, 1.0) == 0
    for strength, message in [(0.0, "got 0.0"), (1.5, "got 1.5"), (0.01, "leaves none of 50")]:
        with pytest.raises(ValueError, match=message):
            samplers.start_index(50, strength)


@pytest.mark.parametrize("sampler", DETERMINISTIC)
def test_one_picture_is_found_by_any_number_of_steps(sampler):
    """With v = 0 every denoised estimate is the picture itself."""
    z = jax.random.normal(jax.random.key(0), (3, 2))
    got = run(sampler, z, 3, 0, 0.0)
    if sampler is samplers.sample_ddim:  # it ends with the noise of t = 0 still in
        assert np.abs(got - MEAN).max() < 4 * 0.03
    else:
        np.testing.assert_allclose(got, MEAN, atol=2e-5)


def flow_error(sampler, steps, start):
    """Greatest distance from where the exact flow ends."""
    z = jnp.linspace(-2.0, 2.0, 6).reshape(6, 1)
    dpm = sampler is samplers.sample_dpm_solver
    t = (samplers.dpm_time_steps if dpm else samplers.time_steps)(SCHEDULE, steps)
    if sampler is samplers.sample_ddim:
        want = flow(z, t[start], 0) * float(SCHEDULE.alpha(jnp.array(0)))
    else:  # the last step jumps from the last sigma to 0: to the denoised estimate
        sigma = float(SCHEDULE.sigma(jnp.array(t[-1])))
        want = MEAN + (flow(z, t[start], t[-1]) - MEAN) * VARIANCE / (VARIANCE + sigma**2)
    return np.abs(np.asarray(run(sampler, z, steps, start)) - want).max()


@pytest.mark.parametrize("start_of_40", [0, 20])
@pytest.mark.parametrize("sampler", [samplers.sample_ddim, samplers.sample_euler])
def test_first_order_follows_the_flow(sampler, start_of_40):
    """Four times the steps: a quarter of the error."""
    coarse = flow_error(sampler, 40, start_of_40)
    fine = flow_error(sampler, 160, 4 * start_of_40)
    assert fine < coarse / 3 and coarse < 0.1


def test_second_order_is_better_with_an_eighth_of_the_steps():
    coarse = flow_error(samplers.sample_dpm_solver, 20, 0)
    assert coarse < flow_error(samplers.sample_euler, 160, 0) / 5
    assert flow_error(samplers.sample_dpm_solver, 40, 20) < coarse


@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_samples_of_a_gaussian(sampler):
    z = jax.random.normal(jax.random.key(1), (4000, 1))
    x = np.asarray(run_stochastic(sampler, jax.random.key(2), z, 500))
    np.testing.assert_allclose(x.mean(), MEAN, atol=0.015)
    np.testing.assert_allclose(x.std(), np.sqrt(VARIANCE), rtol=0.08)
    # The end has forgotten the start: the noise came from the key.
    other = np.asarray(run_stochastic(sampler, jax.random.key(3), z, 500))
    assert abs(np.corrcoef(x[:, 0], other[:, 0])[0, 1]) < 0.1
    np.testing.assert_array_equal(run_stochastic(sampler, jax.random.key(2), z, 500), x)


def test_ddim_without_noise_is_deterministic_ddim():
    z = jax.random.normal(jax.random.key(1), (4, 1))
    still = run_stochastic(
        functools.partial(samplers.sample_ddim_stochastic, eta=0.0), jax.random.key(0), z, 5
    )
    np.testing.assert_allclose(still, run(samplers.sample_ddim, z, 5), atol=1e-6)


@pytest.mark.parametrize("start", [0, 2])
def test_ddim_by_a_loop(start):
    z = jax.random.normal(jax.random.key(4), (2, 3))
    abar = np.asarray(SCHEDULE.alphas_cumprod, np.float64)
    want = np.asarray(z, np.float64)
    for t in list(range(801, 0, -200))[start:]:
        now, then = abar[t], abar[max(t - 200, 0)]
        eps = np.sqrt(1 - now) * (want - np.sqrt(now) * MEAN) / (now * VARIANCE + 1 - now)
        x = (want - np.sqrt(1 - now) * eps) / np.sqrt(now)
        want = np.sqrt(then) * x + np.sqrt(1 - then) * eps
    np.testing.assert_allclose(run(samplers.sample_ddim, z, 5, start), want, atol=1e-5)


def test_a_short_schedule():
    """T that `steps` does not divide."""
    schedule = linear(10, 0.01, 0.3)
    assert samplers.time_steps(schedule, 4).tolist() == [7, 5, 3, 1]
    x = samplers.sample_ddim(lambda z, t: z, schedule, jnp.ones((1, 2)), 4)
    assert np.isfinite(x).all()


SAMPLERS = {
    "ddim": samplers.DDIM,
    "euler": samplers.EULER,
    "ancestral": samplers.EULER_ANCESTRAL,
    "dpm": samplers.DPM_SOLVER,
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_noised_start_has_the_level_of_the_step_it_starts_at(name):
    sampler = SAMPLERS[name]
    x, eps = jnp.full((2, 3), 2.0), jax.random.normal(jax.random.key(5), (2, 3))
    z, start = samplers.noised_start(sampler, SCHEDULE, x, eps, 10, 0.55)
    assert start == 5  # int(10 * .55) steps run
    t = jnp.array(sampler.time_steps(SCHEDULE, 10)[5])
    np.testing.assert_allclose(z, SCHEDULE.alpha(t) * x + SCHEDULE.s(t) * eps, rtol=1e-6)


@pytest.mark.parametrize("start", [0, 3])
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_constraint_sees_every_level_and_has_the_last_word(name, start):
    """Half of the sample is held to a known noised path, through to its clean end."""
    sampler, known, steps = SAMPLERS[name], 5.0, 7
    eps = jax.random.normal(jax.random.key(6), (2, 2))
    levels = []

    def constrain(z, i, alpha, s):
        jax.debug.callback(lambda *level: levels.append(level), i, alpha, s, ordered=True)
        return jnp.where(jnp.array([[True, False]]), alpha * known + s * eps, z)

    def noted(z, t):
        seen.append((int(t[0]), np.asarray(z)))

    seen = []

    def denoise(z, t):
        jax.debug.callback(noted, z, t, ordered=True)
        return gaussian_denoise(VARIANCE)(z, t)

    z = jax.random.normal(jax.random.key(7), (2, 2))
    x = sampler.sample(
        jax.random.key(8), denoise, SCHEDULE, z, steps, start=start, constrain=constrain
    )
    x.block_until_ready()
    np.testing.assert_allclose(x[:, 0], known, rtol=1e-6)
    assert abs(float(x[:, 1].mean()) - MEAN) < 0.5
    t = sampler.time_steps(SCHEDULE, steps)[start:]
    assert [step for step, _ in seen] == t.tolist()
    expected = [(float(SCHEDULE.alpha(i)), float(SCHEDULE.s(i))) for i in jnp.asarray(t[1:])]
    index = [int(i) for i, *_ in levels]
    levels = [level for _, *level in levels]
    assert index == list(range(start, steps))
    np.testing.assert_allclose(levels, [*expected, (1.0, 0.0)], rtol=2e-5, atol=1e-6)
    # What the network is shown at the next step is what the constraint left.
    for (alpha, s), (_, shown) in zip(levels[:-1], seen[1:], strict=True):
        np.testing.assert_allclose(shown[:, 0], alpha * known + s * eps[:, 0], rtol=1e-4, atol=1e-5)
