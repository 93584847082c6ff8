"""Hash grid: known sizes and hashes, a slow reference, derivatives of both orders."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.models import hash_grid
from geojax.models.hash_grid import HashGrid, interpolate, level_sizes, spatial_hash

# Two dense levels (4, 7) and two hashed ones (11, 17): every code path, tiny.
GRID = HashGrid(
    levels=4, features=2, table_size=512, coarsest=4, finest=17, radius=1.5, init_scale=1.0
)


def init(grid, seed=0):
    return jax.jit(grid.init)(jax.random.key(seed), jnp.zeros((1, 3)))["params"]


@pytest.fixture(scope="module")
def params():
    return init(GRID)


def points(count, seed=0, reach=1.6):
    return jnp.float32(np.random.default_rng(seed).uniform(-reach, reach, (count, 3)))


@functools.partial(jax.jit, static_argnums=2)
def encode(params, x, grid=GRID):
    return grid.apply({"params": params}, x)


def test_known_answer_level_sizes():
    expected = (16, 23, 31, 43, 59, 81, 112, 154, 213, 295, 407, 562, 777, 1073, 1483, 2048)
    assert level_sizes(16, 16, 2048) == expected
    assert [size**3 <= 2**19 for size in expected] == [True] * 5 + [False] * 11
    assert level_sizes(1, 16, 64) == (16,)
    assert level_sizes(4, 2, 16) == (2, 4, 8, 16)  # exact powers are not rounded up


@pytest.mark.parametrize("arguments", [(0, 4, 8), (2, 1, 8), (2, 8, 4)])
def test_bad_levels_are_named(arguments):
    with pytest.raises(ValueError, match=f"coarsest={arguments[1]}"):
        level_sizes(*arguments)


def test_known_answer_hash():
    corners = jnp.array([[1, 100], [2, 200], [3, 300]])
    np.testing.assert_array_equal(spatial_hash(list(corners), 2**19), [128476, 110768])


def slow_encode(table, x, grid):
    """One point at a time, in float64, with Python's integers."""
    sizes = level_sizes(grid.levels, grid.coarsest, grid.finest)
    out, start = np.zeros((grid.features, grid.levels)), 0
    for level, size in enumerate(sizes):
        dense = size**3 <= grid.table_size
        p = np.clip((x / (2 * grid.radius) + 0.5) * size - 0.5, 0, size - 1)
        low = np.minimum(np.floor(p), size - 2).astype(int)
        f = p - low
        if grid.smooth:
            f = 3 * f**2 - 2 * f**3
        for corner in np.ndindex(2, 2, 2):
            i, j, k = (int(v) for v in low + corner)
            if dense:
                slot = i + size * (j + size * k)
            else:
                slot = (i ^ (j * 2654435761) ^ (k * 805459861)) % 2**32 % grid.table_size
            weight = np.prod(np.where(corner, f, 1 - f))
            out[:, level] += weight * table[:, start + slot]
        start += size**3 if dense else grid.table_size
    return out.reshape(-1)


def test_matches_the_slow_reference(params):
    for grid in (GRID, GRID.clone(smooth=True)):
        check_against_slow(params, grid)


def check_against_slow(params, grid):
    x = points(40)
    expected = [
        slow_encode(np.asarray(params["table"], np.float64), np.asarray(p, np.float64), grid)
        for p in x
    ]
    np.testing.assert_allclose(encode(params, x, grid), expected, atol=2e-5)


def test_shapes_and_initial_range(params):
    assert params["table"].shape == (2, 4**3 + 7**3 + 2 * 512)
    assert encode(params, points(5)).shape == (5, 8)
    small = HashGrid(levels=2, coarsest=2, finest=4, init_scale=1e-4)
    table = init(small)["table"]
    assert 0.9e-4 < np.abs(table).max() <= 1e-4 and np.abs(table.mean()) < 2e-5


def plain_encode(params, x, grid):
    """The same encoding without the hand-written derivatives, for autodiff to differentiate."""
    features, start = [], 0
    for size in level_sizes(grid.levels, grid.coarsest, grid.finest):
        hashed = size**3 > grid.table_size
        levels = hash_grid._Levels((size,), grid.table_size if hashed else None)
        p = jnp.clip((x.T / (2 * grid.radius) + 0.5) * size - 0.5, 0.0, size - 1.0)
        low = jnp.minimum(jnp.floor(jax.lax.stop_gradient(p)), size - 2.0)
        f, low = p - low, low.astype(jnp.int32)
        table = params["table"][:, start : start + sum(levels.slots)]
        start += table.shape[1]
        total = 0.0
        for bits in np.ndindex(2, 2, 2):
            slot = levels.slot([axis[None] for axis in low], bits)[0]
            x_weight, y_weight, z_weight = (f[i] if b else 1 - f[i] for i, b in enumerate(bits))
            total += table[:, slot] * (x_weight * y_weight * z_weight)[None]
        features.append(total)
    return jnp.stack(features, axis=1).reshape(-1, x.shape[0]).T


@functools.partial(jax.jit, static_argnums=(0, 3))
def loss_and_gradients(encoding, params, x, grid):
    """Of a loss on features and on their derivatives by the points, as normals are."""

    def loss(params, x):
        def inner(x):
            features = encoding(params, x, grid)
            return jnp.sum(jnp.sin(features * jnp.arange(1.0, 1.0 + features.shape[1])[None]))

        value, slope = jax.value_and_grad(inner)(x)
        return value + jnp.sum(jnp.cos(0.2 * slope))

    return jax.value_and_grad(loss, argnums=(0, 1))(params, x)


def test_first_and_second_derivatives_equal_autodiffs():
    grid = GRID.clone(levels=2, coarsest=6, finest=11, features=2)  # one dense, one hashed
    params, x = init(grid), points(60, seed=3)
    value, (d_params, d_points) = loss_and_gradients(encode, params, x, grid)
    slow_value, (slow_params, slow_points) = loss_and_gradients(plain_encode, params, x, grid)
    np.testing.assert_allclose(value, slow_value, rtol=1e-5)
    np.testing.assert_allclose(d_params["table"], slow_params["table"], atol=1e-3)
    np.testing.assert_allclose(d_points, slow_points, atol=1e-2)
    assert np.abs(slow_points).max() > 10  # the curvature is there


def test_unit_gradient_sums(params):
    # The eight weights sum to one, so the gradient of the sum counts every point once a level.
    grad = jax.jit(jax.grad(lambda p: jnp.sum(encode(p, points(50)))))(params)["table"]
    np.testing.assert_allclose(grad.sum(1), [50 * 4] * 2, rtol=1e-5)
    assert np.count_nonzero(grad) > 100


def test_outside_the_cube_is_constant_and_finite(params):
    x = jnp.array([[9.0, 0.1, 0.2], [1.5, 0.1, 0.2], [-1e6, -1e6, -1e6], [1.5, 1.5, 1.5]])
    out = encode(params, x)
    np.testing.assert_allclose(out[0], out[1], atol=1e-5)
    slope = jax.jit(jax.grad(lambda x: jnp.sum(encode(params, x))))(x)
    assert np.all(np.isfinite(slope)) and slope[0, 0] == 0 and np.all(slope[2] == 0)


def test_smoothstep_has_continuous_slope(params):
    grid = GRID.clone(smooth=True)
    at = 3.0 * (2.5 / 4 - 0.5)  # a vertex of the coarsest level
    both = jnp.array([[at - 1e-4, 0.3, 0.2], [at + 1e-4, 0.3, 0.2]])
    slope = jax.jit(jax.grad(lambda x: jnp.sum(encode(params, x, grid)[:, 0])))(both)[:, 0]
    np.testing.assert_allclose(slope, [0.0, 0.0], atol=1e-2)


def test_interpolate_reproduces_values_and_linear_functions():
    size = 5
    centre = (np.arange(size) + 0.5) / size
    z, y, x = np.meshgrid(centre, centre, centre, indexing="ij")
    grid = jnp.float32(np.stack([x, 2 * y - z]).reshape(2, -1))
    inside = jnp.float32(np.random.default_rng(0).uniform(0.1, 0.9, (20, 3)))
    out = interpolate(grid, inside, size)
    np.testing.assert_allclose(out[0], inside[:, 0], atol=1e-6)
    np.testing.assert_allclose(out[1], 2 * inside[:, 1] - inside[:, 2], atol=1e-6)
    with pytest.raises(ValueError, match="64 values, got 125"):
        interpolate(grid, inside, 4)
