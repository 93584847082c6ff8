"""Training of a latent diffusion model: the parts with a known answer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.methods.latent_diffusion_training import draw_times


@pytest.mark.parametrize("late", [0.0, 1.0, 3.0])
def test_times_have_their_density(late):
    t = np.asarray(draw_times(jax.random.key(0), 4096, 1000, late))
    assert t.dtype == np.int32 and t.min() >= 0 and t.max() == 999
    # P(t / T < x) = x^(1 + late); one draw in each of 4096 parts of equal probability.
    for x in (0.1, 0.5, 0.9):
        assert np.mean(t < 1000 * x) == pytest.approx(x ** (1.0 + late), abs=2 / 4096)


def test_every_batch_spans_all_times_in_random_order():
    draws = jax.vmap(lambda key: draw_times(key, 8, 1000))(jax.random.split(jax.random.key(1), 50))
    np.testing.assert_array_equal(jnp.sort(draws, axis=1) // 125, np.tile(np.arange(8), (50, 1)))
    assert len({tuple(np.argsort(row)) for row in np.asarray(draws)}) > 40
