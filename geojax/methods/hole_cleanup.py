"""The hole of a warped or rendered view, made fit to be painted.

Symbols: m hole; x what the view shows, z its z-depth; r border of the previous view, p pixels wide,
with the depth of its nearest pixel; z_r depth of r in the new view, where it is seen.
    (1) opening    m' = dilate(erode m): thin cracks are no holes
    (2) cracks     m and not m': each takes the mean of its known neighbours, from the rim inwards
    (3) floaters   known pixels with z > (1 + margin) z_r are holes: they show through the surface
                   that goes on beyond the edge of the previous picture

Fridman et al., "SceneScape" (2023), released code: (1) with 3 x 3, (2) by Telea's inpainting, and
(3) for whatever r covers. The comparison of depths is ours: without it a walk that comes back
forgets what it saw there.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from geojax.geometry import warp
from geojax.geometry.camera import Camera
from geojax.methods.hole_filling import dilate, erode


class CleanView(NamedTuple):
    """A view whose hole is to be painted.

    Attributes:
      image: [H, W, 3]; anything in the hole.
      depth: [H, W]; 0 in the hole and where nothing is known.
      hole: [H, W], m' with the floaters.
      filled: [H, W], cracks that were filled: known now, and in no scene yet.
    """

    image: Float[Array, "H W 3"]
    depth: Float[Array, "H W"]
    hole: Bool[Array, "H W"]
    filled: Bool[Array, "H W"]


def clean(
    image: Float[Array, "H W 3"],
    depth: Float[Array, "H W"],
    hole: Bool[Array, "H W"],
    *,
    reach: int = 1,
) -> CleanView:
    """Equations (1) and (2).

    Args:
      image: x.
      depth: z, 0 where there is none (in the hole; of what is infinitely far).
      hole: m.
      reach: of erosion and dilation in pixels; cracks up to twice as wide are filled.
    """
    # Beyond the picture nothing is known: a strip along its border is no crack, however thin.
    margin = 2 * reach
    around = jnp.pad(hole, margin, constant_values=True)
    opened = dilate(erode(around[None], reach), reach)[0, margin:-margin, margin:-margin] & hole
    cracks = hole & ~opened
    near = ~hole & (depth > 0)
    disparity = jnp.where(near, 1.0 / jnp.where(near, depth, 1.0), 0.0)
    # Its own weight for depth: a neighbour without one has a colour all the same.
    values = jnp.concatenate(
        [image, disparity[..., None], near[..., None].astype(image.dtype)], axis=-1
    )
    values, known = _fill_inwards(values, ~hole, cracks, rounds=2 * reach)
    mean = values[..., 3] / jnp.maximum(values[..., 4], 1e-6)
    there = cracks & known & (values[..., 4] >= 0.5)
    depth = jnp.where(there, 1.0 / jnp.maximum(mean, 1e-6), jnp.where(hole, 0.0, depth))
    filled = cracks & known
    return CleanView(values[..., :3], depth, hole & ~filled, filled)


def _fill_inwards(
    values: Float[Array, "H W c"],
    known: Bool[Array, "H W"],
    wanted: Bool[Array, "H W"],
    rounds: int,
) -> tuple[Float[Array, "H W c"], Bool[Array, "H W"]]:
    """Equation (2): what is wanted takes the mean of its known neighbours, `rounds` times over."""

    def sums(x: Float[Array, "H W c"]) -> Float[Array, "H W c"]:
        return jax.lax.reduce_window(x, 0.0, jax.lax.add, (3, 3, 1), (1, 1, 1), "SAME")

    def fill(_: Int[Array, ""], state: tuple[Array, Array]) -> tuple[Array, Array]:
        values, known = state
        weight = known.astype(values.dtype)[..., None]
        count = sums(weight)
        next_to = wanted & ~known & (count[..., 0] > 0)
        mean = sums(values * weight) / jnp.maximum(count, 1.0)
        return jnp.where(next_to[..., None], mean, values), known | next_to

    return jax.lax.fori_loop(0, rounds, fill, (values, known))


def padded_camera(camera: Camera, border: int) -> Camera:
    """The same camera with `border` more pixels on each side of its picture."""
    return Camera(
        camera.camera_to_world,
        camera.fx,
        camera.fy,
        camera.cx + border,
        camera.cy + border,
        camera.height + 2 * border,
        camera.width + 2 * border,
    )


def floaters(
    before: Camera,
    depth_before: Float[Array, "H W"],
    camera: Camera,
    depth: Float[Array, "h w"],
    *,
    border: int,
    margin: float = 0.1,
) -> Bool[Array, "h w"]:
    """Equation (3): known pixels that are to be painted again.

    Args:
      before: camera of the previous view.
      depth_before: its z-depth [H, W]; 0 where there is none.
      camera: of the new view.
      depth: z of the new view, 0 in its hole.
      border: p in pixels, at least 1.
      margin: how much farther than the border a pixel may be.
    """
    ring = jnp.pad(depth_before, border, mode="edge")
    inner = jnp.zeros(depth_before.shape, bool)
    ring = jnp.where(jnp.pad(inner, border, constant_values=True), ring, 0.0)
    black = jnp.zeros((*ring.shape, 3))
    frames = warp.single_frame(black, ring, padded_camera(before, border))
    seen = warp.forward_warp(frames, camera)
    return ~seen.hole & (depth > (1.0 + margin) * seen.depth)
