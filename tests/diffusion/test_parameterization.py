import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.diffusion import parameterization as convert
from geojax.diffusion.schedule import scaled_linear

SCHEDULE = scaled_linear()
T = jnp.array([0, 120, 500, 999])


@jax.jit
def all_of_them(x, eps, t):
    z = convert.add_noise(SCHEDULE, x, eps, t)
    v = convert.velocity(SCHEDULE, x, eps, t)
    return {
        "z": z,
        "v": v,
        "eps": (convert.eps_from_x0(SCHEDULE, z, x, t), convert.eps_from_v(SCHEDULE, z, v, t)),
        "x": (convert.x0_from_eps(SCHEDULE, z, eps, t), convert.x0_from_v(SCHEDULE, z, v, t)),
        "v again": (
            convert.v_from_eps(SCHEDULE, z, eps, t),
            convert.v_from_x0(SCHEDULE, z, x, t),
        ),
        "to_eps": tuple(
            convert.to_eps(SCHEDULE, z, prediction, t, kind)
            for kind, prediction in (("epsilon", eps), ("v_prediction", v), ("sample", x))
        ),
    }


@pytest.fixture(scope="module")
def answers():
    keys = jax.random.split(jax.random.key(0))
    x, eps = (jax.random.normal(key, (4, 3, 2, 2)) for key in keys)
    return x, eps, all_of_them(x, eps, T)


def test_noise_and_velocity_by_their_formulas(answers):
    x, eps, got = answers
    abar = np.asarray(SCHEDULE.alphas_cumprod, np.float64)[np.asarray(T)]
    for i in range(4):
        alpha, s = np.sqrt(abar[i]), np.sqrt(1 - abar[i])
        np.testing.assert_allclose(got["z"][i], alpha * x[i] + s * eps[i], atol=1e-6)
        np.testing.assert_allclose(got["v"][i], alpha * eps[i] - s * x[i], atol=1e-6)


def test_every_conversion_comes_back(answers):
    x, eps, got = answers
    # Dividing by s at t = 0 (.03), or by alpha at t = 999 (.07), costs two digits.
    for value in got["eps"]:
        np.testing.assert_allclose(value, eps, atol=2e-5)
    for value in got["x"]:
        np.testing.assert_allclose(value, x, atol=2e-5)
    for value in got["v again"]:
        np.testing.assert_allclose(value, got["v"], atol=2e-5)


def test_every_prediction_becomes_eps(answers):
    _, eps, got = answers
    for value in got["to_eps"]:
        np.testing.assert_allclose(value, eps, atol=2e-5)


def test_an_unknown_prediction_is_refused():
    z = jnp.zeros((1, 2))
    with pytest.raises((ValueError, TypeError), match="flow"):
        convert.to_eps(SCHEDULE, z, z, jnp.array([3]), "flow_prediction")


@pytest.mark.parametrize("shape", [(4,), (4, 5), (4, 2, 2, 2)])
def test_any_rank(shape):
    x = jnp.ones(shape)
    z = convert.add_noise(SCHEDULE, x, jnp.zeros(shape), T)
    np.testing.assert_allclose(z.reshape(4, -1)[:, 0], SCHEDULE.alpha(T))
