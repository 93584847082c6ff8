"""Triangles to pixels: which face a pixel centre sees, where on it, and how far.

Symbols: c_i corners of a face in camera axes, i = 0, 1, 2; d = (x, y, 1) ray of a pixel centre;
(p_i, q_i) = (c_i.x - x c_i.z, c_i.y - y c_i.z), the corner as seen from that pixel; s the sign of
e_0 + e_1 + e_2; |v| = |v.x| + |v.y| + |v.z|, and |p, q| likewise.
    (1) edges     e_0 = p_1 q_2 - p_2 q_1,  e_1 = p_2 q_0 - p_0 q_2,  e_2 = p_0 q_1 - p_1 q_0
    (2) weights   b_i = max(s e_i, 0), scaled to a sum of 1: perspective-correct barycentric
    (3) depth     z = b_0 c_0.z + b_1 c_1.z + b_2 c_2.z
    (4) covered   all s e_i >= -t_i and z >= near, where with {i, j, k} = {0, 1, 2}
                  t_i = ROUNDING (|p_j, q_j| |c_k| + |p_k, q_k| |c_j|)
    (5) seen      of the faces that cover a pixel the nearest, of equally near ones the first

A face without area, `triangle_boxes` (1), covers nothing.

(1) are the edge functions of Olano and Greer, "Triangle Scan Conversion using 2D Homogeneous
Coordinates" (1997): no clipping, whatever a corner's z. (4) is ours: t_i bounds what rounding does
to e_i, so that of two faces that share an edge at least one covers a pixel on it, however thin or
far they are, and no crack is between them. Both sides of a face are seen.

Time grows with the faces that count and the pixels of their boxes, not with the room for faces. A
small box is drawn as it comes; a larger one is noted, and drawn in tiles when all have been looked
at.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from geojax.geometry.camera import Camera
from geojax.geometry.triangle_boxes import ROUNDING, Boxes, Corners, corners_of, length, pixel_boxes

NEAR = 1e-3
_SMALL = 2  # pixels: boxes up to this side are drawn as they come
_TILE = 4  # pixels: the side of a tile of a larger box
_BLOCK = 8192  # faces looked at together, and
_TILES = 2048  # tiles drawn together: their arrays stay in the cache
_GROUP = 1024  # larger faces whose tiles are counted together


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


class _Buffer(NamedTuple):
    """What (5) has found so far, flat arrays of pixels."""

    depth: Array  # infinite where nothing is
    face: Array  # beyond the last where nothing is


def supersampled(camera: Camera, k: int = 2) -> Camera:
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

    Weights and depth are differentiable in the vertices; which face is seen is not.

    Args:
      vertices: world; room for more than are used costs little.
      faces: indices of vertices, below V. Faces without an area, or with a corner that is not
        finite, are not drawn.
      count: faces beyond it are not there.
      camera: one, of any size and intrinsics.
      near: nothing nearer is seen; above 0.

    Raises:
      ValueError: no room for a vertex or a face.
    """
    room = vertices.shape[0], faces.shape[0]
    if not all(room):
        raise ValueError(f"a mesh needs room for a vertex and a face, got {room[0]} and {room[1]}")
    # A sum of products, not a matrix product: those are of few bits on an accelerator.
    offset = [vertices[:, i] - camera.position[i] for i in range(3)]
    local = [_dot(offset, camera.rotation[:, i]) for i in range(3)]
    buffer = _draw_all(jax.lax.stop_gradient((local, faces, count, camera, near)))
    face = buffer.face.reshape(camera.height, camera.width)
    seen = face < faces.shape[0]
    face = jnp.where(seen, face, -1)
    x, y = _rays(camera, *(jnp.arange(n, dtype=jnp.int32) for n in face.shape[::-1]))
    x, y = jnp.broadcast_to(x[None], face.shape), jnp.broadcast_to(y[:, None], face.shape)
    corners = corners_of(local, faces[jnp.maximum(face, 0)])
    # Not the first face where none is seen: what it holds may be no number.
    corners = jax.tree.map(lambda value: jnp.where(seen, value, 1.0), corners)
    weights = [jnp.where(seen, b, 0.0) for b in _weights(_edges(corners, x, y)[0])[0]]
    return Fragments(face, jnp.stack(weights, axis=-1), _dot(weights, corners.z))


def interpolate(
    fragments: Fragments, faces: Int[Array, "F 3"], values: Float[Array, "V c"]
) -> Float[Array, "h w c"]:
    """Values of the corners, mixed by (2); 0 where no face is seen. Differentiable in `values`."""
    corners = values.at[faces[jnp.maximum(fragments.face, 0)]].get(mode="clip")
    corners = jnp.where(fragments.face[..., None, None] >= 0, corners, 0.0)
    return jnp.sum(corners * fragments.barycentric[..., None], axis=-2)


def _rays(camera: Camera, columns: Array, rows: Array) -> tuple[Array, Array]:
    """x and y of the rays of pixels."""
    x = (columns.astype(jnp.float32) + (0.5 - camera.cx)) / camera.fx
    y = (rows.astype(jnp.float32) + (0.5 - camera.cy)) / camera.fy
    return x, y


def _dot(a: Sequence[Array], b: Sequence[Array] | Array) -> Array:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _edges(corners: Corners, x: Array, y: Array) -> tuple[list[Array], list[Array]]:
    """e_i of (1) and t_i of (4)."""
    p = [cx - x * cz for cx, cz in zip(corners.x, corners.z, strict=True)]
    q = [cy - y * cz for cy, cz in zip(corners.y, corners.z, strict=True)]
    e = [p[i - 2] * q[i - 1] - p[i - 1] * q[i - 2] for i in range(3)]
    reach = [length(pair) for pair in zip(p, q, strict=True)]
    size = corners.size
    t = [ROUNDING * (reach[i - 2] * size[i - 1] + reach[i - 1] * size[i - 2]) for i in range(3)]
    return e, t


def _weights(e: list[Array]) -> tuple[list[Array], Array]:
    """b_i of (2), and s."""
    sign = jnp.sign(e[0] + e[1] + e[2])
    # On the tolerated rim the nearest point of the face: a depth that no corner has is none.
    inside = [jnp.maximum(sign * edge, 0.0) for edge in e]
    total = inside[0] + inside[1] + inside[2]
    scale = 1.0 / jnp.where(total > 0, total, 1.0)
    return [weight * scale for weight in inside], sign


def _kept(some: Array, compute: Callable[[], Any]) -> Any:
    """`compute()` where there are some, else zeros; computed once and written to memory.

    XLA fuses what is cheap with each of its uses and computes it for every one of them: here in
    ten times the time, and what is written and what is compared may differ by a bit. On a CPU a
    barrier does not keep it from that; a condition does.
    """
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(compute))
    return jax.lax.cond(jnp.any(some), compute, lambda: nothing)


def _draw_all(scene: tuple[list[Array], Array, Array | int, Camera, Array | float]) -> _Buffer:
    """The z-buffer of all faces."""
    local, faces, count, camera, near = scene
    room = faces.shape[0]
    pixels = camera.height * camera.width
    block = min(_BLOCK, room)
    count = jnp.minimum(jnp.asarray(count, jnp.int32), room)

    def look(i: Array, state: tuple[_Buffer, Array, Array]) -> tuple[_Buffer, Array, Array]:
        buffer, noted, number = state
        start = jnp.minimum(i * block, room - block)  # the last block may overlap the one before
        face = start + jnp.arange(block, dtype=jnp.int32)
        there = (face >= i * block) & (face < count)
        corners = corners_of(local, jax.lax.dynamic_slice(faces, (start, 0), (block, 3)))
        boxes = _kept(there, lambda: pixel_boxes(corners, there, camera, near))
        side = jnp.maximum(boxes.width, boxes.height)
        small, larger = (side > 0) & (side <= _SMALL), side > _SMALL
        buffer = _draw(_SMALL, buffer, face, corners, boxes, small, camera, near)
        place = _kept(larger, lambda: jnp.cumsum(larger.astype(jnp.int32)))
        noted = noted.at[jnp.where(larger, number + place - 1, room)].set(face, mode="drop")
        return buffer, noted, number + place[-1]

    buffer = _Buffer(jnp.full((pixels,), jnp.inf), jnp.full((pixels,), room, jnp.int32))
    state = buffer, jnp.zeros((room,), jnp.int32), jnp.zeros((), jnp.int32)
    buffer, noted, number = jax.lax.fori_loop(0, (count + block - 1) // block, look, state)

    # So many that the number of their tiles is an int32.
    most = -(-camera.height // _TILE) * -(-camera.width // _TILE)
    group = max(min(_GROUP, room, 2**30 // most), 1)

    def draw_group(i: Array, buffer: _Buffer) -> _Buffer:
        place = i * group + jnp.arange(group, dtype=jnp.int32)
        face = noted.at[place].get(mode="clip")
        corners = corners_of(local, faces[face])
        boxes = pixel_boxes(corners, place < number, camera, near)
        across, down = (-(-side // _TILE) for side in (boxes.width, boxes.height))
        end = jnp.cumsum(across * down)

        def draw_tiles(j: Array, buffer: _Buffer) -> _Buffer:
            tile = j * _TILES + jnp.arange(_TILES, dtype=jnp.int32)
            owner = jnp.searchsorted(end, tile, side="right").astype(jnp.int32)
            owner = jnp.minimum(owner, group - 1)
            whose = jax.tree.map(lambda leaf: leaf[owner], (face, corners, boxes, across, end))
            its_face, its_corners, box, columns, its_end = whose
            own = tile - (its_end - columns * -(-box.height // _TILE))
            row = own // jnp.maximum(columns, 1)
            column = own - row * columns
            box = box._replace(left=box.left + _TILE * column, top=box.top + _TILE * row)
            valid = tile < end[-1]
            return _draw(_TILE, buffer, its_face, its_corners, box, valid, camera, near)

        return jax.lax.fori_loop(0, (end[-1] + _TILES - 1) // _TILES, draw_tiles, buffer)

    return jax.lax.fori_loop(0, (number + group - 1) // group, draw_group, buffer)


def _draw(
    window: int,
    buffer: _Buffer,
    face: Array,
    corners: Corners,
    boxes: Boxes,
    valid: Array,
    camera: Camera,
    near: Array | float,
) -> _Buffer:
    """The z-buffer with the pixels of each valid face in a window at the corner of its box."""
    pixels = buffer.depth.shape[0]

    def cover() -> tuple[Array, Array]:
        steps = jnp.arange(window, dtype=jnp.int32)
        # [row, column, face]: long loops are fast ones, and the innermost is over the faces.
        column, row = boxes.left[None] + steps[:, None], boxes.top[None] + steps[:, None]
        x, y = _rays(camera, column, row)
        here = jax.tree.map(lambda leaf: leaf[None, None], corners)
        e, t = _edges(here, x[None], y[:, None])
        weights, sign = _weights(e)
        z = _dot(weights, here.z)
        covered = valid[None, None] & (z >= near)  # z is 0 where s is
        covered &= (column <= boxes.right[None])[None] & (row <= boxes.bottom[None])[:, None]
        for edge, tolerance in zip(e, t, strict=True):
            covered &= sign * edge >= -tolerance
        # From -pixels to -1: zero is then none, as `_kept` needs it.
        return jnp.where(covered, row[:, None] * camera.width + column[None] - pixels, 0), z

    pixel, z = _kept(valid, cover)
    who = jnp.broadcast_to(face[None, None], pixel.shape).reshape(-1)
    pixel, z = pixel.reshape(-1) + pixels, z.reshape(-1)
    before = buffer.depth.at[pixel].get(mode="fill", fill_value=-1.0)
    pixel = jnp.where(z <= before, pixel, pixels)
    depth = buffer.depth.at[pixel].min(z, mode="drop")
    now = depth.at[pixel].get(mode="fill", fill_value=-1.0)
    # Forget who is no longer the nearest, then write the first of those who are.
    none = jnp.int32(jnp.iinfo(jnp.int32).max)
    known = buffer.face.at[jnp.where(now < before, pixel, pixels)].set(none, mode="drop")
    return _Buffer(depth, known.at[jnp.where(z == now, pixel, pixels)].min(who, mode="drop"))
