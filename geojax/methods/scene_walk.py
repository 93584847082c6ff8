"""One step of a walk: the picture and the depth of a view of which a part is known.

Symbols: x what the scene shows [H, W, 3], Z its z-depth, known on K; m hole; y prompt; z latent,
D_theta decoder; d disparity of a depth model, s d + t in the scene's unit.
    (1) paint      z_k ~ p(z | x where m = 0, y),  k = 1 ... K
    (2) select     the z_k whose picture CLIP finds nearest to y        `candidate_selection`
    (3) decoder    theta' = theta tuned to x outside m                  `test_time_tuning` (1)
    (4) frame      D_theta'(z) in m; outside it x, or D_theta'(z) too
    (5) depth      d = model' (frame), model' tuned to Z on K           `test_time_tuning` (2), or
                   s, t refitted to 1 / Z on K                          `priors.depth` (3)
    (6) joined     Z on K; elsewhere 1 / d exp(spread(-log(Z d)))       `edge_matching`
    (7) far        d < 1 / far: on the dome, without a depth

Fridman et al., "SceneScape: Text-Driven Consistent Scene Generation" (2023), sections 3.1 to 3.3.
(6) and (7) are ours: without (6) a step in depth remains at the hole's edge however long (5) tunes,
and what is out of doors would be a curtain at the largest depth.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Key

from geojax.diffusion.samplers import Sampler
from geojax.methods.edge_matching import spread
from geojax.methods.inpainting import inpaint_latent
from geojax.methods.test_time_tuning import (
    FLOOR,
    decoder_loss,
    depth_loss,
    relative_depth_loss,
    tune,
)
from geojax.priors.depth import Alignment, DepthModel, align
from geojax.priors.inpainting import ConditionedPrior
from geojax.priors.prior import Condition, Params, Prior
from geojax.priors.stable_diffusion import decoder_of, with_decoder

Picture = Float[Array, "H W 3"]
Map = Float[Array, "H W"]
Mask = Bool[Array, "H W"]


class Candidates(NamedTuple):
    """Equation (1): K latents and what the untuned decoder makes of them."""

    latents: Float[Array, "K h w c"]
    pictures: Float[Array, "K H W 3"]


def paint(
    key: Key[Array, ""],
    prior: Prior | ConditionedPrior,
    params: Params,
    image: Picture,
    hole: Mask,
    filled: Picture,
    condition: Condition,
    unconditional: Condition,
    *,
    count: int,
    sampler: Sampler,
    steps: int,
    guidance: float,
    strength: float = 1.0,
) -> Candidates:
    """Equation (1), all in one batch.

    Args:
      key: consumed.
      prior: of `load_inpainting`; a plain one paints by replacement.
      params: its parameters.
      image: x, sides divisible by the prior's factor; anything in the hole.
      hole: m; it may be all of the picture.
      filled: x with the hole filled somehow; see `inpaint`.
      condition: [1, L, D] of the prompt.
      unconditional: [1, L, D] of "" or of what must not show.
      count: K.
      sampler: such as `samplers.DDIM`.
      steps: of the whole range.
      guidance: g of eps_u + g (eps_c - eps_u).
      strength: 1 starts from noise.

    Raises:
      ValueError: K below 1, or as `inpaint`.
    """
    if count < 1:
        raise ValueError(f"{count} candidates; expected at least 1")

    def repeat(x: Array) -> Array:
        return jnp.broadcast_to(x[None], (count, *x.shape))

    latents = inpaint_latent(
        key,
        prior,
        params,
        repeat(image),
        repeat(hole),
        repeat(filled),
        repeat(condition[0]),
        repeat(unconditional[0]),
        sampler=sampler,
        steps=steps,
        strength=strength,
        guidance=guidance,
        grow=0 if isinstance(prior, ConditionedPrior) else 1,
    )
    return Candidates(latents, prior.decode(params, latents))


def tune_decoder(
    prior: Prior | ConditionedPrior,
    params: Params,
    latent: Float[Array, "h w c"],
    picture: Picture,
    image: Picture,
    hole: Mask,
    *,
    optimiser: optax.GradientTransformation,
    steps: int,
    preservation: float = 100.0,
) -> tuple[Picture, Float[Array, "steps"]]:
    """Equation (3).

    Args:
      prior: decodes.
      params: its parameters; they are not changed.
      latent: z.
      picture: D_theta(z), which is kept in the hole.
      image: x, which is approached outside it.
      hole: m.
      optimiser: such as optax.adam(1e-4).
      steps: of it; 0 leaves the decoder.
      preservation: lambda.

    Returns:
      D_theta'(z), and the loss before each step.

    Raises:
      ValueError: a model on pixels.
    """

    def loss(decoder: Any) -> Float[Array, ""]:
        rebuilt = prior.decode(with_decoder(params, decoder), latent[None])
        return decoder_loss(rebuilt, picture[None], image[None], hole[None], preservation)

    decoder, losses = tune(loss, decoder_of(params), optimiser, steps)
    return prior.decode(with_decoder(params, decoder), latent[None])[0], losses


def predict(model: DepthModel, params: Params, picture: Picture, scale: Alignment) -> Map:
    """s d + t, in the scene's unit, at least 1 / 100."""
    return jnp.maximum(scale(model.predict(params, picture[None]))[0], FLOOR)


def tune_depth(
    model: DepthModel,
    params: Params,
    picture: Picture,
    depth: Map,
    known: Mask,
    scale: Alignment,
    *,
    optimiser: optax.GradientTransformation,
    steps: int,
    relative: bool = False,
) -> tuple[Map, Float[Array, "steps"]]:
    """Equation (5) by tuning: the disparity of a picture, in the scene's unit.

    Args:
      model: predicts.
      params: its parameters; they are not changed.
      picture: the frame.
      depth: Z, read where known.
      known: K.
      scale: s and t, [1] each.
      optimiser: such as optax.adam(1e-7).
      steps: of it; 0 leaves the model.
      relative: weigh near and far alike, equation (3) of `test_time_tuning`.
    """
    measure = relative_depth_loss if relative else depth_loss

    def loss(theta: Params) -> Float[Array, ""]:
        found = scale(model.predict(theta, picture[None]))
        return measure(found, depth[None], known[None])

    tuned, losses = tune(loss, params, optimiser, steps)
    return predict(model, tuned, picture, scale), losses


def fit_scale(disparity: Map, depth: Map, known: Mask) -> Alignment:
    """Equation (5) by alignment: s and t on K; 1 and 0 where nothing is known."""
    reference = 1.0 / jnp.where(known, depth, 1.0)
    found = align(disparity[None], reference[None], known[None])
    # A slope that turns near into far says that the fit is of nothing.
    sound = (found.scale > 0.0) & jnp.any(known)
    return Alignment(jnp.where(sound, found.scale, 1.0), jnp.where(sound, found.shift, 0.0))


class Completed(NamedTuple):
    """Depth of a whole view: z-depth [H, W], 0 where it is far; and where that is."""

    depth: Map
    far: Mask


def complete_depth(
    disparity: Map, depth: Map, known: Mask, new: Mask, far: Mask, *, farthest: float, reach: float
) -> Completed:
    """Equations (6) and (7).

    Args:
      disparity: d in the scene's unit, above 0.
      depth: Z, read where known.
      known: K.
      new: what is to be completed.
      far: what the scene already knows to be infinitely far.
      farthest: beyond it what is new is infinitely far.
      reach: of the spread in pixels; 0 leaves the step.
    """
    if reach > 0.0:
        error = -jnp.log(jnp.where(known, depth, 1.0)) - jnp.log(disparity)
        change = spread(error[None, ..., None], ~known[None], reach)
        disparity = disparity * jnp.exp(jnp.where(known, 0.0, change[0, ..., 0]))
    beyond = new & (disparity < 1.0 / farthest)
    whole = jnp.where(known, depth, jnp.where(new & ~beyond, 1.0 / disparity, 0.0))
    return Completed(whole, far | beyond)
