"""RePaint's walk: down the noise levels, up again, and down, so that a constraint is heard.

Symbols
    i           level: step i is about to be taken; level N is the clean end
    j, r        length of a jump, and how often each stretch of j levels is walked
    D           denoised estimate, (z - s eps) / alpha
    ', ^        the next (less noisy) level, and the noisier one that is jumped to

Equations
    (1)  down   z' = alpha' D + sqrt(s'^2 - c^2) eps + c n,    c = (s' / s) sqrt(1 - abar / abar')
    (2)  up     z^ = (alpha^ / alpha) z + sqrt(s^^2 - (alpha^ / alpha)^2 s^2) n,   n ~ N(0, 1)

Lugmayr et al., "RePaint: Inpainting using Denoising Diffusion Probabilistic Models" (2022),
algorithm 1 and appendix B (the walk). A constraint alone leaves what is painted and what is known
side by side: each step harmonises them for what was known then. Noising both together and walking
down again lets the network see, and mend, the whole.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from geojax.diffusion.samplers import Constrain, Denoise, Sampler, time_steps
from geojax.diffusion.schedule import Schedule


def resampling_walk(steps: int, start: int = 0, jump: int = 10, repeats: int = 10) -> np.ndarray:
    """The steps that are taken, in order; each is an index into the time steps.

    Args:
        steps: N.
        start: level of the first step.
        jump: j, levels to go up at a time.
        repeats: r; 1 is the plain descent.

    Returns:
        [K] indices in start..N - 1, falling by more than it rises only at a jump; the last step, to
        the clean end, is taken once. N - start + (r - 1) j times the number of stretches.

    Raises:
        ValueError: a jump or a repeat below 1.
    """
    if jump < 1 or repeats < 1:
        raise ValueError(f"jump and repeats must be at least 1, got {jump} and {repeats}")
    left = {level: repeats - 1 for level in range(steps - 1, start + jump - 1, -jump)}
    level, walk = start, []
    while level < steps:
        walk.append(level)
        level += 1
        if left.get(level, 0):
            left[level] -= 1
            level -= jump
    return np.asarray(walk, np.int32)


def resampling(jump: int = 10, repeats: int = 10) -> Sampler:
    """RePaint's sampler in the form of the others, to be used with a constraint.

    Its noise is fresh in every step. A constraint is told the number of the step within the walk.

    Args:
        jump: j, steps to go back at a time; RePaint takes 10 of 250.
        repeats: r, how often each stretch is walked: the time grows by about this factor.
    """

    def sample(
        key: Key[Array, ""],
        denoise: Denoise,
        schedule: Schedule,
        z: Float[Array, "b *d"],
        steps: int,
        start: int = 0,
        constrain: Constrain | None = None,
    ) -> Float[Array, "b *d"]:
        t = jnp.asarray(time_steps(schedule, steps))
        # Of levels 0..N; the last is clean.
        alpha, s = jnp.append(schedule.alpha(t), 1.0), jnp.append(schedule.s(t), 0.0)
        walk = jnp.asarray(resampling_walk(steps, start, jump, repeats))
        following = jnp.append(walk[1:], steps)  # the level at which the next step starts

        def step(z, at):
            k, i, top = at
            down_noise, up_noise = (
                jax.random.normal(jax.random.fold_in(key, 2 * k + part), z.shape, z.dtype)
                for part in range(2)
            )
            eps = denoise(z, jnp.broadcast_to(t[i], z.shape[:1])).astype(z.dtype)
            denoised = (z - s[i] * eps) / alpha[i]
            c = s[i + 1] / s[i] * jnp.sqrt(1.0 - (alpha[i] / alpha[i + 1]) ** 2)
            z = alpha[i + 1] * denoised + jnp.sqrt(s[i + 1] ** 2 - c**2) * eps + c * down_noise
            if constrain is not None:
                z = constrain(z, k, alpha[i + 1], s[i + 1])
            # Without a jump `top` is i + 1, and equation (2) is the identity.
            ratio = alpha[top] / alpha[i + 1]
            added = jnp.maximum(s[top] ** 2 - (ratio * s[i + 1]) ** 2, 0.0)
            return ratio * z + jnp.sqrt(added) * up_noise, None

        index = jnp.arange(len(walk))
        return jax.lax.scan(step, z, (index, walk, following))[0]

    return Sampler(sample, time_steps)
