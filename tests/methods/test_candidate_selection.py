"""Equation (1) of geojax.methods.candidate_selection."""

import jax
import jax.numpy as jnp
import numpy as np

from geojax.methods.candidate_selection import choose, taken

TEXT = jnp.asarray([1.0, 0.0, 0.0])


def embed(params, images):
    mean = jnp.mean(images, axis=(1, 2)) * params
    return mean / jnp.linalg.norm(mean, axis=-1, keepdims=True)


def pictures(*colours):
    return jnp.stack([jnp.broadcast_to(jnp.asarray(c, jnp.float32), (2, 2, 3)) for c in colours])


def test_the_picture_nearest_to_the_prompt_is_taken_with_what_belongs_to_it():
    images = pictures((0.5, 0.5, 0.5), (0.9, 0.2, 0.1), (0.1, 0.9, 0.1))
    choice = jax.jit(lambda x: choose(embed, jnp.ones((1, 3)), x, TEXT))(images)
    wanted = np.asarray([1 / np.sqrt(3), 0.9 / np.sqrt(0.86), 0.1 / np.sqrt(0.83)])
    np.testing.assert_allclose(np.asarray(choice.scores), wanted, rtol=1e-5)
    image, latent = taken(choice, (images, jnp.arange(3)))
    assert int(choice.chosen) == 1 and int(latent) == 1
    np.testing.assert_array_equal(np.asarray(image), np.asarray(images[1]))


def test_the_first_of_equals_and_never_a_picture_that_is_not_finite():
    grey = (0.5, 0.5, 0.5)
    choice = choose(embed, jnp.ones((1, 3)), pictures((jnp.nan, 1, 1), grey, grey), TEXT)
    assert int(choice.chosen) == 1 and not np.isfinite(float(choice.scores[0]))
