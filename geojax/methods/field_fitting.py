"""A field fitted to posed pictures, with or without their depth: NeRF, with a hash grid.

Symbols: ray o + t d of a pixel with colour c and, where known, z-depth z; C, A, D the colour,
opacity and expected z-depth of the field's rendering along it, H the entropy of its weights.
    (1)  L = mean |C - c|^2 + l_d mean' |D / z - 1| + l_s mean' (1 - A)^2 + l_e mean H,
         mean' over the rays of known depth
    (2)  a ray starts at distance near: nothing right before a camera can explain its picture alone
    (3)  PSNR = -10 log10 mean (C - c)^2

Mildenhall et al., "NeRF" (2020); the field is that of Müller et al., "Instant NGP" (2022); depth
as in Deng et al., "Depth-supervised NeRF" (2022), by the expected depth. All lengths are those of
the field's ball: `geometry/bounding_ball` brings cameras of any scale into it.

The average of the parameters that `train_state` keeps is what is looked at.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree, UInt8

from geojax.geometry.camera import Camera
from geojax.methods.radiance import RayBatch, Rendering, ray_batch, render_rays
from geojax.methods.train_state import TrainState, descend
from geojax.models.fields import Field

Metrics = dict[str, Float[Array, ""]]
BackgroundOf = Callable[[PyTree, Float[Array, "N 3"]], Float[Array, "N C"]]
Behind = tuple[float, float, float] | BackgroundOf

PSNR_LIMIT = 100.0
"""Of equal pictures, dB."""


class Views(NamedTuple):
    """What is fitted; an argument of the step, so that it is no constant of the program.

    Attributes:
      camera: [F], in the units of the ball.
      image: colours as stored, sRGB.
      depth: z-depth in the units of the ball, 0 where unknown.
      pixels: flat indices (f H + row) W + column of the pixels that count.
    """

    camera: Camera
    image: UInt8[Array, "F H W 3"]
    depth: Float[Array, "F H W"]
    pixels: Int[Array, "P"]


class Target(NamedTuple):
    """What rays should see: rgb in [0, 1], z-depth or 0."""

    rgb: Float[Array, "R 3"]
    depth: Float[Array, "R"]


@dataclasses.dataclass(frozen=True)
class Weights:
    """l_d, l_s and l_e of equation (1)."""

    depth: float = 0.0
    solid: float = 0.0
    entropy: float = 0.0


class Renderer(NamedTuple):
    """How a field is looked at.

    Attributes:
      field: in the ball of radius 1.
      samples: intervals of a ray, and
      importance: of its second pass, where the first one found something; 0 for none.
      near: distance at which rays start, equation (2).
      behind: colour behind the field, or (params, directions) -> colour learnt with it.
    """

    field: Field
    samples: int
    importance: int
    near: float
    behind: Behind

    def rays(self, camera: Camera) -> RayBatch:
        """The rays of cameras [B], in one list, from `near` on."""
        background = None if callable(self.behind) else jnp.asarray(self.behind, jnp.float32)
        rays = ray_batch(camera, background, None)
        return rays._replace(origins=rays.origins + self.near * rays.directions)

    def render(self, params: PyTree, rays: RayBatch, key: Key[Array, ""] | None) -> Rendering:
        """Renderings [R] of rays; depth is that from the camera. Without a key nothing is drawn."""
        behind = self.behind
        out = render_rays(
            self.field.apply,
            params,
            rays,
            key,
            samples=self.samples,
            radius=1.0,
            importance=self.importance,
            background=(lambda d: behind(params, d)) if callable(behind) else None,
        )
        return out._replace(depth=out.depth + self.near * rays.z_scale)


def all_pixels(kept: Bool[np.ndarray, "F H W"]) -> Int[np.ndarray, "P"]:
    """Flat indices of the pixels that count, for `Views`.

    Raises:
      ValueError: none counts, or 2^31 and more, which int32 cannot number.
    """
    if kept.size >= 2**31:
        raise ValueError(f"{kept.size} pixels are 2^31 or more: fit fewer or smaller frames")
    found = np.flatnonzero(kept).astype(np.int32)
    if not len(found):
        raise ValueError("the masks leave no pixel to fit")
    return found


def draw_rays(
    key: Key[Array, ""], views: Views, renderer: Renderer, count: int
) -> tuple[RayBatch, Target]:
    """Rays of pixels drawn evenly from those that count, and what they should see."""
    height, width = views.camera.height, views.camera.width
    chosen = jax.random.randint(key, (count,), 0, views.pixels.shape[0])
    flat = views.pixels[chosen]
    frame, row, column = flat // (height * width), flat // width % height, flat % width
    # A camera of one pixel: its principal point is seen from that pixel's corner.
    whole = views.camera[frame]
    one = dataclasses.replace(
        whole,
        cx=whole.cx - column.astype(jnp.float32),
        cy=whole.cy - row.astype(jnp.float32),
        height=1,
        width=1,
    )
    rgb = views.image.reshape(-1, 3)[flat].astype(jnp.float32) / 255.0
    return renderer.rays(one), Target(rgb, views.depth.reshape(-1)[flat])


def fitting_loss(
    rendering: Rendering, target: Target, weights: Weights
) -> tuple[Float[Array, ""], Metrics]:
    """Equation (1); finite where no depth is known."""
    known = (target.depth > 0.0).astype(jnp.float32)
    count = jnp.maximum(jnp.sum(known), 1.0)
    colour = jnp.mean((rendering.rgb - target.rgb) ** 2)
    safe = jnp.where(target.depth > 0.0, target.depth, 1.0)
    depth = jnp.sum(known * jnp.abs(rendering.depth / safe - 1.0)) / count
    solid = jnp.sum(known * (1.0 - rendering.opacity) ** 2) / count
    entropy = jnp.mean(rendering.entropy)
    total = colour + weights.depth * depth + weights.solid * solid + weights.entropy * entropy
    figures = {
        "loss": total,
        "psnr": -10.0 * jnp.log10(jnp.maximum(colour, 1e-10)),
        "depth_error": depth,
        "opacity": jnp.mean(rendering.opacity),
        "entropy": entropy,
    }
    return total, figures


def fitting_step(
    renderer: Renderer,
    optimiser: optax.GradientTransformation,
    weights: Weights,
    *,
    rays: int,
    decay: float,
) -> Callable[[TrainState, Views], tuple[TrainState, Metrics]]:
    """One step of descent on equation (1), jitted; the state is donated.

    Args:
      renderer: of the field that is fitted.
      optimiser: of its parameters.
      weights: of the loss.
      rays: drawn in a step.
      decay: of the average of the parameters.
    """

    def step(state: TrainState, views: Views) -> tuple[TrainState, Metrics]:
        def loss(params: Any, key: Key[Array, ""]) -> tuple[Float[Array, ""], Metrics]:
            draw, jitter = jax.random.split(key)
            batch, target = draw_rays(draw, views, renderer, rays)
            return fitting_loss(renderer.render(params, batch, jitter), target, weights)

        return descend(state, loss, optimiser, decay)

    return jax.jit(step, donate_argnums=0)


def picture_function(renderer: Renderer, chunk: int) -> Callable[[PyTree, Camera], Rendering]:
    """(params, camera []) -> Rendering [H, W], jitted, without jitter, `chunk` rays at a time."""

    def picture(params: PyTree, camera: Camera) -> Rendering:
        rays = renderer.rays(jax.tree.map(lambda leaf: leaf[None], camera))
        total = camera.height * camera.width
        size = min(chunk, total)
        count = -(-total // size)

        def cut(x: Array) -> Array:
            pad = [(0, count * size - total)] + [(0, 0)] * (x.ndim - 1)
            return jnp.pad(x, pad, mode="edge").reshape(count, size, *x.shape[1:])

        out = jax.lax.map(lambda r: renderer.render(params, r, None), jax.tree.map(cut, rays))
        # Numbers of a chunk as a whole have no pixels.
        out = out._replace(dropped=jnp.mean(out.dropped), occupied=jnp.max(out.occupied))
        shape = (camera.height, camera.width)
        return jax.tree.map(
            lambda x: (
                x.reshape(-1, *x.shape[2:])[:total].reshape(*shape, *x.shape[2:]) if x.ndim else x
            ),
            out,
        )

    return jax.jit(picture)


def psnr(
    picture: Float[np.ndarray, "*b H W 3"],
    truth: Float[np.ndarray, "*b H W 3"],
    kept: Bool[np.ndarray, "*b H W"],
) -> float:
    """Equation (3) over the kept pixels of pictures clipped to [0, 1], dB; at most `PSNR_LIMIT`.

    Raises:
      ValueError: no pixel is kept.
    """
    if not kept.any():
        raise ValueError("the PSNR of no pixels")
    squared = (np.clip(picture, 0.0, 1.0) - truth)[kept].astype(np.float64) ** 2
    return float(min(-10.0 * np.log10(max(squared.mean(), 1e-30)), PSNR_LIMIT))
