"""Sample pictures from a text-to-image model.

    python -m experiments.paint --task=generate --model=geojax/assets/worlds-64 \
        --prompt="a red mug, front view" --count=8 --out=runs/paint

Writes 000.png, 001.png, ..., sheet.png, config.json and summary.json. The same command again makes
the same pictures.
"""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from geojax.diffusion import samplers
from geojax.diffusion.guidance import guided
from geojax.io.atomic import write_json
from geojax.io.media import grid, write_png
from geojax.io.metric_log import peak_memory
from geojax.io.run_folder import open_run
from geojax.priors.prior import Prior
from geojax.priors.stable_diffusion import load_stable_diffusion

SAMPLERS = ("ddim", "euler", "euler_ancestral", "dpm")
_NEEDED_BYTES = 50 * 2**20

FLAGS = flags.FLAGS


def define_flags() -> None:
    """The flags of this binary; not defined on import, so that another one can use what is here."""
    flags.DEFINE_enum("task", "generate", ["generate"], "What to do.")
    flags.DEFINE_string(
        "model", "geojax/assets/worlds-64", "Folder in Stable Diffusion's layout, or hub id."
    )
    flags.DEFINE_string("prompt", None, "What to show.", required=True)
    flags.DEFINE_integer("count", 8, "How many pictures.", lower_bound=1)
    flags.DEFINE_integer("batch", 8, "How many at a time.", lower_bound=1)
    flags.DEFINE_integer("steps", 30, "Steps of the sampler.", lower_bound=1)
    flags.DEFINE_float("guidance", 4.0, "g of eps_u + g (eps_c - eps_u).")
    flags.DEFINE_enum("sampler", "ddim", SAMPLERS, "Sampler.")
    flags.DEFINE_integer("seed", 0, "Picture i of a seed is the same in any count.")
    flags.DEFINE_integer("size", None, "Side in pixels; the model's own by default.")
    flags.DEFINE_string("out", "runs/paint", "Folder of the pictures.")


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
        raise ValueError(f"--size={size} must be a positive multiple of the model's {factor}")
    samplers.dpm_time_steps(prior.schedule, steps)  # refuses a wrong number of steps
    samplers.time_steps(prior.schedule, steps)
    shape = (size // factor, size // factor, prior.latent_channels)

    def paint_one(
        params: Any, key: jax.Array, condition: jax.Array, unconditional: jax.Array
    ) -> jax.Array:
        both = jnp.stack([unconditional, condition])

        def denoise(z: jax.Array, t: jax.Array) -> jax.Array:
            eps = prior.denoise(params, jnp.repeat(z, 2, axis=0), jnp.repeat(t, 2), both)
            return guided(eps[:1], eps[1:], guidance)

        start_key, key = jax.random.split(key)
        z = jax.random.normal(start_key, (1, *shape))
        match sampler:
            case "ddim":
                z = samplers.sample_ddim(denoise, prior.schedule, z, steps)
            case "euler":
                z = samplers.sample_euler(denoise, prior.schedule, z, steps)
            case "euler_ancestral":
                z = samplers.sample_euler_ancestral(key, denoise, prior.schedule, z, steps)
            case "dpm":
                z = samplers.sample_dpm_solver(denoise, prior.schedule, z, steps)
            case _:
                raise ValueError(f"unknown sampler {sampler!r}; expected one of {SAMPLERS}")
        return prior.decode(params, z)[0]

    # Mapped over pictures, so that one does not depend on those beside it.
    return jax.jit(jax.vmap(paint_one, in_axes=(None, 0, 0, None)))


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
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(
        jnp.arange(len(prompts), dtype=jnp.uint32)
    )
    batch = min(batch, len(prompts))
    parts = []
    for start in range(0, len(prompts), batch):
        # The last batch is filled up with the last picture, so that nothing compiles again.
        rows = np.minimum(np.arange(start, start + batch), len(prompts) - 1)
        images = np.asarray(painter(prior.params, keys[rows], table[index[rows]], table[0]))
        parts.append(images[: len(prompts) - start])
        print(f"{min(start + batch, len(prompts))}/{len(prompts)} pictures", flush=True)
    images = np.concatenate(parts)
    if not np.isfinite(images).all():
        raise FloatingPointError(
            "the pictures are not finite: the model's weights, its half precision, or the guidance"
        )
    return images


def contact_sheet(images: np.ndarray, columns: int = 8) -> np.ndarray:
    """Pictures [N, S, S, 3] in rows of `columns`, the last row filled up with white."""
    columns = min(columns, len(images))
    missing = -len(images) % columns
    white = np.ones((missing, *images.shape[1:]), np.float32)
    whole = np.concatenate([images, white])
    return grid(whole.reshape(-1, columns, *images.shape[1:]))


def generate() -> dict[str, Any]:
    """The task of that name; returns the summary."""
    settings: dict[str, Any] = {
        "task": FLAGS.task,
        "model": FLAGS.model,
        "prompt": FLAGS.prompt,
        "count": FLAGS.count,
        "batch": FLAGS.batch,
        "steps": FLAGS.steps,
        "guidance": FLAGS.guidance,
        "sampler": FLAGS.sampler,
        "seed": FLAGS.seed,
    }
    if not settings["prompt"].strip():
        raise ValueError("--prompt is empty; expected a description such as 'a red mug, side view'")
    if not math.isfinite(settings["guidance"]):
        raise ValueError(f"--guidance={settings['guidance']} must be finite")
    prior = load_stable_diffusion(settings["model"])
    settings["size"] = FLAGS.size or prior.image_size
    painter = make_painter(
        prior,
        sampler=settings["sampler"],
        steps=settings["steps"],
        guidance=settings["guidance"],
        size=settings["size"],
    )
    with open_run(FLAGS.out, settings, needed_bytes=_NEEDED_BYTES) as run:
        started = time.monotonic()
        prompts = [settings["prompt"]] * settings["count"]
        images = paint_prompts(prior, painter, prompts, settings["seed"], settings["batch"])
        for i, image in enumerate(images):
            write_png(run.path / f"{i:03d}.png", image)
        write_png(run.path / "sheet.png", contact_sheet(images))
        summary = {
            **settings,
            "seconds": round(time.monotonic() - started, 1),
            "peak_memory_bytes": peak_memory().host,
        }
        write_json(Path(run.path) / "summary.json", summary)
    return summary


def main(argv: list[str]) -> None:
    """Check the flags, paint."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; everything is a flag")
    for name, value in generate().items():
        print(f"{name:>20}  {value}")


if __name__ == "__main__":
    define_flags()
    app.run(main)
