"""Score distillation: an image model's opinion of a rendering, as a gradient.

Symbols
    x               rendering, or its latent [B, ...]; it alone carries a gradient
    z, n            alpha x + s n, with n ~ N(0, 1) the noise that was added
    eps_c, eps_u    predictions for z with and without the prompt; g the guidance scale
    delta           eps_c - eps_u
    residual        what a loss of this family compares; w(t) its weight

Equations
    (1)  grad_x = w(t) residual                                 Poole et al. 2022, eq. 3
    (2)  residual = eps_u + g delta - n                         "SDS"
    (3)  w = s^2 = 1 - abar                                     DreamFusion
    (4)  loss = .5 |x - sg(x - grad_x)|^2 / B                   its gradient is grad_x / B
    (5)  residual = eps_u + g D - n,  D Perp-Neg's direction    `diffusion.guidance`, eq. 2

The Jacobian of the network is left out, and everything in grad_x is stopped. A latent x must come
from a differentiable encoder: the gradient goes on through it.

A loss of this family is four lines; a new one brings a new third line:
    z, noise = diffuse(key, schedule, x, t)
    eps_u, eps_c = predict(denoise, z, t, jnp.stack([uncond, cond]))
    residual = sds(eps_c, eps_u, noise, g)
    loss, metrics = distill(x, residual, noise_variance(schedule, t), t)
`score_distillation_loss` is those lines for any residual of the arguments (eps_c, eps_u, noise, g).
`denoise(z, t, cond) -> eps` is closed over its parameters inside the caller's jitted step, which
takes them as an argument: weights must not become constants of the program.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from geojax.diffusion.guidance import guided, perp_neg
from geojax.diffusion.parameterization import add_noise, per_item
from geojax.diffusion.schedule import Schedule

Denoise = Callable[
    [Float[Array, "b *d"], Int[Array, "b"], Float[Array, "b l c"]], Float[Array, "b *d"]
]
Guidance = float | Float[Array, ""] | Float[Array, "b"]
Residual = Callable[
    [Float[Array, "b *d"], Float[Array, "b *d"], Float[Array, "b *d"], Guidance],
    Float[Array, "b *d"],
]
Weighting = Callable[[Schedule, Int[Array, "b"]], Float[Array, "b"]]


class DistillationMetrics(NamedTuple):
    """What to look at instead of the loss, whose value says little; all scalars."""

    grad_norm: Float[Array, ""]  # mean over the batch of |grad_x| of one item
    residual_rms: Float[Array, ""]  # root mean square of the residual
    coherence: Float[Array, ""]  # correlation of neighbouring pixels: 0 noise, 1 smooth signal
    mean_t: Float[Array, ""]  # mean time step
    finite: Bool[Array, ""]  # False when a residual held NaN or inf, before it was set to 0


def sds(
    eps_cond: Float[Array, "b *d"],
    eps_uncond: Float[Array, "b *d"],
    noise: Float[Array, "b *d"],
    g: Guidance,
) -> Float[Array, "b *d"]:
    """DreamFusion's residual, equation (2)."""
    return guided(eps_uncond, eps_cond, g) - noise


def noise_variance(schedule: Schedule, t: Int[Array, "b"]) -> Float[Array, "b"]:
    """w = 1 - abar_t, equation (3): little weight where there is little noise."""
    return 1.0 - schedule.abar(t)


def uniform(schedule: Schedule, t: Int[Array, "b"]) -> Float[Array, "b"]:
    """w = 1."""
    return jnp.ones_like(schedule.abar(t))


def diffuse(
    key: Key[Array, ""], schedule: Schedule, x: Float[Array, "b *d"], t: Int[Array, "b"]
) -> tuple[Float[Array, "b *d"], Float[Array, "b *d"]]:
    """(z, noise): x with fresh noise at t; stopped. `key` is consumed."""
    noise = jax.random.normal(key, x.shape, x.dtype)
    return add_noise(schedule, jax.lax.stop_gradient(x), noise, t), noise


def predict(
    denoise: Denoise,
    z: Float[Array, "b *d"],
    t: Int[Array, "b"],
    conds: Float[Array, "k b l c"],
) -> Float[Array, "k b *d"]:
    """The predictions of z under K conditions an item, in one call of batch B K; stopped.

    An item's K copies lie next to each other, so that a batch sharded over devices stays where it
    is.
    """
    count = conds.shape[0]
    by_item = jnp.moveaxis(conds, 0, 1).reshape(-1, *conds.shape[2:])
    eps = denoise(jnp.repeat(z, count, axis=0), jnp.repeat(t, count, axis=0), by_item)
    eps = eps.reshape(z.shape[0], count, *z.shape[1:])
    return jax.lax.stop_gradient(jnp.moveaxis(eps, 1, 0))


def sds_gradient(
    eps_hat: Float[Array, "b *d"], noise: Float[Array, "b *d"], weight: Float[Array, "b"]
) -> Float[Array, "b *d"]:
    """grad_x = w (eps_hat - noise), equation (1), of a guided prediction; NaN and inf become 0."""
    return _weighted(eps_hat - noise, weight)


def surrogate_loss(x: Float[Array, "b *d"], grad: Float[Array, "b *d"]) -> Float[Array, ""]:
    """A scalar whose gradient in x is grad / B, bit for bit; its value is .5 |grad|^2 / B, (4).

    Equation (4) as it stands loses the last digits of grad where |x| is larger: x - (x - grad) is
    not grad in floating point. So the value and the gradient are written apart.
    """
    grad = jax.lax.stop_gradient(grad)
    batch = x.shape[0]
    value = 0.5 * jnp.sum(grad**2) / batch
    return value + jnp.sum(grad / batch * (x - jax.lax.stop_gradient(x)))


def distill(
    x: Float[Array, "b *d"],
    residual: Float[Array, "b *d"],
    weight: Float[Array, "b"],
    t: Int[Array, "b"],
) -> tuple[Float[Array, ""], DistillationMetrics]:
    """Equations (1) and (4): the loss that sends w(t) residual into x, and its metrics.

    Args:
        x: [B, ...], rendering or latent.
        residual: [B, ...], as (2).
        weight: [B], w(t).
        t: [B].

    Returns:
        a scalar loss (a sum over pixels, a mean over the batch), and DistillationMetrics. What is
        not finite in a residual does not reach x: `metrics.finite` tells, and the caller decides.
    """
    residual = jax.lax.stop_gradient(residual)
    axes = tuple(range(1, x.ndim))
    grad = _weighted(residual, weight)
    shown = jnp.where(jnp.isfinite(residual), residual, 0.0)
    metrics = DistillationMetrics(
        grad_norm=jnp.mean(jnp.sqrt(jnp.sum(grad**2, axis=axes))),
        residual_rms=jnp.sqrt(jnp.mean(shown**2)),
        coherence=_coherence(shown),
        mean_t=jnp.mean(t.astype(jnp.float32)),
        finite=jnp.all(jnp.isfinite(residual)),
    )
    return surrogate_loss(x, grad), metrics


def score_distillation_loss(
    key: Key[Array, ""],
    denoise: Denoise,
    schedule: Schedule,
    x: Float[Array, "b *d"],
    t: Int[Array, "b"],
    cond: Float[Array, "b l c"],
    uncond: Float[Array, "b l c"],
    guidance: Guidance,
    residual: Residual = sds,
    weighting: Weighting = noise_variance,
) -> tuple[Float[Array, ""], DistillationMetrics]:
    """Score distillation with classifier-free guidance, equations (1)-(4).

    Args:
        key: random key of the noise, consumed.
        denoise: (z, t, cond) -> eps; one call of batch 2 B.
        schedule: noise schedule.
        x: [B, ...], rendering or latent; the only argument that gets a gradient.
        t: [B], time steps.
        cond: [B, L, D], one prompt a view.
        uncond: [B, L, D], the empty or negative prompt.
        guidance: g, one for all or [B].
        residual: (eps_cond, eps_uncond, noise, g) -> residual; DreamFusion's by default.
        weighting: (schedule, t) -> w [B]; 1 - abar by default.

    Returns:
        scalar loss, metrics.
    """
    z, noise = diffuse(key, schedule, x, t)
    eps_uncond, eps_cond = predict(denoise, z, t, jnp.stack([uncond, cond]))
    return distill(x, residual(eps_cond, eps_uncond, noise, guidance), weighting(schedule, t), t)


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
    weighting: Weighting = noise_variance,
) -> tuple[Float[Array, ""], DistillationMetrics]:
    """Score distillation with Perp-Neg, equation (5): one call of batch (2 + N) B.

    Args:
        key, denoise, schedule, x, t, cond, uncond, guidance, weighting: as in
            `score_distillation_loss`.
        negatives: [N, B, L, D], prompts of the wrong views, and
        weights: [N, B] (`diffusion.guidance.perp_neg_weights`).
    """
    z, noise = diffuse(key, schedule, x, t)
    conds = jnp.concatenate([uncond[None], cond[None], negatives])
    eps = predict(denoise, z, t, conds)
    direction = perp_neg(eps[0], eps[1], eps[2:], weights)
    residual = sds(eps[0] + direction, eps[0], noise, guidance)
    return distill(x, residual, weighting(schedule, t), t)


def _weighted(residual: Float[Array, "b *d"], weight: Float[Array, "b"]) -> Float[Array, "b *d"]:
    grad = per_item(weight, residual) * residual
    return jax.lax.stop_gradient(jnp.where(jnp.isfinite(grad), grad, 0.0))


def _coherence(residual: Float[Array, "b *d"]) -> Float[Array, ""]:
    """Sum of products over sum of mean squares of neighbouring pixels, in [-1, 1]; 0 if none.

    The noise of a score estimate is nearly white, what it says about the picture is not: the
    correlation c reads as a signal-to-noise ratio c / (1 - c).
    """
    product, square = jnp.float32(0.0), jnp.float32(0.0)
    for axis in range(1, residual.ndim - 1):
        size = residual.shape[axis]
        here = jax.lax.slice_in_dim(residual, 0, size - 1, axis=axis)
        there = jax.lax.slice_in_dim(residual, 1, size, axis=axis)
        product += jnp.sum(here * there)
        square += 0.5 * jnp.sum(here**2 + there**2)
    return product / jnp.where(square > 0.0, square, 1.0)
