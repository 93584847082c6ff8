"""The judge, which shares no weights with the prior."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def train_judge(config: Any, worlds: Worlds, out: Path) -> None:
    """The judge, on all pairs (it must know the held-out ones to judge them)."""
    settings = config.judge
    fields = judge_config(config)
    judge = Judge(JudgeConfig.from_dict(fields))
    size = config.image_size
    params = judge.init(jax.random.key(config.seed + 6), jnp.zeros((1, size, size, 3)))["params"]
    rate = optax.cosine_decay_schedule(settings.learning_rate, settings.steps)
    optimiser = optax.adamw(rate, weight_decay=1e-2)
    step = classifier_step(judge, optimiser)

    def batches(start: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for i in itertools.count(start):
            rng = np.random.default_rng((config.seed, 4, i))
            parts = [
                pictures.draw(
                    rng, worlds.objects, settings.batch * share // 4, held_out=held, jitter=0.05
                )
                for held, share in ((False, 3), (True, 1))
            ]
            b = pictures.Batch(*(np.concatenate(leaves) for leaves in zip(*parts, strict=True)))
            noise = rng.normal(0.0, rng.uniform(0.0, 0.08), b.image.shape)
            yield (b.image + noise).astype(np.float32), b.kind, b.colour

    def preview(state: TrainState) -> np.ndarray:
        image, kind, colour = next(batches(10**6))
        logits = judge.apply({"params": state.average}, image)
        best = np.asarray(joint_log_probability(*logits)).reshape(len(image), -1).argmax(-1)
        right = best == kind * len(solids.COLOURS) + colour
        logging.info("judge: %.1f %% of unseen draws right", 100.0 * right.mean())
        columns = min(8, len(image) // 4)
        return grid(np.clip(image[: 4 * columns], 0, 1).reshape(4, columns, *image.shape[1:]))

    state = init_state(jax.random.key(config.seed + 7), params, optimiser)
    state = train(
        "judge",
        state,
        step,
        batches,
        settings.steps,
        out / "judge",
        config.checkpoint_seconds,
        preview,
    )
    save_component(
        out / config.family / "judge", state.average, fields, dtype=jnp.float16, overwrite=True
    )
