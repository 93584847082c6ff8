"""Multiresolution hash encoding of points (instant-ngp), and trilinear interpolation.

Symbols: L levels, level l has N_l vertices a side, T slots at most, F features a slot; c counts
the eight corners around a point, i_c the slot of a corner, w_c its weight.

    (1)  N_l = ceil(N_min b^l),  b = (N_max / N_min)^(1 / (L - 1))
    (2)  i = x + N y + N^2 z                              if N^3 <= T (dense)
         i = (x ^ 2654435761 y ^ 805459861 z) mod T       otherwise, in uint32
    (3)  vertex coordinates p = clip(u N - 1/2, 0, N - 1) of u in [0, 1]^3 (values sit at cell
         centres), corners floor(p) and floor(p) + 1, f = p - floor(p), w_c the products of f, 1 - f
    (4)  smoothstep: f <- 3 f^2 - 2 f^3, for continuous derivatives
    (5)  B(table, w, g) = sum_c sum_k w_c g_k table[k, i_c]

Sources: (1, 2) instant-ngp eq. 2, 3 and 4; (3) as torch-ngp places vertices (tables of other
implementations, which round and shift otherwise, do not fit); (4) instant-ngp, appendix A.

Speed. The encoding is the derivative of the trilinear form (5) by g. Its derivatives by the table
(a scatter) and by the weights are written out, and those of the latter again: normals are
derivatives of a field by points, and have gradients by the table. So every gather fuses with its
sum, and a gradient is one scatter of F-vectors a corner, where autodiff would scatter each feature
of each corner apart and keep all slots and weights in memory.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

_PRIMES = (1, 2654435761, 805459861)
_CORNERS = [[(corner >> axis) & 1 for axis in range(3)] for corner in range(8)]


def level_sizes(levels: int, coarsest: int, finest: int) -> tuple[int, ...]:
    """Vertices a side of each level, eq. (1).

    Raises:
      ValueError: when levels < 1, coarsest < 2 or finest < coarsest.
    """
    if levels < 1 or coarsest < 2 or finest < coarsest:
        raise ValueError(
            "need levels >= 1 and 2 <= coarsest <= finest, "
            f"got levels={levels}, coarsest={coarsest}, finest={finest}"
        )
    growth = (finest / coarsest) ** (1 / max(levels - 1, 1))
    # The margin keeps an exact power (16 * 2^3) from being rounded up by float noise.
    return tuple(math.ceil(coarsest * growth**level - 1e-6) for level in range(levels))


def spatial_hash(corner: Sequence[Int[Array, "..."]], table_size: int) -> Int[Array, "..."]:
    """Slot of integer coordinates (x, y, z) in a hashed table, eq. (2); int32 in [0, T)."""
    mixed = [a.astype(jnp.uint32) * jnp.uint32(p) for a, p in zip(corner, _PRIMES, strict=True)]
    return ((mixed[0] ^ mixed[1] ^ mixed[2]) % jnp.uint32(table_size)).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class _Levels:
    """Levels that lie one after the other in a table: all dense, or all hashed to ``hashed``."""

    sizes: tuple[int, ...]
    hashed: int | None

    @property
    def slots(self) -> list[int]:
        return [self.hashed or size**3 for size in self.sizes]

    def column(self, values, dtype):
        return jnp.asarray(values, dtype)[:, None]

    def slot(self, low, corner):
        """Slots [L, N] of one corner, ``low`` the three coordinates of its lowest vertex."""
        x, y, z = (axis + bit for axis, bit in zip(low, corner, strict=True))
        start = self.column([sum(self.slots[:i]) for i in range(len(self.sizes))], jnp.int32)
        if self.hashed:
            return start + spatial_hash((x, y, z), self.hashed)
        size = self.column(self.sizes, jnp.int32)
        return start + x + size * (y + size * z)


def _read(row, slots):
    return row.at[slots].get(mode="promise_in_bounds")


def _corner_weight(bits, fraction):
    """w_c of eq. (3); ``bits`` are Python or traced integers."""
    x, y, z = ((1.0 - bit) + (2.0 * bit - 1.0) * f for bit, f in zip(bits, fraction, strict=True))
    return x * y * z


def _corner_slope(bits, fraction, velocity):
    """Derivative of w_c when the fractions move with ``velocity``."""
    return jax.jvp(lambda f: _corner_weight(bits, f), (fraction,), (velocity,))[1]


def _sum_corners(levels: _Levels, table, low, weight):
    """sum_c weight(c) table[k, i_c], for each k: a list of F arrays [L, N]."""
    total = [0.0] * table.shape[0]
    for bits in _CORNERS:
        slots, w = levels.slot(low, bits), weight(bits)
        total = [t + w * _read(row, slots) for t, row in zip(total, table, strict=True)]
    return total


def _bits(corner, dtype=jnp.int32):
    return [((corner >> axis) & 1).astype(dtype) for axis in range(3)]


def _scatter_corners(levels: _Levels, low, weight, g):
    """weight(c) g_k added up at [k, i_c]: the gradient by the table."""
    g = jnp.stack(g, axis=-1)

    def add(corner, total):
        slots = levels.slot(low, _bits(corner)).reshape(-1)
        updates = (weight(_bits(corner, g.dtype))[..., None] * g).reshape(slots.shape[0], -1)
        return total.at[slots].add(updates, mode="promise_in_bounds")

    # A loop, because slots and updates of one corner at a time fit in the cache; unrolled, XLA
    # writes those of all corners to memory first.
    total = jnp.zeros((sum(levels.slots), g.shape[-1]), g.dtype)
    return jax.lax.fori_loop(0, 8, add, total).T


def _pull_corners(levels: _Levels, table, low, fraction, g, weight):
    """Derivative of sum_c weight(c, fraction) g_k table[k, i_c] by the three fractions."""

    def add(corner, total):
        slots = levels.slot(low, _bits(corner))
        dot = sum(gk * _read(row, slots) for gk, row in zip(g, table, strict=True))
        _, pull = jax.vjp(lambda f: weight(_bits(corner, dot.dtype), f), fraction)
        return [t + p for t, p in zip(total, pull(dot)[0], strict=True)]

    # A loop here too: unrolled, XLA gathers once for each of the three results.
    return jax.lax.fori_loop(0, 8, add, [jnp.zeros_like(f) for f in fraction])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _gather(levels: _Levels, table, low, fraction):
    """The derivative of B by g: features, a list of F arrays [L, N]."""
    return _sum_corners(levels, table, low, lambda bits: _corner_weight(bits, fraction))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _slope(levels: _Levels, table, low, fraction, g):
    """The derivative of B by the fractions, a list of three arrays [L, N]."""
    return _pull_corners(levels, table, low, fraction, g, _corner_weight)


def _gather_backward(levels, saved, d):
    table, low, fraction = saved
    d_table = _scatter_corners(levels, low, lambda bits: _corner_weight(bits, fraction), d)
    return d_table, [None] * 3, _slope(levels, table, low, fraction, d)


def _slope_backward(levels, saved, d):
    table, low, fraction, g = saved

    def weight(bits, fraction):
        return _corner_slope(bits, fraction, d)

    d_table = _scatter_corners(levels, low, lambda bits: weight(bits, fraction), g)
    d_g = _sum_corners(levels, table, low, lambda bits: weight(bits, fraction))
    # Curvature, for derivatives of normals by the points. Where unused, XLA leaves it out.
    d_fraction = _pull_corners(levels, table, low, fraction, g, weight)
    return d_table, [None] * 3, d_fraction, d_g


_gather.defvjp(lambda levels, *args: (_gather(levels, *args), args), _gather_backward)
_slope.defvjp(lambda levels, *args: (_slope(levels, *args), args), _slope_backward)


def _encode(levels: _Levels, table, unit_points, smooth: bool) -> list[Array]:
    """F features [L, N] of points [N, 3] in [0, 1]^3, eq. (2) to (4)."""
    size = levels.column(levels.sizes, jnp.float32)
    low, fraction = [], []
    for axis in range(3):
        p = jnp.clip(unit_points[None, :, axis] * size - 0.5, 0.0, size - 1.0)
        # The last vertex belongs to the cell below it, so that both corners exist.
        floor = jnp.minimum(jnp.floor(jax.lax.stop_gradient(p)), size - 2.0)
        f = p - floor
        fraction.append(f * f * (3.0 - 2.0 * f) if smooth else f)
        low.append(floor.astype(jnp.int32))
    return _gather(levels, table, low, fraction)


def interpolate(
    grid: Float[Array, "F slots"],
    unit_points: Float[Array, "N 3"],
    size: int,
    smooth: bool = False,
) -> Float[Array, "F N"]:
    """Trilinear interpolation of a dense grid at points in [0, 1]^3, eq. (2) to (4).

    Args:
      grid: [F, size^3], x fastest, values at the centres of the cells; constant beyond them.
      size: cells a side, at least 2.
    """
    if size < 2 or grid.shape[1] != size**3:
        raise ValueError(f"a grid of size {size} >= 2 has {size**3} values, got {grid.shape[1]}")
    return jnp.concatenate(_encode(_Levels((size,), None), grid, unit_points, smooth))


class HashGrid(nn.Module):
    """Hash encoding of points in [-radius, radius]^3 to levels x features numbers.

    Parameter ``table`` [features, slots of all levels], coarse levels first, min(N_l^3,
    table_size) slots each, from U(+-init_scale). Points outside the cube get the value at its
    surface. Output channels: all levels of feature 0, then all of feature 1, ...
    """

    levels: int = 8
    features: int = 2
    table_size: int = 2**15
    coarsest: int = 8
    finest: int = 128
    radius: float = 1.0
    smooth: bool = False
    init_scale: float = 1e-4

    @nn.compact
    def __call__(self, points: Float[Array, "N 3"]) -> Float[Array, "N C"]:
        """World points to features [N, levels * features]."""
        sizes = level_sizes(self.levels, self.coarsest, self.finest)
        dense = _Levels(tuple(s for s in sizes if s**3 <= self.table_size), None)
        hashed = _Levels(sizes[len(dense.sizes) :], self.table_size)
        split = sum(dense.slots)

        def init(key, shape):
            return jax.random.uniform(key, shape, jnp.float32, -self.init_scale, self.init_scale)

        table = self.param("table", init, (self.features, split + sum(hashed.slots)))
        unit_points = points / (2.0 * self.radius) + 0.5
        parts = [
            _encode(levels, part, unit_points, self.smooth)
            for levels, part in ((dense, table[:, :split]), (hashed, table[:, split:]))
            if levels.sizes
        ]
        rows = [row for feature in zip(*parts, strict=True) for row in feature]
        return jnp.concatenate(rows).T
