import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.methods.edge_matching import spread


def membrane(error: np.ndarray, hole: np.ndarray, reach: float) -> np.ndarray:
    """Equation (1) of one picture [H, W, c], a row a pixel of the hole, solved in float64."""
    places = [tuple(at) for at in np.argwhere(hole)]
    number = {at: i for i, at in enumerate(places)}
    matrix = np.zeros((len(places), len(places)))
    right = np.zeros((len(places), error.shape[-1]))
    for (j, i), row in number.items():
        matrix[row, row] += 1.0 / reach**2
        for at in ((j - 1, i), (j + 1, i), (j, i - 1), (j, i + 1)):
            if not (0 <= at[0] < hole.shape[0] and 0 <= at[1] < hole.shape[1]):
                continue
            matrix[row, row] += 1.0
            if at in number:
                matrix[row, number[at]] -= 1.0
            else:
                right[row] += error[at]
    found = error.copy()
    found[hole] = np.linalg.solve(matrix, right)
    return found


@pytest.mark.parametrize("reach", [1.5, np.inf])
def test_it_equals_the_solution_of_the_equations_of_all_pixels(rng, reach):
    """What is under the hole may be anything; holes at the border and of one pixel are some."""
    error = rng.normal(size=(3, 9, 11, 2))
    hole = rng.uniform(size=(3, 9, 11)) < np.array([0.2, 0.5, 0.8])[:, None, None]
    given = jnp.asarray(np.where(hole[..., None], np.nan, error), jnp.float32)
    found = np.asarray(spread(given, jnp.asarray(hole), reach))
    expected = np.stack([membrane(e, m, reach) for e, m in zip(error, hole, strict=True)])
    np.testing.assert_allclose(found, expected, atol=2e-3)
    np.testing.assert_array_equal(found[~hole], given[~hole])


def test_the_harmonic_extension_of_a_plane_is_the_plane():
    """Linear functions are harmonic; this one does not flow across the upper and lower border."""
    plane = jnp.broadcast_to(jnp.linspace(-1.0, 2.0, 64)[None, None, :, None], (1, 32, 64, 1))
    hole = jnp.zeros((1, 32, 64), bool).at[:, :, 7:50].set(True)
    np.testing.assert_allclose(spread(plane, hole), plane, atol=3e-3)


def test_with_a_reach_it_fades_by_its_length():
    """In one dimension h = e cosh((n - x) / r) / cosh(n / r), about exp(-x / r)."""
    hole = jnp.zeros((1, 9, 80), bool).at[:, :, 20:].set(True)
    found = np.asarray(spread(jnp.full((1, 9, 80, 1), 0.3), hole, 5.0))[0, 4, :, 0]
    np.testing.assert_allclose(found[:20], 0.3)
    np.testing.assert_allclose(found[20:40], 0.3 * np.exp(-np.arange(1, 21) / 5.0), rtol=0.05)


def test_where_nothing_is_known_nothing_is_corrected_and_gradients_are_finite():
    full = jnp.ones((1, 6, 6), bool)
    error = jnp.ones((1, 6, 6, 1))
    np.testing.assert_array_equal(spread(error, full), 0.0)
    assert bool(jnp.all(jnp.isfinite(jax.grad(lambda e: jnp.sum(spread(e, full) ** 2))(error))))
    hole = full.at[:, :, 0].set(False)
    gradient = jax.grad(lambda e: jnp.sum(spread(e, hole)))(error)
    # Every pixel of the hole takes 1 from the known column: 36 in all.
    np.testing.assert_allclose(jnp.sum(gradient), 36.0, rtol=1e-3)


def test_reach_must_be_positive():
    with pytest.raises(ValueError, match="reach=0"):
        spread(jnp.zeros((1, 2, 2, 1)), jnp.zeros((1, 2, 2), bool), 0.0)
