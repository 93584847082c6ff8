"""Samplers: from noise to a picture, one `lax.scan` over the time steps.

Symbols
    z           sample in the frame of `Schedule`: z = alpha x + s eps, unit variance at the start
    y           sample in EDM's frame: y = z / alpha = x + sigma eps
    D           denoised estimate of x: (z - s eps) / alpha = y - sigma eps
    ', _        the next (less noisy) time step, and the one before
    lambda      log(alpha / s) = -log sigma;  h = lambda' - lambda

Equations
    (1)  DDIM         z' = alpha' D + sqrt(s'^2 - c^2) eps + c n,    n ~ N(0, 1)
                      c = eta (s' / s) sqrt(1 - abar / abar')         Song et al. 2021, eq. 12, 16
    (2)  Euler        y' = y + (sigma' - sigma) eps                   Karras et al. 2022, alg. 1
    (3)  ancestral    up^2 = sigma'^2 (sigma^2 - sigma'^2) / sigma^2,  down^2 = sigma'^2 - up^2
                      y' = y + (down - sigma) eps + up n              Crowson, k-diffusion
    (4)  DPM++ 2M     E = D + (h / (2 h_)) (D - D_)                   Lu et al. 2022, DPM-Solver++,
                      z' = (s' / s) z + alpha' (1 - sigma' / sigma) E         alg. 2
         with E = D in the first and the last step.

Time steps are Stable Diffusion's: "leading" spacing, steps_offset 1. DDIM ends at the noise level
of t = 0 (set_alpha_to_one False); the other samplers end at sigma = 0, the clean picture. With few
steps, leading ones begin far below T, at a level where the network expects a picture behind the
noise; "trailing" ones (Lin et al. 2024, section 3.3) begin at T - 1. A single one gives D there:
the mean of all pictures that the condition allows.

Each sampler takes `denoise(z, t) -> eps` with z [B, ...] and t [B] int32, closed over whatever it
needs (parameters, prompts, guidance), and `start`, the index of the first step: 0 from pure noise,
`start_index(steps, strength)` from a noised image (`noised_start`). `constrain(z, i, alpha, s)`,
where given, sees every sample after step i, noised to z = alpha x + s eps, and says what to go on
with (inpainting puts what is known back); after the last step alpha = 1 and s = 0.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from geojax.diffusion.parameterization import add_noise
from geojax.diffusion.schedule import Schedule

Denoise = Callable[[Float[Array, "b *d"], Int[Array, "b"]], Float[Array, "b *d"]]
Constrain = Callable[
    [Float[Array, "b *d"], Int[Array, ""], Float[Array, ""], Float[Array, ""]],
    Float[Array, "b *d"],
]

TimeSteps = Callable[[Schedule, int], np.ndarray]


class Sampler(NamedTuple):
    """A sampler as a method takes it: any of them in one form.

    Attributes:
        sample: (key, denoise, schedule, z, steps, start=0, constrain=None) -> sample; the key is
            consumed by the stochastic ones and left alone by the others.
        time_steps: (schedule, steps) -> its time steps, falling [steps].
    """

    sample: Callable[..., Float[Array, "b *d"]]
    time_steps: TimeSteps


def time_steps(schedule: Schedule, steps: int) -> np.ndarray:
    """The time steps of DDIM and the Euler samplers, falling: floor(T / steps) k + 1, [steps].

    Raises:
        ValueError: when `steps` is not in 1..T - 1 (the offset of 1 leaves no room for T).
    """
    return _leading(schedule, steps, steps)


def trailing_time_steps(schedule: Schedule, steps: int) -> np.ndarray:
    """The time steps of DDIM that begin at T - 1, falling: round(T - k T / steps) - 1, [steps].

    Raises:
        ValueError: when `steps` is not in 1..T.
    """
    if not 1 <= steps <= schedule.num_steps:
        raise ValueError(f"a schedule of {schedule.num_steps} time steps cannot take {steps} steps")
    share = np.arange(steps) / steps
    return (np.round(schedule.num_steps * (1.0 - share)) - 1.0).astype(np.int32)


def dpm_time_steps(schedule: Schedule, steps: int) -> np.ndarray:
    """The time steps of DPM-Solver++, falling: floor(T / (steps + 1)) k + 1 for k >= 1, [steps].

    diffusers divides the range by one step more here, and starts lower; so do we, to agree.
    """
    return _leading(schedule, steps, steps + 1)[:steps]


def start_index(steps: int, strength: float) -> int:
    """First step of image-to-image: of `steps`, the last min(int(steps strength), steps) run.

    Raises:
        ValueError: when strength is not in (0, 1], or so low that no step is left.
    """
    if not 0.0 < strength <= 1.0:
        raise ValueError(f"strength must be in (0, 1], got {strength}")
    run = min(int(steps * strength), steps)
    if run == 0:
        raise ValueError(f"strength {strength} leaves none of {steps} steps; raise either")
    return steps - run


def noised_start(
    sampler: Sampler,
    schedule: Schedule,
    x: Float[Array, "b *d"],
    eps: Float[Array, "b *d"],
    steps: int,
    strength: float,
) -> tuple[Float[Array, "b *d"], int]:
    """Where image-to-image starts: x at the noise level of the first step, and that step's index.

    Args:
        sampler: whose time steps count.
        schedule: noise schedule.
        x: clean image or latent [B, ...].
        eps: noise [B, ...].
        steps: of the whole range.
        strength: share of them that runs, in (0, 1].

    Raises:
        ValueError: as `start_index` and the sampler's `time_steps`.
    """
    start = start_index(steps, strength)
    t = int(sampler.time_steps(schedule, steps)[start])
    return add_noise(schedule, x, eps, jnp.full(x.shape[:1], t)), start


def sample_ddim(
    denoise: Denoise,
    schedule: Schedule,
    z: Float[Array, "b *d"],
    steps: int,
    start: int = 0,
    constrain: Constrain | None = None,
    times: TimeSteps = time_steps,
) -> Float[Array, "b *d"]:
    """Deterministic DDIM, equation (1) with eta = 0.

    Args:
        denoise: predicts eps.
        schedule: noise schedule.
        z: [B, ...]; N(0, 1) for start = 0, else an image noised at time_steps(...)[start].
        steps: number of steps of the whole range.
        start: index of the first step, 0..steps - 1.
        constrain: what to go on with after each step; see the head of this file.
        times: its time steps, `time_steps` or `trailing_time_steps`.

    Returns:
        the sample [B, ...], at the noise level of t = 0.
    """
    return _ddim(denoise, schedule, z, steps, start, 0.0, None, constrain, times)


def sample_ddim_stochastic(
    key: Key[Array, ""],
    denoise: Denoise,
    schedule: Schedule,
    z: Float[Array, "b *d"],
    steps: int,
    eta: float = 1.0,
    start: int = 0,
    constrain: Constrain | None = None,
) -> Float[Array, "b *d"]:
    """DDIM with noise, equation (1); eta = 1 is DDPM's ancestral sampling. `key` is consumed.

    The noise of step i is drawn from `fold_in(key, i)`. Other arguments as in `sample_ddim`.
    """
    return _ddim(denoise, schedule, z, steps, start, eta, key, constrain, time_steps)


def sample_euler(
    denoise: Denoise,
    schedule: Schedule,
    z: Float[Array, "b *d"],
    steps: int,
    start: int = 0,
    constrain: Constrain | None = None,
) -> Float[Array, "b *d"]:
    """Euler's method, equation (2). Arguments as in `sample_ddim`; returns the clean sample."""
    t, sigma, sigma_next = _sigmas(schedule, time_steps(schedule, steps)[start:])

    def step(y, at):
        i, t, sigma, sigma_next = at
        eps = _call(denoise, _to_z(y, sigma), t)
        return _constrained(y + (sigma_next - sigma) * eps, i, sigma_next, constrain), None

    index = jnp.arange(start, steps)
    return jax.lax.scan(step, _to_y(z, sigma[0]), (index, t, sigma, sigma_next))[0]


def sample_euler_ancestral(
    key: Key[Array, ""],
    denoise: Denoise,
    schedule: Schedule,
    z: Float[Array, "b *d"],
    steps: int,
    start: int = 0,
    constrain: Constrain | None = None,
) -> Float[Array, "b *d"]:
    """Euler's method with fresh noise, equation (3). `key` is consumed.

    The noise of step i is drawn from `fold_in(key, i)`. Other arguments as in `sample_ddim`;
    returns the clean sample.
    """
    t, sigma, sigma_next = _sigmas(schedule, time_steps(schedule, steps)[start:])
    up = jnp.sqrt(sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2)
    down = jnp.sqrt(sigma_next**2 - up**2)

    def step(y, at):
        i, t, sigma, sigma_next, down, up = at
        eps = _call(denoise, _to_z(y, sigma), t)
        noise = jax.random.normal(jax.random.fold_in(key, i), y.shape, y.dtype)
        y = y + (down - sigma) * eps + up * noise
        return _constrained(y, i, sigma_next, constrain), None

    index = jnp.arange(start, steps)
    return jax.lax.scan(step, _to_y(z, sigma[0]), (index, t, sigma, sigma_next, down, up))[0]


def sample_dpm_solver(
    denoise: Denoise,
    schedule: Schedule,
    z: Float[Array, "b *d"],
    steps: int,
    start: int = 0,
    constrain: Constrain | None = None,
) -> Float[Array, "b *d"]:
    """DPM-Solver++(2M), equation (4): second order, one prediction a step.

    Arguments as in `sample_ddim`, with `dpm_time_steps` for the time steps; returns the clean
    sample.
    """
    t, sigma, sigma_next = _sigmas(schedule, dpm_time_steps(schedule, steps)[start:])
    # h / (2 h_) of the multistep correction; 0 in the first step, which has no past, and in the
    # last, where lambda' is infinite.
    h = jnp.log(sigma[:-1] / sigma[1:])
    extrapolate = jnp.concatenate([jnp.zeros(1), 0.5 * h[1:] / h[:-1], jnp.zeros(1)])[: len(t)]

    def step(carry, at):
        y, previous = carry
        i, t, sigma, sigma_next, extrapolate = at
        denoised = y - sigma * _call(denoise, _to_z(y, sigma), t)
        estimate = denoised + extrapolate * (denoised - previous)
        # (4) divided by alpha', so that it reads in EDM's frame
        ratio = sigma_next / sigma
        y = _constrained(ratio * y + (1.0 - ratio) * estimate, i, sigma_next, constrain)
        return (y, denoised), None

    y, over = _to_y(z, sigma[0]), (jnp.arange(start, steps), t, sigma, sigma_next, extrapolate)
    return jax.lax.scan(step, (y, jnp.zeros_like(y)), over)[0][0]


def _keyless(sample: Callable[..., Float[Array, "b *d"]]) -> Callable[..., Float[Array, "b *d"]]:
    """A deterministic sampler in the form of the others."""
    return lambda key, *rest, **options: sample(*rest, **options)


DDIM = Sampler(_keyless(sample_ddim), time_steps)
DDIM_TRAILING = Sampler(
    _keyless(functools.partial(sample_ddim, times=trailing_time_steps)), trailing_time_steps
)
EULER = Sampler(_keyless(sample_euler), time_steps)
EULER_ANCESTRAL = Sampler(sample_euler_ancestral, time_steps)
DPM_SOLVER = Sampler(_keyless(sample_dpm_solver), dpm_time_steps)


def _ddim(denoise, schedule, z, steps, start, eta, key, constrain, times):
    t_all = times(schedule, steps)[start:]
    t = jnp.asarray(t_all)
    # Past the last step diffusers asks for abar at t - T // steps < 0 and gets abar_0.
    t_next = jnp.asarray(np.maximum(t_all - schedule.num_steps // steps, 0))
    alpha, s, alpha_next, s_next = (
        schedule.alpha(t),
        schedule.s(t),
        schedule.alpha(t_next),
        schedule.s(t_next),
    )
    c = eta * (s_next / s) * jnp.sqrt(1.0 - (alpha / alpha_next) ** 2)
    direction = jnp.sqrt(s_next**2 - c**2)
    # What a constraint is told: the level of the next step, and at the end none.
    level = jnp.append(alpha[1:], 1.0), jnp.append(s[1:], 0.0)

    def step(z, at):
        i, t, alpha, s, alpha_next, direction, c, level = at
        eps = _call(denoise, z, t)
        z_next = alpha_next * (z - s * eps) / alpha + direction * eps
        if key is not None:
            z_next += c * jax.random.normal(jax.random.fold_in(key, i), z.shape, z.dtype)
        return (z_next if constrain is None else constrain(z_next, i, *level)), None

    index = jnp.arange(start, steps)
    return jax.lax.scan(step, z, (index, t, alpha, s, alpha_next, direction, c, level))[0]


def _leading(schedule: Schedule, steps: int, parts: int) -> np.ndarray:
    ratio = schedule.num_steps // parts if steps >= 1 else 0
    t = (np.arange(parts) * ratio + 1)[::-1].astype(np.int32)
    if ratio < 1 or t[0] > schedule.num_steps - 1:
        raise ValueError(f"a schedule of {schedule.num_steps} time steps cannot take {steps} steps")
    return t


def _sigmas(schedule: Schedule, t: np.ndarray):
    """(t, sigma, sigma') of each step; sigma' of the last is 0."""
    sigma = schedule.sigma(jnp.asarray(t))
    return jnp.asarray(t), sigma, jnp.concatenate([sigma[1:], jnp.zeros(1)])


def _to_y(z, sigma):
    return z * jnp.sqrt(1.0 + sigma**2)  # 1 / alpha


def _to_z(y, sigma):
    return y / jnp.sqrt(1.0 + sigma**2)


def _constrained(y, i, sigma, constrain):
    """y after a step to sigma, constrained in the frame of `Schedule`."""
    if constrain is None:
        return y
    alpha = 1.0 / jnp.sqrt(1.0 + sigma**2)
    return _to_y(constrain(_to_z(y, sigma), i, alpha, sigma * alpha), sigma)


def _call(denoise: Denoise, z: Float[Array, "b *d"], t: Int[Array, ""]) -> Float[Array, "b *d"]:
    """The prediction with one time step an item, as float like z."""
    return denoise(z, jnp.broadcast_to(t, z.shape[:1])).astype(z.dtype)
