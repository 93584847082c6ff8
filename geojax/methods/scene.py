"""What a walk sees and remembers, whatever it is made of: the face of `mesh_scene`, `warp_scene`.

A scene is a pytree and three functions of it: an empty one, what it shows of a camera, and the same
scene after a view was painted. `start` and `learn` run on the host, since room grows in steps.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float, Int

from geojax.geometry.camera import Camera

State = Any


class View(NamedTuple):
    """What a scene shows of a camera.

    Attributes:
      image: [H, W, 3] in [0, 1]; 0 in the hole.
      depth: z-depth [H, W]; 0 in the hole and where it is far.
      hole: [H, W], nothing is known.
      far: [H, W], what is known is infinitely far.
      vertex: [H, W], vertex of the mesh that is seen, -1 where none; -1 everywhere of other scenes.
    """

    image: Float[Array, "H W 3"]
    depth: Float[Array, "H W"]
    hole: Bool[Array, "H W"]
    far: Bool[Array, "H W"]
    vertex: Int[Array, "H W"]


class Learnt(NamedTuple):
    """A view after it was painted: what the scene is to remember.

    Attributes:
      image: [H, W, 3] in [0, 1].
      depth: z-depth [H, W]; 0 where there is none.
      new: [H, W], was not known before.
      far: [H, W], is infinitely far.
    """

    image: Float[Array, "H W 3"]
    depth: Float[Array, "H W"]
    new: Bool[Array, "H W"]
    far: Bool[Array, "H W"]


class Scene(NamedTuple):
    """The functions of a kind of scene.

    Attributes:
      start: (height, width of the views) -> a scene of which nothing is known.
      look: (scene, camera) -> View. Jitted.
      learn: (scene, camera, view, learnt) -> scene; the old one is consumed.
    """

    start: Callable[[int, int], State]
    look: Callable[[State, Camera], View]
    learn: Callable[[State, Camera, View, Learnt], State]
