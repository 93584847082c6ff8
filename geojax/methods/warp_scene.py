"""A scene as all frames so far, each with its depth, before a dome: the plain RGBD warp.

    (1) look   the nearest of what all frames show (`geometry.warp`), else the dome, else a hole
    (2) learn  the whole frame, what it repeats of earlier ones too

The loop of the early blog posts on walking into a picture; the baseline of `mesh_scene`.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from geojax import pytree
from geojax.geometry import dome, warp
from geojax.geometry.camera import Camera
from geojax.geometry.dome import Dome
from geojax.geometry.warp import Frames
from geojax.methods.scene import Learnt, Scene, View


@pytree.register
@dataclass(frozen=True)
class WarpScene:
    """The frames, and the dome of what is far."""

    frames: Frames
    dome: Dome


def warp_scene(*, splat: int = 3, dome_rows: int = 256) -> Scene:
    """The functions of a scene of frames.

    Args:
      splat: see `warp.forward_warp`.
      dome_rows: see `dome.empty_dome`.

    Raises:
      ValueError: splat below 1.
    """
    if splat < 1:
        raise ValueError(f"splat={splat} must be at least 1 pixel")

    def start(height: int, width: int) -> WarpScene:
        # An array each: one may not be donated twice.
        fx, fy, cx, cy = (jnp.ones((1,)) for _ in range(4))
        cameras = Camera(jnp.eye(4)[None], fx, fy, cx, cy, height, width)
        frames = Frames(
            jnp.zeros((1, height, width, 3)),
            jnp.zeros((1, height, width)),
            cameras,
            jnp.zeros((), jnp.int32),
        )
        return WarpScene(frames, dome.empty_dome(dome_rows))

    return Scene(start, partial(look, splat=splat), learn)


@partial(jax.jit, static_argnames="splat")
def look(scene: WarpScene, camera: Camera, *, splat: int) -> View:
    """Equation (1)."""
    seen = warp.forward_warp(scene.frames, camera, splat)
    sky, known = dome.look(scene.dome, camera)
    far = seen.hole & known
    return View(
        image=jnp.where(far[..., None], sky, seen.image),
        depth=seen.depth,
        hole=seen.hole & ~known,
        far=far,
        vertex=jnp.full(seen.hole.shape, -1, jnp.int32),
    )


_paint = jax.jit(dome.paint, donate_argnums=0)


def learn(scene: WarpScene, camera: Camera, view: View, learnt: Learnt) -> WarpScene:
    """Equation (2); `scene` is consumed."""
    near = jnp.where(learnt.far, 0.0, learnt.depth)
    return WarpScene(
        warp.add_frame(scene.frames, learnt.image, near, camera),
        _paint(scene.dome, camera, learnt.image, learnt.far),
    )
