import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.diffusion.schedule import scaled_linear
from geojax.methods import score_distillation as family
from geojax.methods import sjc
from geojax.priors.mixture import Mixture, mixture_eps

SCHEDULE = scaled_linear()
MIXTURE = Mixture(jnp.array([[2.0, -1.0], [-1.0, 3.0]]), jnp.float32(0.3))
COND, UNCOND = jnp.tile(jnp.array([[[1.0, 0.0]]]), (2, 1, 1)), jnp.ones((2, 1, 2))
Y, T = jnp.array([[0.5, 0.2], [1.0, -2.0]]), jnp.array([300, 600])


def denoise(z, t, cond):
    return mixture_eps(MIXTURE, SCHEDULE, z, t, cond[:, 0])


@pytest.mark.parametrize(("reduced", "loss"), [(True, family.SJC), (False, family.SJC_PLAIN)])
def test_minus_sigma_paas_is_the_residual(reduced, loss):
    """One draw: -sigma PAAS is eps - n, or eps; and the weight of SJC is one."""
    key = jax.random.key(3)
    (draw,) = jax.random.split(key, 1)
    paas = sjc.perturb_and_average(
        key, denoise, SCHEDULE, Y, SCHEDULE.sigma(T), COND, UNCOND, 3.0, 1, reduced
    )
    gradient = 2 * jax.grad(
        lambda y: family.score_distillation_loss(
            draw, denoise, SCHEDULE, y, T, COND, UNCOND, 3.0, loss
        )[0]
    )(Y)
    np.testing.assert_allclose(
        -np.asarray(SCHEDULE.sigma(T))[:, None] * paas, gradient, rtol=1e-3, atol=1e-4
    )


def test_paas_is_the_score_of_the_blurred_prior_averaged_over_the_blur():
    """One mode N(mu, v): PAAS(y) = (mu - y) / (v + sigma^2), in both forms; (2) varies less."""
    y = jnp.tile(Y[:1], (2, 1))
    sigma = np.asarray(SCHEDULE.sigma(T))[:, None]
    want = (np.asarray(MIXTURE.means[0]) - np.asarray(y)) / (0.3 + sigma**2)
    found = {
        reduced: np.stack(
            [
                sjc.perturb_and_average(
                    key, denoise, SCHEDULE, y, SCHEDULE.sigma(T), COND, COND, 1.0, 16, reduced
                )
                for key in jax.random.split(jax.random.key(0), 30)
            ]
        )
        for reduced in (True, False)
    }
    for score in found.values():
        error = 4 * score.std(axis=0) / np.sqrt(len(score)) + 1e-6
        assert (np.abs(score.mean(axis=0) - want) < error).all()
    # The blurred score's own variance, sigma / (v + sigma^2) a draw, against what n adds to it.
    assert (found[True].std(axis=0) < found[False].std(axis=0)).all()


def test_the_network_is_asked_of_the_diffused_picture():
    """z = (y + sigma n) / sqrt(1 + sigma^2): of variance 1 where y is, whatever sigma."""
    seen = []

    def denoise(z, t, cond):
        seen.append((z, t))
        return jnp.zeros_like(z)

    y = jax.random.normal(jax.random.key(2), (2, 5000))
    sigma = SCHEDULE.sigma(jnp.asarray([50, 800]))
    nothing = jnp.zeros((2, 1, 1))
    with jax.disable_jit():
        sjc.perturb_and_average(
            jax.random.key(3), denoise, SCHEDULE, y, sigma, nothing, nothing, 1.0
        )
    ((z, t),) = seen
    np.testing.assert_array_equal(t, [50, 50, 800, 800])
    np.testing.assert_allclose(jnp.std(z, axis=1), 1.0, rtol=0.04)
    correlation = jnp.mean(z * jnp.repeat(y, 2, axis=0), axis=1)
    np.testing.assert_allclose(correlation, SCHEDULE.alpha(t), atol=0.04)


def test_emptiness():
    weights = np.array([0.0, 0.1, 0.5])
    a_ray = jnp.full((1, 2, 2), np.log1p(10 * weights).sum(), jnp.float32)
    np.testing.assert_allclose(
        sjc.emptiness_loss(a_ray, 3), np.mean(np.log(1 + 10 * weights)), rtol=1e-6
    )
    at = [float(sjc.emptiness_schedule(jnp.asarray(i), 100, 2.0)) for i in (0, 49, 50, 100)]
    assert at == [2.0, 2.0, 40.0, 40.0]


def test_centre_depth_pulls_the_centre_to_the_front_even_from_behind():
    def depth(centre, border):
        return jnp.full((1, 16, 16), border).at[:, 4:12, 4:12].set(centre)

    loss = jax.jit(jax.value_and_grad(lambda d: sjc.centre_depth_loss(d, inner=0.5)))
    value, slope = loss(depth(1.0, 1.5))
    np.testing.assert_allclose(value, -np.log(0.5), rtol=1e-5)
    for centre in (1.0, 1.495, 1.5, 2.5):
        value, slope = loss(depth(centre, 1.5))
        assert np.isfinite(value)
        # Descent lowers the depth of every pixel of the centre, and raises the border's.
        assert float(slope[0, 4:12, 4:12].min()) > 0.0
        assert float(slope[0, :4].max()) < 0.0
    nearer, same, behind = (float(loss(depth(c, 1.5))[0]) for c in (1.0, 1.5, 2.0))
    assert nearer < same < behind


def test_filled_depth():
    got = sjc.filled_depth(jnp.array([[[1.0, 0.0]]]), jnp.array([[[1.0, 0.0]]]), jnp.array([3.0]))
    np.testing.assert_array_equal(got, [[[1.0, 3.0]]])
