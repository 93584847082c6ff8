"""The pair of towers that scores captions (CLIP), on both worlds."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging

from experiments.training.denoiser import make_tokenise
from experiments.training.family_configs import clip_config
from experiments.training.loop import train
from experiments.training.worlds import Captioned, Worlds, draw, full_captions
from geojax.io.atomic import write_json
from geojax.io.media import grid
from geojax.methods.contrastive_training import contrastive_loss, contrastive_step
from geojax.methods.train_state import TrainState, init_state
from geojax.models.clip_vision import CLIP, CLIPConfig
from geojax.weights.folder import save_component
from geojax.weights.model_folder import ClipInput
from geojax.worlds import pictures, vocabulary


def draw_both(
    rng: np.random.Generator, config: Any, worlds: Worlds, batch: int
) -> tuple[np.ndarray, list[str]]:
    """Pictures in [0, 1] with slight noise, and their captions.

    A fifth of the objects are of held-out pairs: like the judge, the pair must know what it judges.
    """
    held = batch // 10 if config.rooms_share < 1.0 else 0
    drawn = draw(rng, worlds, batch - held, config.rooms_share)
    other = pictures.draw(rng, worlds.objects, held, held_out=True)
    texts = full_captions(rng, drawn) + full_captions(rng, Captioned(other.image, other, None))
    image = np.concatenate([drawn.image, other.image])
    # A judge of painted pictures must not mind what an autoencoder leaves.
    noise = rng.normal(0.0, rng.uniform(0.0, 0.06), image.shape)
    return (image + noise).astype(np.float32), texts


def train_clip(config: Any, worlds: Worlds, out: Path) -> None:
    """Both towers from nothing; writes a folder in the layout of CLIP."""
    folder, settings = out / config.clip.folder, config.clip
    size = vocabulary.write_tokenizer(out / "clip" / "tokenizer")
    tokenise = make_tokenise(out / "clip" / "tokenizer")
    fields = clip_config(config, size)
    clip = CLIP(CLIPConfig.from_dict(fields))
    side = config.image_size
    ids = jnp.zeros((1, vocabulary.MAX_TOKENS), jnp.int32)
    params = clip.init(jax.random.key(config.seed + 11), ids, jnp.zeros((1, side, side, 3)))
    rate = optax.warmup_cosine_decay_schedule(
        0.0, settings.learning_rate, min(200, settings.steps // 4), settings.steps, 1e-5
    )
    optimiser = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(rate, b2=0.98, weight_decay=0.05)
    )
    step = contrastive_step(clip, optimiser, decay=0.995)
    inputs = ClipInput(side, side)
    mean, std = (np.asarray(v, np.float32) for v in (inputs.mean, inputs.std))

    def batches(start: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for i in itertools.count(start):
            rng = np.random.default_rng((config.seed, 7, i))
            image, texts = draw_both(rng, config, worlds, settings.batch)
            yield (image - mean) / std, tokenise(texts)

    judge = jax.jit(
        lambda p, image, ids: contrastive_loss(clip.apply({"params": p}, ids, image), ids)[1]
    )

    def preview(state: TrainState) -> np.ndarray:
        image, tokens = next(batches(10**6))
        right = float(judge(state.average, image, tokens)["right"])
        logging.info(
            "clip: %.1f %% of unseen draws find their caption among %d", 100 * right, len(image)
        )
        columns = min(8, len(image) // 4)
        chosen = np.clip(image * std + mean, 0.0, 1.0)[:: max(1, len(image) // (4 * columns))]
        return grid(chosen[: 4 * columns].reshape(4, columns, side, side, 3))

    state = init_state(jax.random.key(config.seed + 12), params["params"], optimiser)
    state = train(
        "clip",
        state,
        step,
        batches,
        settings.steps,
        out / "clip",
        config.checkpoint_seconds,
        preview,
    )
    save_component(folder, state.average, fields, dtype=jnp.float16, overwrite=True)
    vocabulary.write_tokenizer(folder)
    write_json(folder / "preprocessor_config.json", inputs.to_dict())
