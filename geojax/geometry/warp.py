"""Plain warp: pictures with depth, projected forward into another camera.

Symbols: source pixel (u, v) with z-depth z, world point X; target pixel (u', v') with depth z';
f, f' focal lengths; w the side of a source pixel as the target sees it, in target pixels.
    (1)  X = unproject(u, v, z),   (u', v', z') = project(X),   kept where z' >= near
    (2)  w = max(1, (f' / z') / (f / z))
    (3)  a point covers the pixel that it falls in, and those of a k x k window whose centres lie
         within w / 2 + SLACK of (u', v') along both axes
    (4)  z-buffer: of the points over a pixel the nearest wins; of equally near ones the frame and
         then the pixel that comes first. A hole is a pixel that no point covers
    (5)  soft: x'(p) = sum_i b_i e_i x_i / sum_i b_i e_i with bilinear b_i,
         e_i = exp(20 n_i - 10), n = 1 / z' scaled to [0, 1]; a hole has sum_i b_i < 1/2

(1) is exact for a static world. (2) and (3) are ours: with a footprint of fixed size an identity
move grows every near thing by a pixel; here w = 1, and it returns the picture. (5) is softmax
splatting, Niklaus and Liu (2020), eq. 7, with the importance that SceneScape (2023) takes.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from geojax import pytree
from geojax.geometry.camera import Camera, pixel_centers, project, unproject

SLACK = 0.2
"""Pixels: closes the cracks of a surface that the new view stretches by up to 1.4. Below 0.5."""
NEAR = 1e-3
IMPORTANCE = 20.0


@pytree.register
@dataclass(frozen=True)
class Frames:
    """RGBD frames of a walk, with room for more; the first `count` are there.

    Attributes:
      images: [N, H, W, 3].
      depths: [N, H, W], z-depth; what is not finite and positive is not there.
      cameras: of batch shape [N].
      count: int32.
    """

    images: Float[Array, "N H W 3"]
    depths: Float[Array, "N H W"]
    cameras: Camera
    count: Int[Array, ""]

    @property
    def capacity(self) -> int:
        """How many frames there is room for."""
        return self.depths.shape[0]


class Warped(NamedTuple):
    """A view of the frames from another camera; in holes image 0, depth 0."""

    image: Float[Array, "h w 3"]
    depth: Float[Array, "h w"]
    hole: Bool[Array, "h w"]


def single_frame(
    image: Float[Array, "H W 3"], depth: Float[Array, "H W"], camera: Camera
) -> Frames:
    """Frames of one picture, without room for another."""
    first = jax.tree.map(lambda leaf: leaf[None], camera)
    return Frames(image[None], depth[None], first, jnp.ones((), jnp.int32))


def add_frame(
    frames: Frames, image: Float[Array, "H W 3"], depth: Float[Array, "H W"], camera: Camera
) -> Frames:
    """One frame more. `frames` is consumed; capacity doubles when it is full (and recompiles).

    Raises:
      ValueError: another size than that of the frames so far.
    """
    held, new = frames.images.shape[1:3], image.shape[:2]
    if held != new or new != (camera.height, camera.width):
        raise ValueError(
            f"frames are {held[0]}x{held[1]}, the new one is {new[0]}x{new[1]} with a camera of "
            f"{camera.height}x{camera.width}"
        )
    if int(frames.count) == frames.capacity:

        def double(leaf: Array) -> Array:
            return jnp.concatenate([leaf, jnp.zeros_like(leaf)]) if leaf.ndim else leaf

        frames = jax.tree.map(double, frames)
    return _put_frame(frames, image, depth, camera)


@partial(jax.jit, donate_argnums=0)
def _put_frame(frames: Frames, image: Array, depth: Array, camera: Camera) -> Frames:
    at = frames.count
    cameras = jax.tree.map(lambda all_, one: all_.at[at].set(one), frames.cameras, camera)
    return Frames(frames.images.at[at].set(image), frames.depths.at[at].set(depth), cameras, at + 1)


@partial(jax.jit, static_argnames="splat")
def forward_warp(
    frames: Frames, target: Camera, splat: int = 3, near: float | Float[Array, ""] = NEAR
) -> Warped:
    """What the frames show of a new view, by the z-buffer of equations (1) to (4).

    The time grows with the number of frames, not with the room for them.

    Args:
      frames: one or more; see `single_frame`.
      target: one camera, of any size and intrinsics.
      splat: k of equation (3), pixels; 1 covers one pixel a point and leaves cracks.
      near: what is nearer to the target is not seen.

    Returns:
      Where several frames show a point it has the colour of the one whose point is nearest.

    Raises:
      ValueError: splat < 1.
    """
    if splat < 1:
        raise ValueError(f"splat must be at least 1 pixel, got {splat}")
    height, width = target.height, target.width
    count = frames.depths[0].size
    order = jnp.arange(count, dtype=jnp.int32)
    window = jnp.arange(splat, dtype=jnp.int32)
    size = jnp.asarray([[width, height]], jnp.int32)

    def paint(index: Array, canvas: tuple[Array, Array]) -> tuple[Array, Array]:
        depth_so_far, image_so_far = canvas
        frame = frames.depths[index]
        camera = frames.cameras[index]
        pixels, depth = _move(frame, camera, target)
        valid = _present(frame).reshape(-1) & (depth >= near)
        pixels, depth = jnp.where(valid[:, None], pixels, -1.0), jnp.where(valid, depth, 1.0)
        scale = jnp.sqrt(target.fx * target.fy / (camera.fx * camera.fy))
        side = scale * jnp.where(valid, frame.reshape(-1), 0.0) / depth
        reach = 0.5 * jnp.maximum(side, 1.0) + SLACK
        # Floats beyond an integer's range become a number that means nothing: clip them first.
        inside = jnp.clip(pixels, -splat, size.astype(jnp.float32) + splat)
        first = jnp.floor(inside - 0.5 * (splat - 1)).astype(jnp.int32)
        cell = first[:, None] + window[None, :, None]  # [points, k, 2], columns and rows
        near_enough = (
            jnp.abs(cell.astype(jnp.float32) + 0.5 - pixels[:, None]) <= reach[:, None, None]
        )
        covers = near_enough | (cell == jnp.floor(inside).astype(jnp.int32)[:, None])
        covers &= (cell >= 0) & (cell < size[None])
        flat = cell[:, :, None, 1] * width + cell[:, None, :, 0]  # [points, rows, columns]
        written = covers[:, :, None, 1] & covers[:, None, :, 0] & valid[:, None, None]
        flat = jnp.where(written, flat, height * width)
        # One value for the write and for the comparison: a recomputed one may differ by a bit.
        depth = jax.lax.optimization_barrier(depth)
        spread = jnp.broadcast_to(depth[:, None, None], flat.shape)
        nearest = jnp.full((height * width,), jnp.inf).at[flat].min(spread, mode="drop")
        wins = nearest.at[flat].get(mode="fill", fill_value=-1.0) == spread
        who = jnp.where(wins, order[:, None, None], jnp.int32(count))
        source = jnp.full((height * width,), count, jnp.int32).at[flat].min(who, mode="drop")
        better = nearest < depth_so_far
        colours = frames.images[index].reshape(-1, 3)[jnp.minimum(source, count - 1)]
        return (
            jnp.where(better, nearest, depth_so_far),
            jnp.where(better[:, None], colours, image_so_far),
        )

    blank = jnp.full((height * width,), jnp.inf), jnp.zeros((height * width, 3))
    depth, image = jax.lax.fori_loop(0, frames.count, paint, blank)
    hole = jnp.isinf(depth).reshape(height, width)
    depth = jnp.where(hole, 0.0, depth.reshape(height, width))
    return Warped(image.reshape(height, width, 3), depth, hole)


@jax.jit
def soft_warp(frames: Frames, target: Camera, near: float | Float[Array, ""] = NEAR) -> Warped:
    """The same by softmax splatting, equation (5): differentiable in images and depths.

    Near and far mix, the more the nearer they are; surfaces that the new view stretches more than
    twofold fall apart into holes.
    """
    height, width = target.height, target.width
    pixels, depth = jax.vmap(_move, in_axes=(0, 0, None))(frames.depths, frames.cameras, target)
    there = _present(frames.depths) & _held(frames)
    valid = there.reshape(-1) & (depth.reshape(-1) >= near)
    depth = jnp.where(valid, depth.reshape(-1), 1.0)
    size = jnp.asarray([[width, height]], jnp.float32)
    place = jnp.clip(jnp.where(valid[:, None], pixels.reshape(-1, 2), -2.0), -2.0, size + 2.0) - 0.5
    disparity = 1.0 / depth
    low = jnp.min(jnp.where(valid, disparity, jnp.inf))
    high = jnp.max(jnp.where(valid, disparity, -jnp.inf))
    span = jnp.where(high > low, high - low, 1.0)
    nearness = jnp.where(valid, (disparity - low) / span, 0.0)
    importance = jnp.where(valid, jnp.exp(IMPORTANCE * nearness - 0.5 * IMPORTANCE), 0.0)
    values = jnp.concatenate([frames.images.reshape(-1, 3), depth[:, None]], axis=1)
    # Columns: weighted colour and depth, the weight, and the bilinear coverage alone.
    layers = jnp.concatenate(
        [values * importance[:, None], importance[:, None], valid[:, None].astype(jnp.float32)], 1
    )
    corner = jnp.floor(place)
    total = jnp.zeros((height * width, 6))
    for step in ((0, 0), (1, 0), (0, 1), (1, 1)):
        cell = corner + jnp.asarray([step], jnp.float32)
        weight = jnp.prod(1.0 - jnp.abs(place - cell), axis=1)
        column, row = jnp.unstack(cell.astype(jnp.int32), axis=1)
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        flat = jnp.where(inside, row * width + column, height * width)
        total = total.at[flat].add(layers * weight[:, None], mode="drop")
    hole = total[:, 5] < 0.5
    mean = jnp.where(hole[:, None], 0.0, total[:, :4] / jnp.where(hole, 1.0, total[:, 4])[:, None])
    return Warped(
        mean[:, :3].reshape(height, width, 3),
        mean[:, 3].reshape(height, width),
        hole.reshape(height, width),
    )


def _held(frames: Frames) -> Array:
    return (jnp.arange(frames.capacity, dtype=jnp.int32) < frames.count)[:, None, None]


def _present(depth: Array) -> Array:
    return jnp.isfinite(depth) & (depth > 0)


def _move(depth: Array, source: Camera, target: Camera) -> tuple[Array, Array]:
    """Equation (1) for one frame: pixels [H * W, 2] and depths [H * W] in the target."""
    pixels = pixel_centers(*depth.shape).reshape(-1, 2)
    z = jnp.where(_present(depth), depth, 1.0).reshape(-1)
    return project(target, unproject(source, pixels, z))
