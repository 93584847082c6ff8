"""Triangles to pixels: which face a pixel centre sees, where on it, and how far.

Symbols: c_i corners of a face in camera axes, i = 0, 1, 2; d = (x, y, 1) ray of a pixel centre;
(p_i, q_i) = (c_i.x - x c_i.z, c_i.y - y c_i.z), the corner as seen from that pixel.
    (1) edges     e_0 = p_1 q_2 - p_2 q_1,  e_1 = p_2 q_0 - p_0 q_2,  e_2 = p_0 q_1 - p_1 q_0
    (2) weights   b_i = e_i / (e_0 + e_1 + e_2): perspective-correct barycentric coordinates
    (3) depth     z = b_0 c_0.z + b_1 c_1.z + b_2 c_2.z
    (4) covered   all b_i >= -TOLERANCE and z >= near
    (5) seen      of the faces that cover a pixel the nearest; of those within TIE of it the first

(1) are the edge functions of Olano and Greer, "Triangle Scan Conversion using 2D Homogeneous
Coordinates" (1997): no clipping, whatever a corner's z. Taken from the pixel's own ray they lose no
digits far from the camera, and an edge that two faces share has one value but for its sign, so that
with (4) no pixel falls between them. Both sides of a face are seen.

Time grows with the pixels of the faces in view. Faces go by the size of their box to a window of
pixels that holds it; each class is a loop over as many full batches as it has faces.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from geojax.geometry.camera import Camera

NEAR = 1e-3
TOLERANCE = 1e-5
TIE = 1e-6
_WINDOWS = (2, 8, 64)
_BATCH = 32768  # candidates evaluated at a time: they stay in the cache


class Fragments(NamedTuple):
    """What a view sees at its pixel centres.

    Attributes:
      face: index of a face, -1 where none.
      barycentric: weights of its corners, 0 where none.
      depth: z-depth, 0 where none.
    """

    face: Int[Array, "h w"]
    barycentric: Float[Array, "h w 3"]
    depth: Float[Array, "h w"]


class _Corners(NamedTuple):
    """Camera coordinates of the corners, an array an axis and corner: x[i], y[i], z[i].

    Not an axis of 3 that is the innermost: XLA's CPU loops are over the innermost, and would be of
    length 3.
    """

    x: tuple[Array, Array, Array]
    y: tuple[Array, Array, Array]
    z: tuple[Array, Array, Array]


class _Boxes(NamedTuple):
    """Pixels [left, right] x [top, bottom] of each face, inclusive; empty where not in view."""

    left: Int[Array, "F"]
    top: Int[Array, "F"]
    right: Int[Array, "F"]
    bottom: Int[Array, "F"]


class _Class(NamedTuple):
    """Faces whose box fits into a window: `members[:number]`; None for all, of which some do."""

    window: int
    members: Array | None
    number: Array


def supersampled(camera: Camera, k: int) -> Camera:
    """The same view with k times as many pixels along each side."""
    return Camera(
        camera.camera_to_world,
        camera.fx * k,
        camera.fy * k,
        camera.cx * k,
        camera.cy * k,
        camera.height * k,
        camera.width * k,
    )


@jax.jit
def rasterize(
    vertices: Float[Array, "V 3"],
    faces: Int[Array, "F 3"],
    count: int | Int[Array, ""],
    camera: Camera,
    near: float | Float[Array, ""] = NEAR,
) -> Fragments:
    """Equations (1) to (5).

    Args:
      vertices: world; room for more than are used costs little.
      faces: indices of vertices, below V. Faces without an area, or with a corner that is not
        finite, are not drawn.
      count: faces beyond it are not there.
      camera: one, of any size and intrinsics.
      near: nothing nearer is seen; above 0.
    """
    height, width = camera.height, camera.width
    offset = vertices - camera.position[None]
    local = jnp.matmul(offset, camera.rotation, precision=jax.lax.Precision.HIGHEST).T
    # The barriers keep XLA from computing all of it again for each class that looks at it.
    corners = jax.lax.optimization_barrier(_corners(local, faces))
    boxes, drawn = jax.lax.optimization_barrier(_boxes(corners, camera, near))
    drawn &= jnp.arange(faces.shape[0], dtype=jnp.int32) < count
    extent = jnp.maximum(boxes.right - boxes.left, boxes.bottom - boxes.top) + 1
    extent = jnp.where(drawn, extent, 0)
    largest = max(height, width)
    windows = [1, *(w for w in _WINDOWS if 1 < w < largest), largest]
    classes = [
        _Class(1, None, jnp.asarray(faces.shape[0], jnp.int32)),
        *(
            _compacted(window, (extent > smaller) & (extent <= window))
            for smaller, window in itertools.pairwise(windows)
        ),
    ]

    pixels = height * width
    nearest = jnp.full((pixels,), jnp.inf)
    for some in classes:

        def put_depth(nearest: Array, face: Array, at: Array, z: Array) -> Array:
            return nearest.at[at].min(z, mode="drop")

        nearest = _each(some, extent, corners, boxes, camera, near, put_depth, nearest)
    # What is that near, but for rounding: the pass is compiled anew, and may round in its own way.
    limit = nearest * (1.0 + TIE)
    first = jnp.full((pixels,), faces.shape[0], jnp.int32)
    for some in classes:

        def put_face(first: Array, face: Array, at: Array, z: Array) -> Array:
            wins = z <= limit.at[at].get(mode="fill", fill_value=-1.0)
            return first.at[jnp.where(wins, at, pixels)].min(face, mode="drop")

        first = _each(some, extent, corners, boxes, camera, near, put_face, first)
    seen = (first < faces.shape[0]).reshape(height, width)
    face = jnp.where(seen, first.reshape(height, width), -1)
    columns, rows = jnp.arange(width, dtype=jnp.float32), jnp.arange(height, dtype=jnp.float32)
    x = jnp.broadcast_to(((columns + (0.5 - camera.cx)) / camera.fx)[None], face.shape)
    y = jnp.broadcast_to(((rows + (0.5 - camera.cy)) / camera.fy)[:, None], face.shape)
    weights, z, _ = _weights(_corners(local, faces[jnp.maximum(face, 0)]), x, y)
    # Of the tolerated rim; elsewhere it changes nothing.
    barycentric = jnp.maximum(jnp.stack(weights, axis=-1), 0.0)
    barycentric /= jnp.where(seen, jnp.sum(barycentric, axis=-1), 1.0)[..., None]
    return Fragments(face, jnp.where(seen[..., None], barycentric, 0.0), jnp.where(seen, z, 0.0))


def interpolate(
    fragments: Fragments, faces: Int[Array, "F 3"], values: Float[Array, "V c"]
) -> Float[Array, "h w c"]:
    """Values of the corners, mixed by (2); 0 where no face is seen. Differentiable in `values`."""
    corners = values[faces[jnp.maximum(fragments.face, 0)]]
    return jnp.sum(corners * fragments.barycentric[..., None], axis=-2)


def _corners(local: Float[Array, "3 V"], faces: Int[Array, "*b 3"]) -> _Corners:
    """Corners of faces, shape *b each."""
    a, b, c = (faces[..., i] for i in range(3))
    x, y, z = ((axis[a], axis[b], axis[c]) for axis in local)
    return _Corners(x, y, z)


def _weights(
    corners: _Corners, x: Array, y: Array
) -> tuple[tuple[Array, Array, Array], Array, Array]:
    """Equations (1) to (3): b, z, and whether the face has an area as seen from the pixel."""
    p = [cx - x * cz for cx, cz in zip(corners.x, corners.z, strict=True)]
    q = [cy - y * cz for cy, cz in zip(corners.y, corners.z, strict=True)]
    e = [p[i - 2] * q[i - 1] - p[i - 1] * q[i - 2] for i in range(3)]
    total = e[0] + e[1] + e[2]
    solid = jnp.abs(total) > 0
    scale = 1.0 / jnp.where(solid, total, 1.0)
    b = (e[0] * scale, e[1] * scale, e[2] * scale)
    return b, b[0] * corners.z[0] + b[1] * corners.z[1] + b[2] * corners.z[2], solid


def _boxes(
    corners: _Corners, camera: Camera, near: Array | float
) -> tuple[_Boxes, Bool[Array, "F"]]:
    """The pixels that a face may cover, and whether there are any."""
    ahead = [z >= near for z in corners.z]
    bounds = []
    for axis, focal, centre, size in (
        (corners.x, camera.fx, camera.cx, camera.width),
        (corners.y, camera.fy, camera.cy, camera.height),
    ):
        low, high = jnp.full_like(axis[0], jnp.inf), jnp.full_like(axis[0], -jnp.inf)
        for i in range(3):
            at = focal * axis[i] / jnp.where(ahead[i], corners.z[i], 1.0) + centre
            # Where the edge to the next corner crosses the near plane, the crossing counts too.
            j = (i + 1) % 3
            crossing = ahead[i] != ahead[j]
            rise = corners.z[j] - corners.z[i]
            t = (near - corners.z[i]) / jnp.where(crossing, rise, 1.0)
            cut = focal * (axis[i] + t * (axis[j] - axis[i])) / near + centre
            for place, valid in ((at, ahead[i]), (cut, crossing)):
                low = jnp.minimum(low, jnp.where(valid, place, jnp.inf))
                high = jnp.maximum(high, jnp.where(valid, place, -jnp.inf))
        # A hundredth of a pixel more on either side: rounding here must not lose a pixel.
        bounds.append(
            (
                jnp.clip(jnp.ceil(low - 0.51), 0.0, float(size)).astype(jnp.int32),
                jnp.clip(jnp.floor(high - 0.49), -1.0, size - 1.0).astype(jnp.int32),
            )
        )
    (left, right), (top, bottom) = bounds
    drawn = (ahead[0] | ahead[1] | ahead[2]) & (left <= right) & (top <= bottom)
    for value in (*corners.x, *corners.y, *corners.z):
        drawn &= jnp.isfinite(value)
    return _Boxes(left, top, right, bottom), drawn


def _compacted(window: int, of: Bool[Array, "F"]) -> _Class:
    """The faces marked, in their order."""
    (index,) = jnp.nonzero(of, size=of.shape[0], fill_value=0)
    return _Class(window, index.astype(jnp.int32), jnp.sum(of, dtype=jnp.int32))


def _each(
    some: _Class,
    extent: Array,
    corners: _Corners,
    boxes: _Boxes,
    camera: Camera,
    near: Array | float,
    put: Callable[[Array, Array, Array, Array], Array],
    state: Array,
) -> Array:
    """`put(state, face, pixel, z)` for every pixel that faces of a class cover, in batches.

    A pixel that is not covered comes as one beyond the last.
    """
    height, width, window = camera.height, camera.width, some.window
    total = extent.shape[0]
    batch = min(max(_BATCH // window**2, 1), total)
    # The last batch is filled up with faces that cover nothing.
    index = None if some.members is None else jnp.pad(some.members, (0, batch))
    steps = jnp.arange(window, dtype=jnp.int32)

    def body(i: Array, state: Array) -> Array:
        own = i * batch + jnp.arange(batch, dtype=jnp.int32)
        if index is None:
            face = jnp.minimum(own, total - 1)
        else:
            face = jax.lax.dynamic_slice(index, (i * batch,), (batch,))
        column = boxes.left[face][:, None] + steps[None]  # [batch, window]
        row = boxes.top[face][:, None] + steps[None]
        inside = (column <= boxes.right[face][:, None])[:, None, :]
        inside &= (row <= boxes.bottom[face][:, None])[:, :, None]
        of = (own < some.number) & (extent[face] > 0) & (extent[face] <= window)
        x = (column.astype(jnp.float32) + (0.5 - camera.cx)) / camera.fx
        y = (row.astype(jnp.float32) + (0.5 - camera.cy)) / camera.fy
        here = jax.tree.map(lambda leaf: leaf[face][:, None, None], corners)
        b, z, solid = _weights(here, x[:, None, :], y[:, :, None])
        covered = inside & of[:, None, None] & solid & (z >= near)
        for weight in b:
            covered &= weight >= -TOLERANCE
        pixel = row[:, :, None] * width + column[:, None, :]
        pixel = jnp.where(covered, pixel, height * width)
        return put(state, jnp.broadcast_to(face[:, None, None], pixel.shape), pixel, z)

    return jax.lax.fori_loop(0, (some.number + batch - 1) // batch, body, state)
