"""The state that any training carries, and one step of descent on any loss.

Symbols: theta parameters, theta~ their average, n steps taken.
    (1) average   theta~ <- d theta~ + (1 - d) theta,  d = min(decay, (1 + n) / (10 + n))
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

Params = Any
Metrics = dict[str, Float[Array, ""]]


class TrainState(NamedTuple):
    """Everything needed to go on, bit for bit.

    Attributes:
      params: parameters.
      average: their exponential moving average, equation (1).
      optimiser: the optimiser's state.
      step: steps taken.
      key: the random key of the next step.
    """

    params: Params
    average: Params
    optimiser: optax.OptState
    step: Int[Array, ""]
    key: jax.Array


Step = Callable[..., tuple[TrainState, Metrics]]


def init_state(
    key: jax.Array, params: Params, optimiser: optax.GradientTransformation
) -> TrainState:
    """A fresh state around initial parameters; the key is consumed."""
    copy = jax.tree.map(jnp.array, params)
    return TrainState(params, copy, optimiser.init(params), jnp.zeros((), jnp.int32), key)


def descend(
    state: TrainState,
    loss: Callable[[Params, jax.Array], tuple[Float[Array, ""], Metrics]],
    optimiser: optax.GradientTransformation,
    decay: float,
) -> tuple[TrainState, Metrics]:
    """One step on loss(params, key) -> (value, metrics); `decay` is that of equation (1)."""
    key, use = jax.random.split(state.key)
    (_, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(state.params, use)
    updates, opt_state = optimiser.update(gradient, state.optimiser, state.params)
    params = optax.apply_updates(state.params, updates)
    n = state.step.astype(jnp.float32)
    d = jnp.minimum(decay, (1.0 + n) / (10.0 + n))
    average = jax.tree.map(lambda a, p: d * a + (1.0 - d) * p, state.average, params)
    metrics["gradient_norm"] = optax.global_norm(gradient)
    return TrainState(params, average, opt_state, state.step + 1, key), metrics
