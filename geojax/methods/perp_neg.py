"""Perp-Neg in score distillation: away from the prompts of the views that are not seen.

Symbols: u, c_0 eps predicted without and with the prompt of the view, c_i with that of a wrong view
i, w_i <= 0 its weight, a the azimuth of the camera.
    (1)  c := u + D,  D = (c_0 - u) + sum_i w_i (c_i - u)_perp,  perpendicular to c_0 - u
    (2)  c_1 the front (azimuth 0), c_2 the side that is nearer (sign(sin a) pi / 2), at the
         elevation of the camera; w(a) of `diffusion.guidance.perp_neg_weights`

The weights were found with one name for all of the front half; a finer table of prompts takes them
over as they are.

Armandpour et al., "Re-imagine the negative prompt algorithm" (2023). D is that of
`diffusion.guidance`, equation 2; what becomes of c is any `score_distillation.Loss`.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from geojax.diffusion.guidance import perp_neg, perp_neg_weights
from geojax.diffusion.schedule import Schedule
from geojax.methods.score_distillation import (
    SDS,
    Denoise,
    Guidance,
    Loss,
    Scores,
    diffuse,
    predict,
)
from geojax.methods.surrogate import DistillationMetrics, distill
from geojax.methods.view_prompts import interpolate_view_embeddings


def perp_neg_loss(
    key: Key[Array, ""],
    denoise: Denoise,
    schedule: Schedule,
    x: Float[Array, "b *d"],
    t: Int[Array, "b"],
    cond: Float[Array, "b l c"],
    uncond: Float[Array, "b l c"],
    negatives: Float[Array, "n b l c"],
    weights: Float[Array, "n b"],
    guidance: Guidance,
    loss: Loss = SDS,
) -> tuple[Float[Array, ""], DistillationMetrics]:
    """Any loss of the family with equation (1): one call of batch (2 + N) B.

    Args:
        key, denoise, schedule, x, t, cond, uncond, guidance, loss: as in
            `score_distillation_loss`; the noise is random.
        negatives: [N, B, L, D], prompts of the wrong views, and
        weights: [N, B] (`diffusion.guidance.perp_neg_weights`).
    """
    z, noise = diffuse(key, schedule, x, t)
    conds = jnp.concatenate([uncond[None], cond[None], negatives])
    eps = predict(denoise, z, t, conds)
    direction = perp_neg(eps[0], eps[1], eps[2:], weights)
    scores = Scores(noise, eps[0], eps[0] + direction, t, guidance)
    return distill(x, loss.residual(scores), loss.weighting(schedule, t), t)


def wrong_views(
    embeddings: Float[Array, "e k l d"],
    elevations: Float[Array, "e"],
    azimuth: Float[Array, "b"],
    elevation: Float[Array, "b"],
) -> tuple[Float[Array, "2 b l d"], Float[Array, "2 b"]]:
    """Prompts to keep away from and their weights, equation (2).

    Args:
        embeddings: [E, K, L, D], the prompt from every side, and
        elevations: [E] of its rows, as `interpolate_view_embeddings` takes them.
        azimuth: [B], radians, any turn.
        elevation: [B], radians.

    Returns:
        negatives [2, B, L, D] and weights [2, B], for `perp_neg_loss`.
    """
    nearer_side = jnp.where(jnp.sin(azimuth) < 0.0, -0.5 * jnp.pi, 0.5 * jnp.pi)
    negatives = [
        interpolate_view_embeddings(embeddings, elevations, at, elevation)
        for at in (jnp.zeros_like(azimuth), nearer_side.astype(azimuth.dtype))
    ]
    return jnp.stack(negatives), perp_neg_weights(azimuth)
