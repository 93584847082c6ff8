"""Tuning a depth model and an image decoder to what a scene already knows, before they add to it.

Symbols: theta the parameters that are tuned; m mask, 1 where the picture was painted; y painted
picture, x what the scene shows (known where m = 0); z the painted latent, D_theta(z) its decoding;
d_theta disparity of the new picture, Z depth of the scene, known on K.
    (1) decoder   L = mean (m (D_theta(z) - y))^2 + lambda mean ((1 - m) (D_theta(z) - x))^2
    (2) depth     L = mean over K of |1 / max(d_theta, floor) - Z|
    (3) relative  L = mean over K of |log max(d_theta, floor) + log Z|
    (4) descent   n steps of an optimiser from the original theta, in one scan

Fridman et al., "SceneScape: Text-Driven Consistent Scene Generation" (2023), equations 4 and 5, and
their released code for lambda = 100 and floor = 0.01. (1): means are over all pixels, as there.
(3) in place of (2) weighs near and far alike.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

Params = Any
Loss = Callable[[Params], Float[Array, ""]]
Image = Float[Array, "B H W 3"]
Map = Float[Array, "B H W"]
Mask = Bool[Array, "B H W"]

FLOOR = 0.01
"""Of a disparity: no depth is beyond 100."""


def tune(
    loss: Loss, params: Params, optimiser: optax.GradientTransformation, steps: int
) -> tuple[Params, Float[Array, "steps"]]:
    """Equation (4); to be called under jit.

    Args:
      loss: of the parameters.
      params: where it starts; they are not changed.
      optimiser: such as optax.adam(1e-4).
      steps: n, at least 0.

    Returns:
      the tuned parameters, and the loss before each step.

    Raises:
      ValueError: a negative number of steps.
    """
    if steps < 0:
        raise ValueError(f"steps={steps} must not be negative")

    def step(
        carry: tuple[Params, optax.OptState], _: None
    ) -> tuple[tuple[Params, optax.OptState], Float[Array, ""]]:
        theta, state = carry
        value, gradient = jax.value_and_grad(loss)(theta)
        updates, state = optimiser.update(gradient, state, theta)
        return (optax.apply_updates(theta, updates), state), value

    (tuned, _), losses = jax.lax.scan(step, (params, optimiser.init(params)), length=steps)
    return tuned, losses


def decoder_loss(
    rebuilt: Image, painted: Image, known: Image, mask: Mask, preservation: float = 100.0
) -> Float[Array, ""]:
    """Equation (1).

    Args:
      rebuilt: D_theta(z) in [0, 1].
      painted: y, what the original decoder makes of z; no gradient passes into it.
      known: x, read where the mask is False; no gradient passes into it.
      mask: m, True where the picture was painted.
      preservation: lambda.
    """
    inside = mask[..., None].astype(rebuilt.dtype)
    # What is not known may be anything, NaN too.
    target = jax.lax.stop_gradient(jnp.where(mask[..., None], 0.0, known))
    new = jnp.mean((inside * (rebuilt - jax.lax.stop_gradient(painted))) ** 2)
    old = jnp.mean(((1.0 - inside) * rebuilt - target) ** 2)
    return new + preservation * old


def depth_loss(disparity: Map, depth: Map, known: Mask) -> Float[Array, ""]:
    """Equation (2); 0 where nothing is known.

    Args:
      disparity: d_theta.
      depth: Z, read where `known`.
      known: K.
    """
    predicted = 1.0 / jnp.maximum(disparity, FLOOR)
    return _mean(jnp.abs(predicted - jnp.where(known, depth, 1.0)), known)


def relative_depth_loss(disparity: Map, depth: Map, known: Mask) -> Float[Array, ""]:
    """Equation (3); arguments as `depth_loss`."""
    error = jnp.log(jnp.maximum(disparity, FLOOR)) + jnp.log(jnp.where(known, depth, 1.0))
    return _mean(jnp.abs(error), known)


def _mean(value: Map, where: Mask) -> Float[Array, ""]:
    count = jnp.maximum(jnp.sum(where.astype(value.dtype)), 1.0)
    return jnp.sum(jnp.where(where, value, 0.0)) / count


def scale_invariant_error(depth: Map, truth: Map, known: Mask) -> Float[Array, ""]:
    """Root of the variance of log depth / truth over K: Eigen et al. (2014), equation 1.

    Args:
      depth: predicted, above 0 where known.
      truth: above 0 where known.
      known: K; at least one pixel.
    """
    ratio = jnp.log(jnp.where(known, depth, 1.0)) - jnp.log(jnp.where(known, truth, 1.0))
    mean = _mean(ratio, known)
    return jnp.sqrt(_mean((ratio - mean) ** 2, known))
