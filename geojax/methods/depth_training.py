"""Training a depth model on exact depth.

Symbols: d predicted disparity, z true z-depth, V the pixels whose depth is known.
    (1) error      e = log max(d, floor) + log z, 0 where d = 1 / z
    (2) value      mean over V of |e|
    (3) edges      sum over strides k of mean |e(u + k) - e(u)|, both pixels in V, along u and v
    (4) loss       (2) + lambda (3)

(3) is the gradient matching of Ranftl et al., "Towards Robust Monocular Depth Estimation" (2020),
equation 11, here on the logarithm, which weighs near and far alike: |e| is the relative error of
depth where it is small.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from geojax.methods.train_state import Metrics, Params, Step, TrainState, descend

FLOOR = 0.01
"""Of a predicted disparity: SceneScape's, 100 m."""

STRIDES = (1, 2, 4)


def log_error(
    disparity: Float[Array, "B H W"], depth: Float[Array, "B H W"], known: Bool[Array, "B H W"]
) -> Float[Array, "B H W"]:
    """Equation (1), 0 where the depth is not known."""
    safe = jnp.where(known, depth, 1.0)
    return jnp.where(known, jnp.log(jnp.maximum(disparity, FLOOR)) + jnp.log(safe), 0.0)


def depth_loss(
    disparity: Float[Array, "B H W"],
    depth: Float[Array, "B H W"],
    known: Bool[Array, "B H W"],
    edge_weight: float,
) -> tuple[Float[Array, ""], Metrics]:
    """Equation (4).

    Args:
      disparity: predicted.
      depth: z-depth, read where `known`.
      known: V.
      edge_weight: lambda.
    """
    error = log_error(disparity, depth, known)

    def mean(x: Array, where: Array) -> Array:
        return jnp.sum(jnp.where(where, x, 0.0)) / jnp.maximum(jnp.sum(where.astype(x.dtype)), 1.0)

    value, edges = mean(jnp.abs(error), known), jnp.zeros(())
    for k in STRIDES:
        for a, b, both in (
            (error[:, k:], error[:, :-k], known[:, k:] & known[:, :-k]),
            (error[:, :, k:], error[:, :, :-k], known[:, :, k:] & known[:, :, :-k]),
        ):
            edges = edges + mean(jnp.abs(a - b), both)
    loss = value + edge_weight * edges
    return loss, {"loss": loss, "relative_error": value, "edges": edges}


def depth_step(
    predict: Callable[[Params, Float[Array, "B H W 3"]], Float[Array, "B H W"]],
    optimiser: optax.GradientTransformation,
    *,
    edge_weight: float,
    decay: float,
) -> Step:
    """A jitted step(state, image, depth, known) on equation (4); the state is donated.

    Args:
      predict: (params, image [B, H, W, 3] in [0, 1]) -> disparity [B, H, W].
      optimiser: of the parameters.
      edge_weight: lambda.
      decay: of the average.
    """

    def step(
        state: TrainState,
        image: Float[Array, "B H W 3"],
        depth: Float[Array, "B H W"],
        known: Bool[Array, "B H W"],
    ) -> tuple[TrainState, Metrics]:
        def loss(params: Params, _: jax.Array) -> tuple[Float[Array, ""], Metrics]:
            return depth_loss(predict(params, image), depth, known, edge_weight)

        return descend(state, loss, optimiser, decay)

    return jax.jit(step, donate_argnums=0)
