import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.models.resize import double, resize, taps


@pytest.mark.parametrize("align_corners", [True, False])
def test_linear_resampling_of_a_ramp_is_a_ramp_within_the_border(align_corners):
    ramp = jnp.arange(6.0).reshape(1, 6, 1, 1)
    found = np.asarray(resize(ramp, (9, 1), align_corners=align_corners))[0, :, 0, 0]
    i = np.arange(9)
    expected = i * 5 / 8 if align_corners else np.clip((i + 0.5) * 6 / 9 - 0.5, 0, 5)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_doubling_by_shifts_is_the_linear_form(rng):
    for n in (1, 2, 5):
        x = rng.standard_normal((2, n, 3, 2)).astype(np.float32)
        expected = x
        for axis in (1, 2):
            rows, weights = taps(expected.shape[axis], 2 * expected.shape[axis], "linear", True)
            moved = np.moveaxis(expected, axis, 0)
            moved = np.einsum("mk,mk...->m...", weights, moved[rows])
            expected = np.moveaxis(moved, 0, axis)
        np.testing.assert_allclose(double(jnp.asarray(x)), expected, atol=1e-6)


def test_cubic_weights_are_those_of_a_three_quarters():
    """Half-way between two rows: (-3/32, 19/32, 19/32, -3/32); and always of sum one."""
    rows, weights = taps(8, 16, "cubic", False)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-6)
    rows, weights = taps(9, 5, "cubic", False)  # s(2) = 2.5 * 9 / 5 - 0.5 = 4
    np.testing.assert_array_equal(rows[2], [3, 4, 5, 6])
    np.testing.assert_allclose(weights[2], [0, 1, 0, 0], atol=1e-7)
    _, weights = taps(3, 17, "cubic", True)  # s(4) = 0.5
    np.testing.assert_allclose(weights[4], np.array([-3, 19, 19, -3]) / 32, atol=1e-6)


def test_the_same_size_is_the_same_array_and_another_method_is_refused():
    x = jnp.ones((1, 2, 3, 1))
    assert resize(x, (2, 3), align_corners=False) is x
    with pytest.raises(ValueError, match="'nearest' must be 'linear' or 'cubic'"):
        resize(x, (4, 4), "nearest", align_corners=False)


def test_gradient_of_resampling_is_its_transpose(rng):
    x = rng.standard_normal((1, 4, 3, 1)).astype(np.float32)
    y = rng.standard_normal((1, 7, 6, 1)).astype(np.float32)
    found, pull = jax.vjp(lambda z: resize(z, (7, 6), align_corners=True), jnp.asarray(x))
    np.testing.assert_allclose(np.sum(found * y), np.sum(x * pull(y)[0]), rtol=1e-5)
