"""Turn a prompt into a 3D object by score distillation.

    python -m experiments.distill --config=configs/distill/worlds.py --prompt="a blue chair" \
        --out=runs/blue_chair [--config.FIELD=...]
    python -m experiments.distill --config=configs/distill/worlds.py:csd ...

After the colon, another loss of the family: sjc, sjc_pixels, vsd, csd, nfsd, ism, dreamtime, hifa.
Writes config.json, metrics.jsonl, checkpoints/, progress/, turntable.mp4, views.png, mesh.glb and
summary.json. The same command again resumes, bit for bit.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from absl import app, flags, logging
from ml_collections import config_flags

from experiments import object_report, recipe
from experiments.errors import reported
from experiments.latent_pictures import LatentPictures
from geojax.geometry.occupancy import full_grid
from geojax.io.checkpoint import Checkpointer
from geojax.io.media import write_png
from geojax.io.metric_log import MetricLog
from geojax.io.run_folder import RunFolder, open_run
from geojax.methods import text_to_3d
from geojax.methods.variational import OwnTraining, init_own_score
from geojax.models.fields import Field
from geojax.priors.prior import Prior
from geojax.priors.stable_diffusion import load_stable_diffusion

FLAGS = flags.FLAGS

_NEEDED_BYTES = 200 * 2**20
_COLLAPSE_PATIENCE = 3  # pictures in a row


def define_flags() -> None:
    """The flags of this binary; not defined on import, so that another one can use what is here."""
    config_flags.DEFINE_config_file(
        "config", "configs/distill/worlds.py", "Recipe, a file of configs/.", lock_config=True
    )
    flags.DEFINE_string("prompt", None, "What to make.", required=True)
    flags.DEFINE_string("out", None, "Folder of the run; the same folder resumes.", required=True)


class Tools(NamedTuple):
    """What does not depend on prompt and seed: loaded once, each step compiled once.

    Attributes:
      prior: the image model.
      field: what is optimised, and
      optimiser: by what.
      steps: (large, shaded) -> step.
      pictures: renders a state.
      own: how the network of VSD is trained along, or None.
    """

    prior: Prior
    field: Field
    optimiser: optax.GradientTransformation
    steps: dict[tuple[bool, bool], Callable[..., Any]]
    pictures: object_report.Pictures
    own: OwnTraining | None = None


def prepare(config: Any) -> Tools:
    """Load the model of a recipe and make its steps; they compile when they are first called."""
    prior = load_stable_diffusion(config.model)
    scene, own = recipe.make_scene(config, prior), recipe.own_training(config)
    steps = {
        (large, shaded): recipe.make_step(config, prior, scene, own, large=large, shaded=shaded)
        for large in (False, True)
        for shaded in (False, True)
    }
    if scene.background is not None and config.latent:
        pictures: object_report.Pictures = LatentPictures(
            config, scene.field, scene.background, prior
        )
    else:
        pictures = object_report.Pictures(config, scene.field)
    return Tools(prior, scene.field, scene.optimiser, steps, pictures, own)


def open_object(config: Any, prompt: str, out: str | Path) -> RunFolder:
    """Open the run of a prompt, new or to go on; see `open_run` for what it refuses."""
    fields = {"prompt": prompt, **config.to_dict()}
    return open_run(out, fields, ("steps", "checkpoint_every", "picture_every"), _NEEDED_BYTES)


def distill(config: Any, prompt: str, run: RunFolder, tools: Tools) -> dict[str, Any]:
    """Run a recipe to its end, from the last checkpoint if there is one; returns the summary."""
    prior, field, optimiser, steps, pictures, training = tools
    elevations = np.radians(config.view_elevations)
    views = text_to_3d.embed_views(
        prior, prompt, config.view_suffixes, elevations, config.negative_prompt
    )
    grid = full_grid(config.grid_resolution, config.field.radius)
    key = jax.random.key(config.seed)
    # `init_state` splits the key in two: the third key is neither.
    own = training and init_own_score(jax.random.fold_in(key, 2), prior, training)
    state = text_to_3d.init_state(key, field, optimiser, grid, own)
    checkpointer = Checkpointer(run.checkpoints)
    if checkpointer.latest_step() is not None:
        state = checkpointer.restore(state)
        print(f"resumed at step {int(state.step)}", flush=True)

    started, first, collapsed = time.monotonic(), int(state.step), 0
    with MetricLog(
        run.path, config.steps, first, shown=("opacity", "gradient_norm", "coherence", "t")
    ) as log:
        for step in range(first, config.steps):
            large = step >= config.large_from * config.steps
            lit = step >= config.shaded_from * config.steps
            # A draw that depends on the step alone: a resumed run makes the same choices.
            chance = np.random.default_rng((config.seed, step)).uniform()
            shaded = lit and chance < config.shaded_share
            state, metrics = steps[large, shaded](state, prior.params, views)

            last = step + 1 == config.steps
            figures = {name: float(value) for name, value in metrics.items()}
            log.write(step, figures)
            if cause := text_to_3d.non_finite_cause(figures):
                raise FloatingPointError(f"step {step}: {cause}; the last checkpoint is sound")
            if (step + 1) % config.picture_every == 0 or last:
                picture = object_report.progress_picture(pictures, state, config.large_size)
                write_png(run.path / "progress" / f"{step + 1:06d}.png", picture)
                log.image(step, "views", picture)
                trouble = text_to_3d.collapse(figures["opacity"])
                collapsed = collapsed + 1 if trouble else 0
                if trouble and collapsed >= _COLLAPSE_PATIENCE:
                    logging.error("step %d: the object has collapsed, it is %s", step, trouble)
            if (step + 1) % config.checkpoint_every == 0 or last:
                checkpointer.save(step + 1, state)
        seconds = log.seconds
    checkpointer.close()
    print(f"{config.steps - first} steps in {time.monotonic() - started:.0f} s", flush=True)
    if isinstance(pictures, LatentPictures):
        field = pictures.coloured(state, config.large_size)
    return object_report.write_report(config, prompt, field, state, pictures, run.path, seconds)


def main(argv: list[str]) -> None:
    """Check the flags, open the run, distil."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; everything is a flag")
    logging.set_verbosity(logging.WARNING)  # orbax says much at INFO
    config, prompt = FLAGS.config, FLAGS.prompt
    check_config(config, prompt)
    # The model first: one that cannot be loaded must not leave a run behind.
    tools = prepare(config)
    with open_object(config, prompt, FLAGS.out) as run:
        summary = distill(config, prompt, run, tools)
    for name, value in summary.items():
        print(f"{name:>20}  {value}")


def check_config(config: Any, prompt: str) -> None:
    """Refuse what could only fail later.

    Raises:
      ValueError: naming the field, its value and what was expected.
      FileNotFoundError: the model is not there.
    """
    if not prompt.strip():
        raise ValueError("--prompt is empty; expected a description such as 'a red mug'")
    for name in ("steps", "checkpoint_every", "picture_every", "views", "samples", "grid_every"):
        if config[name] < 1:
            raise ValueError(f"config.{name} must be at least 1, got {config[name]}")
    for name in ("small_size", "large_size"):
        if config[name] < 8 or config[name] % 8:
            raise ValueError(
                f"config.{name} must be a positive multiple of 8, got {config[name]}; the nearest "
                f"are {max(8, config[name] // 8 * 8)} and {(config[name] // 8 + 1) * 8}"
            )
    if config.small_size > config.large_size:
        raise ValueError(
            f"config.small_size={config.small_size} exceeds config.large_size={config.large_size}"
        )
    if config.latent and not (config.background.learnt and config.shaded_share == 0.0):
        raise ValueError(
            "config.latent=True needs config.background.learnt=True and config.shaded_share=0: "
            "latents have neither a plain background nor a light"
        )
    if config.loss == "nfsd" and config.negative_prompt is None:
        raise ValueError("config.loss='nfsd' needs config.negative_prompt; it may be ''")
    recipe.choose_loss(config)
    recipe.choose_times(config, 1000)
    for name in ("t_first", "t_last"):
        low, high = config[name]
        if not 0.0 <= low < high <= 1.0:
            raise ValueError(f"config.{name} must be 0 <= low < high <= 1, got {config[name]}")
    for leaf in jax.tree.leaves(config.to_dict()):
        if isinstance(leaf, float) and not math.isfinite(leaf):
            raise ValueError(f"the config holds {leaf}; every number must be finite")


if __name__ == "__main__":
    define_flags()
    with reported("distill"):
        app.run(main)
