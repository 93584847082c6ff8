"""Score distillation as the critic of a text-to-3D step: what a denoiser says of renderings.

Symbols: x rendering, z its latent, y condition of a view, t time step.
    (1)  C(x; y) = SDS(encode(x); y, t), or another loss of `methods/score_distillation`
    (2)  x is itself the latent, where the field is one of latents
    (3)  the same, away from the prompts of wrong views: `perp_neg`

Poole et al., "DreamFusion" (2022), section 3; (2) H. Wang et al., "Score Jacobian Chaining" (2023);
(3) Armandpour et al., "Re-imagine the negative prompt algorithm" (2023).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from geojax.methods.perp_neg import perp_neg_loss, wrong_views
from geojax.methods.score_distillation import SDS, Loss, score_distillation_loss
from geojax.methods.surrogate import enlarge
from geojax.methods.text_to_3d import Critic, Metrics, Shown, Verdict
from geojax.methods.variational import OwnScore, OwnTraining, own_denoise, train_own_score
from geojax.priors.prior import Prior

Times = Callable[[Key[Array, ""], Int[Array, ""], int], Int[Array, "B"]]


class Seen(NamedTuple):
    """A step's latents [B, h, w, c], their conditions [B, L, D] and camera_to_world [B, 4, 4]."""

    x: Float[Array, "B h w c"]
    cond: Float[Array, "B L D"]
    camera_to_world: Float[Array, "B 4 4"]


def denoiser_critic(
    prior: Prior,
    *,
    guidance: float,
    times: Times,
    loss: Loss = SDS,
    latent: bool = False,
    own: OwnTraining | None = None,
    perp_neg: bool = False,
) -> Critic:
    """Equation (1), (2) or (3), of a text-to-image model.

    Args:
      prior: the model; its parameters are passed to the step.
      guidance: g of eps_u + g (eps_c - eps_u).
      times: (key, step, B) -> t [B], of `methods/timesteps`.
      loss: which of the family.
      latent: the field's features are the prior's latents, equation (2), never shaded.
      own: how the network of VSD is trained along; None: there is none.
      perp_neg: keep away from the front and the side where they are not seen, equation (3).

    Raises:
      ValueError: (3) with a loss that has predictions of its own.
    """
    if perp_neg and (own is not None or loss.inversion is not None):
        raise ValueError("Perp-Neg is of losses without a network of their own or an inversion")

    def opinion(keys: Key[Array, "2"], prior_params: Any, shown: Shown) -> Verdict:
        prompt, y, phi = shown.prompt, shown.condition, shown.state.own
        x = enlarge(shown.rendering.rgb, prior.latent_size if latent else prior.image_size)
        x = x if latent else prior.encode(prior_params, x)
        t = times(keys[0], shown.state.step, x.shape[0])
        empty = jnp.broadcast_to(prompt.unconditional, y.shape)
        unwanted = None if prompt.negative is None else jnp.broadcast_to(prompt.negative, y.shape)
        pose = shown.views.camera.camera_to_world

        def denoise(z: Array, t: Array, y: Array) -> Array:
            return prior.denoise(prior_params, z, t, y)

        if perp_neg:
            seen = shown.views.azimuth, shown.views.elevation
            wrong = wrong_views(prompt.embeddings, prompt.elevations, *seen)
            value, metrics = perp_neg_loss(
                keys[1], denoise, prior.schedule, x, t, y, empty, *wrong, guidance, loss
            )
            return Verdict(value, metrics, None, {})
        value, metrics = score_distillation_loss(
            keys[1],
            denoise,
            prior.schedule,
            x,
            t,
            y,
            empty,
            guidance,
            loss,
            negative=unwanted,
            own=None if phi is None else own_denoise(prior, prior_params, phi.params, pose),
        )
        return Verdict(value, metrics, None if own is None else Seen(x, y, pose), {})

    if own is None:
        return Critic(opinion)

    def learn(
        key: Key[Array, ""], prior_params: Any, phi: OwnScore, seen: Seen
    ) -> tuple[OwnScore, Metrics]:
        phi, value = train_own_score(key, phi, own, prior, prior_params, *seen)
        return phi, {"own_loss": value}

    return Critic(opinion, learn)
