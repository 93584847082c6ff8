import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.diffusion.guidance import guided
from geojax.diffusion.samplers import sample_ddim_stochastic, sample_dpm_solver
from geojax.diffusion.schedule import Schedule, scaled_linear
from geojax.priors.mixture import Mixture, mixture_eps, mixture_prior

SCHEDULE = scaled_linear()
HALF = Schedule(jnp.array([0.5, 0.1]))  # abar = .5 at t = 0, .1 at t = 1
predict = jax.jit(mixture_eps)


def pictures(key=0, count=3):
    return jax.random.uniform(jax.random.key(key), (count, 2, 2, 3))


@pytest.fixture(scope="module")
def prior():
    return mixture_prior(SCHEDULE, pictures(), 0.01, ["cat", "dog", "cow"])


def test_one_gaussian_in_one_dimension():
    """Prior N(2, .25): eps = s (z - 2 alpha) / (.25 alpha^2 + s^2)."""
    mixture = Mixture(jnp.array([[2.0]]), jnp.float32(0.25))
    z, t = jnp.linspace(-2, 2, 4).reshape(4, 1), jnp.array([0, 0, 1, 1])
    abar = np.array([0.5, 0.5, 0.1, 0.1])
    alpha, s = np.sqrt(abar), np.sqrt(1 - abar)
    want = s * (np.asarray(z)[:, 0] - 2 * alpha) / (0.25 * abar + s**2)
    np.testing.assert_allclose(
        predict(mixture, HALF, z, t, jnp.ones((4, 1)))[:, 0], want, rtol=1e-5
    )


def test_the_prediction_is_the_score_by_autodiff():
    """eps = -s grad log p_t, with p_t written out as a sum of densities."""
    mixture = Mixture(jax.random.normal(jax.random.key(1), (3, 2)), jnp.float32(0.3))
    weights, t = jnp.array([0.5, 0.2, 0.3]), jnp.array(0)
    alpha, s = HALF.alpha(t), HALF.s(t)

    def log_density(z):
        squared = jnp.sum((z[None] - alpha * mixture.means) ** 2, axis=-1)
        return jnp.log(jnp.sum(weights * jnp.exp(-0.5 * squared / (0.3 * alpha**2 + s**2))))

    z = jax.random.normal(jax.random.key(2), (5, 2))
    want = -s * jax.jit(jax.vmap(jax.grad(log_density)))(z)
    many = jnp.broadcast_to(weights, (5, 3))
    got = predict(mixture, HALF, z, jnp.zeros(5, jnp.int32), many)
    np.testing.assert_allclose(got, want, atol=2e-6)


def test_far_away_and_without_weight_it_stays_finite():
    mixture = Mixture(jnp.array([[0.0], [1.0]]), jnp.float32(1e-6))
    z, t = jnp.array([[1e4], [0.0]]), jnp.array([0, 1])
    weights = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    assert np.isfinite(predict(mixture, HALF, z, t, weights)).all()
    slope = jax.jit(jax.grad(lambda z: jnp.sum(mixture_eps(mixture, HALF, z, t, weights))))(z)
    assert np.isfinite(slope).all()


@pytest.mark.parametrize(("prompt", "mode"), [("cat", 0), ("cow", 2)])
def test_a_prompt_samples_its_mode(prior, prompt, mode):
    cond = prior.embed([prompt] * 2)

    @jax.jit
    def sample(params, z):
        return sample_dpm_solver(
            lambda z, t: prior.denoise(params, z, t, cond), prior.schedule, z, 20
        )

    z = jax.random.normal(jax.random.key(0), (2, 2, 2, 3))
    image = prior.decode(prior.params, sample(prior.params, z))
    distance = np.abs(np.asarray(image)[:, None] - np.asarray(pictures())).mean(axis=(2, 3, 4))
    assert (distance.argmin(axis=1) == mode).all() and distance[:, mode].max() < 0.15


def test_the_empty_prompt_samples_modes_by_their_weights():
    means = jnp.array([-1.0, 1.0]).reshape(2, 1, 1, 1)
    prior = mixture_prior(SCHEDULE, means, 0.01, ["low", "high"], weights=[1.0, 3.0])
    count = 2000
    cond = jnp.broadcast_to(prior.embed([""]), (count, 1, 2))

    @jax.jit
    def sample(key, params, z):
        def denoise(z, t):
            eps = prior.denoise(params, z, t, cond)
            return guided(eps, eps, 3.0)  # guidance without a prompt changes nothing

        return sample_ddim_stochastic(key, denoise, prior.schedule, z, 100)

    keys = jax.random.split(jax.random.key(0))
    x = sample(keys[0], prior.params, jax.random.normal(keys[1], (count, 1, 1, 1)))
    np.testing.assert_allclose(np.mean(np.asarray(x) > 0), 0.75, atol=0.04)
    np.testing.assert_allclose(np.abs(x).mean(), 1.0, atol=0.02)


def test_the_face(prior):
    image = pictures(5, 2)
    latent = prior.encode(prior.params, image)
    assert latent.shape == (2, prior.latent_size, prior.latent_size, prior.latent_channels)
    np.testing.assert_array_equal(prior.decode(prior.params, latent), image)
    np.testing.assert_array_equal(prior.decode(prior.params, latent + 9.0), 1.0)
    cond = np.asarray(prior.embed(["dog", ""]))
    assert cond.tolist() == [[[0.0, 1.0, 0.0]], [[1.0, 1.0, 1.0]]]


@pytest.mark.parametrize(
    ("prompts", "message"), [([], "list of prompts"), (["bird"], "no mode is called 'bird'")]
)
def test_prompts_it_does_not_know(prior, prompts, message):
    with pytest.raises(ValueError, match=message):
        prior.embed(prompts)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((pictures(), 0.01, ["a", "b"]), "3 modes, 2 prompts and 3 weights"),
        ((pictures(), 0.0, ["a", "b", "c"]), "variance must be positive, got 0.0"),
        ((jnp.zeros((1, 2, 3, 3)), 0.1, ["a"]), "square, got 2x3"),
    ],
)
def test_what_is_no_mixture_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        mixture_prior(SCHEDULE, *arguments)
