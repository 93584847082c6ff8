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

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

from geojax.worlds.room_materials import ROW

Scalars = Float[Array, "*b"]


def albedo(
    row: Float[Array, "*b {ROW}"], uv: Float[Array, "*b 2"], footprint: Float[Array, "*b 2"]
) -> Float[Array, "*b 3"]:
    """Linear albedo in [0, 1] at points of surfaces.

    Args:
      row: numbers of the texture at each point (`room_materials.row`).
      uv: metres along the surface.
      footprint: extent of the pixel along u and v, metres.

    Returns:
      the mean albedo over the footprint, without the glow.
    """
    numbers = [row[..., i] for i in range(9, ROW)]
    width, height, gap, bond, check_u, check_v, tint, motley = numbers[:8]
    grain, pitch_u, pitch_v, vein, _, turned, offset = numbers[8:]
    upright = turned > 0.5
    u = jnp.where(upright, uv[..., 1], uv[..., 0]) + offset
    v = jnp.where(upright, uv[..., 0], uv[..., 1])
    w_u = jnp.where(upright, footprint[..., 1], footprint[..., 0])
    w_v = jnp.where(upright, footprint[..., 0], footprint[..., 1])

    # Cells.
    y, w_y = v / height, w_v / height
    line = jnp.floor(y)
    x, w_x = u / width + bond * line, w_u / width
    kept = jnp.clip(1.5 - jnp.maximum(w_x, w_y), 0.0, 1.0)  # of what is random in a cell
    bits = _hash(jnp.floor(x), line, offset)
    first, second, third = (_unit(bits >> jnp.uint32(s)) for s in (0, 10, 20))
    joint_x = _joint(x, w_x, gap / width)
    # A footprint over several shifted rows sees all phases of the joints at once.
    over = jnp.where(bond != 0.0, jnp.clip(w_y - 0.3, 0.0, 1.0), 0.0)
    joint_x = joint_x + over * (gap / width - joint_x)
    joint = 1.0 - (1.0 - joint_x) * (1.0 - _joint(y, w_y, gap / height))

    # Two colours: checkers and grain.
    wave_x = jnp.where(check_u > 0.5, _square(x, w_x), 1.0)
    wave_y = jnp.where(check_v > 0.5, _square(y, w_y), 1.0)
    waves = [
        _noise(u * pitch_u * f + 7.0 * third, v * pitch_v * f, w_u * pitch_u * f, w_v * pitch_v * f)
        for f in (1.0, 2.7)
    ]
    mixed = 0.5 - 0.5 * wave_x * wave_y + grain * (0.5 + 0.55 * waves[0] + 0.35 * waves[1])
    mixed = jnp.clip(mixed, 0.0, 1.0)
    light = 1.0 + tint * (2.0 * first - 1.0) * kept
    # Veins run where the noise crosses zero; far away they are their mean.
    sharp = jnp.clip(1.0 - jnp.maximum(w_u * pitch_u, w_v * pitch_v) * 1.5, 0.0, 1.0)
    ridge = jnp.clip(1.0 - jnp.abs(waves[0] + 0.45 * waves[1]) * 9.0, 0.0, 1.0)
    veined = vein * (0.10 + sharp * (ridge - 0.10))
    # Kept as arrays: fused into each channel they would all be computed three times.
    mixed, light, veined, joint, hue = jax.lax.optimization_barrier(
        (mixed, light, veined, joint, (first, second, third))
    )
    channels = []
    for i in range(3):
        base = row[..., i] + mixed * (row[..., 3 + i] - row[..., i])
        base = base * light * (1.0 + motley * (2.0 * hue[i] - 1.0) * kept)
        seam = row[..., 6 + i]
        base = base + veined * (seam - base)
        channels.append(jnp.clip(base + joint * (seam - base), 0.0, 1.0))
    return jnp.stack(channels, axis=-1)


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
