"""Rays against boxes and upright round solids: exact, and vectorised over rays.

Symbols
    o + t d     a ray; t is in units of d, so z-depth if d has length 1 along the optical axis
    [n_i, f_i]  the interval of t within a solid's i-th convex factor: the three slabs of a box, the
                quadric and the slab of a cylinder

Equation (1): a ray is in a convex solid over [max n_i, min f_i] (Kay and Kajiya, "Ray tracing
complex scenes", 1986, for boxes). The nearest solid is the smallest entry t > 0. All rays meet one
solid after the other, eight to a loop's turn, and a ray carries one integer: the bits of t, which
order as t does, with the solid's index in place of the lowest eight. The winner's t is computed
again in full, so only solids closer than 3e-5 t along the ray can be taken for each other.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from geojax.worlds.room_scene import MAX_BOXES, Scene

Rays3 = tuple[Float[Array, "b #r"], Float[Array, "b #r"], Float[Array, "b #r"]]
"""A vector for each ray of each image, as three arrays."""

_AT_ONCE = 8
_MISS = 0x7F000000  # bits of a t beyond every scene
_NEAR = 1e-4


class Hit(NamedTuple):
    """The nearest solid of each ray; entries of rays that miss are of no meaning but finite.

    Attributes:
      miss: whether the ray meets nothing.
      t: ray parameter.
      primitive: index of the solid, boxes first.
      normal: unit, outward.
      axis: 0, 1 or 2 for a box's face across x, y or z; for a round solid, 2 on a cylinder's caps
        and 0 elsewhere.
    """

    miss: Bool[Array, "b r"]
    t: Float[Array, "b r"]
    primitive: Int[Array, "b r"]
    normal: tuple[Float[Array, "b r"], Float[Array, "b r"], Float[Array, "b r"]]
    axis: Int[Array, "b r"]


def safe_inverse(d: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """1 / d, large where d is 0."""
    return 1.0 / jnp.where(jnp.abs(d) < 1e-9, 1e-9, d)


def _box(
    low: list, high: list, o: Rays3, inverse: Rays3
) -> tuple[Float[Array, "b r"], Float[Array, "b r"], list]:
    """Entry, exit and the three slabs' entries of a box, equation (1)."""
    entries, exits = [], []
    for a, b, p, i in zip(low, high, o, inverse, strict=True):
        first, second = (a - p) * i, (b - p) * i
        entries.append(jnp.minimum(first, second))
        exits.append(jnp.maximum(first, second))
    near = jnp.maximum(jnp.maximum(entries[0], entries[1]), entries[2])
    far = jnp.minimum(jnp.minimum(exits[0], exits[1]), exits[2])
    return near, far, entries


def _round(
    centre: list, radii: list, ellipsoid: Float[Array, "b #r"], o: Rays3, d: Rays3
) -> tuple[Float[Array, "b r"], Float[Array, "b r"], Float[Array, "b r"]]:
    """Entry and exit of a round solid, and the entry through its caps, equation (1)."""
    x, y, z = ((p - c) / r for p, c, r in zip(o, centre, radii, strict=True))
    u, v, w = (p / r for p, r in zip(d, radii, strict=True))
    e = ellipsoid
    a = jnp.maximum(u * u + v * v + e * w * w, 1e-12)
    b = x * u + y * v + e * z * w
    c = x * x + y * y + e * z * z - 1.0
    under = b * b - a * c
    root = jnp.sqrt(jnp.maximum(under, 0.0))
    i = safe_inverse(w)
    first, second = (-1.0 - z) * i, (1.0 - z) * i
    cap = jnp.minimum(first, second)
    near = jnp.maximum((-b - root) / a, cap)
    far = jnp.minimum((-b + root) / a, jnp.maximum(first, second))
    return jnp.where(under > 0.0, near, 1.0), jnp.where(under > 0.0, far, 0.0), cap


def _columns(table: Float[Array, "b p n"], start: Int[Array, ""], j: int) -> list:
    """Entry start + j of each image as columns [b, 1]."""
    part = jax.lax.dynamic_slice_in_dim(table, start + j, 1, axis=1)
    return [part[:, :, i] for i in range(table.shape[-1])]


def _turns(scene: Scene, which: int) -> Int[Array, ""]:
    """Turns of the loop over the boxes (0) or the round solids (1) of the fullest scene."""
    return (jnp.max(jnp.asarray(scene.used)[:, which]) + _AT_ONCE - 1) // _AT_ONCE


def _tables(scene: Scene) -> tuple[Float[Array, "b p 6"], Float[Array, "b q 7"]]:
    boxes = jnp.concatenate([scene.low, scene.high], axis=-1)
    rounds = jnp.concatenate([scene.centre, scene.radii, scene.ellipsoid[..., None]], axis=-1)
    return boxes, rounds


def nearest(scene: Scene, o: Rays3, d: Rays3) -> Hit:
    """Meet rays with the solids of a scene.

    Args:
      scene: of leading shape [b].
      o: origins, outside of all solids.
      d: directions of any length; t is in their units.

    Returns:
      the hits.
    """
    # Compiled apart: in one program XLA repeats the gathers and the algebra for every output.
    best = _search(scene, o, d)
    return _hit(best, *_winner(scene, best), o, d)


@jax.jit
def _search(scene: Scene, o: Rays3, d: Rays3) -> Int[Array, "b r"]:
    """The packed nearest entry of each ray: the bits of t, the lowest eight an index."""
    boxes, rounds = _tables(scene)
    ix, iy, iz = (safe_inverse(x) for x in d)
    inverse = (ix, iy, iz)

    def better(best, near, far, index):
        bits = jax.lax.bitcast_convert_type(near, jnp.int32)
        packed = (bits & jnp.int32(-256)) | index
        return jnp.minimum(best, jnp.where((near <= far) & (near > _NEAR), packed, _MISS))

    def box_turn(k, best):
        for j in range(_AT_ONCE):
            c = _columns(boxes, k * _AT_ONCE, j)
            near, far, _ = _box(c[:3], c[3:], o, inverse)
            best = better(best, near, far, k * _AT_ONCE + j)
        return best

    def round_turn(k, best):
        for j in range(_AT_ONCE):
            c = _columns(rounds, k * _AT_ONCE, j)
            near, far, _ = _round(c[:3], c[3:6], c[6], o, d)
            best = better(best, near, far, MAX_BOXES + k * _AT_ONCE + j)
        return best

    shape = jnp.broadcast_shapes(o[0].shape, d[0].shape)
    best = jnp.full(shape, _MISS, jnp.int32)
    best = jax.lax.fori_loop(0, _turns(scene, 0), box_turn, best)
    return jax.lax.fori_loop(0, _turns(scene, 1), round_turn, best)


def _index(best: Int[Array, "b r"]) -> Int[Array, "b r"]:
    return jnp.where(best >= _MISS, 0, best & 255)


@jax.jit
def _winner(
    scene: Scene, best: Int[Array, "b r"]
) -> tuple[Float[Array, "b r 6"], Float[Array, "b r 7"]]:
    """The numbers of the solid that each ray hits, as a box and as a round solid."""
    boxes, rounds = _tables(scene)
    index = _index(best)
    box = jnp.where(index < MAX_BOXES, index, 0)
    ball = jnp.maximum(index - MAX_BOXES, 0)
    return (
        jnp.take_along_axis(boxes, box[..., None], axis=1, mode="clip"),
        jnp.take_along_axis(rounds, ball[..., None], axis=1, mode="clip"),
    )


@jax.jit
def _hit(
    best: Int[Array, "b r"],
    box: Float[Array, "b r 6"],
    ball: Float[Array, "b r 7"],
    o: Rays3,
    d: Rays3,
) -> Hit:
    """The hit in full, of the solid that is known to be the nearest."""
    miss, index = best >= _MISS, _index(best)
    is_round = index >= MAX_BOXES
    ix, iy, iz = (safe_inverse(x) for x in d)
    c = [box[..., i] for i in range(6)]
    near, _, (ex, ey, ez) = _box(c[:3], c[3:], o, (ix, iy, iz))
    box_axis = jnp.where(ex >= jnp.maximum(ey, ez), 0, jnp.where(ey >= ez, 1, 2))
    c = [ball[..., i] for i in range(7)]
    round_near, _, cap = _round(c[:3], c[3:6], c[6], o, d)
    on_cap = (c[6] < 0.5) & (cap >= round_near)
    t = jnp.where(is_round, round_near, near)
    # Normals: a box's against the ray; a quadric's along its gradient.
    slopes = []
    for k in range(3):
        at = (o[k] + t * d[k] - c[k]) / (c[3 + k] * c[3 + k])
        side = (
            jnp.where(on_cap, 0.0, at) if k < 2 else jnp.where(on_cap, -jnp.sign(d[2]), c[6] * at)
        )
        flat = jnp.where(box_axis == k, -jnp.sign(d[k]), 0.0)
        slopes.append(jnp.where(is_round, side, flat))
    length = jnp.sqrt(jnp.maximum(slopes[0] ** 2 + slopes[1] ** 2 + slopes[2] ** 2, 1e-20))
    return Hit(
        miss=miss,
        t=jnp.where(miss, 1.0, t),
        primitive=index,
        normal=(slopes[0] / length, slopes[1] / length, slopes[2] / length),
        axis=jnp.where(is_round, jnp.where(on_cap, 2, 0), box_axis),
    )


def blocked(scene: Scene, o: Rays3, d: Rays3) -> Bool[Array, "b r"]:
    """Whether anything is on the ray from o along d, at any distance."""
    boxes, rounds = _tables(scene)
    ix, iy, iz = (safe_inverse(x) for x in d)

    def box_turn(k, found):
        for j in range(_AT_ONCE):
            c = _columns(boxes, k * _AT_ONCE, j)
            near, far, _ = _box(c[:3], c[3:], o, (ix, iy, iz))
            found = found | ((near <= far) & (far > 0.0))
        return found

    def round_turn(k, found):
        for j in range(_AT_ONCE):
            c = _columns(rounds, k * _AT_ONCE, j)
            near, far, _ = _round(c[:3], c[3:6], c[6], o, d)
            found = found | ((near <= far) & (far > 0.0))
        return found

    shape = jnp.broadcast_shapes(o[0].shape, d[0].shape)
    found = jnp.zeros(shape, bool)
    found = jax.lax.fori_loop(0, _turns(scene, 0), box_turn, found)
    return jax.lax.fori_loop(0, _turns(scene, 1), round_turn, found)


def clearances(scene: Scene, points: tuple[Rays3, ...]) -> list[Float[Array, "b r"]]:
    """Distance from points to the nearest solid, 0 inside; of ellipsoids a lower bound.

    Args:
      scene: of leading shape [b].
      points: several points for each ray, in one pass over the solids.

    Returns:
      one array of distances, metres, for each entry of `points`.
    """
    boxes, rounds = _tables(scene)

    def box_turn(k, least):
        for j in range(_AT_ONCE):
            c = _columns(boxes, k * _AT_ONCE, j)
            half = [0.5 * (b - a) for a, b in zip(c[:3], c[3:], strict=True)]
            middle = [0.5 * (b + a) for a, b in zip(c[:3], c[3:], strict=True)]
            new = []
            for best, p in zip(least, points, strict=True):
                over = [
                    jnp.maximum(jnp.abs(x - m) - h, 0.0)
                    for x, m, h in zip(p, middle, half, strict=True)
                ]
                new.append(jnp.minimum(best, over[0] ** 2 + over[1] ** 2 + over[2] ** 2))
            least = new
        return least

    def round_turn(k, least):
        for j in range(_AT_ONCE):
            c = _columns(rounds, k * _AT_ONCE, j)
            smallest = jnp.minimum(jnp.minimum(c[3], c[4]), c[5])
            new = []
            for best, p in zip(least, points, strict=True):
                x, y, z = ((a - m) / r for a, m, r in zip(p, c[:3], c[3:6], strict=True))
                flat, square = x * x + y * y, z * z
                ball = jnp.maximum(jnp.sqrt(flat + square) - 1.0, 0.0) * smallest
                side = jnp.maximum(jnp.sqrt(flat) - 1.0, 0.0) * jnp.minimum(c[3], c[4])
                above = jnp.maximum(jnp.abs(z) - 1.0, 0.0) * c[5]
                away = jnp.where(c[6] > 0.5, ball * ball, side * side + above * above)
                new.append(jnp.minimum(best, away))
            least = new
        return least

    least = [jnp.full(p[0].shape, 1e6) for p in points]
    least = jax.lax.fori_loop(0, _turns(scene, 0), box_turn, least)
    least = jax.lax.fori_loop(0, _turns(scene, 1), round_turn, least)
    return [jnp.sqrt(x) for x in least]
