"""The members of the family against each other, and against priors whose gradient is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.diffusion.inversion import ddim_invert
from geojax.diffusion.parameterization import add_noise
from geojax.diffusion.schedule import scaled_linear
from geojax.methods import score_distillation as family
from geojax.methods.score_distillation import Loss, Scores
from geojax.priors.mixture import Mixture, mixture_eps

SCHEDULE = scaled_linear()
T = jnp.array([20, 199, 200, 980])


def scores(**changes):
    keys = jax.random.split(jax.random.key(0), 5)
    names = ("noise", "uncond", "cond", "negative", "own")
    eps = {n: jax.random.normal(k, (4, 3, 2)) for n, k in zip(names, keys, strict=True)}
    return Scores(**(eps | {"t": T, "guidance": 7.5} | changes))


def test_each_formula():
    s = scores()
    u, c, m, n, o = (np.asarray(a) for a in (s.uncond, s.cond, s.negative, s.noise, s.own))
    d = c - u
    small = np.array([1.0, 1.0, 0.0, 0.0])[:, None, None]  # t < 200
    expected = {
        family.SDS: u + 7.5 * d - n,
        family.SJC: u + 7.5 * d - n,
        family.SJC_PLAIN: u + 7.5 * d,
        family.VSD: u + 7.5 * d - o,
        family.CSD: d,
        family.CSD_NEGATIVE: c - m,
        family.NFSD: small * u + (1 - small) * (u - m) + 7.5 * d,
        family.ISM: u + 7.5 * d - n,
    }
    for loss, want in expected.items():
        np.testing.assert_allclose(loss.residual(s), want, atol=1e-5)
    np.testing.assert_allclose(family.csd_negative(s, 0.3), d + 0.3 * (u - m), atol=1e-5)


def test_weights():
    """w: s^2, but 1 for SJC and sigma for ISM."""
    abar = np.asarray(SCHEDULE.alphas_cumprod)[np.asarray(T)]
    for loss in (family.SDS, family.VSD, family.CSD, family.NFSD):
        np.testing.assert_allclose(loss.weighting(SCHEDULE, T), 1 - abar, rtol=1e-5)
    np.testing.assert_array_equal(family.SJC.weighting(SCHEDULE, T), np.ones(4))
    np.testing.assert_allclose(
        family.ISM.weighting(SCHEDULE, T), np.sqrt((1 - abar) / abar), rtol=1e-5
    )


def test_vsd_of_the_noise_is_sds():
    s = scores()
    np.testing.assert_array_equal(family.vsd(s._replace(own=s.noise)), family.sds(s))


def test_pgc_is_sds_whose_pixels_pull_no_harder_than_k():
    s = scores()
    r = np.asarray(family.sds(s))
    most = float(np.median(np.linalg.norm(r, axis=-1)))
    clipped = np.asarray(family.pgc(s, most))
    strong = np.linalg.norm(r, axis=-1) > most
    np.testing.assert_allclose(clipped[~strong], r[~strong], rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(clipped[strong], axis=-1), most, rtol=1e-5)
    cosine = np.sum(clipped * r, -1) / np.linalg.norm(clipped, axis=-1) / np.linalg.norm(r, axis=-1)
    np.testing.assert_allclose(cosine, 1.0, rtol=1e-5)
    still = s._replace(uncond=s.noise, cond=s.noise)
    assert not np.any(family.pgc(still))  # where nothing pulls, nothing is divided by


def test_without_a_condition_there_is_no_csd_and_guidance_means_nothing():
    s = scores()
    s = s._replace(cond=s.uncond)
    assert not np.any(family.csd(s))
    for residual in (family.sds, family.sjc_plain, family.vsd, family.nfsd):
        np.testing.assert_array_equal(residual(s), residual(s._replace(guidance=100.0)))


def test_sds_is_its_part_without_guidance_and_g_times_csd():
    s = scores()
    free = family.sds(s._replace(guidance=0.0))
    np.testing.assert_allclose(family.sds(s) - free, 7.5 * family.csd(s), atol=1e-5)
    # NFSD where t is small is SDS without its noise; elsewhere the negative prompt is the noise.
    np.testing.assert_allclose(family.nfsd(s)[:2], (family.sds(s) + s.noise)[:2], atol=1e-5)
    np.testing.assert_allclose(
        family.nfsd(s)[2:], family.sds(s._replace(noise=s.negative))[2:], atol=1e-5
    )


@pytest.mark.parametrize(
    ("residual", "name"), [("vsd", "own"), ("nfsd", "negative"), ("csd_negative", "negative")]
)
def test_what_a_loss_asks_for_must_be_there(residual, name):
    with pytest.raises(ValueError, match=f"'{name}', which was not given"):
        getattr(family, residual)(scores(**{name: None}))


# Priors with one or two modes of variance v: eps is known, so is every gradient.
MEANS = jnp.array([[2.0, -1.0], [-1.0, 3.0]])
FIRST, BOTH = jnp.array([[[1.0, 0.0]]]), jnp.array([[[1.0, 1.0]]])
SECOND = jnp.array([[[0.0, 1.0]]])


def gradient(loss, variance, key, x, t, cond, uncond, guidance, **asked):
    """B grad_x of the loss, on a mixture of the two modes."""
    mixture = Mixture(MEANS, jnp.float32(variance))

    def denoise(z, t, cond):
        return mixture_eps(mixture, SCHEDULE, z, t, cond[:, 0])

    def many(a):
        return None if a is None else jnp.broadcast_to(a, (x.shape[0], *a.shape[1:]))

    if "negative" in asked:
        asked["negative"] = many(asked["negative"])
    return x.shape[0] * jax.grad(
        lambda x: family.score_distillation_loss(
            key, denoise, SCHEDULE, x, t, many(cond), many(uncond), guidance, loss, **asked
        )[0]
    )(x)


def setting(count=3, t=(100, 400, 700)):
    x = jax.random.normal(jax.random.key(1), (count, 2))
    return jax.random.key(2), x, jnp.asarray(t)


def test_sds_of_a_point_is_the_way_to_it():
    """Prior at one point mu (v = 0), g = 1: eps - n = (alpha / s)(x - mu), whatever the noise."""
    key, x, t = setting()
    got = gradient(family.SDS, 1e-9, key, x, t, FIRST, FIRST, 1.0)
    w = np.asarray(SCHEDULE.alpha(t) * SCHEDULE.s(t))[:, None]
    np.testing.assert_allclose(
        got, w * (np.asarray(x) - np.asarray(MEANS[0])), rtol=1e-3, atol=1e-4
    )


def test_csd_and_nfsd_of_two_points_have_no_noise():
    """eps_c - eps_u = (alpha / s)(mu_u - mu_c): no matter where x is, nor which noise."""
    key, x, t = setting()
    ratio = np.asarray(SCHEDULE.alpha(t) / SCHEDULE.s(t))[:, None]
    s2 = np.asarray(1 - SCHEDULE.abar(t))[:, None]
    way = np.asarray(MEANS[1] - MEANS[0])[None]
    got = gradient(family.CSD, 1e-9, key, x, t, FIRST, SECOND, 5.0)
    np.testing.assert_allclose(got, s2 * ratio * way, rtol=1e-3)
    got = gradient(family.NFSD, 1e-9, key, x, t, FIRST, SECOND, 5.0, negative=SECOND)[1:]
    np.testing.assert_allclose(got, (s2 * ratio * 5 * way)[1:], rtol=1e-3)


def test_vsd_of_its_own_prior_is_the_guidance_alone():
    """A network that has learnt all the prior knows leaves g d: VSD is then g w CSD."""
    key, x, t = setting()
    mixture = Mixture(MEANS, jnp.float32(0.3))

    def own(z, t, cond):
        del cond
        return mixture_eps(mixture, SCHEDULE, z, t, jnp.ones((z.shape[0], 2)))

    got = gradient(family.VSD, 0.3, key, x, t, FIRST, BOTH, 4.0, own=own)
    csd = gradient(family.CSD, 0.3, key, x, t, FIRST, BOTH, 4.0)
    np.testing.assert_allclose(got, 4.0 * csd, rtol=1e-3, atol=1e-4)


def test_ism_without_guidance_is_still_on_the_path_of_inversion():
    """Prior at one point: inversion is exact, x at rest; guidance moves it by g (mu_u - mu_c)."""
    key, x, t = setting()
    rest = gradient(family.ISM, 1e-9, key, x, t, SECOND, SECOND, 3.0)
    np.testing.assert_allclose(rest, np.zeros_like(x), atol=2e-3)
    moved = gradient(family.ISM, 1e-9, key, x, t, FIRST, SECOND, 3.0)
    way = np.broadcast_to(3.0 * np.asarray(MEANS[1] - MEANS[0]), x.shape)
    np.testing.assert_allclose(moved, way, atol=5e-3)
    other = gradient(family.ISM, 1e-9, jax.random.key(9), x, t, FIRST, SECOND, 3.0)
    np.testing.assert_array_equal(moved, other)  # there is no chance in it


@functools.partial(jax.jit, static_argnames=("steps", "gap"))
def inverted(x, t, steps, gap):
    mixture = Mixture(jnp.zeros((1, 2)), jnp.float32(1.0))

    def denoise(z, t):
        return mixture_eps(mixture, SCHEDULE, z, t, jnp.ones((z.shape[0], 1)))

    return ddim_invert(denoise, SCHEDULE, x, t, steps, gap)


def test_inversion_of_a_unit_gaussian_keeps_the_sample():
    """Of N(0, 1) every noised marginal is N(0, 1): the exact path stays where it is."""
    x, t = jnp.array([[1.5, -0.5], [0.3, 2.0]]), jnp.array([300, 800])
    errors = [float(jnp.abs(inverted(x, t, steps, 20)[0] - x).max()) for steps in (2, 8, 32)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2] and errors[2] < 0.08
    z, noise = inverted(x, t, 8, 20)
    clean = (z - SCHEDULE.s(t)[:, None] * noise) / SCHEDULE.alpha(t)[:, None]
    np.testing.assert_allclose(add_noise(SCHEDULE, clean, noise, t), z, atol=1e-5)
    # A step shorter than the gap starts at 0, and nothing is ill.
    assert np.isfinite(np.asarray(inverted(x, jnp.array([0, 10]), 2, 20)[0])).all()


@pytest.mark.parametrize("loss", [family.SDS, Loss(family.sjc_plain, family.uniform), family.CSD])
def test_only_x_gets_a_gradient_of_any_of_them(loss):
    key, x, t = setting()

    def value(scale):
        return family.score_distillation_loss(
            key,
            lambda z, t, cond: scale * z + jnp.mean(cond),
            SCHEDULE,
            x,
            t,
            jnp.ones((3, 1, 1)),
            jnp.zeros((3, 1, 1)),
            2.0,
            loss,
        )[0]

    assert float(jax.grad(value)(1.0)) == 0.0
