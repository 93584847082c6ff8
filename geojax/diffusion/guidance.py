"""Guidance: one convention, everywhere in geojax.

Symbols
    eps_u, eps_c        predictions without and with the prompt
    g                   guidance scale; 0 ignores the prompt, 1 is the plain conditional model
    D_i                 eps_i - eps_u, the direction of prompt i; D_+ of the wanted prompt
    w_i                 weight of a negative prompt, <= 0 to repel
    r                   share of the first of the two prompts that a view lies between

Equations
    (1)  guided = eps_u + g D_c                                 Ho and Salimans 2022
    (2)  D = D_+ + sum_i w_i (D_i - (D_i . D_+ / |D_+|^2) D_+)  Armandpour et al. 2023

DreamFusion writes (1 + omega) eps_c - omega eps_u for (1): its omega is g - 1.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from geojax.diffusion.parameterization import per_item

Latent = Float[Array, "b *d"]
Condition = Float[Array, "b l d"]


def guided(
    eps_uncond: Float[Array, "b *d"],
    eps_cond: Float[Array, "b *d"],
    g: float | Float[Array, ""] | Float[Array, "b"],
) -> Float[Array, "b *d"]:
    """Classifier-free guidance, equation (1).

    Args:
        eps_uncond: [B, ...], prediction for the empty (or a negative) prompt.
        eps_cond: [B, ...], prediction for the prompt.
        g: guidance scale, one for all or one an item [B].
    """
    return eps_uncond + _scale(g, eps_cond) * (eps_cond - eps_uncond)


def guided_denoise(
    denoise: Callable[[Latent, Int[Array, "b"], Condition], Latent],
    condition: Condition,
    unconditional: Condition,
    g: float | Float[Array, ""] | Float[Array, "b"],
) -> Callable[[Latent, Int[Array, "b"]], Latent]:
    """A sampler's `denoise(z, t)`: both predictions of equation (1) in one call of the network.

    Args:
        denoise: (z, t, condition) -> eps; called with the batch stacked, [all, all again].
        condition: [B, L, D], of the prompts.
        unconditional: [B, L, D], of the empty or the negative ones.
        g: guidance scale, one for all or one an item [B].
    """
    both = jnp.concatenate([unconditional, condition])

    def predict(z: Latent, t: Int[Array, "b"]) -> Latent:
        eps = denoise(jnp.concatenate([z, z]), jnp.concatenate([t, t]), both)
        eps_uncond, eps_cond = jnp.split(eps, 2)
        return guided(eps_uncond, eps_cond, g)

    return predict


def perp_neg(
    eps_uncond: Float[Array, "b *d"],
    eps_pos: Float[Array, "b *d"],
    eps_neg: Float[Array, "n b *d"],
    weights: Float[Array, "n b"],
) -> Float[Array, "b *d"]:
    """Perp-Neg's direction D, equation (2): negatives act only at a right angle to the prompt.

    Args:
        eps_uncond: [B, ...].
        eps_pos: [B, ...], prediction for the wanted prompt.
        eps_neg: [N, B, ...], predictions for the unwanted prompts.
        weights: [N, B], usually negative (`perp_neg_weights`).

    Returns:
        D [B, ...]; the guided prediction is eps_uncond + g D. Dot products run over all axes but
        the batch. Where eps_pos = eps_uncond there is nothing to be at a right angle to, and the
        negatives act whole.
    """
    axes = tuple(range(1, eps_pos.ndim))
    pos = eps_pos - eps_uncond
    norm2 = jnp.sum(pos**2, axis=axes, keepdims=True)
    neg = eps_neg - eps_uncond[None]
    dots = jnp.sum(neg * pos[None], axis=tuple(a + 1 for a in axes), keepdims=True)
    share = dots / jnp.where(norm2 > 0, norm2, 1.0)[None]
    perpendicular = neg - share * pos[None]
    weights = weights.reshape(weights.shape + (1,) * len(axes)).astype(pos.dtype)
    return pos + jnp.sum(weights * perpendicular, axis=0)


def perp_neg_weights(azimuth: Float[Array, "b"]) -> Float[Array, "2 b"]:
    """Weights of the negative prompts "front view" and "side view" (rows 0, 1) by azimuth.

    The constants are those that threestudio publishes with its Perp-Neg recipes. With |a| in
    degrees, in the front half (r = 1 - |a| / 90)
        w_front = -(4 exp(-r / 2) - 2.426),  w_side = -(4 exp(-(1 - r) / 2) - 2.426),
    in the back half (r = 2 - |a| / 90)
        w_front = -(exp(-r / 2) + .967),     w_side = -(exp(-r / 2) - .606).
    They were found with a positive prompt between front and side in the front half, and between
    side and back in the back half.

    Args:
        azimuth: radians, any turn.
    """
    turn = jnp.abs(jnp.arctan2(jnp.sin(azimuth), jnp.cos(azimuth))) / (0.5 * jnp.pi)  # in [0, 2]
    r = 1.0 - turn
    front_half = jnp.stack([_decay(4.0, r, -2.426), _decay(4.0, 1.0 - r, -2.426)])
    r = 2.0 - turn
    back_half = jnp.stack([_decay(1.0, r, 0.967), _decay(1.0, r, -0.606)])
    return -jnp.where((turn <= 1.0)[None], front_half, back_half)


def _decay(scale: float, r: Float[Array, "b"], shift: float) -> Float[Array, "b"]:
    return scale * jnp.exp(-0.5 * r) + shift


def _scale(g: float | Float[Array, "..."], like: Float[Array, "b *d"]) -> Float[Array, "..."]:
    g = jnp.asarray(g, like.dtype)
    return g if g.ndim == 0 else per_item(g, like)
