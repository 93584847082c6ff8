import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.diffusion import schedule as schedules

MAKERS = [schedules.scaled_linear, schedules.linear, schedules.cosine]


def test_stable_diffusions_known_values():
    schedule = schedules.scaled_linear()
    t = jnp.array([0, 20, 500, 980, 999])
    known = [0.99915, 0.981314, 0.276333, 0.00584378, 0.00466010]
    np.testing.assert_allclose(schedule.abar(t), known, rtol=2e-6)
    t = jnp.array([0, 500, 999])
    np.testing.assert_allclose(schedule.sigma(t), [0.0291672, 1.618279, 14.614641], rtol=4e-5)
    assert schedule.num_steps == 1000


def test_a_loop_in_double_precision():
    abar = np.asarray(schedules.scaled_linear().alphas_cumprod)
    product = 1.0
    for t in range(1000):
        root = 0.00085**0.5 + (0.012**0.5 - 0.00085**0.5) * t / 999
        product *= 1.0 - root**2
        assert abs(float(abar[t]) - product) < 1e-7 * product


def test_cosine_is_its_formula_until_beta_is_capped():
    abar = np.asarray(schedules.cosine().alphas_cumprod, np.float64)
    f = np.cos(0.5 * np.pi * (np.arange(1, 1001) / 1000 + 0.008) / 1.008) ** 2
    np.testing.assert_allclose(
        abar[:990], (f / np.cos(0.5 * np.pi * 0.008 / 1.008) ** 2)[:990], rtol=1e-5
    )
    np.testing.assert_allclose(abar[-1] / abar[-2], 1 - 0.999, rtol=1e-3)


@pytest.mark.parametrize("make", MAKERS)
def test_signal_falls_noise_rises(make):
    schedule = make(50)
    t = jnp.arange(50).reshape(5, 10)  # any shape
    alpha, s, sigma = (np.asarray(f(t)) for f in (schedule.alpha, schedule.s, schedule.sigma))
    assert alpha.shape == (5, 10)
    np.testing.assert_allclose(alpha**2 + s**2, 1.0, atol=1e-6)
    assert (np.diff(alpha.ravel()) < 0).all() and (np.diff(sigma.ravel()) > 0).all()


def test_a_schedule_is_a_pytree():
    schedule = schedules.linear(10)
    scaled = jax.jit(lambda schedule, t: schedule.alpha(t))(schedule, jnp.array(3))
    np.testing.assert_allclose(scaled, schedule.alpha(jnp.array(3)))
    assert jax.tree.map(jnp.shape, schedule).alphas_cumprod == (10,)


def test_from_config_reads_stable_diffusions_file():
    config = {
        "_class_name": "PNDMScheduler",
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "num_train_timesteps": 1000,
        "trained_betas": None,
    }
    np.testing.assert_array_equal(
        schedules.from_config(config).alphas_cumprod, schedules.scaled_linear().alphas_cumprod
    )
    trained = schedules.from_config({"trained_betas": [0.1, 0.5]})
    np.testing.assert_allclose(trained.alphas_cumprod, [0.9, 0.45], rtol=1e-6)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"beta_schedule": "sigmoid"}, "unknown beta_schedule 'sigmoid'; expected one of linear"),
        ({"rescale_betas_zero_snr": True}, "makes alpha_T zero"),
        ({"trained_betas": [0.1, 1.5]}, r"numbers in \(0, 1\)"),
        ({"num_train_timesteps": 0}, "at least one step, got 0"),
        ({"beta_start": 0.5, "beta_end": 0.1}, "start 0.5, end 0.1"),
    ],
)
def test_what_is_no_schedule_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        schedules.from_config(config)


def test_the_nearest_time_step_of_a_noise_level():
    schedule = schedules.scaled_linear()
    t = jnp.array([[0, 10], [500, 999]])
    np.testing.assert_array_equal(schedule.nearest(schedule.sigma(t)), t)
    # Between two levels the nearer one; past the ends the ends.
    low, high = schedule.sigma(jnp.array([500, 501]))
    np.testing.assert_array_equal(
        schedule.nearest(jnp.stack([0.9 * low + 0.1 * high, 0.1 * low + 0.9 * high])), [500, 501]
    )
    np.testing.assert_array_equal(schedule.nearest(jnp.array([0.0, 80.0])), [0, 999])
