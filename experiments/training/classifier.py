"""A classifier of kind and colour: the judge, and another one that may score renderings.

What scores a rendering while it is distilled must not judge it afterwards: the two differ in
initial weights, in the order of the pictures, and in their noise.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging

from experiments.training.family_configs import judge_config
from experiments.training.loop import train
from experiments.training.worlds import Worlds
from geojax.io.media import grid
from geojax.methods.latent_diffusion_training import classifier_step
from geojax.methods.train_state import TrainState, init_state
from geojax.models.judge import Judge, JudgeConfig, joint_log_probability
from geojax.weights.folder import save_component
from geojax.worlds import pictures, solids


class Draws(NamedTuple):
    """What tells one classifier from another.

    Attributes:
      init: added to the seed for the initial weights; the next number is the training's own.
      stream: of the pictures.
      noise: most deviation of the noise on a picture.
    """

    init: int
    stream: int
    noise: float


def train_labels(
    name: str, settings: Any, draws: Draws, config: Any, worlds: Worlds, out: Path, part: str
) -> None:
    """Train a classifier on all pairs of kind and colour, also the held-out ones.

    Args:
      name: of the stage, and of its folder of checkpoints.
      settings: batch, steps and learning_rate.
      draws: its seeds.
      config: the recipe.
      worlds: pictures.
      out: folder of the run.
      part: where it goes in the family.
    """
    fields = judge_config(config)
    judge = Judge(JudgeConfig.from_dict(fields))
    size = config.image_size
    key = jax.random.key(config.seed + draws.init)
    params = judge.init(key, jnp.zeros((1, size, size, 3)))["params"]
    rate = optax.cosine_decay_schedule(settings.learning_rate, settings.steps)
    optimiser = optax.adamw(rate, weight_decay=1e-2)
    step = classifier_step(judge, optimiser)

    def batches(start: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for i in itertools.count(start):
            rng = np.random.default_rng((config.seed, draws.stream, i))
            parts = [
                pictures.draw(
                    rng, worlds.objects, settings.batch * share // 4, held_out=held, jitter=0.05
                )
                for held, share in ((False, 3), (True, 1))
            ]
            b = pictures.Batch(*(np.concatenate(leaves) for leaves in zip(*parts, strict=True)))
            noise = rng.normal(0.0, rng.uniform(0.0, draws.noise), b.image.shape)
            yield (b.image + noise).astype(np.float32), b.kind, b.colour

    def preview(state: TrainState) -> np.ndarray:
        image, kind, colour = next(batches(10**6))
        logits = judge.apply({"params": state.average}, image)
        best = np.asarray(joint_log_probability(*logits)).reshape(len(image), -1).argmax(-1)
        right = best == kind * len(solids.COLOURS) + colour
        logging.info("%s: %.1f %% of unseen draws right", name, 100.0 * right.mean())
        columns = min(8, len(image) // 4)
        return grid(np.clip(image[: 4 * columns], 0, 1).reshape(4, columns, *image.shape[1:]))

    state = init_state(jax.random.key(config.seed + draws.init + 1), params, optimiser)
    state = train(
        name,
        state,
        step,
        batches,
        settings.steps,
        out / name,
        config.checkpoint_seconds,
        preview,
    )
    save_component(
        out / config.family / part, state.average, fields, dtype=jnp.float16, overwrite=True
    )


def train_classifier(config: Any, worlds: Worlds, out: Path) -> None:
    """The classifier that scores renderings; of much noise, which makes its gradient smoother."""
    draws = Draws(init=21, stream=9, noise=0.3)
    train_labels("classifier", config.classifier, draws, config, worlds, out, "scorers/classifier")
