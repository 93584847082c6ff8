"""The face of an image model: what a method may ask of it.

Symbols: x image in [0, 1] [B, H, W, 3]; z latent [B, h, w, c]; t time step [B]; y condition of a
prompt [B, L, D]; theta parameters.
    (1) encode    x -> z_0              (3) embed     prompts -> y
    (2) decode    z_0 -> x              (4) denoise   (theta, z_t, t, y) -> eps
    (5) pixels    z = 2 x - 1, where the model works on pixels and not on latents

z_t = alpha_t z_0 + s_t eps with alpha, s of the schedule; z_0 has about unit variance.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from geojax.diffusion.schedule import Schedule

Params = Any
Image = Float[Array, "B H W 3"]
Latent = Float[Array, "B h w c"]
Condition = Float[Array, "B L D"]
Codec = Callable[[Params, Float[Array, "B ..."]], Float[Array, "B ..."]]
Embed = Callable[[Sequence[str]], Condition]
Denoise = Callable[[Params, Latent, Int[Array, "B"], Condition], Latent]


@dataclass(frozen=True)
class Prior:
    """An image model: its parameters and pure functions of them.

    Every function that is traced takes the parameters as an argument: pass `prior.params` through
    the step that you jit, and the weights never become constants of the compiled program. `embed`
    alone runs on the host and keeps the text encoder to itself; call it before the loop.

    Attributes:
      params: a pytree, in the type the prior computes in.
      encode: (params, image [B, H, W, 3] in [0, 1]) -> latent [B, h, w, c], scaled to about unit
        variance. Differentiable; the mean where the encoder is a distribution. Any H and W that
        the model's factor divides; best at `image_size`.
      decode: (params, latent [B, h, w, c]) -> image [B, H, W, 3], clipped to [0, 1].
      embed: prompts -> condition [B, L, D]. Warns with the exact text it cut where a prompt is
        over the token limit. "" is the unconditional prompt; ValueError for no prompts at all, a
        blank one, or a string in place of a list.
      denoise: (params, z [B, h, w, c], t [B] int, condition [B, L, D]) -> eps [B, h, w, c], the
        noise in z, whatever the network itself predicts. In z's type: keep z in float32.
      schedule: what t means.
      image_size: side of the images it was trained on, pixels.
      latent_size: the same in latents.
      latent_channels: c.
    """

    params: Params
    encode: Codec
    decode: Codec
    embed: Embed
    denoise: Denoise
    schedule: Schedule
    image_size: int
    latent_size: int
    latent_channels: int


def pixel_encode(params: Params, image: Image) -> Image:
    """Equation (5); the parameters are not used."""
    del params
    return 2.0 * image - 1.0


def pixel_decode(params: Params, latent: Image) -> Image:
    """Equation (5) backwards, clipped to [0, 1]; the parameters are not used."""
    del params
    return jnp.clip(0.5 * latent + 0.5, 0.0, 1.0)


def pixel_prior(
    params: Params, denoise: Denoise, embed: Embed, schedule: Schedule, image_size: int
) -> Prior:
    """A prior whose denoiser works on pixels: latents are images in [-1, 1], equation (5)."""
    return Prior(
        params=params,
        encode=pixel_encode,
        decode=pixel_decode,
        embed=embed,
        denoise=denoise,
        schedule=schedule,
        image_size=image_size,
        latent_size=image_size,
        latent_channels=3,
    )
