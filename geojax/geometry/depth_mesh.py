"""A mesh of what a camera saw, grown view by view: a vertex a pixel, two faces a square of four.

Symbols: (u, v) pixel centre, z its z-depth, d = 1 / z, d' = d scaled to [0, 1] over the view;
X its world point; o the camera's position; n normal of a face, X_f its middle.
    (1) vertex         X = unproject(u, v, z)
    (2) faces          (bl, br, tr) and (tl, bl, tr) of a square: n towards the camera
    (3) edge           |Sobel d'| > EDGE, grown to 5 x 5 pixels
    (4) dropped        a face with a vertex on an edge and n . (X_f - o) / |X_f - o| >= GRAZING,
                       a face with two equal vertices
    (5) stitching      a square of new and old pixels takes, for an old one, the vertex of the face
                       that is seen there whose weight is the largest

Fridman et al., "SceneScape" (2023), section 3.2 and the released code, whose numbers these are: its
threshold exp(-12 m) < 0.3 is (3). There (5) takes the vertex nearest to the camera; the one nearest
in the picture bends the new faces least.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from geojax import pytree
from geojax.geometry.camera import Camera, pixel_centers, unproject

EDGE = 0.100331
GRAZING = -0.05


@pytree.register
@dataclass(frozen=True)
class SceneMesh:
    """Triangles with coloured vertices, and room for more; the first `*_count` are there.

    Attributes:
      vertices: [V, 3], world.
      colors: [V, 3] in [0, 1].
      faces: [F, 3], indices of vertices.
      vertex_count: int32.
      face_count: int32.
    """

    vertices: Float[Array, "V 3"]
    colors: Float[Array, "V 3"]
    faces: Int[Array, "F 3"]
    vertex_count: Int[Array, ""]
    face_count: Int[Array, ""]


class Growth(NamedTuple):
    """What a view adds: a vertex and two faces a pixel at most, of which the marked ones count.

    Attributes:
      vertices: [N, 3], N = H W.
      colors: [N, 3].
      is_vertex: [N].
      faces: [M, 3], indices of vertices as they will be in the mesh, M = 2 (H - 1) (W - 1).
      is_face: [M].
    """

    vertices: Float[Array, "N 3"]
    colors: Float[Array, "N 3"]
    is_vertex: Bool[Array, "N"]
    faces: Int[Array, "M 3"]
    is_face: Bool[Array, "M"]


def empty_mesh(vertices: int, faces: int) -> SceneMesh:
    """A mesh with room for so many vertices and faces.

    Raises:
      ValueError: room for none.
    """
    if vertices < 1 or faces < 1:
        raise ValueError(f"a mesh needs room for a vertex and a face, got {vertices} and {faces}")
    return SceneMesh(
        jnp.zeros((vertices, 3)),
        jnp.zeros((vertices, 3)),
        jnp.zeros((faces, 3), jnp.int32),
        # Two arrays: one may not be donated twice.
        jnp.zeros((), jnp.int32),
        jnp.zeros((), jnp.int32),
    )


def with_room(mesh: SceneMesh, vertices: int, faces: int) -> SceneMesh:
    """The mesh, its room doubled until so many more fit; what uses it then recompiles."""

    def roomy(leaf: Array, count: Array, more: int) -> Array:
        room = leaf.shape[0]
        while room < int(count) + more:
            room *= 2
        if room == leaf.shape[0]:
            return leaf
        return jnp.concatenate([leaf, jnp.zeros((room - leaf.shape[0], 3), leaf.dtype)])

    return SceneMesh(
        roomy(mesh.vertices, mesh.vertex_count, vertices),
        roomy(mesh.colors, mesh.vertex_count, vertices),
        roomy(mesh.faces, mesh.face_count, faces),
        mesh.vertex_count,
        mesh.face_count,
    )


def edges(disparity: Float[Array, "H W"]) -> Bool[Array, "H W"]:
    """Equation (3): where depth jumps.

    Args:
      disparity: d, of all pixels; 0 where nothing is.
    """
    low, high = jnp.min(disparity), jnp.max(disparity)
    span = high - low
    d = (disparity - low) / jnp.where(span > 0, span, 1.0)
    above, here, below = (
        jnp.pad(d, 1, mode="edge")[i : i + d.shape[0]] for i in range(3)
    )  # [H, W + 2] each
    smooth, slope = above + 2.0 * here + below, below - above
    across = smooth[:, 2:] - smooth[:, :-2]
    down = slope[:, :-2] + 2.0 * slope[:, 1:-1] + slope[:, 2:]
    steep = jnp.hypot(across, down) > EDGE
    return jax.lax.reduce_window(steep, False, jax.lax.max, (5, 5), (1, 1), "SAME")


def grid_faces(height: int, width: int) -> Int[np.ndarray, "M 3"]:
    """Equation (2): indices of pixels, row by row."""
    at = np.arange(height * width, dtype=np.int32).reshape(height, width)
    tl, tr, bl, br = at[:-1, :-1], at[:-1, 1:], at[1:, :-1], at[1:, 1:]
    pairs = [np.stack([bl, br, tr], axis=-1), np.stack([tl, bl, tr], axis=-1)]
    return np.stack(pairs, axis=2).reshape(-1, 3)


def facing(
    corners: Float[Array, "M 3 3"], position: Float[Array, "3"]
) -> tuple[Float[Array, "M"], Bool[Array, "M"]]:
    """n . view of each face, and whether it has an area."""
    normal = jnp.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    view = jnp.mean(corners, axis=1) - position[None]
    lengths = jnp.linalg.norm(normal, axis=-1) * jnp.linalg.norm(view, axis=-1)
    solid = lengths > 0
    return jnp.sum(normal * view, axis=-1) / jnp.where(solid, lengths, 1.0), solid


def grow(
    mesh: SceneMesh,
    camera: Camera,
    image: Float[Array, "H W 3"],
    depth: Float[Array, "H W"],
    new: Bool[Array, "H W"],
    seen: Int[Array, "H W"],
) -> Growth:
    """What the new pixels of a view add to a mesh, stitched to what was seen there before.

    Args:
      mesh: so far.
      camera: of the view.
      image: colours; read where `new`.
      depth: z-depth of all pixels, new and old; not positive or not finite where nothing is.
      new: pixels to add; those without a depth are not.
      seen: vertex of the mesh seen at a pixel (`nearest_vertex`), -1 where none.
    """
    there = jnp.isfinite(depth) & (depth > 0)
    z = jnp.where(there, depth, 1.0)
    new = new & there
    flat = new.reshape(-1)
    points = unproject(camera, pixel_centers(*depth.shape).reshape(-1, 2), z.reshape(-1))
    born = mesh.vertex_count + jnp.cumsum(flat.astype(jnp.int32)) - 1
    ids = jnp.where(flat, born, seen.reshape(-1))
    old = mesh.vertices[jnp.maximum(seen.reshape(-1), 0)]
    points = jnp.where(flat[:, None], points, old)
    jump = edges(jnp.where(there, 1.0 / z, 0.0)).reshape(-1)
    pixels = jnp.asarray(grid_faces(*depth.shape))
    cosine, solid = facing(points[pixels], camera.position)
    faces = ids[pixels]
    distinct = (
        (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 0] != faces[:, 2])
    )
    dropped = jnp.any(jump[pixels], axis=1) & (cosine >= GRAZING)
    touches = jnp.any(flat[pixels], axis=1) & jnp.all(faces >= 0, axis=1)
    return Growth(points, image.reshape(-1, 3), flat, faces, touches & distinct & solid & ~dropped)


@partial(jax.jit, donate_argnums=0)
def add(mesh: SceneMesh, growth: Growth) -> SceneMesh:
    """The mesh with a view's vertices and faces after its own; `mesh` is consumed, not copied.

    There must be room (`with_room`): what does not fit is lost.
    """

    def put(into: Array, values: Array, marked: Array, count: Array) -> tuple[Array, Array]:
        order = jnp.cumsum(marked.astype(jnp.int32))
        place = jnp.where(marked, count + order - 1, into.shape[0])
        return into.at[place].set(values, mode="drop"), count + order[-1]

    vertices, vertex_count = put(
        mesh.vertices, growth.vertices, growth.is_vertex, mesh.vertex_count
    )
    colors, _ = put(mesh.colors, growth.colors, growth.is_vertex, mesh.vertex_count)
    faces, face_count = put(mesh.faces, growth.faces, growth.is_face, mesh.face_count)
    return SceneMesh(vertices, colors, faces, vertex_count, face_count)


def nearest_vertex(
    face: Int[Array, "H W"], barycentric: Float[Array, "H W 3"], faces: Int[Array, "F 3"]
) -> Int[Array, "H W"]:
    """Equation (5): the vertex with the largest weight of the face seen at a pixel; -1 without."""
    corner = jnp.argmax(barycentric, axis=-1)
    found = jnp.take_along_axis(faces[jnp.maximum(face, 0)], corner[..., None], axis=-1)[..., 0]
    return jnp.where(face >= 0, found, -1)
