"""Noise schedules of discrete-time diffusion.

Symbols
    t                   time step, an integer in 0..T-1; larger is noisier
    beta_t              variance added in one step
    alpha_t, s_t        z_t = alpha_t x + s_t eps, with alpha_t^2 + s_t^2 = 1
    abar_t              alpha_t^2 (`alphas_cumprod` in diffusers)
    sigma_t             s_t / alpha_t, the noise level of Karras et al. (2022, EDM)

Equations
    (1)  abar_t = prod_{i <= t} (1 - beta_i)                               Ho et al. 2020, eq. 4
    (2)  beta = linspace(beta_start, beta_end)                             Ho et al. 2020, sec. 4
    (3)  beta = linspace(sqrt(beta_start), sqrt(beta_end))^2               Rombach et al. 2022
    (4)  beta_t = min(1 - f((t + 1) / T) / f(t / T), .999),
         f(u) = cos^2(pi / 2 (u + .008) / 1.008)                           Nichol and Dhariwal 2021
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from geojax import pytree


@pytree.register
@dataclass(frozen=True)
class Schedule:
    """abar_t for every time step, a pytree. `t` may have any shape; the answer has the same.

    Time steps outside 0..T-1 are clamped, as JAX clamps every gather.
    """

    alphas_cumprod: Float[Array, "t"]

    @property
    def num_steps(self) -> int:
        """T, the number of time steps."""
        return self.alphas_cumprod.shape[0]

    def abar(self, t: Int[Array, "*b"]) -> Float[Array, "*b"]:
        """abar_t, the share of the signal in the variance; in (0, 1), falling with t."""
        return self.alphas_cumprod[t]

    def alpha(self, t: Int[Array, "*b"]) -> Float[Array, "*b"]:
        """alpha_t = sqrt(abar_t), the factor of the signal."""
        return jnp.sqrt(self.abar(t))

    def s(self, t: Int[Array, "*b"]) -> Float[Array, "*b"]:
        """s_t = sqrt(1 - abar_t), the factor of the noise."""
        return jnp.sqrt(1.0 - self.abar(t))

    def sigma(self, t: Int[Array, "*b"]) -> Float[Array, "*b"]:
        """sigma_t = s_t / alpha_t, EDM's noise level; rises with t."""
        return self.s(t) / self.alpha(t)

    def nearest(self, sigma: Float[Array, "*b"]) -> Int[Array, "*b"]:
        """t whose sigma_t is nearest to the given noise level; past the ends, 0 or T - 1."""
        table = self.sigma(jnp.arange(self.num_steps))
        apart = jnp.abs(sigma[..., None] - jnp.expand_dims(table, range(sigma.ndim)))
        return jnp.argmin(apart, axis=-1).astype(jnp.int32)


def scaled_linear(
    num_steps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012
) -> Schedule:
    """Equation (3); the defaults are Stable Diffusion's."""
    _check(num_steps, beta_start, beta_end)
    return _from_betas(np.linspace(beta_start**0.5, beta_end**0.5, num_steps) ** 2)


def linear(num_steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
    """Equation (2); the defaults are DDPM's."""
    _check(num_steps, beta_start, beta_end)
    return _from_betas(np.linspace(beta_start, beta_end, num_steps))


def cosine(num_steps: int = 1000, max_beta: float = 0.999) -> Schedule:
    """Equation (4), called squaredcos_cap_v2 in diffusers. alpha at the last step is near 0."""
    _check(num_steps, max_beta, max_beta)
    u = np.arange(num_steps + 1) / num_steps
    f = np.cos(0.5 * np.pi * (u + 0.008) / 1.008) ** 2
    return _from_betas(np.minimum(1.0 - f[1:] / f[:-1], max_beta))


def from_config(config: Mapping[str, Any]) -> Schedule:
    """The schedule that a diffusers `scheduler_config.json` describes.

    Raises:
        ValueError: for a beta schedule that is not known, or rescaled to zero terminal SNR (there
            alpha_T = 0, and no noise prediction can be turned into a picture).
    """
    if config.get("trained_betas") is not None:
        return _from_betas(np.asarray(config["trained_betas"], np.float64))
    if config.get("rescale_betas_zero_snr"):
        raise ValueError("rescale_betas_zero_snr=True is not supported: it makes alpha_T zero")
    kind = config.get("beta_schedule", "linear")
    num_steps = config.get("num_train_timesteps", 1000)
    if kind == "squaredcos_cap_v2":
        return cosine(num_steps)
    makers = {"linear": linear, "scaled_linear": scaled_linear}
    if kind not in makers:
        expected = ", ".join((*makers, "squaredcos_cap_v2"))
        raise ValueError(f"unknown beta_schedule {kind!r}; expected one of {expected}")
    # diffusers' own defaults, for a file that leaves them out
    return makers[kind](num_steps, config.get("beta_start", 1e-4), config.get("beta_end", 0.02))


def _from_betas(betas: np.ndarray) -> Schedule:
    """Equation (1), in float64: a thousand factors near 1 lose digits in float32."""
    if betas.ndim != 1 or not np.all((betas > 0) & (betas < 1)):
        raise ValueError(f"betas must be a list of numbers in (0, 1), got {betas}")
    return Schedule(jnp.asarray(np.cumprod(1.0 - betas), jnp.float32))


def _check(num_steps: int, beta_start: float, beta_end: float) -> None:
    if num_steps < 1:
        raise ValueError(f"a schedule needs at least one step, got {num_steps}")
    if not 0.0 < beta_start <= beta_end < 1.0:
        raise ValueError(
            f"betas must satisfy 0 < start <= end < 1, got start {beta_start}, end {beta_end}"
        )
