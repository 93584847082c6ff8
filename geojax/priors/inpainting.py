"""Stable Diffusion with an image beside the noise: inpainting (9 channels) and depth (5 channels).

Symbols: x image in [0, 1]; m mask, 1 where to paint; z noisy latent, c channels; E the prior's
encode; d a map that is larger nearer (disparity, as DPT gives it).
    (1) inpainting   network input [z, m at the latent's size, E(x where m = 0, mid-grey elsewhere)]
    (2) depth        network input [z, d'],  d' = 2 (d - min d) / (max d - min d) - 1

Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models" (2022), section 4.5,
and the files of Stable Diffusion 1.5 and 2 "inpainting" and 2 "depth", whose order this is.

Two choices differ from diffusers. A cell of (1) is painted where *any* of its pixels is (diffusers
looks at one pixel of 64, and loses thin masks); a mask along the cells is the same in both. And
where d is constant d' is 0, not 0 / 0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from geojax.diffusion.parameterization import to_eps
from geojax.diffusion.schedule import Schedule
from geojax.priors.prior import Codec, Condition, Embed, Image, Latent, Params, Prior
from geojax.priors.stable_diffusion import DEPTH, INPAINTING, load_parts

Extra = Float[Array, "B h w e"]
GREY = 0.5  # 0 in the autoencoder's range


@dataclass(frozen=True)
class ConditionedPrior:
    """A `Prior` whose denoiser is shown more than the noisy latent.

    Attributes:
      denoise: (params, z [B, h, w, c], t [B], condition [B, L, D], extra [B, h, w, e]) -> eps.
      extra_channels: e; 1 + c for inpainting (`inpainting_channels`), 1 for depth
        (`depth_channels`).
      The others are those of `Prior`.
    """

    params: Params
    encode: Codec
    decode: Codec
    embed: Embed
    denoise: Callable[[Params, Latent, Int[Array, "B"], Condition, Extra], Latent]
    schedule: Schedule
    image_size: int
    latent_size: int
    latent_channels: int
    extra_channels: int

    def given(self, extra: Extra) -> Prior:
        """The prior of pictures that agree with `extra` [B, h, w, e]: what a method sees.

        Guidance stacks a batch several times over ([all, all again]); `extra` is then repeated in
        the same order.
        """

        def denoise(params: Params, z: Latent, t: Int[Array, "B"], condition: Condition) -> Latent:
            times = z.shape[0] // extra.shape[0]
            return self.denoise(params, z, t, condition, jnp.tile(extra, (times, 1, 1, 1)))

        return Prior(
            params=self.params,
            encode=self.encode,
            decode=self.decode,
            embed=self.embed,
            denoise=denoise,
            schedule=self.schedule,
            image_size=self.image_size,
            latent_size=self.latent_size,
            latent_channels=self.latent_channels,
        )


def load_inpainting(
    path: str | Path,
    *,
    dtype: DTypeLike = jnp.float32,
    implementation: str | None = None,
    **files: Any,
) -> ConditionedPrior:
    """The prior of an inpainting model, equation (1): SD 1.5's and 2's have 9 channels.

    Arguments (`files` are those of `open_model`) and errors as `load_stable_diffusion`; ValueError
    too for a UNet of another kind.
    """
    return _load(path, INPAINTING, dtype=dtype, implementation=implementation, **files)


def load_depth_conditioned(
    path: str | Path,
    *,
    dtype: DTypeLike = jnp.float32,
    implementation: str | None = None,
    **files: Any,
) -> ConditionedPrior:
    """The prior of a model like "stable-diffusion-2-depth", equation (2): 5 channels.

    Arguments (`files` are those of `open_model`) and errors as `load_stable_diffusion`; ValueError
    too for a UNet of another kind. The model's depth estimator is not loaded.
    """
    return _load(path, DEPTH, dtype=dtype, implementation=implementation, **files)


def latent_mask(mask: Bool[Array, "B H W"], factor: int) -> Bool[Array, "B h w"]:
    """The mask at a latent's size: a cell is painted where any of its pixels is.

    Args:
      mask: [B, H, W], sides divisible by `factor`.
      factor: pixels along a cell.

    Raises:
      ValueError: a side is not divisible.
    """
    batch, height, width = mask.shape
    if height % factor or width % factor:
        raise ValueError(f"mask {mask.shape} must have sides divisible by {factor}")
    cells = mask.reshape(batch, height // factor, factor, width // factor, factor)
    return jnp.any(cells, axis=(2, 4))


def inpainting_channels(
    prior: ConditionedPrior | Prior, params: Params, image: Image, mask: Bool[Array, "B H W"]
) -> Extra:
    """What equation (1) puts beside the noisy latent: [mask, latent of the masked image].

    Args:
      prior: encodes; a plain one will do, to train on these channels.
      params: its parameters.
      image: [B, H, W, 3] in [0, 1]; what is under the mask is not looked at.
      mask: [B, H, W], True where to paint.

    Returns:
      [B, h, w, 1 + c].
    """
    grey = jnp.asarray(GREY, image.dtype)
    seen = prior.encode(params, jnp.where(mask[..., None], grey, image))
    cells = latent_mask(mask, prior.image_size // prior.latent_size)
    return jnp.concatenate([cells[..., None].astype(seen.dtype), seen], axis=-1)


def painted_whole(prior: ConditionedPrior) -> Prior:
    """Equation (1) with m = 1 everywhere: the text-to-image model that an inpainting model is.

    It is as good a one as its training had whole pictures as holes.

    Raises:
      ValueError: a model that is shown something else than a mask and a latent.
    """
    if prior.extra_channels != 1 + prior.latent_channels:
        raise ValueError(
            f"expected an inpainting model with {1 + prior.latent_channels} channels beside the "
            f"noisy latent, got {prior.extra_channels}"
        )
    shape = (1, prior.image_size, prior.image_size)
    image, hole = jnp.full((*shape, 3), GREY), jnp.ones(shape, bool)
    return prior.given(inpainting_channels(prior, prior.params, image, hole))


def depth_channels(disparity: Float[Array, "B H W"], height: int, width: int) -> Extra:
    """What equation (2) puts beside the noisy latent.

    Args:
      disparity: [B, H, W], larger where nearer, up to any scale and shift; of any size.
      height: of the latent.
      width: of the latent.

    Returns:
      [B, height, width, 1] in [-1, 1]: bicubic, then stretched picture by picture; 0 where the map
      is constant.
    """
    rows, columns = (
        jnp.asarray(_bicubic(n, size), disparity.dtype)
        for n, size in zip(disparity.shape[1:], (height, width), strict=True)
    )
    small = jnp.einsum(
        "yh,bhw,xw->byx", rows, disparity, columns, precision=jax.lax.Precision.HIGHEST
    )
    low, high = (f(small, axis=(1, 2), keepdims=True) for f in (jnp.min, jnp.max))
    span = high - low
    # Rounding of the filter alone, on a constant map, is not depth.
    flat = span <= 1e-5 * jnp.maximum(jnp.abs(low), jnp.abs(high))
    stretched = 2.0 * (small - low) / jnp.where(flat, 1.0, span) - 1.0
    return jnp.where(flat, 0.0, stretched)[..., None]


def _bicubic(inputs: int, outputs: int) -> np.ndarray:
    """PyTorch's bicubic filter as a matrix [outputs, inputs]: a = -3/4, not antialiased.

    `jax.image.resize` has a = -1/2 and drops what lies outside; PyTorch repeats the edge.
    """
    at = (np.arange(outputs) + 0.5) * inputs / outputs - 0.5
    first = np.floor(at).astype(int) - 1
    matrix = np.zeros((outputs, inputs))
    for tap in range(4):
        d = np.abs(at - (first + tap))
        near = ((1.25 * d - 2.25) * d) * d + 1.0
        far = -0.75 * (((d - 5.0) * d + 8.0) * d - 4.0)
        index = np.clip(first + tap, 0, inputs - 1)
        np.add.at(matrix, (np.arange(outputs), index), np.where(d <= 1.0, near, far))
    return matrix


def _load(path: str | Path, wanted: str, **options: Any) -> ConditionedPrior:
    parts = load_parts(path, wanted=wanted, **options)

    def denoise(
        params: Params, z: Latent, t: Int[Array, "B"], condition: Condition, extra: Extra
    ) -> Latent:
        shown = jnp.concatenate([z, extra.astype(z.dtype)], axis=-1)
        output = parts.unet.apply({"params": params["unet"]}, shown, t, condition)
        return to_eps(parts.schedule, z, output, t, parts.prediction)

    return ConditionedPrior(
        params=parts.params,
        encode=parts.encode,
        decode=parts.decode,
        embed=parts.embed,
        denoise=denoise,
        schedule=parts.schedule,
        image_size=parts.image_size,
        latent_size=parts.latent_size,
        latent_channels=parts.latent_channels,
        extra_channels=parts.unet.config.in_channels - parts.latent_channels,
    )
