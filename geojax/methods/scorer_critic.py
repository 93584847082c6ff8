"""Any model that scores images as the critic of a text-to-3D step.

Symbols: x rendering, y condition of a view, S the score of a picture, T transmittance, the mean
over a picture of 1 - opacity.
    (1)  C(x; y) = -w mean S(x, y) + L_T
    (2)  L_T = -lambda mean min(tau, T),  tau rising from tau_0 to tau_1 in the first steps

The gradient of S goes through the model, all of it: there is no noise, and no Jacobian is left out.
(2) is Jain et al., "Zero-shot text-guided object generation with Dream Fields" (2022), section 3.3:
a model that only knows how much it likes a picture likes a wall of fog as well as an object.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from geojax.methods.surrogate import DistillationMetrics, distill, enlarge
from geojax.methods.text_to_3d import Critic, Shown, Verdict
from geojax.priors.image_scorer import ImageScorer


class Transmittance(NamedTuple):
    """Equation (2).

    Attributes:
      weight: lambda; 0 is without.
      first, last: tau_0 and tau_1, shares in [0, 1].
      over: steps in which tau rises, at least 1.
    """

    weight: float = 0.0
    first: float = 0.4
    last: float = 0.88
    over: int = 500


def transmittance_loss(
    opacity: Float[Array, "B H W"], step: Int[Array, ""], settings: Transmittance
) -> Float[Array, ""]:
    """Equation (2): empties a picture as far as tau, and no further."""
    done = jnp.minimum(step.astype(jnp.float32) / settings.over, 1.0)
    target = settings.first + done * (settings.last - settings.first)
    clear = jnp.mean(1.0 - opacity, axis=(1, 2))
    return -settings.weight * jnp.mean(jnp.minimum(clear, target))


def score_loss(
    score: Callable[[Float[Array, "B S S 3"]], Float[Array, "B"]],
    x: Float[Array, "B S S 3"],
    weight: float,
) -> tuple[Float[Array, ""], DistillationMetrics, Float[Array, ""]]:
    """A loss with the gradient of -w mean S, its metrics, and mean S itself.

    What is not finite in the gradient does not reach x; `metrics.finite` tells.
    """
    scores, pull = jax.vjp(score, jax.lax.stop_gradient(x))
    (gradient,) = pull(jnp.ones_like(scores))
    everywhere, no_noise = jnp.full_like(scores, weight), jnp.zeros(scores.shape, jnp.int32)
    loss, metrics = distill(x, -gradient, everywhere, no_noise)
    return loss, metrics, jnp.mean(scores)


def scorer_critic(
    scorer: ImageScorer, *, weight: float = 1.0, transmittance: Transmittance | None = None
) -> Critic:
    """Equation (1) of a model; its parameters are passed to the step.

    Args:
      scorer: the model.
      weight: w, by which the score stands against the regularisers of the step.
      transmittance: equation (2), or none.
    """

    def opinion(keys: Key[Array, "2"], params: Any, shown: Shown) -> Verdict:
        del keys  # nothing is drawn
        x = enlarge(shown.rendering.rgb, scorer.image_size)
        loss, metrics, score = score_loss(
            lambda x: scorer.score(params, x, shown.condition), x, weight
        )
        if transmittance is not None:
            opacity, step = shown.rendering.opacity, shown.state.step
            loss += transmittance_loss(opacity, step, transmittance)
        return Verdict(loss, metrics, None, {"score": score})

    return Critic(opinion)
