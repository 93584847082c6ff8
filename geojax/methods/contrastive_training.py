"""Training a pair of towers that agree on which text belongs to which image (CLIP).

Symbols: f_v, f_t unit embeddings of B images and their B texts; tau the learned temperature.
    (1) logits   L_ij = <f_v^i, f_t^j> / tau,  1 / tau = exp(logit_scale) <= 100
    (2) target   P_ij = 1 / n_i where text j equals text i, else 0; n_i of the batch's texts equal i
    (3) loss     (CE(P, softmax_j L) + CE(P, softmax_i L)) / 2

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (2021),
figure 3. (2) differs: in so small a world several images of a batch have the same caption, and
telling them apart by it is not asked.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from geojax.methods.train_state import Metrics, Params, Step, TrainState, descend
from geojax.models.clip_vision import CLIP, Match, logits

LARGEST_SCALE = 100.0


def contrastive_loss(match: Match, ids: Int[Array, "B L"]) -> tuple[Float[Array, ""], Metrics]:
    """Equation (3), and the share of images whose own text is the nearest of the batch.

    Args:
      match: embeddings of B images and of their B texts.
      ids: the texts' tokens; equal rows are equal texts.
    """
    scores = logits(match._replace(scale=jnp.minimum(match.scale, LARGEST_SCALE)))
    same = jnp.all(ids[:, None, :] == ids[None, :, :], axis=-1)
    target = same.astype(jnp.float32)
    target = target / jnp.sum(target, axis=1, keepdims=True)
    by_image = optax.softmax_cross_entropy(scores, target)
    by_text = optax.softmax_cross_entropy(scores.T, target)
    loss = 0.5 * (jnp.mean(by_image) + jnp.mean(by_text))
    found = jnp.take_along_axis(same, jnp.argmax(scores, axis=1)[:, None], axis=1)
    return loss, {"loss": loss, "right": jnp.mean(found.astype(jnp.float32))}


def contrastive_step(clip: CLIP, optimiser: optax.GradientTransformation, *, decay: float) -> Step:
    """A jitted step(state, image [B, S, S, 3] normalised, ids [B, L]); the state is donated."""

    def step(
        state: TrainState, image: Float[Array, "B S S 3"], ids: Int[Array, "B L"]
    ) -> tuple[TrainState, Metrics]:
        def loss(params: Params, _: jax.Array) -> tuple[Float[Array, ""], Metrics]:
            return contrastive_loss(clip.apply({"params": params}, ids, image), ids)

        return descend(state, loss, optimiser, decay)

    return jax.jit(step, donate_argnums=0)
