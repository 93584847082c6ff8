import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.latent_pictures import fit_colours, mean_pool


def test_means_over_squares():
    image = jnp.arange(16.0).reshape(1, 4, 4, 1)
    got = mean_pool(image, 2)[0, :, :, 0]
    np.testing.assert_allclose(got, [[2.5, 4.5], [10.5, 12.5]])
    with pytest.raises(ValueError, match="sides that 3 divides"):
        mean_pool(image, 3)


def test_colours_are_fitted_to_the_object_alone():
    """An affine map is found again, whatever is shown where there is no object."""
    latents = np.asarray(jax.random.normal(jax.random.key(0), (2, 6, 6, 4)))
    map_ = np.asarray(jax.random.normal(jax.random.key(1), (5, 3)))
    colours = latents @ map_[:-1] + map_[-1]
    opacity = np.ones((2, 6, 6), np.float32)
    opacity[:, :2] = 0.0
    colours[:, :2] = 7.0
    np.testing.assert_allclose(fit_colours(latents, colours, opacity), map_, atol=1e-4)
    assert not np.any(fit_colours(latents, colours, 0 * opacity))
