"""What a discriminator is trained on, and that it learns to tell it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from geojax.methods.discriminator_training import discriminator_step, spoil
from geojax.methods.train_state import init_state
from geojax.models.discriminator import Discriminator, DiscriminatorConfig
from tests.methods.test_text_to_3d import relaxed

SIZE, BATCH = 16, 8


@pytest.fixture(scope="module")
def image():
    """Discs of two colours before a plain background; each colour has a code of its own."""
    rows, columns = np.mgrid[:SIZE, :SIZE] - SIZE / 2 + 0.5
    disc = (rows**2 + columns**2 < 20.0)[None, :, :, None]
    colours = np.asarray([[0.9, 0.1, 0.1], [0.1, 0.2, 0.9]] * (BATCH // 2), np.float32)
    return jnp.asarray(np.where(disc, colours[:, None, None], 0.7), jnp.float32)


def test_every_picture_is_spoilt_in_one_of_the_ways(image):
    spoilt = np.concatenate([np.asarray(spoil(jax.random.key(i), image)) for i in range(20)])
    original = np.tile(np.asarray(image), (20, 1, 1, 1))
    assert (np.abs(spoilt - original).max(axis=(1, 2, 3)) > 0.05).all()
    empty = np.ptp(spoilt, axis=(1, 2)).max(axis=-1) == 0.0
    outside = (spoilt.min(axis=(1, 2, 3)) < 0.0) | (spoilt.max(axis=(1, 2, 3)) > 1.0)
    same_pixels = np.isclose(
        np.sort(spoilt.reshape(len(spoilt), -1)), np.sort(original.reshape(len(spoilt), -1))
    ).all(axis=-1)
    # Of five ways: the background alone, noise, and quarters moved; a blur or a ghost are the rest.
    for share in (empty.mean(), outside.mean(), same_pixels.mean()):
        assert 0.1 < share < 0.3
    rest = ~(empty | outside | same_pixels)
    assert 0.25 < rest.mean() < 0.55
    np.testing.assert_allclose(spoilt[empty][:, 3, 3], 0.7, rtol=1e-6)
    np.testing.assert_array_equal(spoil(jax.random.key(3), image), spoil(jax.random.key(3), image))


def test_it_learns_to_tell_and_its_slope_is_held(image):
    network = Discriminator(DiscriminatorConfig((8, 8), ("red", "blue"), SIZE))
    code = jnp.asarray([[1.0, 0.0], [0.0, 1.0]] * (BATCH // 2))
    params = network.init(jax.random.key(0), image, code)["params"]
    # The slope is that of the logit in the picture, a sum over its pixels.
    logit = lambda x: jnp.sum(network.apply({"params": params}, x, code))  # noqa: E731
    expected = jnp.mean(jnp.sum(jax.grad(logit)(image) ** 2, axis=(1, 2, 3)))
    step = discriminator_step(network, relaxed(optax.adam(1e-2)), penalty=0.1)
    state = init_state(jax.random.key(1), params, relaxed(optax.adam(1e-2)))
    history = []
    for _ in range(60):
        state, metrics = step(state, image, code, code[:, ::-1])
        history.append({name: float(value) for name, value in metrics.items()})
    # Without looking, the loss is 2 log 2.
    assert history[0]["loss"] > 1.2 and np.mean([h["loss"] for h in history[-10:]]) < 0.7
    assert history[-1]["right"] == history[-1]["right_mismatched"] == 1.0
    assert np.mean([h["right_spoilt"] for h in history[-10:]]) > 0.7
    np.testing.assert_allclose(history[0]["slope"], expected, rtol=1e-4)
