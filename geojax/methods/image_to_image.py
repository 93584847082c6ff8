"""Image to image: keep the layout of a picture, change what it shows.

Symbols: x image in [0, 1]; E, D the prior's encode and decode; N steps; q strength in [0, 1].
    (1)  z = alpha_t E(x) + s_t eps,  t the first of the last floor(q N) time steps
    (2)  x' = D(sample from z, by those steps)

Meng et al., "SDEdit: Guided Image Synthesis and Editing with Stochastic Differential Equations"
(2021), algorithm 1; the rounding of q N is that of diffusers. With a prior conditioned on depth
(`ConditionedPrior.given(depth_channels(...))`) this is Stable Diffusion 2's depth-to-image, which
takes q = 0.8.
"""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float, Int, Key

from geojax.diffusion.guidance import guided_denoise
from geojax.diffusion.samplers import Sampler, noised_start
from geojax.priors.prior import Condition, Image, Latent, Params, Prior


def prompted(
    prior: Prior, params: Params, condition: Condition, unconditional: Condition, guidance: float
) -> Callable[[Latent, Int[Array, "B"]], Latent]:
    """A sampler's `denoise(z, t)`: the prior with its prompts and guidance.

    Args:
      prior: the image model.
      params: its parameters.
      condition: [B, L, D], of the prompts.
      unconditional: [B, L, D], of "" or of what must not show.
      guidance: g of eps_u + g (eps_c - eps_u).
    """
    return guided_denoise(
        lambda z, t, y: prior.denoise(params, z, t, y), condition, unconditional, guidance
    )


def image_to_image(
    key: Key[Array, ""],
    prior: Prior,
    params: Params,
    image: Image,
    condition: Condition,
    unconditional: Condition,
    *,
    sampler: Sampler,
    steps: int,
    strength: float,
    guidance: float,
) -> Float[Array, "B H W 3"]:
    """Equations (1) and (2).

    Args:
      key: consumed.
      prior: the image model.
      params: its parameters.
      image: [B, H, W, 3] in [0, 1], sides divisible by the prior's factor.
      condition: [B, L, D], of the prompts.
      unconditional: [B, L, D], of "" or of what must not show.
      sampler: such as `samplers.DDIM`.
      steps: N, of the whole range.
      strength: q; 0 gives the image back, 1 leaves hardly a trace of it.
      guidance: g of eps_u + g (eps_c - eps_u).

    Returns:
      [B, H, W, 3] in [0, 1].

    Raises:
      ValueError: a strength outside [0, 1] or too low for one step, or steps outside the schedule.
    """
    if strength == 0.0:
        return image
    noise_key, sample_key = jax.random.split(key)
    latent = prior.encode(params, image)
    noise = jax.random.normal(noise_key, latent.shape, latent.dtype)
    z, start = noised_start(sampler, prior.schedule, latent, noise, steps, strength)
    denoise = prompted(prior, params, condition, unconditional, guidance)
    z = sampler.sample(sample_key, denoise, prior.schedule, z, steps, start=start)
    return prior.decode(params, z)
