"""Painting a hole several times, and keeping the picture that agrees best with its prompt.

Symbols: x_k candidate of K, y prompt; f_v, f_t CLIP's unit embeddings.
    (1) choice   argmax_k <f_v(x_k), f_t(y)>

Fridman et al., "SceneScape" (2023), section 3.1; the released code draws one candidate only.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from geojax.priors.clip_score import similarity

Params = Any


class Choice(NamedTuple):
    """Which candidate was taken.

    Attributes:
      chosen: k of equation (1).
      scores: <f_v, f_t> of every candidate, [K], in [-1, 1].
    """

    chosen: Int[Array, ""]
    scores: Float[Array, "K"]


def choose(
    embed_image: Callable[[Params, Float[Array, "K H W 3"]], Float[Array, "K D"]],
    params: Params,
    candidates: Float[Array, "K H W 3"],
    text: Float[Array, "D"],
) -> Choice:
    """Equation (1); of equals the first.

    Args:
      embed_image: (params, images in [0, 1]) -> unit embeddings; `CLIPScore.embed_image`.
      params: CLIP's.
      candidates: K pictures in [0, 1].
      text: unit embedding of the prompt.
    """
    scores = similarity(embed_image(params, candidates), text[None])[:, 0]
    # What is not finite is never the best.
    scores = jnp.where(jnp.isfinite(scores), scores, -jnp.inf)
    return Choice(jnp.argmax(scores), scores)


def taken(choice: Choice, candidates: Any) -> Any:
    """The chosen item of every leaf [K, ...]: pictures, latents, whatever comes with them."""
    return jax.tree.map(lambda leaf: leaf[choice.chosen], candidates)
