"""Which noise levels a distillation step looks at.

Symbols
    t           time step, int32 in 0..T-1
    u           time fraction t / T; a range is (low, high)
    i, N        optimisation step, and how many there are

Equations
    (1)  t ~ U{low T, ..., high T}                               Poole et al. 2022: (.02, .98)
    (2)  high, low move linearly from their first to their last value over M steps, then stay
    (3)  the range jumps at step M                               Wang et al. 2023, ProlificDreamer
    (4)  u = low + (high - low) (1 - sqrt(i / N))                Zhu and Zhuang 2023, HiFA, eq. 9
    (5)  W(t) = exp(-(t - m1)^2 / 2 s1^2) for t > m1, 1 for m2 <= t <= m1,
                exp(-(t - m2)^2 / 2 s2^2) for t < m2             Huang et al. 2023, DreamTime
    (6)  t(i) = argmin_t |sum_{t' >= t} W(t') / sum W - i / N|,  t in 1..T

DreamTime's t falls as (4) does, but dwells where W is large: on the steps that make content.
Large t fixes shape and pose, small t fixes texture; annealing goes from one to the other.
Ranges and fractions may be traced, so a step function need not be compiled again.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

Fraction = float | Float[Array, ""]
Step = int | Int[Array, ""]
Range = tuple[Fraction, Fraction]


def uniform(key: Key[Array, ""], count: int, between: Range, num_steps: int) -> Int[Array, "b"]:
    """Independent draws of equation (1), both ends included.

    Args:
        key: random key, consumed.
        count: number of draws B.
        between: (low, high) as fractions of `num_steps`, in [0, 1].
        num_steps: T.

    Returns:
        [B] int32.
    """
    low, high = _bounds(between, num_steps)
    return jax.random.randint(key, (count,), low, high + 1, jnp.int32)


def stratified(key: Key[Array, ""], count: int, between: Range, num_steps: int) -> Int[Array, "b"]:
    """As `uniform`, with one draw an equal part of the range, in random order.

    Each t is still uniform on the range, but a batch always holds large and small noise levels, so
    the gradient varies less between steps. The order is shuffled, so that a view stratified by
    azimuth has no noise level of its own.
    """
    low, high = _bounds(between, num_steps)
    order_key, key = jax.random.split(key)
    part = jnp.arange(count, dtype=jnp.float32) + jax.random.uniform(key, (count,))
    span = (high - low + 1).astype(jnp.float32)
    t = low + jnp.floor(part / count * span).astype(jnp.int32)
    return jax.random.permutation(order_key, jnp.minimum(t, high))


def linear_range(step: Step, first: Range, last: Range, steps: int) -> Range:
    """Equation (2): (low, high) at `step`, from `first` at 0 to `last` at `steps` and after."""
    done = jnp.clip(jnp.asarray(step, jnp.float32) / max(steps, 1), 0.0, 1.0)
    low, high = (a + (b - a) * done for a, b in zip(first, last, strict=True))
    return low, high


def jump_range(step: Step, first: Range, last: Range, at: int) -> Range:
    """Equation (3): `first` before step `at`, `last` from then on."""
    late = jnp.asarray(step) >= at
    low, high = (
        jnp.where(late, jnp.float32(b), jnp.float32(a)) for a, b in zip(first, last, strict=True)
    )
    return low, high


def sqrt_annealed(
    step: Step, steps: int, count: int, between: Range, num_steps: int
) -> Int[Array, "b"]:
    """Equation (4), deterministic: one time step for all, falling from high to low.

    Args:
        step: i, in 0..steps.
        steps: N.
        count: B.
        between: (low, high) as fractions.
        num_steps: T.

    Returns:
        [B] int32, all equal.
    """
    low, high = between
    done = jnp.clip(jnp.asarray(step, jnp.float32) / steps, 0.0, 1.0)
    fraction = low + (high - low) * (1.0 - jnp.sqrt(done))
    return jnp.broadcast_to(_to_step(fraction, num_steps), (count,))


def dreamtime_weights(
    num_steps: int,
    means: tuple[float, float] = (800.0, 500.0),
    widths: tuple[float, float] = (300.0, 100.0),
) -> Float[np.ndarray, " t"]:
    """W of equation (5) at t = 1..T; the numbers are of the paper's T = 1000.

    Args:
        num_steps: T.
        means: (m1, m2), time steps, m2 <= m1.
        widths: (s1, s2), time steps.
    """
    t = np.arange(1, num_steps + 1)
    (m1, m2), (s1, s2) = means, widths
    above = np.exp(-(np.maximum(t - m1, 0.0) ** 2) / (2 * s1**2))
    below = np.exp(-(np.minimum(t - m2, 0.0) ** 2) / (2 * s2**2))
    return above * below


def dreamtime(
    step: Step, steps: int, count: int, weights: Float[np.ndarray, " t"]
) -> Int[Array, "b"]:
    """Equation (6), deterministic: one time step for all, never rising.

    Args:
        step: i, in 0..steps.
        steps: N.
        count: B.
        weights: W at 1..T (`dreamtime_weights`).

    Returns:
        [B] int32, all equal, in 1..T; t = T is a schedule's last entry, which clamps (T - 1).
    """
    # Summed on the host, in float64.
    share = np.cumsum(weights[::-1])[::-1] / np.sum(weights)
    done = jnp.clip(jnp.asarray(step, jnp.float32) / steps, 0.0, 1.0)
    distance = jnp.abs(jnp.asarray(share, jnp.float32) - done)
    t = jnp.argmin(distance).astype(jnp.int32) + 1
    return jnp.broadcast_to(t, (count,))


def _bounds(between: Range, num_steps: int) -> tuple[Int[Array, ""], Int[Array, ""]]:
    return _to_step(between[0], num_steps), _to_step(between[1], num_steps)


def _to_step(fraction: Fraction, num_steps: int) -> Int[Array, ""]:
    # Rounded, not cut: .29 * 1000 is 289.99... in floating point.
    t = jnp.round(jnp.asarray(fraction, jnp.float32) * num_steps).astype(jnp.int32)
    return jnp.clip(t, 0, num_steps - 1)
