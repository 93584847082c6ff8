"""A resumable training loop for any step on a `TrainState`."""

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from absl import logging
from jax.sharding import NamedSharding, PartitionSpec

from geojax.io.checkpoint import Checkpointer
from geojax.io.media import write_png
from geojax.methods.train_state import Metrics, TrainState


def prefetch(batches: Iterator[Any]) -> Iterator[Any]:
    """Make the next batch on another thread while this one trains."""
    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(next, batches)
        while True:
            ready = upcoming.result()
            upcoming = pool.submit(next, batches)
            yield ready


def warmup_stable_decay(settings: Any) -> optax.Schedule:
    """Warm-up, stable, cool-down: the stable part can be lengthened without starting again."""
    cooldown, warmup = int(settings.steps * settings.cooldown), min(200, settings.steps // 4)
    return optax.join_schedules(
        [
            optax.linear_schedule(0.0, settings.learning_rate, warmup),
            optax.constant_schedule(settings.learning_rate),
            optax.linear_schedule(settings.learning_rate, 1e-5, cooldown),
        ],
        [warmup, settings.steps - cooldown],
    )


def check_finite(name: str, step: int, metrics: Metrics) -> None:
    """FloatingPointError when a figure of a step is not finite, naming them all."""
    figures = {key: float(value) for key, value in metrics.items()}
    if not all(math.isfinite(value) for value in figures.values()):
        raise FloatingPointError(f"{name}: not finite at step {step}: {figures}")


def train(
    name: str,
    state: TrainState,
    step: Callable[..., tuple[TrainState, Metrics]],
    batches: Callable[[int], Iterator[tuple[Any, ...]]],
    steps: int,
    folder: Path,
    checkpoint_seconds: float,
    preview: Callable[[TrainState], np.ndarray],
) -> TrainState:
    """Run a stage to `steps`, from its last checkpoint if there is one.

    `batches(start)` yields the arguments of each step from `start` on; `preview` draws a picture.
    """
    checkpointer = Checkpointer(folder / "checkpoints", keep=2)
    if checkpointer.latest_step() is not None:
        state = checkpointer.restore(state)
        logging.info("%s: resumed at step %d", name, int(state.step))
    start = int(state.step)
    # Replicated parameters, batches split over the devices; one device is a mesh of one.
    lengths = [len(leaf) for leaf in jax.tree.leaves(next(batches(start)))]
    auto = (jax.sharding.AxisType.Auto,)  # the compiler places what the step does not
    devices = math.gcd(jax.device_count(), *lengths)
    mesh = jax.make_mesh((devices,), ("batch",), axis_types=auto)
    state = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
    split = NamedSharding(mesh, PartitionSpec("batch"))
    began, saved = time.monotonic(), time.monotonic()
    for i, batch in zip(range(start, steps), prefetch(batches(start)), strict=False):
        state, metrics = step(state, *jax.device_put(batch, split))
        done = i + 1
        if done % 50 == 0 or done == steps:
            rate = (done - start) / (time.monotonic() - began)
            figures = " ".join(f"{k} {float(v):.4g}" for k, v in metrics.items())
            left = (steps - done) / rate / 60.0
            logging.info(
                "%s %d/%d  %.2f steps/s  %.1f min left  %s", name, done, steps, rate, left, figures
            )
            check_finite(name, done, metrics)
        if time.monotonic() - saved > checkpoint_seconds or done == steps:
            # What is saved is gone on from: the last sound step stays the newest.
            check_finite(name, done, metrics)
            checkpointer.save(done, state)
            write_png(folder / "preview.png", preview(state))
            saved = time.monotonic()
    checkpointer.close()
    return state
