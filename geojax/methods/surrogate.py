"""A gradient that is no derivative of anything, made into a loss.

Symbols
    x               rendering, or its latent [B, ...]; it alone carries a gradient
    r, w            residual [B, ...], what an image model says of x; its weight [B]
    sg              stop-gradient

Equations
    (1)  grad_x = w r                                           Poole et al. 2022, eq. 3
    (2)  loss = .5 |x - sg(x - grad_x)|^2 / B                   its gradient is grad_x / B

The Jacobian of the network is left out, and everything in grad_x is stopped. A latent x must come
from a differentiable encoder: the gradient goes on through it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from geojax.diffusion.parameterization import per_item


class DistillationMetrics(NamedTuple):
    """What to look at instead of the loss, whose value says little; all scalars."""

    grad_norm: Float[Array, ""]  # mean over the batch of |grad_x| of one item
    residual_rms: Float[Array, ""]  # root mean square of the residual
    coherence: Float[Array, ""]  # correlation of neighbouring pixels: 0 noise, 1 smooth signal
    mean_t: Float[Array, ""]  # mean time step
    finite: Bool[Array, ""]  # False when a residual held NaN or inf, before it was set to 0


def weighted(residual: Float[Array, "b *d"], weight: Float[Array, "b"]) -> Float[Array, "b *d"]:
    """grad_x of equation (1), stopped; NaN and inf become 0."""
    grad = per_item(weight, residual) * residual
    return jax.lax.stop_gradient(jnp.where(jnp.isfinite(grad), grad, 0.0))


def surrogate_loss(x: Float[Array, "b *d"], grad: Float[Array, "b *d"]) -> Float[Array, ""]:
    """A scalar whose gradient in x is grad / B, bit for bit; its value is .5 |grad|^2 / B, (2).

    Equation (2) as it stands loses the last digits of grad where |x| is larger: x - (x - grad) is
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
    """Equations (1) and (2): the loss that sends w(t) residual into x, and its metrics.

    Args:
        x: [B, ...], rendering or latent.
        residual: [B, ...].
        weight: [B], w(t).
        t: [B].

    Returns:
        a scalar loss (a sum over pixels, a mean over the batch), and DistillationMetrics. What is
        not finite in a residual does not reach x: `metrics.finite` tells, and the caller decides.
    """
    residual = jax.lax.stop_gradient(residual)
    axes = tuple(range(1, x.ndim))
    grad = weighted(residual, weight)
    shown = jnp.where(jnp.isfinite(residual), residual, 0.0)
    metrics = DistillationMetrics(
        grad_norm=jnp.mean(jnp.sqrt(jnp.sum(grad**2, axis=axes))),
        residual_rms=jnp.sqrt(jnp.mean(shown**2)),
        coherence=coherence(shown),
        mean_t=jnp.mean(t.astype(jnp.float32)),
        finite=jnp.all(jnp.isfinite(residual)),
    )
    return surrogate_loss(x, grad), metrics


def coherence(residual: Float[Array, "b *d"]) -> Float[Array, ""]:
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


def enlarge(image: Float[Array, "B h w C"], size: int) -> Float[Array, "B H W C"]:
    """Pictures at the side that a model asks for, linearly; those of that side as they are."""
    if image.shape[1] == size:
        return image
    return jax.image.resize(image, (image.shape[0], size, size, image.shape[3]), "linear")
