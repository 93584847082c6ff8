import jax.numpy as jnp
import numpy as np
import pytest

from geojax.methods.edge_matching import spread


def test_it_equals_a_sum_over_pixels(rng):
    """Equation (1) by loops, float64; what is under the hole may be anything."""
    error = rng.normal(size=(1, 6, 7, 2))
    hole = rng.uniform(size=(1, 6, 7)) < 0.4
    found = spread(
        jnp.asarray(np.where(hole[..., None], np.nan, error), jnp.float32), jnp.asarray(hole), 1.5
    )
    rows = np.exp(-0.5 * ((np.arange(6)[:, None] - np.arange(6)) / 1.5) ** 2)
    columns = np.exp(-0.5 * ((np.arange(7)[:, None] - np.arange(7)) / 1.5) ** 2)
    expected = np.zeros((6, 7, 2))
    for j in range(6):
        for i in range(7):
            weights = rows[j][:, None] * columns[i][None] / rows[j].sum() / columns[i].sum()
            known = weights * ~hole[0]
            expected[j, i] = (known[..., None] * error[0]).sum((0, 1)) / max(known.sum(), 0.5)
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


def test_a_constant_error_is_carried_to_the_edge_and_fades():
    hole = jnp.zeros((1, 9, 40), bool).at[:, :, 20:].set(True)
    found = np.asarray(spread(jnp.full((1, 9, 40, 1), 0.3), hole, 2.0))[0, 4, :, 0]
    np.testing.assert_allclose(found[:20], 0.3, atol=1e-6)
    assert 0.2 < found[20] < 0.3 and (np.diff(found[19:28]) < 0).all() and found[30] < 1e-4


def test_sigma_must_be_positive():
    with pytest.raises(ValueError, match="sigma=0"):
        spread(jnp.zeros((1, 2, 2, 1)), jnp.zeros((1, 2, 2), bool), 0.0)
