"""Score Jacobian Chaining: a denoiser's score of a rendering, and its losses on a voxel field.

Symbols
    y, n            rendering or latent [B, ...]; noise N(0, 1)
    sigma           noise level; the network sees z = (y + sigma n) / sqrt(1 + sigma^2), at the
                    time step whose own level is nearest
    D(z; sigma)     denoised estimate of y: y + sigma n - sigma eps
    w_i             weight of sample i along a ray

Equations
    (1)  PAAS(y) = E_n (D - (y + sigma n)) / sigma^2          H. Wang et al. 2023, eq. 7, 8
    (2)  PAAS(y) = E_n (D - y) / sigma^2                      eq. 9: E n = 0, less variance
    (3)  emptiness = mean over all samples of log(1 + 10 w_i)             section 4.3
    (4)  centre = -log(depth of the border - depth of the centre)         section 4.3

Of one draw, -sigma (2) is `score_distillation.sds` and -sigma (1) is `sjc_plain`: eps - n, and eps.
The authors' code has (4) with the difference the wrong way round, which their gradient forgives
only while the centre is nearer (issue 21 of their repository); here it is right.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from geojax.diffusion.guidance import guided
from geojax.diffusion.parameterization import per_item
from geojax.diffusion.schedule import Schedule
from geojax.methods.score_distillation import Denoise, Guidance, predict


def perturb_and_average(
    key: Key[Array, ""],
    denoise: Denoise,
    schedule: Schedule,
    y: Float[Array, "b *d"],
    sigma: Float[Array, "b"],
    cond: Float[Array, "b l c"],
    uncond: Float[Array, "b l c"],
    guidance: Guidance,
    draws: int = 1,
    reduced: bool = True,
) -> Float[Array, "b *d"]:
    """The score of y at the noise level sigma, equation (2), or (1) where not `reduced`.

    Args:
      key: of the noise, consumed.
      denoise, schedule, cond, uncond: as in `score_distillation_loss`.
      y: [B, ...].
      sigma: [B], positive.
      guidance: g, one for all or [B].
      draws: over which the mean is taken, one after the other.

    Returns:
      [B, ...], stopped; it points to where pictures are likely.
    """
    y, t = jax.lax.stop_gradient(y), schedule.nearest(sigma)
    level = per_item(sigma, y)

    def draw(key: Key[Array, ""]) -> Float[Array, "b *d"]:
        noisy = y + level * jax.random.normal(key, y.shape, y.dtype)
        eps = predict(denoise, noisy / jnp.sqrt(1.0 + level**2), t, jnp.stack([uncond, cond]))
        denoised = noisy - level * guided(eps[0], eps[1], guidance)
        return (denoised - (y if reduced else noisy)) / level**2

    return jnp.mean(jax.lax.map(draw, jax.random.split(key, draws)), axis=0)


def emptiness_loss(emptiness: Float[Array, "b h w"], samples: int) -> Float[Array, ""]:
    """Equation (3), of the sums over each ray that a Rendering has.

    Its slope is steepest at w = 0: what is faint goes first, and what is solid hardly notices.

    Args:
      emptiness: [B, H, W], sum over the samples of a ray of log(1 + 10 w).
      samples: of a ray.
    """
    return jnp.mean(emptiness) / samples


def emptiness_schedule(
    step: Int[Array, ""], steps: int, weight: float, factor: float = 20.0, after: float = 0.5
) -> Float[Array, ""]:
    """The weight of (3): `factor` times as large after the share `after` of the steps."""
    late = step.astype(jnp.float32) >= after * steps
    return jnp.float32(weight) * jnp.where(late, factor, 1.0)


def centre_depth_loss(
    depth: Float[Array, "b h w"], inner: float = 50 / 64, floor: float = 1e-2
) -> Float[Array, ""]:
    """Equation (4): the middle of each picture should be nearer than its border.

    Args:
      depth: [B, H, W], of every pixel; where nothing was hit it must be far (`filled_depth`).
      inner: side of the middle square, a share of the picture's.
      floor: the smallest difference whose logarithm is taken, world units. Below it the loss goes
        on along the tangent, so that a centre behind the border is still pulled to the front.
    """
    height, width = depth.shape[1:]
    rows, columns = (
        jnp.abs(jnp.arange(n, dtype=jnp.float32) + 0.5 - n / 2) < inner * n / 2
        for n in (height, width)
    )
    middle = (rows[:, None] & columns[None, :]).astype(depth.dtype)[None]
    count = jnp.sum(middle)
    if not 0 < inner < 1:
        raise ValueError(f"inner must be a share in (0, 1), got {inner}")
    centre = jnp.sum(depth * middle, axis=(1, 2)) / count
    border = jnp.sum(depth * (1.0 - middle), axis=(1, 2)) / (height * width - count)
    ahead = border - centre
    value = jnp.where(
        ahead > floor,
        -jnp.log(jnp.maximum(ahead, floor)),
        -jnp.log(jnp.float32(floor)) - (ahead - floor) / floor,
    )
    return jnp.mean(value)


def filled_depth(
    depth: Float[Array, "b h w"], opacity: Float[Array, "b h w"], far: Float[Array, "b"]
) -> Float[Array, "b h w"]:
    """Depth with `far` [B] behind what is not solid: opacity depth + (1 - opacity) far."""
    return opacity * depth + (1.0 - opacity) * far[:, None, None]
