"""The depth model (DPT), on the exact depth of both worlds."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.training.family_configs import dpt_config
from experiments.training.loop import train
from experiments.training.worlds import Worlds
from geojax.io.atomic import write_json
from geojax.io.media import grid
from geojax.methods.depth_training import depth_step
from geojax.methods.train_state import Params, TrainState, init_state
from geojax.models.dpt import DPT, DPTConfig
from geojax.weights.folder import save_component
from geojax.worlds import pictures, room_pictures

_MEAN = _STD = 0.5


def draw_depths(
    rng: np.random.Generator,
    config: Any,
    worlds: Worlds,
    object_depths: np.ndarray,
    object_rows: np.ndarray,
    batch: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures [B, S, S, 3] in [0, 1], z-depth, and where it is known: not behind an object."""
    count = round(config.rooms_share * batch)
    which = rng.integers(len(object_rows), size=batch - count)
    objects = pictures.draw(rng, worlds.objects, batch - count, index=object_rows[which])
    depth = object_depths[which].astype(np.float32)
    image, known = objects.image, depth > 0.0
    if worlds.rooms is not None and count:
        rooms = room_pictures.draw(rng, worlds.rooms, count)
        image = np.concatenate([image, rooms.image])
        depth = np.concatenate([depth, rooms.depth])
        known = np.concatenate([known, np.ones_like(rooms.depth, bool)])
    # Exposure and the noise of what an image model paints tell nothing of depth.
    gain = rng.uniform(0.85, 1.15, (batch, 1, 1, 3))
    noise = rng.normal(0.0, rng.uniform(0.0, 0.03), image.shape)
    return np.clip(image * gain + noise, 0.0, 1.0).astype(np.float32), depth, known


def train_depth(config: Any, worlds: Worlds, out: Path) -> None:
    """A DPT from nothing; writes a folder in its layout."""
    folder, settings, side = out / config.depth.folder, config.depth, config.image_size
    fields = dpt_config(config)
    dpt = DPT(DPTConfig.from_dict(fields))
    depths, rows = pictures.load_or_trace_depths(
        out / "pictures", config.seed, settings.views_per_kind, config.views_per_kind, side
    )
    params = dpt.init(jax.random.key(config.seed + 13), jnp.zeros((1, side, side, 3)))["params"]
    # The last activation is a ReLU: it must not start dead. Disparities here are around 0.4.
    params["head"]["head_4"]["bias"] = jnp.full((1,), 0.4)
    rate = optax.warmup_cosine_decay_schedule(
        0.0, settings.learning_rate, min(200, settings.steps // 4), settings.steps, 1e-5
    )
    optimiser = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(rate, b2=0.99, weight_decay=1e-3)
    )

    def predict(p: Params, image: jax.Array) -> jax.Array:
        disparity = dpt.apply({"params": p}, (image - _MEAN) / _STD)
        if disparity.shape != image.shape[:3]:  # they agree where the coarsest map is even
            disparity = jax.image.resize(disparity, image.shape[:3], "bilinear")
        return disparity

    step = depth_step(predict, optimiser, edge_weight=settings.edge_weight, decay=0.998)

    def batches(start: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for i in itertools.count(start):
            rng = np.random.default_rng((config.seed, 8, i))
            yield draw_depths(rng, config, worlds, depths, rows, settings.batch)

    rng = np.random.default_rng(config.seed + 9)
    image, depth, known = draw_depths(rng, config, worlds, depths, rows, 8)
    guess = jax.jit(predict)

    def preview(state: TrainState) -> np.ndarray:
        truth = np.where(known, 1.0 / np.where(known, depth, 1.0), 0.0)
        maps = np.clip(np.stack([truth, np.asarray(guess(state.average, image))]), 0.0, 1.0)
        return grid(np.concatenate([image[None], np.repeat(maps[..., None], 3, axis=-1)]))

    state = init_state(jax.random.key(config.seed + 14), params, optimiser)
    state = train(
        "depth",
        state,
        step,
        batches,
        settings.steps,
        out / "depth",
        config.checkpoint_seconds,
        preview,
    )
    save_component(folder, state.average, fields, dtype=jnp.float16, overwrite=True)
    write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "DPTImageProcessor",
            "do_resize": True,
            "size": {"height": side, "width": side},
            "keep_aspect_ratio": True,
            "ensure_multiple_of": side // 8,
            "resample": 3,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": [_MEAN] * 3,
            "image_std": [_STD] * 3,
            "do_pad": False,
        },
    )
