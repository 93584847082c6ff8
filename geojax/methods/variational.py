"""Variational score distillation: a second network that learns what the renderings look like.

Symbols
    x, c            rendering or latent, stopped [B, ...]; its camera_to_world
    phi             a low-rank adaptation of the prior, and the embedding of c (`models/lora.py`)
    eps_phi         the prior's denoiser with phi
    z, n            alpha x + s n, n ~ N(0, 1)

Equations
    (1)  theta:  residual = eps_u + g (eps_c - eps_u) - eps_phi(z, t, y, c)
                                                                Wang et al. 2023, eq. 9
    (2)  phi:    min E_{t, n} |eps_phi(z, t, y, c) - n|^2,  t ~ U{0..T-1}
                                                                eq. 7
    (3)  the same of v = alpha n - s x, |v_phi - v|^2 = (2) / abar_t
                                                                where the prior predicts v

(1) is `score_distillation.VSD`. Where eps_phi knows the renderings as well as the prior knows
pictures, nothing is left to change. phi starts as nothing, so (1) starts at (g - 1)(eps_c - eps_u).
From a share of .1 of the views of (2) the camera is hidden: phi learns renderings in general.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from geojax.diffusion.parameterization import add_noise
from geojax.methods.score_distillation import Denoise
from geojax.models.lora import (
    apply_lora,
    embed_camera,
    init_camera,
    init_lora,
    time_width,
    with_time_offset,
)
from geojax.priors.prior import Prior

HIDDEN_CAMERA = 0.1


class OwnScore(NamedTuple):
    """What of eps_phi is learnt.

    Attributes:
      params: {"lora": ..., "camera": ...}, phi.
      optimiser: its state.
    """

    params: PyTree
    optimiser: optax.OptState


class OwnTraining(NamedTuple):
    """How phi is learnt.

    Attributes:
      rank: r of the adaptation.
      optimiser: of phi.
      velocity: take (3) in place of (2): right for a prior that predicts v.
    """

    rank: int
    optimiser: optax.GradientTransformation
    velocity: bool


def init_own_score(key: Key[Array, ""], prior: Prior, training: OwnTraining) -> OwnScore:
    """A network that is still the prior; the key is consumed.

    Raises:
      ValueError: the prior has no UNet, or one without attention.
    """
    if not isinstance(prior.params, dict) or "unet" not in prior.params:
        raise ValueError("variational score distillation adapts a UNet, and this prior has none")
    unet = prior.params["unet"]
    lora_key, camera_key = jax.random.split(key)
    params = {
        "lora": init_lora(lora_key, unet, training.rank),
        "camera": init_camera(camera_key, time_width(unet)),
    }
    return OwnScore(params, training.optimiser.init(params))


def own_denoise(
    prior: Prior,
    prior_params: Any,
    params: PyTree,
    camera_to_world: Float[Array, "B 4 4"],
    shown: Float[Array, " B"] | None = None,
) -> Denoise:
    """(z, t, y) -> eps_phi for a batch of these cameras.

    Args:
      prior: whose `denoise` is adapted.
      prior_params: its parameters.
      params: phi.
      camera_to_world: [B, 4, 4].
      shown: [B], 0 where the camera is hidden; None shows all.
    """
    camera = camera_to_world if shown is None else camera_to_world * shown[:, None, None]
    offset = embed_camera(params["camera"], camera)
    adapted = prior_params | {"unet": apply_lora(prior_params["unet"], params["lora"])}

    def denoise(
        z: Float[Array, "B *d"], t: Int[Array, "B"], cond: Float[Array, "B l c"]
    ) -> Float[Array, "B *d"]:
        return with_time_offset(prior.denoise, offset)(adapted, z, t, cond)

    return denoise


def own_score_loss(
    key: Key[Array, ""],
    prior: Prior,
    prior_params: Any,
    params: PyTree,
    x: Float[Array, "B *d"],
    cond: Float[Array, "B l c"],
    camera_to_world: Float[Array, "B 4 4"],
    velocity: bool,
) -> Float[Array, ""]:
    """Equation (2), or (3) where `velocity`: a mean over batch and pixels.

    Args:
      key: of noise, time steps and hidden cameras; consumed.
      prior, prior_params: what is adapted.
      params: phi, which alone gets a gradient.
      x: [B, ...], renderings or latents.
      cond: [B, L, D].
      camera_to_world: [B, 4, 4].
    """
    t_key, noise_key, camera_key = jax.random.split(key, 3)
    batch, schedule = x.shape[0], prior.schedule
    x = jax.lax.stop_gradient(x)
    t = jax.random.randint(t_key, (batch,), 0, schedule.num_steps, jnp.int32)
    noise = jax.random.normal(noise_key, x.shape, x.dtype)
    shown = 1.0 - jax.random.bernoulli(camera_key, HIDDEN_CAMERA, (batch,)).astype(jnp.float32)
    denoise = own_denoise(prior, prior_params, params, camera_to_world, shown)
    error = denoise(add_noise(schedule, x, noise, t), t, cond) - noise
    squared = jnp.mean(error**2, axis=tuple(range(1, x.ndim)))
    return jnp.mean(squared / schedule.abar(t) if velocity else squared)


def train_own_score(
    key: Key[Array, ""],
    own: OwnScore,
    training: OwnTraining,
    prior: Prior,
    prior_params: Any,
    x: Float[Array, "B *d"],
    cond: Float[Array, "B l c"],
    camera_to_world: Float[Array, "B 4 4"],
) -> tuple[OwnScore, Float[Array, ""]]:
    """One step of equation (2): the network that has seen x, and its loss before the step.

    The arguments are those of `own_score_loss`.
    """
    loss, gradient = jax.value_and_grad(own_score_loss, argnums=3)(
        key, prior, prior_params, own.params, x, cond, camera_to_world, training.velocity
    )
    updates, state = training.optimiser.update(gradient, own.optimiser, own.params)
    return OwnScore(optax.apply_updates(own.params, updates), state), loss
