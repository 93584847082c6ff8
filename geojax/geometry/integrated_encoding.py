"""Integrated positional encoding of conical frustums (mip-NeRF), and the contraction of space.

Symbols: a cone around the ray o + t d (d of unit length) with radius r at t = 1, cut at t_0 and
t_1; mu = (t_0 + t_1) / 2, h = (t_1 - t_0) / 2, D = 3 mu^2 + h^2.

    (1)  mean along the ray      t_mean = mu + 2 mu h^2 / D
    (2)  variance along the ray  t_var = h^2/3 - (4/15) h^4 (12 mu^2 - h^2) / D^2
    (3)  variance across it      r_var = r^2 (mu^2/4 + 5 h^2/12 - 4 h^4 / (15 D))
    (4)  feature of scale 2^k    sin(2^k x) exp(-4^k var / 2), and the cosine
    (5)  contract(x) = (2 - 1/|x|) x / |x| where |x| > 1

Sources: (1-4) mip-NeRF eq. 7, 14 and appendix A, in the numerically stable form; (5) mip-NeRF 360
eq. 10. For a pinhole pixel r = 2/sqrt(12) times the pixel pitch at z = 1.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def conical_frustum(
    t_start: Float[Array, "..."], t_end: Float[Array, "..."], radius: Float[Array, "..."]
) -> tuple[Float[Array, "..."], Float[Array, "..."], Float[Array, "..."]]:
    """Mean and variance along the ray, and variance across it, eq. (1) to (3).

    Args:
      t_start, t_end: distances, 0 <= t_start <= t_end.
      radius: of the cone at distance 1.
    """
    centre = (t_start + t_end) / 2
    half = (t_end - t_start) / 2
    # h^2 / D, at most 1. D is zero only at t_start = t_end = 0, where every moment is zero.
    ratio = half**2 / jnp.maximum(3 * centre**2 + half**2, 1e-12)
    t_mean = centre + 2 * centre * ratio
    t_var = half**2 / 3 - (4 / 15) * ratio**2 * (12 * centre**2 - half**2)
    r_var = radius**2 * (centre**2 / 4 + (5 / 12) * half**2 - (4 / 15) * half**2 * ratio)
    return t_mean, t_var, r_var


def frustum_gaussian(
    origins: Float[Array, "... 3"],
    directions: Float[Array, "... 3"],
    t_start: Float[Array, "..."],
    t_end: Float[Array, "..."],
    radius: Float[Array, "..."],
) -> tuple[Float[Array, "... 3"], Float[Array, "... 3"]]:
    """World-space mean and diagonal of the covariance of a frustum (mip-NeRF eq. 8, 16).

    ``directions`` have unit length.
    """
    t_mean, t_var, r_var = conical_frustum(t_start, t_end, radius)
    mean = origins + t_mean[..., None] * directions
    along = directions**2
    return mean, t_var[..., None] * along + r_var[..., None] * (1.0 - along)


def integrated_encoding(
    mean: Float[Array, "... 3"],
    variance: Float[Array, "... 3"],
    min_degree: int,
    max_degree: int,
) -> Float[Array, "... C"]:
    """Expected sines and cosines of a Gaussian at scales 2^min ... 2^(max-1), eq. (4).

    With zero variance this is the plain positional encoding. C = 6 (max_degree - min_degree).
    """
    scales = 2.0 ** jnp.arange(min_degree, max_degree, dtype=mean.dtype)
    scales = scales.reshape((1,) * (mean.ndim - 1) + (-1, 1))
    phase = (mean[..., None, :] * scales).reshape(*mean.shape[:-1], -1)
    damping = (variance[..., None, :] * scales**2).reshape(*mean.shape[:-1], -1)
    features = jnp.concatenate([jnp.sin(phase), jnp.cos(phase)], axis=-1)
    damping = jnp.concatenate([damping, damping], axis=-1)
    return features * jnp.exp(-0.5 * damping)


def contract(points: Float[Array, "... 3"]) -> Float[Array, "... 3"]:
    """Squeeze all of space into the ball of radius 2; the unit ball stays, eq. (5)."""
    squared = jnp.sum(points**2, axis=-1, keepdims=True)
    # Inside the unit ball the formula is not used: keep its derivative away from 1 / 0.
    norm = jnp.sqrt(jnp.maximum(squared, 1.0))
    return jnp.where(squared <= 1.0, points, (2.0 - 1.0 / norm) * (points / norm))


def contract_gaussian(
    mean: Float[Array, "N 3"], covariance: Float[Array, "N 3 3"]
) -> tuple[Float[Array, "N 3"], Float[Array, "N 3 3"]]:
    """The contraction of Gaussians, linearised at the mean (mip-NeRF 360 eq. 9): J Sigma J^T."""
    jacobian = jax.vmap(jax.jacfwd(contract))(mean)
    return contract(mean), jacobian @ covariance @ jnp.swapaxes(jacobian, -1, -2)
