"""The discriminator of pictures and captions."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging

from experiments.training.family_configs import discriminator_config
from experiments.training.loop import train, warmup_stable_decay
from experiments.training.worlds import Worlds
from geojax.io.media import grid
from geojax.methods.discriminator_training import discriminator_step
from geojax.methods.train_state import TrainState, init_state
from geojax.models.discriminator import Discriminator, DiscriminatorConfig
from geojax.weights.folder import save_component
from geojax.worlds import captions, pictures, solids

_APART = 60.0  # degrees of azimuth, at least, between a view and a wrong one


def picture_codes(
    kind: np.ndarray, colour: np.ndarray, azimuth: np.ndarray, elevation: np.ndarray
) -> np.ndarray:
    """Codes [B, P] of what pictures show, between the views that captions name.

    They are what `interpolate_view_embeddings` makes of the captions' codes
    (`priors.image_scorer.caption_code`), P in the order of `discriminator_config`.

    Args:
      kind: [B], index into `solids.KINDS`.
      colour: [B], index into `solids.COLOURS`.
      azimuth: [B], radians.
      elevation: [B], radians.
    """
    first_colour = len(solids.KINDS)
    first_azimuth = first_colour + len(solids.COLOURS)
    first_elevation = first_azimuth + len(captions.AZIMUTHS)
    codes = np.zeros((len(kind), first_elevation + len(captions.ELEVATIONS)), np.float32)
    rows = np.arange(len(kind))
    codes[rows, kind] = codes[rows, first_colour + colour] = 1.0
    for row, (a, e) in enumerate(zip(azimuth, elevation, strict=True)):
        for of_elevation, of_azimuth, weight in captions.grid_weights(float(a), float(e)):
            codes[row, first_azimuth + of_azimuth] += weight
            codes[row, first_elevation + of_elevation] += weight
    return codes


def wrong_codes(rng: np.random.Generator, batch: pictures.Batch) -> np.ndarray:
    """Codes [B, P] of another kind, another colour or another side, one of the three each.

    A ball has no sides: of what looks the same all around, some of these are right after all.
    """
    count = len(batch.kind)
    what = rng.integers(3, size=count)
    kind = batch.kind + np.where(what == 0, rng.integers(1, len(solids.KINDS), count), 0)
    colour = batch.colour + np.where(what == 1, rng.integers(1, len(solids.COLOURS), count), 0)
    turn = np.radians(rng.uniform(_APART, 360.0 - _APART, count))
    azimuth = batch.azimuth + np.where(what == 2, turn, 0.0)
    return picture_codes(
        kind % len(solids.KINDS), colour % len(solids.COLOURS), azimuth, batch.elevation
    )


def train_discriminator(config: Any, worlds: Worlds, out: Path) -> None:
    """The discriminator, which like the prior never sees the held-out pairs."""
    settings, size = config.discriminator, config.image_size
    fields = discriminator_config(config)
    network = Discriminator(DiscriminatorConfig.from_dict(fields))
    params = network.init(
        jax.random.key(config.seed + 23),
        jnp.zeros((1, size, size, 3)),
        jnp.zeros((1, len(fields["phrases"]))),
    )["params"]
    optimiser = optax.adamw(warmup_stable_decay(settings), b1=0.5, b2=0.99, weight_decay=1e-3)
    step = discriminator_step(network, optimiser, penalty=settings.penalty)

    def batches(start: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for i in itertools.count(start):
            rng = np.random.default_rng((config.seed, 10, i))
            b = pictures.draw(rng, worlds.objects, settings.batch)
            right = picture_codes(b.kind, b.colour, b.azimuth, b.elevation)
            yield b.image, right, wrong_codes(rng, b)

    score = jax.jit(lambda p, x, e: network.apply({"params": p}, x, e))

    def preview(state: TrainState) -> np.ndarray:
        image, right, wrong = next(batches(10**6))
        better = score(state.average, image, right) > score(state.average, image, wrong)
        share = 100.0 * float(better.mean())
        logging.info("discriminator: %.1f %% of unseen draws prefer their caption", share)
        columns = min(8, len(image) // 2)
        return grid(image[: 2 * columns].reshape(2, columns, *image.shape[1:]))

    state = init_state(jax.random.key(config.seed + 24), params, optimiser)
    state = train(
        "discriminator",
        state,
        step,
        batches,
        settings.steps,
        out / "discriminator",
        config.checkpoint_seconds,
        preview,
    )
    folder = out / config.family / "scorers" / "discriminator"
    save_component(folder, state.average, fields, dtype=jnp.float16, overwrite=True)
