"""Score distillation: an image model's opinion of a rendering, as a gradient. The whole family.

Symbols
    x               rendering, or its latent [B, ...]
    z, n            alpha x + s n, with n ~ N(0, 1) the noise that was added; sigma = s / alpha
    u, c, m         eps predicted for z without a prompt, with it, with a negative prompt
    o               eps predicted by a network that learns the renderings themselves
    d, g            c - u; the guidance scale

Equations: grad_x = w(t) residual, where
              residual                            w         source
    (1) SDS   u + g d - n                         s^2       Poole et al. 2022, eq. 3
    (2) SJC   u + g d - n,  or  u + g d           1         H. Wang et al. 2023, eq. 9 and 8
    (3) VSD   u + g d - o                         s^2       Z. Wang et al. 2023, eq. 9
    (4) CSD   d,  or  d + k (u - m)               s^2       Yu et al. 2023, eq. 7 and 10
    (5) NFSD  u + g d  below t = 200,             s^2       Katzir et al. 2023, eq. 9
              u - m + g d  from there on
    (6) ISM   u + g d - n, where z and n are      sigma     Liang et al. 2023, eq. 13
              those of DDIM inversion: n = u at the time step before t
    (7) PGC   r min(1, k / |r_p|), r that of (1)  s^2       after Pan et al. 2024, section 3

A new loss is one function of `Scores` and, where its weight or noise differ, a `Loss`.
`denoise(z, t, cond) -> eps` is closed over its parameters inside the caller's jitted step, which
takes them as an argument: weights must not become constants of the program.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from geojax.diffusion.guidance import guided
from geojax.diffusion.inversion import ddim_invert
from geojax.diffusion.parameterization import add_noise, per_item
from geojax.diffusion.schedule import Schedule
from geojax.methods.surrogate import DistillationMetrics, distill

Denoise = Callable[
    [Float[Array, "b *d"], Int[Array, "b"], Float[Array, "b l c"]], Float[Array, "b *d"]
]
Guidance = float | Float[Array, ""] | Float[Array, "b"]


class Scores(NamedTuple):
    """What is known of one noised rendering z: predictions of eps, each [B, ...].

    Attributes:
      noise: n.
      uncond, cond: u and c.
      t: [B], the time step of z.
      guidance: g, one for all or [B].
      negative: m, for the losses that ask for it.
      own: o, likewise.
    """

    noise: Float[Array, "b *d"]
    uncond: Float[Array, "b *d"]
    cond: Float[Array, "b *d"]
    t: Int[Array, "b"]
    guidance: Guidance
    negative: Float[Array, "b *d"] | None = None
    own: Float[Array, "b *d"] | None = None


def sds(s: Scores) -> Float[Array, "b *d"]:
    """DreamFusion, equation (1), and SJC with its variance reduced, equation (2)."""
    return guided(s.uncond, s.cond, s.guidance) - s.noise


def sjc_plain(s: Scores) -> Float[Array, "b *d"]:
    """Score Jacobian Chaining without variance reduction, equation (2)."""
    return guided(s.uncond, s.cond, s.guidance)


def vsd(s: Scores) -> Float[Array, "b *d"]:
    """ProlificDreamer, equation (3): where the renderings' own score ends, not where noise does."""
    return guided(s.uncond, s.cond, s.guidance) - _asked(s.own, "own")


def csd(s: Scores) -> Float[Array, "b *d"]:
    """Classifier score distillation, equation (4): what the prompt adds, and nothing else."""
    return s.cond - s.uncond


def csd_negative(s: Scores, against: float = 1.0) -> Float[Array, "b *d"]:
    """Equation (4) with k = `against`, away from the negative prompt; k = 1 is c - m."""
    return csd(s) + against * (s.uncond - _asked(s.negative, "negative"))


def nfsd(s: Scores, small: int = 200) -> Float[Array, "b *d"]:
    """Noise-free score distillation, equation (5): u holds noise only where t is large."""
    is_large = per_item((s.t >= small).astype(s.uncond.dtype), s.uncond)
    return guided(s.uncond, s.cond, s.guidance) - is_large * _asked(s.negative, "negative")


def pgc(s: Scores, most: float = 1.0) -> Float[Array, "b *d"]:
    """Pixel-wise gradient clipping, equation (7): |r_p| over the channels, k = `most`.

    At the pixels of x, which may be a latent; the paper clips behind the encoder's Jacobian.
    """
    r = sds(s)
    norm = jnp.sqrt(jnp.sum(r**2, axis=-1, keepdims=True))
    return r * (most / jnp.maximum(norm, most))


def noise_variance(schedule: Schedule, t: Int[Array, "b"]) -> Float[Array, "b"]:
    """w = s^2 = 1 - abar_t: little weight where there is little noise."""
    return 1.0 - schedule.abar(t)


def uniform(schedule: Schedule, t: Int[Array, "b"]) -> Float[Array, "b"]:
    """w = 1."""
    return jnp.ones_like(schedule.abar(t))


def noise_level(schedule: Schedule, t: Int[Array, "b"]) -> Float[Array, "b"]:
    """w = sigma_t: the residual as a difference of pictures, (D - x) = -sigma (eps - n)."""
    return schedule.sigma(t)


def diffuse(
    key: Key[Array, ""], schedule: Schedule, x: Float[Array, "b *d"], t: Int[Array, "b"]
) -> tuple[Float[Array, "b *d"], Float[Array, "b *d"]]:
    """(z, noise): x with fresh noise at t; stopped. `key` is consumed."""
    noise = jax.random.normal(key, x.shape, x.dtype)
    return add_noise(schedule, jax.lax.stop_gradient(x), noise, t), noise


def predict(
    denoise: Denoise,
    z: Float[Array, "b *d"],
    t: Int[Array, "b"],
    conds: Float[Array, "k b l c"],
) -> Float[Array, "k b *d"]:
    """The predictions of z under K conditions an item, in one call of batch B K; stopped.

    An item's K copies lie next to each other, so that a batch sharded over devices stays where it
    is.
    """
    count = conds.shape[0]
    by_item = jnp.moveaxis(conds, 0, 1).reshape(-1, *conds.shape[2:])
    eps = denoise(jnp.repeat(z, count, axis=0), jnp.repeat(t, count, axis=0), by_item)
    eps = eps.reshape(z.shape[0], count, *z.shape[1:])
    return jax.lax.stop_gradient(jnp.moveaxis(eps, 1, 0))


class Loss(NamedTuple):
    """One member of the family.

    Attributes:
      residual: one of the functions of `Scores`.
      weighting: (schedule, t) -> w [B].
      inversion: (steps, gap) of `ddim_invert` in place of random noise; None draws it.
    """

    residual: Callable[[Scores], Float[Array, "b *d"]]
    weighting: Callable[[Schedule, Int[Array, "b"]], Float[Array, "b"]] = noise_variance
    inversion: tuple[int, int] | None = None


SDS = Loss(sds)
SJC = Loss(sds, uniform)
SJC_PLAIN = Loss(sjc_plain, uniform)
VSD = Loss(vsd)
CSD = Loss(csd)
CSD_NEGATIVE = Loss(csd_negative)
NFSD = Loss(nfsd)
ISM = Loss(sds, noise_level, inversion=(4, 50))
PGC = Loss(pgc)


def score_distillation_loss(
    key: Key[Array, ""],
    denoise: Denoise,
    schedule: Schedule,
    x: Float[Array, "b *d"],
    t: Int[Array, "b"],
    cond: Float[Array, "b l c"],
    uncond: Float[Array, "b l c"],
    guidance: Guidance,
    loss: Loss = SDS,
    negative: Float[Array, "b l c"] | None = None,
    own: Denoise | None = None,
) -> tuple[Float[Array, ""], DistillationMetrics]:
    """The loss, and metrics, of any member of the family.

    Args:
        key: random key of the noise, consumed.
        denoise: (z, t, cond) -> eps; one call of batch 2 B, or 3 B with a negative prompt.
        schedule: noise schedule.
        x: [B, ...], rendering or latent; the only argument that gets a gradient.
        t: [B], time steps.
        cond: [B, L, D], one prompt a view.
        uncond: [B, L, D], the empty prompt.
        guidance: g, one for all or [B].
        loss: which residual, weight and noise; DreamFusion's by default.
        negative: [B, L, D], the prompt of m.
        own: the network of o, of the same arguments as `denoise`.

    Raises:
        ValueError: when the residual asks for a negative prompt or a network that is not given.
    """
    if loss.inversion is None:
        z, noise = diffuse(key, schedule, x, t)
    else:
        frozen = jax.lax.stop_gradient(x)
        z, noise = ddim_invert(
            lambda z, t: denoise(z, t, uncond), schedule, frozen, t, *loss.inversion
        )
    conds = [uncond, cond] if negative is None else [uncond, cond, negative]
    eps = predict(denoise, z, t, jnp.stack(conds))
    scores = Scores(
        noise, eps[0], eps[1], t, guidance,
        negative=None if negative is None else eps[2],
        own=None if own is None else own(z, t, cond),
    )  # fmt: skip
    return distill(x, loss.residual(scores), loss.weighting(schedule, t), t)


def _asked(scores: Float[Array, "b *d"] | None, name: str) -> Float[Array, "b *d"]:
    if scores is None:
        raise ValueError(f"this loss compares with {name!r}, which was not given")
    return scores
