"""Occupancy grid and compaction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geojax.geometry import occupancy

compact = jax.jit(occupancy.compact, static_argnums=1)
thinned = jax.jit(occupancy.thinned)
expand = jax.jit(occupancy.expand, static_argnums=(2, 3))
update_grid = jax.jit(occupancy.update_grid, static_argnums=2)
is_occupied = jax.jit(occupancy.is_occupied)


def ball(points):
    return jnp.where(jnp.sum(points**2, axis=-1) < 0.5**2, 20.0, 0.0)


def test_everything_is_occupied_at_first(key):
    grid = occupancy.full_grid(4, 1.5)
    points = jax.random.uniform(key, (50, 3), minval=-1.5, maxval=1.5)
    assert np.all(is_occupied(grid, points))
    outside = jnp.array([[1.6, 0, 0], [0, -1e30, 0], [jnp.inf, 0, 0]])
    assert not np.any(is_occupied(grid, outside))
    with pytest.raises(ValueError, match="resolution"):
        occupancy.full_grid(0, 1.0)


def test_grid_finds_a_ball_and_forgets_it(key):
    grid = update_grid(key, occupancy.full_grid(16, 1.0), ball)
    points = jax.random.uniform(key, (2000, 3), minval=-1.0, maxval=1.0)
    found, radius = is_occupied(grid, points), jnp.linalg.norm(points, axis=-1)
    assert np.all(found[radius < 0.5 - 0.22]) and not np.any(found[radius > 0.5 + 0.22])
    gone = grid
    for i in range(3):
        gone = update_grid(jax.random.fold_in(key, i), gone, lambda p: 0.0 * p[:, 0])
    np.testing.assert_allclose(gone.density, grid.density * 0.95**3, rtol=1e-5)
    assert not np.any(gone.occupied & ~grid.occupied)


def test_threshold_is_the_smaller_of_the_mean_and_ten(key):
    dense = update_grid(
        key, occupancy.full_grid(8, 1.0), lambda p: jnp.where(p[:, 0] > 0, 1000.0, 11.0)
    )
    assert np.all(dense.occupied)  # mean 505, but 11 > 10
    thin = update_grid(key, occupancy.full_grid(8, 1.0), lambda p: jnp.where(p[:, 0] > 0, 0.3, 0.1))
    np.testing.assert_array_equal(thin.occupied, np.arange(8)[:, None, None] >= np.full((8, 8), 4))
    level = update_grid(key, occupancy.full_grid(8, 1.0), lambda p: 0.1 + 0.0 * p[:, 0])
    assert np.all(level.occupied)  # a level fog is not empty


@given(st.integers(0, 2**31), st.floats(0.0, 1.0))
def test_compaction_round_trip_when_everything_fits(seed, share):
    mask = np.random.default_rng(seed).random((13, 9)) < share
    values = np.arange(1.0, 118.0, dtype=np.float32)
    packed = compact(jnp.array(mask), 117)
    assert packed.dropped == 0 and packed.occupied == mask.sum() == packed.valid.sum()
    np.testing.assert_array_equal(packed.sample[: mask.sum()], np.flatnonzero(mask))
    back = expand(packed, jnp.array(values)[packed.sample], 13, 9)
    np.testing.assert_array_equal(back, np.where(mask, values.reshape(13, 9), 0))


@given(st.integers(0, 2**31), st.sampled_from([1, 37, 300]))
def test_what_does_not_fit_is_dropped_evenly(seed, capacity):
    mask = np.random.default_rng(seed).random((30, 20)) < 0.7
    packed = compact(jnp.array(mask), capacity)
    kept = np.asarray(packed.sample)[np.asarray(packed.valid)]
    assert len(kept) == len(set(kept)) == capacity
    assert np.all(mask.reshape(-1)[kept]) and np.all(np.diff(kept) > 0)
    np.testing.assert_allclose(packed.dropped, 1 - capacity / mask.sum(), atol=1e-6)
    # Each ray loses the same fraction: at most one sample off.
    expected = mask.sum(1) * capacity / mask.sum()
    assert np.all(np.abs(np.bincount(kept // 20, minlength=30) - expected) <= 1.001)


def test_large_lists_lose_no_slot_to_rounding():
    # 2^18 ranks times a ratio near 1: the worst case for float32 slots.
    packed = compact(jnp.ones((2048, 128), bool), 2**18 - 3)
    kept = np.asarray(packed.sample)[np.asarray(packed.valid)]
    assert len(np.unique(kept)) == len(kept) >= 2**18 - 4


@given(st.integers(0, 2**31 - 70), st.floats(1e-6, 1.0))
def test_slots_of_any_rank_are_exact(start, share):
    """Past 2^24 too, where float32 cannot tell one rank from the next."""
    share = np.float32(share)
    ranks = np.arange(start, start + 65, dtype=np.int32)
    slots = np.asarray(thinned(ranks, share))
    # At most a millionth under the share asked for, and never over it.
    assert np.all(slots <= np.floor(ranks * np.float64(share)))
    assert np.all(slots >= np.floor(ranks * np.float64(share) * (1 - 5e-7) - 1e-6))
    assert np.all(np.isin(np.diff(slots), [0, 1]))
    assert abs((slots[-1] - slots[0]) - 64 * share) <= 1.001


def test_more_samples_than_int32_counts_are_refused():
    mask = jax.ShapeDtypeStruct((2**22, 2**9), jnp.bool_)
    with pytest.raises(ValueError, match="2147483648, 2\\^31 or more: render in chunks"):
        jax.eval_shape(lambda m: occupancy.compact(m, 8), mask)


def test_nothing_occupied():
    packed = compact(jnp.zeros((3, 4), bool), 5)
    assert packed.occupied == 0 and packed.dropped == 0 and not np.any(packed.valid)
    assert np.all(expand(packed, jnp.ones(5), 3, 4) == 0)
    with pytest.raises(ValueError, match="capacity"):
        occupancy.compact(jnp.zeros((3, 4), bool), 0)


def test_gradient_reaches_the_kept_values_only():
    mask = jnp.array([[True, False, True], [False, True, False]])
    packed = compact(mask, 4)
    coefficients = jnp.arange(6.0).reshape(2, 3)
    grad = jax.grad(lambda v: jnp.sum(expand(packed, v, 2, 3) * coefficients))(jnp.ones(4))
    np.testing.assert_array_equal(grad, [0.0, 2.0, 4.0, 0.0])
