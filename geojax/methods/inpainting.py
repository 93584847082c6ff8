"""Inpainting: paint where a mask is, and leave every other pixel as it is, bit for bit.

Symbols: x image in [0, 1]; m mask, 1 where to paint, M the same at the latent's size; x_0 the image
with its hole filled somehow (`hole_filling`); E, D encode and decode; q strength in [0, 1].
    (1) start      z = alpha_t E(x_0) + s_t eps  with q < 1;  z = eps  with q = 1
    (2) trained    a network that is shown [z, M, E(x outside m)]: sampling as usual
    (3) replaced   any network: after each step  z <- (1 - M) (alpha E(x_0) + s eps) + M z
    (4) result     x' = m D(z) + (1 - m) x
    (5) seam       (1)-(4) again, with the band along the hole's edge for a mask and x' for x_0
    (6) match      D(z) + spread(x - D(z)) of `edge_matching`, in place of D(z) in (4)

(2) Rombach et al. (2022), section 4.5. (3) is diffusers' way with a 4-channel model, eps the same
in every step; with fresh noise and `resampling` for a sampler it is RePaint (Lugmayr et al. 2022,
algorithm 1), the way to take where the network was not trained to inpaint. (4) is needed because D
alters even what was not to change; it leaves a step in colour at the hole's edge, which (6) takes
out. (5) is where a fill or a replacement shows.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from geojax.diffusion.samplers import Constrain, Sampler, noised_start
from geojax.methods.edge_matching import spread
from geojax.methods.hole_filling import dilate, seam_band
from geojax.methods.image_to_image import prompted
from geojax.priors.inpainting import ConditionedPrior, inpainting_channels, latent_mask
from geojax.priors.prior import Condition, Image, Latent, Params, Prior

Mask = Bool[Array, "B H W"]
Pixels = np.ndarray | jax.Array  # of the host or of a device


def check_mask(image: Float[Pixels, "*b H W 3"], mask: Bool[Pixels, "*c rows columns"]) -> None:
    """On the host, before anything is painted.

    Args:
      image: [..., H, W, 3].
      mask: [..., H, W], True where to paint.

    Raises:
      ValueError: a mask of another size, without a pixel to paint, or without one to keep.
    """
    if mask.shape[-2:] != image.shape[-3:-1]:
        (height, width), (rows, columns) = image.shape[-3:-1], mask.shape[-2:]
        raise ValueError(
            f"the mask is {columns}x{rows} pixels, the image {width}x{height}; they must be equal"
        )
    painted = int(np.sum(mask))
    if painted == 0:
        raise ValueError("the mask is empty: no pixel is to be painted")
    if painted == mask.size:
        raise ValueError("the mask is full: no pixel is to be kept; generate a picture instead")


def replacement(
    key: Key[Array, ""], known: Latent, cells: Bool[Array, "B h w"], noise: Latent, fresh: bool
) -> Constrain:
    """Equation (3), for a sampler.

    Args:
      key: consumed; of the noise in every step, where it is fresh.
      known: E(x_0) [B, h, w, c].
      cells: M [B, h, w], True where to paint.
      noise: eps [B, h, w, c], the one the sample started from.
      fresh: draw the noise of each step anew.
    """

    def constrain(
        z: Latent, i: Int[Array, ""], alpha: Float[Array, ""], s: Float[Array, ""]
    ) -> Latent:
        eps = noise
        if fresh:
            eps = jax.random.normal(jax.random.fold_in(key, i), noise.shape, noise.dtype)
        return jnp.where(cells[..., None], z, alpha * known + s * eps)

    return constrain


def match_edge(painted: Image, image: Image, mask: Mask, reach: float) -> Float[Array, "B H W 3"]:
    """Equation (6): no step in colour between what is painted and what is known.

    Args:
      painted: D(z) [B, H, W, 3], the known part with it.
      image: x [B, H, W, 3].
      mask: m [B, H, W], True where it is painted.
      reach: r of `edge_matching` in pixels, above 0; how far into the hole it corrects.

    Returns:
      [B, H, W, 3] in [0, 1].
    """
    return jnp.clip(painted + spread(image - painted, mask, reach), 0.0, 1.0)


def inpaint_latent(
    key: Key[Array, ""],
    prior: Prior | ConditionedPrior,
    params: Params,
    image: Image,
    mask: Mask,
    filled: Image,
    condition: Condition,
    unconditional: Condition,
    *,
    sampler: Sampler,
    steps: int,
    strength: float = 1.0,
    guidance: float,
    grow: int = 0,
    fresh: bool = False,
) -> Latent:
    """Equations (1)-(3): the latent z, for a caller who decodes it in a way of their own.

    Arguments and errors are those of `inpaint`; strength 0 gives E(x_0).
    """
    noise_key, sample_key, known_key = jax.random.split(key, 3)
    factor = prior.image_size // prior.latent_size
    batch, height, width = mask.shape
    shape = (batch, height // factor, width // factor, prior.latent_channels)
    noise = jax.random.normal(noise_key, shape, image.dtype)
    trained = isinstance(prior, ConditionedPrior)
    known = noise if trained and strength == 1.0 else prior.encode(params, filled)
    if strength == 0.0:
        return known
    z, start = noise, 0
    if strength != 1.0:
        z, start = noised_start(sampler, prior.schedule, known, noise, steps, strength)

    constrain = None
    if isinstance(prior, ConditionedPrior):
        if prior.extra_channels != 1 + prior.latent_channels:
            raise ValueError(
                f"the prior is shown {prior.extra_channels} channels beside the noise, an "
                f"inpainting model {1 + prior.latent_channels}"
            )
        prior = prior.given(inpainting_channels(prior, params, image, mask))
    else:
        cells = dilate(latent_mask(mask, factor), grow)
        constrain = replacement(known_key, known, cells, noise, fresh)
    denoise = prompted(prior, params, condition, unconditional, guidance)
    return sampler.sample(
        sample_key, denoise, prior.schedule, z, steps, start=start, constrain=constrain
    )


def inpaint(
    key: Key[Array, ""],
    prior: Prior | ConditionedPrior,
    params: Params,
    image: Image,
    mask: Mask,
    filled: Image,
    condition: Condition,
    unconditional: Condition,
    *,
    sampler: Sampler,
    steps: int,
    strength: float = 1.0,
    guidance: float,
    grow: int = 0,
    fresh: bool = False,
    match: float = 0.0,
) -> Float[Array, "B H W 3"]:
    """Equations (1)-(4), and (6) on request.

    Args:
      key: consumed.
      prior: of `load_inpainting`, for equation (2); or a plain one, for equation (3).
      params: its parameters.
      image: x [B, H, W, 3] in [0, 1], sides divisible by the prior's factor.
      mask: m [B, H, W], True where to paint.
      filled: x_0 [B, H, W, 3]. With strength 1 and a trained network it is not looked at.
      condition: [B, L, D], of the prompts.
      unconditional: [B, L, D], of "" or of what must not show.
      sampler: such as `samplers.DDIM`, or `resampling(...)` for a plain prior.
      steps: of the whole range.
      strength: q; 0 gives the filled image back.
      guidance: g of eps_u + g (eps_c - eps_u).
      grow: equation (3): paint so many more cells around M. A cell beside the hole is encoded with
        the fill in sight, so 1 is wise for a plain prior; diffusers has 0.
      fresh: equation (3): fresh noise in every step, as RePaint has it.
      match: equation (6): its reach in pixels; 0 leaves it out, as diffusers.

    Returns:
      x' [B, H, W, 3] in [0, 1]; where the mask is False, x itself.

    Raises:
      ValueError: a prior conditioned on something else, a strength outside [0, 1] or too low for
        one step, or steps outside the schedule.
    """
    keep = mask[..., None]
    if strength == 0.0:
        return jnp.where(keep, filled, image)
    z = inpaint_latent(
        key,
        prior,
        params,
        image,
        mask,
        filled,
        condition,
        unconditional,
        sampler=sampler,
        steps=steps,
        strength=strength,
        guidance=guidance,
        grow=grow,
        fresh=fresh,
    )
    painted = prior.decode(params, z)
    if match > 0.0:
        painted = match_edge(painted, image, mask, match)
    return jnp.where(keep, painted, image)


def inpaint_and_mend(
    key: Key[Array, ""],
    paint: Callable[..., Image],
    image: Image,
    mask: Mask,
    filled: Image,
    *,
    strength: float,
    seam: int,
    seam_strength: float = 0.5,
    outside: bool = False,
) -> Float[Array, "B H W 3"]:
    """A hole, and then its seam: equation (5).

    Args:
      key: consumed.
      paint: `inpaint` with its prior, prompts and sampler: (key, image, mask, filled, strength=).
      image: x [B, H, W, 3] in [0, 1].
      mask: m [B, H, W], True where to paint.
      filled: x_0 [B, H, W, 3].
      strength: of the hole.
      seam: width of the band in pixels; 0 leaves it out.
      seam_strength: of the band.
      outside: let the band reach `seam` pixels into what is known, and change it. By default it
        lies within the hole, and known pixels stay as they are.

    Raises:
      ValueError: a seam below 0.
    """
    if seam < 0:
        raise ValueError(f"the width of the seam must not be below 0, got {seam}")
    hole_key, seam_key = jax.random.split(key)
    painted = paint(hole_key, image, mask, filled, strength=strength)
    if seam == 0:
        return painted
    band = seam_band(mask, seam, outside=outside)
    return paint(seam_key, painted, band, painted, strength=seam_strength)
