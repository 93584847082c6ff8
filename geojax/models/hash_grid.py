"""Multiresolution hash encoding of points (instant-ngp), and trilinear interpolation.

Symbols: L levels, level l has N_l vertices a side, T slots at most, F features a slot.

    (1)  N_l = ceil(N_min b^l),  b = (N_max / N_min)^(1 / (L - 1))
    (2)  index = x + N y + N^2 z                          if N^3 <= T (dense)
         index = (x ^ 2654435761 y ^ 805459861 z) mod T   otherwise, in uint32
    (3)  vertex coordinates p = clip(u N - 1/2, 0, N - 1) of u in [0, 1]^3 (values sit at cell
         centres), corners floor(p) and floor(p) + 1, weights f = p - floor(p)
    (4)  smoothstep: f <- 3 f^2 - 2 f^3, for continuous derivatives

Sources: (1, 2) instant-ngp eq. 2, 3 and 4; (3) as torch-ngp places vertices (tables of other
implementations, which round and shift otherwise, do not fit); (4) instant-ngp, appendix A.

Tables are stored as [F, slots]: XLA then fuses index, gather and weighted sum into one loop that
never writes the eight corners to memory. The gradient is one scatter of F-vectors a level, which
on a CPU costs little more than a scatter of scalars; left to itself, autodiff makes 8 F scatters.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

_PRIMES = (1, 2654435761, 805459861)


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
    mixed = [
        axis.astype(jnp.uint32) * jnp.uint32(p) for axis, p in zip(corner, _PRIMES, strict=True)
    ]
    hashed = mixed[0] ^ mixed[1] ^ mixed[2]
    return (hashed % jnp.uint32(table_size)).astype(jnp.int32)


def _corners(unit_points: Sequence[Array], size: int, table_size: int, smooth: bool):
    """Slots and weights of the eight vertices around each point: two lists of eight [N]."""
    low, weight = [], []
    for axis in unit_points:
        p = jnp.clip(axis * size - 0.5, 0.0, size - 1.0)
        # The last vertex belongs to the cell below it, so that both corners exist.
        floor = jnp.minimum(jnp.floor(jax.lax.stop_gradient(p)), size - 2.0)
        f = p - floor
        weight.append(f * f * (3.0 - 2.0 * f) if smooth else f)
        low.append(floor.astype(jnp.int32))
    slots, weights = [], []
    for corner in range(8):
        bits = [(corner >> axis) & 1 for axis in range(3)]
        vertex = [i + bit for i, bit in zip(low, bits, strict=True)]
        if size**3 <= table_size:
            slots.append(vertex[0] + size * (vertex[1] + size * vertex[2]))
        else:
            slots.append(spatial_hash(vertex, table_size))
        wx, wy, wz = (w if bit else 1.0 - w for w, bit in zip(weight, bits, strict=True))
        weights.append(wx * wy * wz)
    return slots, weights


def _weighted_sum(table, slots, weights):
    rows = [table[f] for f in range(table.shape[0])]
    return [
        sum(
            row.at[i].get(mode="promise_in_bounds") * w for i, w in zip(slots, weights, strict=True)
        )
        for row in rows
    ]


@jax.custom_vjp
def _gather(table, slots, weights):
    """Sum over corners of weight * table[:, slot]: a list of F arrays [N].

    The hand-written derivative only rearranges the scatter; it is made of differentiable pieces,
    so normals (derivatives by the points) have gradients too.
    """
    return _weighted_sum(table, slots, weights)


def _gather_forward(table, slots, weights):
    return _weighted_sum(table, slots, weights), (table, slots, weights)


def _gather_backward(residual, cotangents):
    table, slots, weights = residual
    updates = jnp.stack([jnp.concatenate([w * g for w in weights]) for g in cotangents], axis=-1)
    d_table = jnp.zeros(table.shape[::-1], table.dtype)
    d_table = d_table.at[jnp.concatenate(slots)].add(updates, mode="promise_in_bounds").T
    d_weights = [
        sum(table[f].at[i].get(mode="promise_in_bounds") * g for f, g in enumerate(cotangents))
        for i in slots
    ]
    return d_table, [None] * len(slots), d_weights


_gather.defvjp(_gather_forward, _gather_backward)


def interpolate(
    table: Float[Array, "F slots"],
    unit_points: Float[Array, "N 3"],
    size: int,
    smooth: bool = False,
) -> list[Float[Array, "N"]]:
    """Trilinear interpolation of a table at points in [0, 1]^3, eq. (2) to (4).

    Args:
      table: [F, slots]. When size^3 <= slots it is a dense grid (x fastest), else hashed.
      size: vertices a side, at least 2.

    Returns:
      F arrays [N]: the features, apart, because that is how they are computed.
    """
    axes = [unit_points[:, axis] for axis in range(3)]
    return _gather(table, *_corners(axes, size, table.shape[1], smooth))


class HashGrid(nn.Module):
    """Hash encoding of points in [-radius, radius]^3 to levels x features numbers.

    Parameters: ``level_{l}`` of shape [features, min(N_l^3, table_size)], from U(+-init_scale).
    Points outside the cube get the value at its surface.
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
        """World points to features [N, levels * features], coarse levels first."""

        def init(key, shape):
            return jax.random.uniform(key, shape, jnp.float32, -self.init_scale, self.init_scale)

        unit_points = points / (2.0 * self.radius) + 0.5
        encoded = []
        for level, size in enumerate(level_sizes(self.levels, self.coarsest, self.finest)):
            slots = min(size**3, self.table_size)
            table = self.param(f"level_{level}", init, (self.features, slots))
            encoded += interpolate(table, unit_points, size, self.smooth)
        return jnp.stack(encoded, axis=-1)
