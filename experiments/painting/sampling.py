"""Pictures by the batch: one jitted function, one key a picture."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from geojax.diffusion import samplers
from geojax.io.media import grid
from geojax.methods.image_to_image import prompted
from geojax.priors.prior import Prior

SAMPLERS = ("ddim", "ddim_trailing", "euler", "euler_ancestral", "dpm")


def sampler_named(name: str) -> samplers.Sampler:
    """The sampler of a flag. ValueError for a name outside `SAMPLERS`."""
    match name:
        case "ddim":
            return samplers.DDIM
        case "ddim_trailing":
            return samplers.DDIM_TRAILING
        case "euler":
            return samplers.EULER
        case "euler_ancestral":
            return samplers.EULER_ANCESTRAL
        case "dpm":
            return samplers.DPM_SOLVER
        case _:
            raise ValueError(f"unknown sampler {name!r}; expected one of {SAMPLERS}")


def make_painter(
    prior: Prior, *, sampler: str, steps: int, guidance: float, size: int
) -> Callable[[Any, jax.Array, jax.Array, jax.Array], jax.Array]:
    """One jitted function that samples a batch of pictures with classifier-free guidance.

    Args:
      prior: the image model; its parameters are passed to the function.
      sampler: one of `SAMPLERS`.
      steps: of the sampler.
      guidance: g of eps_u + g (eps_c - eps_u).
      size: side in pixels.

    Returns:
      paint(prior_params, keys [B], condition [B, L, D], unconditional [L, D]) -> pictures
      [B, size, size, 3] in [0, 1].

    Raises:
      ValueError: a size that the model's factor does not divide, or steps outside the schedule.
    """
    factor = prior.image_size // prior.latent_size
    if size < factor or size % factor:
        below = max(size // factor, 1) * factor
        raise ValueError(
            f"--size={size} must be a positive multiple of the model's {factor}; the nearest are "
            f"{below} and {below + factor}"
        )
    chosen = sampler_named(sampler)
    chosen.time_steps(prior.schedule, steps)  # refuses a wrong number of steps
    shape = (1, size // factor, size // factor, prior.latent_channels)

    def paint_one(
        params: Any, key: jax.Array, condition: jax.Array, unconditional: jax.Array
    ) -> jax.Array:
        denoise = prompted(prior, params, condition[None], unconditional[None], guidance)
        start_key, key = jax.random.split(key)
        z = jax.random.normal(start_key, shape)
        z = chosen.sample(key, denoise, prior.schedule, z, steps)
        return prior.decode(params, z)[0]

    # Mapped over pictures, so that one does not depend on those beside it.
    return jax.jit(jax.vmap(paint_one, in_axes=(None, 0, 0, None)))


def picture_keys(seed: int, count: int) -> jax.Array:
    """One key a picture [count]; picture i of a seed has the same in any count."""
    fold = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))
    return fold(jnp.arange(count, dtype=jnp.uint32))


def in_batches(paint: Callable[[np.ndarray], jax.Array], count: int, batch: int) -> np.ndarray:
    """`paint(rows)` for 0..count - 1, `batch` rows at a time: [count, H, W, 3].

    Raises:
      FloatingPointError: a picture is not finite.
    """
    batch, parts = min(batch, count), []
    for start in range(0, count, batch):
        # The last batch is filled up with the last picture, so that nothing compiles again.
        rows = np.minimum(np.arange(start, start + batch), count - 1)
        parts.append(np.asarray(paint(rows))[: count - start])
        print(f"{min(start + batch, count)}/{count} pictures", flush=True)
    return check_finite(np.concatenate(parts))


def check_finite(images: np.ndarray) -> np.ndarray:
    """The pictures themselves. FloatingPointError where one is not finite."""
    if not np.isfinite(images).all():
        raise FloatingPointError(
            "the pictures are not finite: the model's weights, its half precision, or the guidance"
        )
    return images


def paint_prompts(
    prior: Prior,
    painter: Callable[[Any, jax.Array, jax.Array, jax.Array], jax.Array],
    prompts: Sequence[str],
    seed: int,
    batch: int,
) -> np.ndarray:
    """One picture a prompt, `batch` at a time: [N, S, S, 3] in [0, 1].

    Raises:
      FloatingPointError: a picture is not finite.
    """
    # Each prompt is embedded once, and in one call: the text encoder compiles once.
    names = sorted(set(prompts))
    table = prior.embed(["", *names])
    index = np.asarray([1 + names.index(prompt) for prompt in prompts])
    keys = picture_keys(seed, len(prompts))
    return in_batches(
        lambda rows: painter(prior.params, keys[rows], table[index[rows]], table[0]),
        len(prompts),
        batch,
    )


def contact_sheet(images: np.ndarray, columns: int = 8) -> np.ndarray:
    """Pictures [N, H, W, 3] in rows of `columns`, the last row filled up with white."""
    columns = min(columns, len(images))
    missing = -len(images) % columns
    white = np.ones((missing, *images.shape[1:]), np.float32)
    whole = np.concatenate([images, white])
    return grid(whole.reshape(-1, columns, *images.shape[1:]))
