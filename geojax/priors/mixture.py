"""A prior with a closed form: pictures drawn from a mixture of Gaussians.

Symbols
    mu_k, p_k       mean and weight of mode k of K;   v   the variance of every mode, isotropic
    alpha, s        z = alpha x + s eps
    q_k             posterior of mode k given z

Equations
    (1)  p(x) = sum_k p_k N(x; mu_k, v I)
    (2)  p_t(z) = sum_k p_k N(z; alpha mu_k, u I),   u = alpha^2 v + s^2
    (3)  q = softmax_k(log p_k - |z - alpha mu_k|^2 / 2u)
    (4)  eps = -s grad log p_t(z) = (s / u) (z - alpha sum_k q_k mu_k)

(2) is (1) noised; (4) is what a perfect denoiser answers (Song et al. 2021, score SDE, eq. 7 gives
the marginals). So a method run on this prior has a known answer. A prompt names a mode: its
embedding is that mode's weights p [K], one-hot; the empty prompt keeps all modes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from geojax.diffusion.parameterization import per_item
from geojax.diffusion.schedule import Schedule
from geojax.priors.prior import Prior


class Mixture(NamedTuple):
    """Equation (1), without its weights: those come with the prompt."""

    means: Float[Array, "k *d"]
    variance: Float[Array, ""]


def mixture_eps(
    mixture: Mixture,
    schedule: Schedule,
    z: Float[Array, "b *d"],
    t: Int[Array, "b"],
    weights: Float[Array, "b k"],
) -> Float[Array, "b *d"]:
    """The exact prediction of equation (4).

    Args:
        mixture: modes, of any shape *d: pictures or plain vectors.
        schedule: noise schedule.
        z: [B, *d].
        t: [B].
        weights: [B, K], p_k of each item; not negative, not all zero, need not sum to 1.

    Returns:
        [B, *d], finite wherever z is.
    """
    alpha, s = schedule.alpha(t), schedule.s(t)
    u = alpha**2 * mixture.variance + s**2
    means = mixture.means.reshape(mixture.means.shape[0], -1)
    flat = z.reshape(z.shape[0], -1)
    offset = flat[:, None] - alpha[:, None, None] * means[None]
    log_q = jnp.log(weights) - 0.5 * jnp.sum(offset**2, axis=-1) / u[:, None]
    mean = jnp.einsum(
        "bk,kd->bd", jax.nn.softmax(log_q, axis=-1), means, precision=jax.lax.Precision.HIGHEST
    )
    return per_item(s / u, z) * (z - (alpha[:, None] * mean).reshape(z.shape))


def mixture_prior(
    schedule: Schedule,
    means: Float[Array, "k h w c"],
    variance: float,
    prompts: Sequence[str],
    weights: Sequence[float] | None = None,
) -> Prior:
    """A `Prior` over pictures with one mode a prompt.

    There is no autoencoder: latents are the pictures themselves.

    Args:
        schedule: noise schedule.
        means: [K, H, H, C], square pictures in [0, 1].
        variance: of every pixel around a mean.
        prompts: K names, one a mode.
        weights: K weights of the modes for the empty prompt; equal by default.

    Returns:
        a Prior whose `embed` takes the K prompts and "" alone, and gives [B, 1, K].

    Raises:
        ValueError: when the numbers of modes, prompts and weights differ, for pictures that are
            not square, a variance that is not positive, and, in `embed`, for an unknown prompt,
            an empty list or a string in place of one.
    """
    count, height, width, channels = means.shape
    weights = [1.0] * count if weights is None else list(weights)
    if not count == len(prompts) == len(weights):
        raise ValueError(f"{count} modes, {len(prompts)} prompts and {len(weights)} weights")
    if height != width:
        raise ValueError(f"a prior's pictures are square, got {height}x{width}")
    if not variance > 0.0:
        raise ValueError(f"variance must be positive, got {variance}")
    table = dict(zip(prompts, jnp.eye(count), strict=True)) | {"": jnp.asarray(weights)}

    def embed(texts: Sequence[str]) -> Float[Array, "b 1 k"]:
        if not texts or isinstance(texts, str):
            raise ValueError(f"expected a list of prompts, got {texts!r}")
        unknown = [text for text in texts if text not in table]
        if unknown:
            raise ValueError(f"no mode is called {unknown[0]!r}; there are {', '.join(prompts)}")
        return jnp.stack([table[text] for text in texts])[:, None]

    def denoise(params, z, t, cond):
        return mixture_eps(params, schedule, z, t, cond[:, 0])

    return Prior(
        params=Mixture(means, jnp.float32(variance)),
        encode=lambda params, image: image,
        decode=lambda params, latent: jnp.clip(latent, 0.0, 1.0),
        embed=embed,
        denoise=denoise,
        schedule=schedule,
        image_size=height,
        latent_size=height,
        latent_channels=channels,
    )
