"""A scene as one growing mesh before a dome: SceneScape's.

Symbols: k samples along a side of a pixel; z_i, c_i depth and colour of its samples on the mesh.
    (1) colour   mean of c_i; without any, that of the dome; without that, a hole
    (2) depth    mean of the z_i within NEARBY of the nearest

(1) Fridman et al., "SceneScape" (2023), released code: a mean over the samples that hit, at twice
the resolution. (2): a mean of near and far would be a surface that is nowhere.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped

from geojax import pytree
from geojax.geometry import depth_mesh, dome, rasterizer
from geojax.geometry.camera import Camera
from geojax.geometry.depth_mesh import SceneMesh
from geojax.geometry.dome import Dome
from geojax.methods.scene import Learnt, Scene, View

NEARBY = 0.05


@pytree.register
@dataclass(frozen=True)
class MeshScene:
    """The mesh of what is near, and the dome of what is far."""

    mesh: SceneMesh
    dome: Dome


def mesh_scene(*, antialias: int = 2, dome_rows: int = 256) -> Scene:
    """The functions of a mesh scene.

    Args:
      antialias: k, at least 1.
      dome_rows: see `dome.empty_dome`.

    Raises:
      ValueError: antialias below 1.
    """
    if antialias < 1:
        raise ValueError(f"antialias={antialias} must be at least 1")

    def start(height: int, width: int) -> MeshScene:
        pixels = height * width
        return MeshScene(depth_mesh.empty_mesh(2 * pixels, 4 * pixels), dome.empty_dome(dome_rows))

    return Scene(start, partial(look, antialias=antialias), learn)


@partial(jax.jit, static_argnames="antialias")
def look(scene: MeshScene, camera: Camera, *, antialias: int) -> View:
    """Equations (1) and (2)."""
    mesh = scene.mesh
    seen = rasterizer.rasterize(
        mesh.vertices, mesh.faces, mesh.face_count, rasterizer.supersampled(camera, antialias)
    )
    colors = rasterizer.interpolate(seen, mesh.faces, mesh.colors)
    hit = _samples(seen.face >= 0, antialias)
    count = jnp.sum(hit.astype(jnp.float32), axis=-1)
    some = count > 0
    image = jnp.sum(_samples(colors, antialias), axis=-2) / jnp.maximum(count, 1.0)[..., None]
    z = _samples(seen.depth, antialias)
    nearest = jnp.min(jnp.where(hit, z, jnp.inf), axis=-1, keepdims=True)
    close = hit & (z <= (1.0 + NEARBY) * nearest)
    weight = close.astype(jnp.float32)
    depth = jnp.sum(z * weight, axis=-1) / jnp.maximum(jnp.sum(weight, axis=-1), 1.0)
    # The vertex that lies nearest in the picture: of all samples, the largest weight.
    vertex = depth_mesh.nearest_vertex(seen.face, seen.barycentric, mesh.faces)
    largest = jnp.where(close, _samples(jnp.max(seen.barycentric, axis=-1), antialias), -1.0)
    best = jnp.argmax(largest, axis=-1)[..., None]
    vertex = jnp.take_along_axis(_samples(vertex, antialias), best, axis=-1)[..., 0]
    sky, known = dome.look(scene.dome, camera)
    far = ~some & known
    return View(
        image=jnp.where(some[..., None], image, jnp.where(far[..., None], sky, 0.0)),
        depth=jnp.where(some, depth, 0.0),
        hole=~some & ~known,
        far=far,
        vertex=jnp.where(some, vertex, -1),
    )


def _samples(values: Shaped[Array, "kh kw *c"], k: int) -> Shaped[Array, "h w samples *c"]:
    """[kH, kW, ...] to [H, W, k * k, ...]."""
    height, width = values.shape[0] // k, values.shape[1] // k
    split = values.reshape(height, k, width, k, *values.shape[2:])
    return jnp.moveaxis(split, 2, 1).reshape(height, width, k * k, *values.shape[2:])


def learn(scene: MeshScene, camera: Camera, view: View, learnt: Learnt) -> MeshScene:
    """The mesh with what is new and near, the dome with what is far; `scene` is consumed."""
    pixels = learnt.depth.size
    mesh = depth_mesh.with_room(scene.mesh, pixels, 2 * pixels)
    mesh, painted = _learn(mesh, scene.dome, camera, view, learnt)
    return MeshScene(mesh, painted)


@partial(jax.jit, donate_argnums=(0, 1))
def _learn(
    mesh: SceneMesh, far_away: Dome, camera: Camera, view: View, learnt: Learnt
) -> tuple[SceneMesh, Dome]:
    near = jnp.where(learnt.far, 0.0, learnt.depth)
    growth = depth_mesh.grow(mesh, camera, learnt.image, near, learnt.new, view.vertex)
    return depth_mesh.add(mesh, growth), dome.paint(far_away, camera, learnt.image, learnt.far)
