"""Where in a picture triangles may be seen: their corners in camera axes, and boxes of pixels.

Symbols: c_i corners of a face, a and b two of its sides; |v| = |v.x| + |v.y| + |v.z|.
    (1) no face   |a x b| <= ROUNDING (|a| + |b|) (|c_0| + |c_1| + |c_2|)

Part of `rasterizer`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from geojax.geometry.camera import Camera

ROUNDING = 2.0**-23


class Corners(NamedTuple):
    """Camera coordinates of the corners, an array an axis and corner: x[i], y[i], z[i]; |c_i|.

    Not an axis of 3 that is the innermost: XLA's CPU loops are over the innermost, and would be of
    length 3.
    """

    x: tuple[Array, ...]
    y: tuple[Array, ...]
    z: tuple[Array, ...]
    size: tuple[Array, ...]


class Boxes(NamedTuple):
    """Pixels [left, right] x [top, bottom] of each face, inclusive; width 0 where not in view."""

    left: Array
    top: Array
    right: Array
    bottom: Array
    width: Array
    height: Array


def corners_of(local: list[Array], faces: Int[Array, "*b 3"]) -> Corners:
    """Corners of faces, shape *b each."""
    index = [faces[..., i] for i in range(3)]
    x, y, z = (tuple(axis.at[i].get(mode="clip") for i in index) for axis in local)
    return Corners(x, y, z, tuple(length(corner) for corner in zip(x, y, z, strict=True)))


def length(v: Sequence[Array]) -> Array:
    """The sum of |v_i|."""
    total = jnp.abs(v[0])
    for value in v[1:]:
        total += jnp.abs(value)
    return total


def _has_area(corners: Corners) -> Array:
    """Not (1); nor where a corner is not finite."""
    a = [axis[1] - axis[0] for axis in corners[:3]]
    b = [axis[2] - axis[0] for axis in corners[:3]]
    area = length([a[i - 2] * b[i - 1] - a[i - 1] * b[i - 2] for i in range(3)])
    return area > ROUNDING * (length(a) + length(b)) * length(corners.size)


def pixel_boxes(corners: Corners, there: Array, camera: Camera, near: Array | float) -> Boxes:
    """The pixels that each face may cover."""
    ahead = [z >= near for z in corners.z]
    some, every = ahead[0] | ahead[1] | ahead[2], ahead[0] & ahead[1] & ahead[2]

    def boxes(crossed: bool) -> Boxes:
        return _boxes(corners, there & some, ahead, camera, near, crossed)

    return jax.lax.cond(jnp.any(some & ~every), lambda: boxes(True), lambda: boxes(False))


def _boxes(
    corners: Corners,
    drawn: Array,
    ahead: list[Array],
    camera: Camera,
    near: Array | float,
    crossed: bool,
) -> Boxes:
    """`pixel_boxes`; where edges may cross the near plane, the crossings count as corners."""
    inverse = [1.0 / jnp.where(a, z, 1.0) for a, z in zip(ahead, corners.z, strict=True)]
    bounds = []
    for axis, focal, centre, size in (
        (corners.x, camera.fx, camera.cx, camera.width),
        (corners.y, camera.fy, camera.cy, camera.height),
    ):
        low, high = jnp.full_like(axis[0], jnp.inf), jnp.full_like(axis[0], -jnp.inf)
        for i in range(3):
            places = [(axis[i] * inverse[i], ahead[i])]
            if crossed:
                crosses = ahead[i] != ahead[i - 1]
                rise = jnp.where(crosses, corners.z[i] - corners.z[i - 1], 1.0)
                part = (near - corners.z[i - 1]) / rise
                cut = (axis[i - 1] + part * (axis[i] - axis[i - 1])) / near
                places.append((cut, crosses))
            for place, counts in places:
                low = jnp.minimum(low, jnp.where(counts, place, jnp.inf))
                high = jnp.maximum(high, jnp.where(counts, place, -jnp.inf))
        # A hundredth of a pixel more on either side: rounding here must not lose a pixel.
        low, high = focal * low + (centre - 0.51), focal * high + (centre - 0.49)
        bounds.append(
            (
                jnp.clip(jnp.ceil(low), 0.0, float(size)).astype(jnp.int32),
                jnp.clip(jnp.floor(high), -1.0, size - 1.0).astype(jnp.int32),
            )
        )
    (left, right), (top, bottom) = bounds
    drawn &= (left <= right) & (top <= bottom) & _has_area(corners)
    width, height = (jnp.where(drawn, b - a + 1, 0) for a, b in bounds)
    return Boxes(left, top, right, bottom, width, height)
