"""Occupancy grid: skip empty space, and pack what is left into arrays of a fixed size.

Symbols: a cube [-radius, radius]^3 of G^3 cells holds a decaying maximum of the density.

    (1)  cell <- max(decay * cell, sigma(jittered point of the cell))
    (2)  occupied = cell > min(mean of the cells, threshold)

Source: instant-ngp, section "Accelerated ray marching"; decay 0.95, threshold 10, refreshed every
16 steps.

Compaction turns a mask of R rays x S samples into the list of the occupied samples, padded or
thinned to a static capacity K, so that the field is evaluated K times and not R S times.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, Num

from geojax.geometry.volume import exclusive_sum


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OccupancyGrid:
    """Decaying maximum of the density on G^3 cells over [-radius, radius]^3, and the mask (2)."""

    density: Float[Array, "G G G"]
    occupied: Bool[Array, "G G G"]
    radius: float = dataclasses.field(metadata={"static": True})


def full_grid(resolution: int, radius: float) -> OccupancyGrid:
    """A grid with every cell occupied: how training starts."""
    if resolution < 1 or not radius > 0:
        raise ValueError(f"need resolution >= 1 and radius > 0, got {resolution} and {radius}")
    shape = (resolution,) * 3
    return OccupancyGrid(jnp.zeros(shape), jnp.ones(shape, bool), radius)


def update_grid(
    key: Key[Array, ""],
    grid: OccupancyGrid,
    density_fn: Callable[[Float[Array, "N 3"]], Float[Array, "N"]],
    decay: float = 0.95,
    threshold: float = 10.0,
) -> OccupancyGrid:
    """Refresh the grid with the density at one random point of every cell, eq. (1) and (2).

    Args:
      density_fn: points in world units -> density (for a field: ``lambda x: apply(p, x)[0]``).
      threshold: density over which a cell always counts as occupied.
    """
    size = grid.density.shape[0]
    cell = jnp.stack(
        jnp.meshgrid(*[jnp.arange(size, dtype=jnp.float32)] * 3, indexing="ij"), -1
    ).reshape(-1, 3)
    jitter = jax.random.uniform(key, cell.shape)
    points = ((cell + jitter) / size * 2.0 - 1.0) * grid.radius
    new = jax.lax.stop_gradient(density_fn(points)).reshape(grid.density.shape)
    density = jnp.maximum(decay * grid.density, new)
    # A uniform field equals its mean up to rounding: the margin keeps it occupied.
    limit = jnp.minimum(jnp.mean(density) * (1.0 - 1e-4), threshold)
    return OccupancyGrid(density, density > limit, grid.radius)


def is_occupied(grid: OccupancyGrid, points: Float[Array, "... 3"]) -> Bool[Array, "..."]:
    """Whether the cell of each point (world units) is occupied; False outside the cube."""
    size = grid.occupied.shape[0]
    scaled = (points / grid.radius + 1.0) * (0.5 * size)
    inside = jnp.all((scaled >= 0) & (scaled < size), axis=-1)
    cell = jnp.clip(scaled, 0, size - 1).astype(jnp.int32)
    flat = (cell[..., 0] * size + cell[..., 1]) * size + cell[..., 2]
    found = grid.occupied.reshape(-1).at[flat].get(mode="promise_in_bounds")
    return found & inside


class Compaction(NamedTuple):
    """The samples that are evaluated, K of R x S.

    Attributes:
      sample: flat index r S + s of each of the K slots, ascending; 0 in empty slots.
      valid: whether the slot holds a sample; the valid slots come first.
      occupied: number of samples the mask asked for.
      dropped: fraction of them that found no slot; 0 unless ``occupied`` > K.
    """

    sample: Int[Array, "K"]
    valid: Bool[Array, "K"]
    occupied: Int[Array, ""]
    dropped: Float[Array, ""]


def thinned(rank: Int[Array, "*b"], share: Float[Array, ""]) -> Int[Array, "*b"]:
    """floor(rank share) for ranks in [0, 2^31), in integers: each is 0 or 1 over the one before.

    A float32 product would be wrong from rank 2^24 on, where neighbouring ranks are one number.
    `share` in [0, 1] is taken as a fraction of 2^32, at most a millionth under what it is.
    """
    fraction = (share * (1.0 - 2.0**-22) * 2.0**32).astype(jnp.uint32)
    high, low = rank.astype(jnp.uint32) >> 16, rank.astype(jnp.uint32) & 0xFFFF
    top, rest = fraction >> 16, fraction & 0xFFFF
    # The upper half of a 64-bit product, by its four parts of 16 x 16 bits.
    carried = (low * rest >> 16) + (high * rest & 0xFFFF) + (low * top & 0xFFFF)
    slot = high * top + (high * rest >> 16) + (low * top >> 16) + (carried >> 16)
    return slot.astype(jnp.int32)


def compact(mask: Bool[Array, "R S"], capacity: int) -> Compaction:
    """Pack the True entries of ``mask`` into ``capacity`` slots.

    When there are more of them than slots, every n-th is left out along the list, so that each
    ray loses the same fraction (up to one sample). The caller makes up for it by giving the kept
    samples 1 / (1 - dropped) of their length, which keeps the optical depth right on average.

    Raises:
      ValueError: a capacity below 1, or 2^31 samples and more, which int32 cannot count.
    """
    if capacity < 1:
        raise ValueError(f"capacity must be at least 1, got {capacity}")
    rays, samples = mask.shape
    if mask.size >= 2**31:
        raise ValueError(
            f"{rays} rays of {samples} samples are {mask.size}, 2^31 or more: render in chunks"
        )
    # Rank of each sample in the list: inside the row by a product, across rows by a sum.
    before = exclusive_sum(mask.astype(jnp.float32)).astype(jnp.int32)
    counts = jnp.sum(mask, axis=-1, dtype=jnp.int32)
    total = jnp.sum(counts)
    rank = before + (jnp.cumsum(counts) - counts)[:, None]
    # Slots are a non-decreasing function of the rank that skips none: a sample is kept when its
    # slot differs from that of the one before it. Exact identity when everything fits.
    share = jnp.minimum(1.0, capacity / jnp.maximum(total, 1).astype(jnp.float32))
    fits = total <= capacity
    slot = jnp.where(fits, rank, thinned(rank, share))
    kept = mask & (fits | (rank == 0) | (slot != thinned(rank - 1, share))) & (slot < capacity)
    target = jnp.where(kept, slot, capacity).reshape(-1)
    index = jnp.zeros(capacity, jnp.int32)
    flat = jnp.arange(rays * samples, dtype=jnp.int32)
    index = index.at[target].set(flat, mode="drop")
    stored = jnp.sum(kept, dtype=jnp.int32)
    valid = jnp.arange(capacity, dtype=jnp.int32) < stored
    dropped = (total - stored) / jnp.maximum(total, 1)
    return Compaction(index, valid, total, dropped.astype(jnp.float32))


def every_sample(mask: Bool[Array, "R S"]) -> Compaction:
    """All R S samples in their order, without packing."""
    index = jnp.arange(mask.size, dtype=jnp.int32)
    occupied = jnp.sum(mask, dtype=jnp.int32)
    return Compaction(index, mask.reshape(-1), occupied, jnp.float32(0.0))


def expand(
    compaction: Compaction, values: Num[Array, "K"], rays: int, samples: int
) -> Num[Array, "R S"]:
    """Put the values of the slots back on the rays; 0 where no sample was evaluated."""
    flat = jnp.zeros(rays * samples, values.dtype)
    # Empty slots are sent out of range, where the scatter drops them.
    target = jnp.where(compaction.valid, compaction.sample, rays * samples)
    return flat.at[target].set(values, mode="drop").reshape(rays, samples)
