"""VSD's own network on a tiny UNet over pixels."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from geojax.diffusion.schedule import scaled_linear
from geojax.methods import variational
from geojax.methods.variational import OwnTraining
from geojax.models.unet import UNet
from geojax.priors.mixture import mixture_prior
from geojax.priors.prior import pixel_prior
from geojax.priors.stable_diffusion import network_denoise
from tests.weights.tiny_family import UNET, random_params

SCHEDULE = scaled_linear()


def relaxed(optimiser):
    """The optimiser without strict promotion: optax raises a float to an integer power."""

    def update(*arguments):
        with jax.numpy_dtype_promotion("standard"):
            return optimiser.update(*arguments)

    return optax.GradientTransformation(optimiser.init, update)


TRAINING = OwnTraining(rank=4, optimiser=relaxed(optax.adam(3e-3)), velocity=False)
X = jnp.tile(jnp.linspace(-1, 1, 8)[None, :, None, None], (4, 1, 8, UNET.in_channels))
COND = jnp.ones((4, 3, UNET.cross_attention_dim))
CAMERAS = jnp.tile(jnp.eye(4)[None], (4, 1, 1))


@functools.cache
def prior():
    unet = UNet(UNET)
    denoise = network_denoise(unet, SCHEDULE, "epsilon")
    params = {"unet": jax.tree.map(jnp.asarray, random_params(unet))}
    return pixel_prior(params, denoise, lambda texts: COND, SCHEDULE, 8)


@functools.cache
def step():
    def train(own, key):
        return variational.train_own_score(
            key, own, TRAINING, prior(), prior().params, X, COND, CAMERAS
        )

    return jax.jit(train)


def test_it_starts_as_the_prior():
    own = variational.init_own_score(jax.random.key(0), prior(), TRAINING)
    denoise = variational.own_denoise(prior(), prior().params, own.params, CAMERAS)
    t = jnp.array([0, 10, 500, 999])
    got = jax.jit(denoise)(X, t, COND)
    want = jax.jit(prior().denoise)(prior().params, X, t, COND)
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_a_hidden_camera_is_not_looked_at():
    """Two poses say different things where they are shown, and the same where they are not."""
    own = variational.init_own_score(jax.random.key(0), prior(), TRAINING)
    own, _ = step()(own, jax.random.key(1))
    t, shown = jnp.full(4, 500), jnp.asarray([1.0, 0.0, 1.0, 0.0])

    @jax.jit
    def at(cameras):
        denoise = variational.own_denoise(prior(), prior().params, own.params, cameras, shown)
        return denoise(X, t, COND)

    apart = np.abs(at(CAMERAS) - at(CAMERAS.at[:, 0, 3].set(2.0))).max(axis=(1, 2, 3))
    assert (apart[[0, 2]] > 1e-6).all() and (apart[[1, 3]] == 0.0).all()


def test_its_loss_falls_on_a_fixed_picture_and_the_base_stays():
    own = variational.init_own_score(jax.random.key(0), prior(), TRAINING)
    before = jax.tree.map(np.asarray, (own.params, prior().params))
    losses = []
    for key in jax.random.split(jax.random.key(1), 60):
        own, loss = step()(own, key)
        losses.append(float(loss))
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])
    for a, b in zip(jax.tree.leaves(before[1]), jax.tree.leaves(prior().params), strict=True):
        np.testing.assert_array_equal(a, b)
    changed = jax.tree.map(lambda a, b: bool(np.any(a != np.asarray(b))), before[0], own.params)
    assert all(jax.tree.leaves(changed))


def test_velocity_divides_by_abar():
    """With one schedule entry the two losses differ by abar exactly."""
    own = variational.init_own_score(jax.random.key(0), prior(), TRAINING)
    flat = type(SCHEDULE)(jnp.array([0.25]))
    one = dataclasses.replace(prior(), schedule=flat, denoise=lambda params, z, t, cond: z)

    def loss(velocity):
        key = jax.random.key(5)
        return variational.own_score_loss(
            key, one, one.params, own.params, X, COND, CAMERAS, velocity
        )

    np.testing.assert_allclose(loss(True), 4.0 * loss(False), rtol=1e-5)


def test_its_loss_by_hand():
    """Equation (2) of a network that answers with z itself: error = alpha x + (s - 1) eps."""
    own = variational.init_own_score(jax.random.key(0), prior(), TRAINING)
    flat = type(SCHEDULE)(jnp.array([0.25]))
    stub = dataclasses.replace(prior(), schedule=flat, denoise=lambda params, z, t, cond: z)
    key = jax.random.key(5)
    noise = np.asarray(jax.random.normal(jax.random.split(key, 3)[1], X.shape))
    expected = np.mean((0.5 * np.asarray(X) + (np.sqrt(0.75) - 1.0) * noise) ** 2)
    loss = variational.own_score_loss(
        key, stub, stub.params, own.params, X, COND, CAMERAS, velocity=False
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_a_tenth_of_the_cameras_is_hidden(monkeypatch):
    seen = []

    def spy(prior, prior_params, params, cameras, shown):
        del prior, prior_params, params, cameras
        seen.append(np.asarray(shown))
        return lambda z, t, cond: z

    monkeypatch.setattr(variational, "own_denoise", spy)
    many = [jnp.tile(a, (250, *[1] * (a.ndim - 1))) for a in (X, COND, CAMERAS)]
    variational.own_score_loss(jax.random.key(0), prior(), None, None, *many, velocity=False)
    assert set(seen[0].tolist()) == {0.0, 1.0} and 0.87 < seen[0].mean() < 0.93


def test_a_prior_without_a_unet_is_refused():
    pictures = mixture_prior(SCHEDULE, jnp.zeros((1, 2, 2, 3)), 0.1, ["a"])
    with pytest.raises(ValueError, match="this prior has none"):
        variational.init_own_score(jax.random.key(0), pictures, TRAINING)
