"""DDIM backwards: from a picture to the noise that a sampler would have made it from.

Symbols
    z, z'       sample at time step t, and at the next, noisier one t'
    D           denoised estimate of x: (z - s eps(z, t)) / alpha

Equations
    (1)  z' = alpha' D + s' eps(z, t)               Song et al. 2021, eq. 14, with t' > t

The same formula as DDIM's step, towards noise: exact only as far as eps changes little from z to
z', so small steps are better.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from geojax.diffusion.parameterization import add_noise, x0_from_eps
from geojax.diffusion.schedule import Schedule


def ddim_invert(
    denoise: Callable[[Float[Array, "b *d"], Int[Array, "b"]], Float[Array, "b *d"]],
    schedule: Schedule,
    x: Float[Array, "b *d"],
    t: Int[Array, "b"],
    steps: int,
    gap: int,
) -> tuple[Float[Array, "b *d"], Float[Array, "b *d"]]:
    """(z, noise): x carried to t without chance, and the eps of the last step.

    z = alpha D + s noise for the D of that step.

    Args:
      denoise: (z, t) -> eps; called steps + 1 times, in a scan.
      schedule: noise schedule.
      x: [B, ...], clean; taken as the sample at time step 0.
      t: [B], where to; each item has its own steps.
      steps: equal ones from 0 to t - gap, at least 1.
      gap: length of one more, from there to t; t - gap is 0 at least.

    Raises:
      ValueError: for steps or gap below 1.
    """
    if steps < 1 or gap < 1:
        raise ValueError(f"steps and gap must be at least 1, got {steps} and {gap}")
    last = jnp.maximum(t - gap, 0)
    times = jnp.stack([last * k // steps for k in range(steps + 1)] + [t])

    def step(carry, between):
        z, _ = carry
        here, there = between
        eps = denoise(z, here)
        clean = x0_from_eps(schedule, z, eps, here)
        return (add_noise(schedule, clean, eps, there), eps), None

    (z, noise), _ = jax.lax.scan(step, (x, jnp.zeros_like(x)), (times[:-1], times[1:]))
    return z, noise
