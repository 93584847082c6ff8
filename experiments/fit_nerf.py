"""Fit a field to posed pictures: a walk, or any capture, becomes a NeRF to be seen from elsewhere.

    python -m experiments.fit_nerf --config=configs/fit_nerf/worlds.py \
        --data=runs/corridor --out=runs/corridor_nerf [--config.FIELD=...]

--data is a folder with nerfstudio's transforms.json (a walk's is one), or with a text model of
COLMAP. Depth and masks that it names are used; the scale of the scene may be any. Writes
config.json, metrics.jsonl, checkpoints/, progress/, views.png (the true pictures over the fitted),
held_out.png (frames that were not fitted), flight.mp4 and summary.json. The same command again
resumes, bit for bit. configs/fit_nerf/large.py is for frames of 512 x 512 and more.
"""

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags, logging
from ml_collections import config_flags

from experiments.errors import reported
from experiments.fitting import report
from experiments.fitting.capture import Capture, read_capture, seen_points
from geojax.geometry.bounding_ball import Ball, ball_of_views, into_ball
from geojax.geometry.camera import Camera
from geojax.io.checkpoint import Checkpointer
from geojax.io.media import write_png
from geojax.io.metric_log import MetricLog
from geojax.io.run_folder import RunFolder, open_run
from geojax.methods import field_fitting
from geojax.methods.field_fitting import Renderer, Views
from geojax.methods.train_state import init_state
from geojax.models.backgrounds import with_background
from geojax.models.fields import Background, Field, HashGridField, as_field, no_blob, truncated_exp

FLAGS = flags.FLAGS

_NEEDED_BYTES = 200 * 2**20


def define_flags() -> None:
    """The flags of this binary; not defined on import, so that another one can use what is here."""
    config_flags.DEFINE_config_file(
        "config", "configs/fit_nerf/worlds.py", "Recipe of configs/fit_nerf.", lock_config=True
    )
    flags.DEFINE_string("data", None, "Folder of posed pictures.", required=True)
    flags.DEFINE_string("out", None, "Folder of the run; the same folder resumes.", required=True)


class Tools(NamedTuple):
    """A recipe as functions.

    Attributes:
      field: what is fitted, with its background where that is learnt.
      optimiser: by what.
      step: (state, views) -> (state, metrics).
      picture: (params, camera) -> rendering.
    """

    field: Field
    optimiser: optax.GradientTransformation
    step: Callable[..., Any]
    picture: report.Picture


def prepare(config: Any) -> Tools:
    """The functions of a recipe; they compile when they are first called."""
    f = config.field
    field = as_field(
        HashGridField(
            levels=f.levels,
            table_size=f.table_size,
            coarsest=f.coarsest,
            finest=f.finest,
            hidden=f.hidden,
            # A wall needs a density of hundreds within a step or two of Adam.
            density_activation=truncated_exp,
            blob=no_blob,
        )
    )
    behind: field_fitting.Behind = tuple(config.background)
    if config.learnt_background:
        field, behind = with_background(field, as_field(Background()))
    renderer = Renderer(field, config.samples, config.importance, config.near, behind)
    rate = optax.cosine_decay_schedule(
        config.learning_rate, config.steps, config.learning_rate_last_share
    )
    optimiser = optax.adam(rate, b1=0.9, b2=0.99, eps=1e-15)
    weights = field_fitting.Weights(**config.weights)
    step = field_fitting.fitting_step(
        renderer, optimiser, weights, rays=config.rays, decay=config.average
    )
    return Tools(field, optimiser, step, field_fitting.picture_function(renderer, config.chunk))


def place(config: Any, capture: Capture) -> tuple[Ball, Camera]:
    """The ball of a capture, and its cameras in the ball's units.

    Raises:
      ValueError: nothing tells the size of the scene.
    """
    *centre, radius = config.ball
    if radius > 0.0:
        ball = Ball(np.asarray(centre, np.float64), float(radius))
    else:
        try:
            ball = ball_of_views(capture.camera, seen_points(capture), config.inside)
        except ValueError as error:
            raise ValueError(f"{error}: give config.ball=(x, y, z, radius)") from error
    return ball, into_ball(capture.camera, ball)


def views_of(config: Any, capture: Capture, ball: Ball, camera: Camera) -> Views:
    """What is fitted: the frames that are not held out."""
    chosen = ~report.held_out(len(capture.names), config.hold_every)
    pixels = field_fitting.all_pixels(capture.kept[chosen])
    depth = (capture.depth[chosen] / ball.radius).astype(np.float32)
    arrays = (jnp.asarray(x) for x in (capture.image[chosen], depth, pixels))
    return Views(camera[np.flatnonzero(chosen)], *arrays)


def fit(config: Any, capture: Capture, run: RunFolder) -> dict[str, Any]:
    """Run a recipe to its end, from the last checkpoint if there is one; returns the summary.

    Raises:
      FloatingPointError: the loss is not finite; the last checkpoint is sound.
    """
    tools = prepare(config)
    ball, camera = place(config, capture)
    views = views_of(config, capture, ball, camera)
    first_key, key = jax.random.split(jax.random.key(config.seed))
    state = init_state(key, tools.field.init(first_key), tools.optimiser)
    checkpointer = Checkpointer(run.checkpoints)
    if checkpointer.latest_step() is not None:
        state = checkpointer.restore(state)
        print(f"resumed at step {int(state.step)}", flush=True)

    started, first = time.monotonic(), int(state.step)
    shown = ("loss", "psnr", "depth_error", "opacity")
    with MetricLog(run.path, config.steps, first, shown=shown) as log:
        for step in range(first, config.steps):
            state, metrics = tools.step(state, views)
            last = step + 1 == config.steps
            figures = {name: float(value) for name, value in metrics.items()}
            log.write(step, figures)
            if not (math.isfinite(figures["loss"]) and math.isfinite(figures["gradient_norm"])):
                raise FloatingPointError(
                    f"step {step}: loss {figures['loss']}, gradient {figures['gradient_norm']}; "
                    "the last checkpoint is sound (config.learning_rate too high?)"
                )
            if (step + 1) % config.picture_every == 0 or last:
                some = camera[np.linspace(0, len(capture.names) - 1, 4).round().astype(int)]
                pictures = report.draw(tools.picture, state.average, some)[0]
                write_png(run.path / "progress" / f"{step + 1:06d}.png", report.row(pictures))
            if (step + 1) % config.checkpoint_every == 0 or last:
                checkpointer.save(step + 1, state)
        seconds = log.seconds
    checkpointer.close()
    print(f"{config.steps - first} steps in {time.monotonic() - started:.0f} s", flush=True)
    return report.write_report(
        config, capture, camera, ball, tools.picture, state.average, run.path, seconds
    )


def check_config(config: Any) -> None:
    """Refuse what could only fail later.

    Raises:
      ValueError: naming the field, its value and what was expected.
    """
    least = {"steps": 1, "rays": 1, "samples": 1, "chunk": 1, "film_frames": 2, "hold_every": 0}
    least |= {"checkpoint_every": 1, "picture_every": 1, "importance": 0}
    for name, value in least.items():
        if config[name] < value:
            raise ValueError(f"config.{name} must be at least {value}, got {config[name]}")
    if config.importance == 1 or config.hold_every == 1:
        raise ValueError("config.importance and config.hold_every may be 0 or at least 2, not 1")
    for leaf in jax.tree.leaves(config.to_dict()):
        if isinstance(leaf, float) and not math.isfinite(leaf):
            raise ValueError(f"the config holds {leaf}; every number must be finite")
    for name in ("near", "average"):
        if not 0.0 <= config[name] < 1.0:
            raise ValueError(f"config.{name} must lie in [0, 1), got {config[name]}")
    if not 0.0 < config.inside <= 1.0:
        raise ValueError(f"config.inside must lie in (0, 1], got {config.inside}")
    if config.learning_rate <= 0.0 or config.fps <= 0.0:
        raise ValueError(
            f"config.learning_rate={config.learning_rate} and config.fps={config.fps} must be "
            "positive"
        )
    if config.ball[3] < 0.0:
        raise ValueError(f"the radius of config.ball={config.ball} must not be negative")
    for name, value in dataclasses.asdict(field_fitting.Weights(**config.weights)).items():
        if value < 0.0:
            raise ValueError(f"config.weights.{name} must not be negative, got {value}")
    if not all(0.0 <= c <= 1.0 for c in config.background):
        raise ValueError(f"config.background must lie in [0, 1], got {config.background}")


def main(argv: list[str]) -> None:
    """Check the flags, read the pictures, open the run, fit."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; everything is a flag")
    logging.set_verbosity(logging.WARNING)  # orbax says much at INFO
    config = FLAGS.config
    check_config(config)
    capture = read_capture(FLAGS.data, config.background)
    place(config, capture)
    fields = {"data": str(Path(FLAGS.data)), "data_digest": capture.digest, **config.to_dict()}
    may_change = ("data", "checkpoint_every", "picture_every", "chunk", "film_frames", "film_sway")
    with open_run(FLAGS.out, fields, (*may_change, "fps"), _NEEDED_BYTES) as run:
        summary = fit(config, capture, run)
    for name, value in summary.items():
        print(f"{name:>20}  {value}")


if __name__ == "__main__":
    with reported("fit_nerf"):
        define_flags()
        app.run(main)
