"""What a denoiser predicts, and the one place where it is turned into eps.

Symbols
    x       clean image or latent [B, ...]          eps     the noise in z, N(0, I)
    z       noised image: (1)                       v       velocity: (2)

Equations
    (1)  z = alpha x + s eps                                    Ho et al. 2020, eq. 4
    (2)  v = alpha eps - s x                                    Salimans and Ho 2022, app. D
    (3)  x = (z - s eps) / alpha,    eps = (z - alpha x) / s    from (1)
    (4)  x = alpha z - s v,          eps = s z + alpha v        from (1), (2), alpha^2 + s^2 = 1

Every function takes t [B] and arrays [B, ...] of any rank, one time step an item. Coefficients are
cast to the array's type: keep z in float32 even where the network computes in bfloat16.
"""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from geojax.diffusion.schedule import Schedule

Prediction = Literal["epsilon", "v_prediction", "sample"]  # diffusers' `prediction_type`


def per_item(values: Float[Array, "b"], like: Float[Array, "b *d"]) -> Float[Array, "b *ones"]:
    """[B] numbers shaped [B, 1, ..., 1], with the rank and type of `like`, for broadcasting."""
    return values.reshape(values.shape + (1,) * (like.ndim - 1)).astype(like.dtype)


def coefficients(
    schedule: Schedule, t: Int[Array, "b"], like: Float[Array, "b *d"]
) -> tuple[Float[Array, "b *ones"], Float[Array, "b *ones"]]:
    """(alpha_t, s_t), shaped to broadcast against `like`."""
    return per_item(schedule.alpha(t), like), per_item(schedule.s(t), like)


def add_noise(
    schedule: Schedule, x: Float[Array, "b *d"], eps: Float[Array, "b *d"], t: Int[Array, "b"]
) -> Float[Array, "b *d"]:
    """z of equation (1)."""
    alpha, s = coefficients(schedule, t, x)
    return alpha * x + s * eps


def velocity(
    schedule: Schedule, x: Float[Array, "b *d"], eps: Float[Array, "b *d"], t: Int[Array, "b"]
) -> Float[Array, "b *d"]:
    """v of equation (2), the training target of a v-prediction network."""
    alpha, s = coefficients(schedule, t, x)
    return alpha * eps - s * x


def eps_from_x0(
    schedule: Schedule, z: Float[Array, "b *d"], x: Float[Array, "b *d"], t: Int[Array, "b"]
) -> Float[Array, "b *d"]:
    """eps of equation (3). Ill-conditioned where t is near 0: s divides."""
    alpha, s = coefficients(schedule, t, z)
    return (z - alpha * x) / s


def eps_from_v(
    schedule: Schedule, z: Float[Array, "b *d"], v: Float[Array, "b *d"], t: Int[Array, "b"]
) -> Float[Array, "b *d"]:
    """eps of equation (4)."""
    alpha, s = coefficients(schedule, t, z)
    return s * z + alpha * v


def x0_from_eps(
    schedule: Schedule, z: Float[Array, "b *d"], eps: Float[Array, "b *d"], t: Int[Array, "b"]
) -> Float[Array, "b *d"]:
    """x of equation (3). Ill-conditioned where t is near T: alpha divides."""
    alpha, s = coefficients(schedule, t, z)
    return (z - s * eps) / alpha


def x0_from_v(
    schedule: Schedule, z: Float[Array, "b *d"], v: Float[Array, "b *d"], t: Int[Array, "b"]
) -> Float[Array, "b *d"]:
    """x of equation (4)."""
    alpha, s = coefficients(schedule, t, z)
    return alpha * z - s * v


def v_from_eps(
    schedule: Schedule, z: Float[Array, "b *d"], eps: Float[Array, "b *d"], t: Int[Array, "b"]
) -> Float[Array, "b *d"]:
    """v = (eps - s z) / alpha, from equation (4)."""
    alpha, s = coefficients(schedule, t, z)
    return (eps - s * z) / alpha


def v_from_x0(
    schedule: Schedule, z: Float[Array, "b *d"], x: Float[Array, "b *d"], t: Int[Array, "b"]
) -> Float[Array, "b *d"]:
    """v = (alpha z - x) / s, from equation (4)."""
    alpha, s = coefficients(schedule, t, z)
    return (alpha * z - x) / s


def to_eps(
    schedule: Schedule,
    z: Float[Array, "b *d"],
    prediction: Float[Array, "b *d"],
    t: Int[Array, "b"],
    kind: Prediction,
) -> Float[Array, "b *d"]:
    """A network's output as eps, whatever it was trained to predict.

    Args:
        schedule: noise schedule.
        z: the noised input [B, ...].
        prediction: the network's output [B, ...], cast to z's type.
        t: time steps [B].
        kind: diffusers' `prediction_type`: "epsilon", "v_prediction" or "sample".

    Raises:
        ValueError: for any other `kind`.
    """
    prediction = jnp.asarray(prediction, z.dtype)
    if kind == "epsilon":
        return prediction
    if kind == "v_prediction":
        return eps_from_v(schedule, z, prediction, t)
    if kind == "sample":
        return eps_from_x0(schedule, z, prediction, t)
    raise ValueError(f"prediction_type must be epsilon, v_prediction or sample, got {kind!r}")
