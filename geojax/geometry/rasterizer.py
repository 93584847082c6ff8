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

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from geojax.geometry.camera import Camera, camera_rays

NEAR = 1e-3
TOLERANCE = 1e-5
TIE = 1e-6
_WINDOWS = (2, 4, 16, 64)
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


class _Boxes(NamedTuple):
    """Pixels [left, right] x [top, bottom] of each face, inclusive; empty where not in view."""

    left: Int[Array, "F"]
    top: Int[Array, "F"]
    right: Int[Array, "F"]
    bottom: Int[Array, "F"]


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
    local = jnp.matmul(offset, camera.rotation, precision=jax.lax.Precision.HIGHEST)
    boxes, drawn = _boxes(local, faces, camera, near)
    drawn &= jnp.arange(faces.shape[0], dtype=jnp.int32) < count
    extent = jnp.maximum(boxes.right - boxes.left, boxes.bottom - boxes.top) + 1

    pixels = height * width
    nearest = jnp.full((pixels,), jnp.inf)
    windows = [w for w in _WINDOWS if w < max(height, width)] + [max(height, width)]
    classes, smallest = [], 0
    for window in windows:
        of = drawn & (extent > smallest) & (extent <= window)
        (index,) = jnp.nonzero(of, size=faces.shape[0], fill_value=0)
        classes.append((window, index.astype(jnp.int32), jnp.sum(of, dtype=jnp.int32)))
        smallest = window
    for window, index, number in classes:

        def put_depth(nearest: Array, face: Array, at: Array, z: Array) -> Array:
            return nearest.at[at].min(z, mode="drop")

        nearest = _each(
            window, index, number, local, faces, boxes, camera, near, put_depth, nearest
        )
    # What is that near, but for rounding: the pass is compiled anew, and may round in its own way.
    limit = nearest * (1.0 + TIE)
    none = jnp.full((pixels,), faces.shape[0], jnp.int32)
    first = none
    for window, index, number in classes:

        def put_face(first: Array, face: Array, at: Array, z: Array) -> Array:
            wins = z <= limit.at[at].get(mode="fill", fill_value=-1.0)
            return first.at[jnp.where(wins, at, pixels)].min(face, mode="drop")

        first = _each(window, index, number, local, faces, boxes, camera, near, put_face, first)
    seen = (first < faces.shape[0]).reshape(height, width)
    face = jnp.where(seen, first.reshape(height, width), -1)
    rays = camera_rays(camera)
    direction = jnp.matmul(rays.directions, camera.rotation, precision=jax.lax.Precision.HIGHEST)
    slope = direction[..., :2] / direction[..., 2:]
    corners = local[faces[jnp.maximum(face, 0)]]  # [h, w, corner, axis]
    weights, z, _ = _weights(corners, slope[..., 0], slope[..., 1])
    # Of the tolerated rim; elsewhere it changes nothing.
    weights = jnp.maximum(weights, 0.0)
    weights = weights / jnp.where(seen, jnp.sum(weights, axis=-1), 1.0)[..., None]
    return Fragments(face, jnp.where(seen[..., None], weights, 0.0), jnp.where(seen, z, 0.0))


def interpolate(
    fragments: Fragments, faces: Int[Array, "F 3"], values: Float[Array, "V c"]
) -> Float[Array, "h w c"]:
    """Values of the corners, mixed by (2); 0 where no face is seen. Differentiable in `values`."""
    corners = values[faces[jnp.maximum(fragments.face, 0)]]
    return jnp.sum(corners * fragments.barycentric[..., None], axis=-2)


def _weights(
    corners: Float[Array, "*b 3 3"], x: Float[Array, "*b"], y: Float[Array, "*b"]
) -> tuple[Float[Array, "*b 3"], Float[Array, "*b"], Bool[Array, "*b"]]:
    """Equations (1) to (3): b, z, and whether the face has an area as seen from the pixel."""
    depth = corners[..., 2]
    p = corners[..., 0] - x[..., None] * depth
    q = corners[..., 1] - y[..., None] * depth
    e = jnp.stack(
        [
            p[..., 1] * q[..., 2] - p[..., 2] * q[..., 1],
            p[..., 2] * q[..., 0] - p[..., 0] * q[..., 2],
            p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0],
        ],
        axis=-1,
    )
    total = jnp.sum(e, axis=-1)
    solid = jnp.abs(total) > 0
    b = e / jnp.where(solid, total, 1.0)[..., None]
    return b, jnp.sum(b * depth, axis=-1), solid


def _boxes(
    local: Float[Array, "V 3"], faces: Int[Array, "F 3"], camera: Camera, near: Array | float
) -> tuple[_Boxes, Bool[Array, "F"]]:
    """The pixels that a face may cover, and whether there are any."""
    corners = local[faces]
    ahead = corners[..., 2] >= near
    # Where an edge crosses the near plane, the box holds the crossing in place of the corner.
    others = jnp.roll(corners, -1, axis=1)
    crossing = ahead != jnp.roll(ahead, -1, axis=1)
    rise = others[..., 2] - corners[..., 2]
    t = (near - corners[..., 2]) / jnp.where(crossing, rise, 1.0)
    cut = corners + t[..., None] * (others - corners)
    points = jnp.concatenate([corners, cut], axis=1)  # [F, 6, 3]
    valid = jnp.concatenate([ahead, crossing], axis=1)
    z = jnp.where(valid, jnp.maximum(points[..., 2], near), 1.0)
    bounds = []
    for axis, (focal, centre, size) in enumerate(
        ((camera.fx, camera.cx, camera.width), (camera.fy, camera.cy, camera.height))
    ):
        at = focal * points[..., axis] / z + centre
        # A hundredth of a pixel more on either side: rounding here must not lose a pixel.
        low = jnp.min(jnp.where(valid, at, jnp.inf), axis=1) - 0.51
        high = jnp.max(jnp.where(valid, at, -jnp.inf), axis=1) - 0.49
        bounds.append(
            (
                jnp.clip(jnp.ceil(low), 0.0, float(size)).astype(jnp.int32),
                jnp.clip(jnp.floor(high), -1.0, size - 1.0).astype(jnp.int32),
            )
        )
    (left, right), (top, bottom) = bounds
    finite = jnp.all(jnp.isfinite(corners), axis=(1, 2))
    drawn = finite & jnp.any(ahead, axis=1) & (left <= right) & (top <= bottom)
    return _Boxes(left, top, right, bottom), drawn


def _each(window, index, number, local, faces, boxes, camera, near, put, state):
    """`put(state, face, pixel, z)` of every covered pixel of the faces `index[:number]`.

    A pixel that is not covered comes as one beyond the last.
    """
    height, width = camera.height, camera.width
    batch = min(max(_BATCH // window**2, 1), faces.shape[0])
    # The last batch is filled up with faces that cover nothing.
    index = jnp.pad(index, (0, batch))
    steps = jnp.arange(window, dtype=jnp.int32)

    def body(i, state):
        own = i * batch + jnp.arange(batch, dtype=jnp.int32)
        face = jax.lax.dynamic_slice(index, (i * batch,), (batch,))
        column = boxes.left[face][:, None] + steps[None]  # [batch, window]
        row = boxes.top[face][:, None] + steps[None]
        inside = (column <= boxes.right[face][:, None])[:, None, :]
        inside &= (row <= boxes.bottom[face][:, None])[:, :, None]
        inside &= (own < number)[:, None, None]
        x = (column.astype(jnp.float32) + (0.5 - camera.cx)) / camera.fx
        y = (row.astype(jnp.float32) + (0.5 - camera.cy)) / camera.fy
        shape = (batch, window, window)
        corners = local[faces[face]][:, None, None]
        b, z, solid = _weights(
            jnp.broadcast_to(corners, (*shape, 3, 3)),
            jnp.broadcast_to(x[:, None, :], shape),
            jnp.broadcast_to(y[:, :, None], shape),
        )
        covered = inside & solid & (jnp.min(b, axis=-1) >= -TOLERANCE) & (z >= near)
        pixel = row[:, :, None] * width + column[:, None, :]
        pixel = jnp.where(covered, pixel, height * width)
        return put(state, jnp.broadcast_to(face[:, None, None], shape), pixel, z)

    return jax.lax.fori_loop(0, (number + batch - 1) // batch, body, state)
