"""Band-limited procedural textures: the albedo of a surface, averaged over a pixel's footprint.

Symbols
    (u, v)      metres along the surface;  w_u, w_v  the pixel's footprint along them, metres
    (x, y)      the same in cells of the texture: y = v / height, x = u / width + bond floor(y)
    P(x)        integral from 0 to x of a train of pulses of width g that begin at the integers
    T(x)        integral from 0 to x of a square wave of period 2, +1 first

Equations
    (1)  joints:    J_x = (P(x + w/2) - P(x - w/2)) / w,  J = 1 - (1 - J_x)(1 - J_y)
    (2)  checkers:  S_x = (T(x + w/2) - T(x - w/2)) / w,  share of the second colour (1 - S_x S_y)/2
    (3)  grain:     value noise of two octaves, each faded out where its wave is under a footprint

(1) and (2) are exact means over a box of w_u x w_v; what is random in a cell or in the grain (3) is
instead faded towards its mean as the footprint grows. The footprint alone depends on the camera, so
two views of a point differ only by their resolution. Analytic filtering of regular patterns:
Apodaca and Gritz, "Advanced RenderMan" (1999), chapter 11. Value noise: Perlin, "An image
synthesizer" (1985), on an integer hash.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

Scalars = Float[Array, "*b"]
Triple = tuple[Scalars, Scalars, Scalars]


def albedo(
    row: Sequence[Scalars], uv: tuple[Scalars, Scalars], footprint: tuple[Scalars, Scalars]
) -> Triple:
    """Linear albedo in [0, 1] at points of surfaces.

    The two halves are compiled apart: XLA would fuse the random numbers into each of their users,
    and compute them ten times over.

    Args:
      row: numbers of the texture at each point (`room_materials.row`), an array for each.
      uv: metres along the surface.
      footprint: extent of the pixel along u and v, metres.

    Returns:
      the mean albedo over the footprint, one array a channel, without the glow.
    """
    upright = row[22] > 0.5
    (u, v), (w_u, w_v) = uv, footprint
    u, v = jnp.where(upright, v, u) + row[23], jnp.where(upright, u, v)
    w_u, w_v = jnp.where(upright, w_v, w_u), jnp.where(upright, w_u, w_v)
    return _colours(row, (u, v), (w_u, w_v), *_random(row, (u, v), (w_u, w_v)))


def _cells(
    row: Sequence[Scalars], uv: tuple[Scalars, Scalars], w: tuple[Scalars, Scalars]
) -> tuple[Scalars, Scalars, Scalars, Scalars, Scalars]:
    """(x, y) in cells, the row's number, and the footprint in cells."""
    width, height, bond = row[9], row[10], row[12]
    y = uv[1] / height
    line = jnp.floor(y)
    return uv[0] / width + bond * line, y, line, w[0] / width, w[1] / height


@jax.jit
def _random(
    row: Sequence[Scalars], uv: tuple[Scalars, Scalars], w: tuple[Scalars, Scalars]
) -> tuple[UInt32[Array, "*b"], Scalars, Scalars]:
    """The random bits of each cell, and two octaves of grain."""
    x, _, line, _, _ = _cells(row, uv, w)
    bits = _hash(jnp.floor(x), line, row[23])
    pitch_u, pitch_v, shift = row[18], row[19], 7.0 * _unit(bits >> jnp.uint32(20))
    low, high = (
        _noise(
            uv[0] * pitch_u * f + shift, uv[1] * pitch_v * f, w[0] * pitch_u * f, w[1] * pitch_v * f
        )
        for f in (1.0, 2.7)
    )
    return bits, low, high


@jax.jit
def _colours(
    row: Sequence[Scalars],
    uv: tuple[Scalars, Scalars],
    w: tuple[Scalars, Scalars],
    bits: UInt32[Array, "*b"],
    low: Scalars,
    high: Scalars,
) -> Triple:
    """Put the pattern together."""
    width, height, gap, bond, check_u, check_v, tint, motley, grain = row[9:18]
    pitch_u, pitch_v, vein = row[18:21]
    x, y, _, w_x, w_y = _cells(row, uv, w)
    kept = jnp.clip(1.5 - jnp.maximum(w_x, w_y), 0.0, 1.0)  # of what is random in a cell
    hue = tuple(_unit(bits >> jnp.uint32(s)) for s in (0, 10, 20))
    joint_x = _joint(x, w_x, gap / width)
    # A footprint over several shifted rows sees all phases of the joints at once.
    over = jnp.where(bond != 0.0, jnp.clip(w_y - 0.3, 0.0, 1.0), 0.0)
    joint_x = joint_x + over * (gap / width - joint_x)
    joint = 1.0 - (1.0 - joint_x) * (1.0 - _joint(y, w_y, gap / height))

    # Two colours: checkers and grain.
    wave_x = jnp.where(check_u > 0.5, _square(x, w_x), 1.0)
    wave_y = jnp.where(check_v > 0.5, _square(y, w_y), 1.0)
    mixed = 0.5 - 0.5 * wave_x * wave_y + grain * (0.5 + 0.55 * low + 0.35 * high)
    mixed = jnp.clip(mixed, 0.0, 1.0)
    light = 1.0 + tint * (2.0 * hue[0] - 1.0) * kept
    # Veins run where the noise crosses zero; far away they are their mean.
    sharp = jnp.clip(1.0 - jnp.maximum(w[0] * pitch_u, w[1] * pitch_v) * 1.5, 0.0, 1.0)
    ridge = jnp.clip(1.0 - jnp.abs(low + 0.45 * high) * 9.0, 0.0, 1.0)
    veined = vein * (0.10 + sharp * (ridge - 0.10))

    def channel(i: int) -> Scalars:
        base = row[i] + mixed * (row[3 + i] - row[i])
        base = base * light * (1.0 + motley * (2.0 * hue[i] - 1.0) * kept)
        seam = row[6 + i]
        base = base + veined * (seam - base)
        return jnp.clip(base + joint * (seam - base), 0.0, 1.0)

    return channel(0), channel(1), channel(2)


def _joint(x: Scalars, w: Scalars, g: Scalars) -> Scalars:
    """Share of [x - w/2, x + w/2] in joints of width g, centred on the integers: equation (1)."""
    w = jnp.maximum(w, 0.01)
    low, high = x - 0.5 * w + 0.5 * g, x + 0.5 * w + 0.5 * g

    def integral(z: Scalars) -> Scalars:
        whole = jnp.floor(z)
        return whole * g + jnp.minimum(z - whole, g)

    return (integral(high) - integral(low)) / w


def _square(x: Scalars, w: Scalars) -> Scalars:
    """Mean of the square wave over [x - w/2, x + w/2]: equation (2)."""
    w = jnp.maximum(w, 0.01)

    def integral(z: Scalars) -> Scalars:
        return 1.0 - jnp.abs(z - 2.0 * jnp.floor(0.5 * z) - 1.0)

    return (integral(x + 0.5 * w) - integral(x - 0.5 * w)) / w


def _noise(x: Scalars, y: Scalars, w_x: Scalars, w_y: Scalars) -> Scalars:
    """Value noise in [-1, 1] with one lattice point a unit, faded by the footprint: (3)."""
    i, j = jnp.floor(x), jnp.floor(y)
    a, b = x - i, y - j
    a, b = a * a * (3.0 - 2.0 * a), b * b * (3.0 - 2.0 * b)
    zero = jnp.zeros_like(x)
    corners = [_unit(_hash(i + di, j + dj, zero)) for dj in (0.0, 1.0) for di in (0.0, 1.0)]
    low = corners[0] + a * (corners[1] - corners[0])
    high = corners[2] + a * (corners[3] - corners[2])
    kept = jnp.clip(1.6 - w_x, 0.0, 1.0) * jnp.clip(1.6 - w_y, 0.0, 1.0)
    return (2.0 * (low + b * (high - low)) - 1.0) * kept


def _hash(x: Scalars, y: Scalars, z: Scalars) -> UInt32[Array, "*b"]:
    """30 good bits of three whole numbers (z is cut to centimetres)."""
    i, j, k = (n.astype(jnp.int32).astype(jnp.uint32) for n in (x, y, z * 100.0))
    h = i * jnp.uint32(0x8DA6B343) ^ j * jnp.uint32(0xD8163841) ^ k * jnp.uint32(0xCB1AB31F)
    h = (h ^ (h >> jnp.uint32(16))) * jnp.uint32(0x7FEB352D)
    h = (h ^ (h >> jnp.uint32(15))) * jnp.uint32(0x846CA68B)
    return h ^ (h >> jnp.uint32(16))


def _unit(bits: UInt32[Array, "*b"]) -> Scalars:
    """The lowest ten bits as a number in [0, 1]."""
    return (bits & jnp.uint32(1023)).astype(jnp.float32) * (1.0 / 1023.0)
