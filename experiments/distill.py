"""Turn a prompt into a 3D object by score distillation.

    python -m experiments.distill --config=configs/distill/worlds.py --prompt="a blue chair" \
        --out=runs/blue_chair [--config.FIELD=...]
    python -m experiments.distill --config=configs/distill/worlds.py:csd ...

After the colon, another of the family: sjc, sjc_pixels, vsd, csd, nfsd, ism, pgc, dreamtime,
hifa, perp_neg; or, in place of the denoiser, what scores images: classifier, elbo, discriminator,
clip.
configs/distill/rooms.py makes a room, seen from inside: variants random, free, schedule.
Writes config.json, metrics.jsonl, checkpoints/, progress/, turntable.mp4, views.png, mesh.glb and
summary.json; of a room turn.mp4 and plan.png, and no mesh. The same command again resumes, bit for
bit. --config.stop_after=N ends after N steps for now, with a report of what is there; without it
the same run goes on to its end.
"""

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from absl import app, flags, logging
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import config_flags

from experiments import object_report, recipe, room_report
from experiments.errors import reported
from experiments.latent_pictures import LatentPictures
from experiments.recipe_checks import check_config
from experiments.room_recipe import is_inside, load_prior
from experiments.scorer_recipe import is_scored, load_scorer
from experiments.spending import Spending, spent_before
from geojax.geometry.occupancy import full_grid
from geojax.io.atomic import write_json
from geojax.io.checkpoint import Checkpointer
from geojax.io.media import write_png
from geojax.io.metric_log import MetricLog
from geojax.io.run_folder import RunFolder, check_run, open_run
from geojax.methods import text_to_3d
from geojax.methods.variational import OwnTraining, init_own_score
from geojax.methods.view_prompts import shorten_prompt
from geojax.models.fields import Field
from geojax.priors.image_scorer import ImageScorer
from geojax.priors.prior import Prior
from geojax.priors.text_condition import TextCondition

FLAGS = flags.FLAGS

_COLLAPSE_PATIENCE = 3  # pictures in a row
_KEPT = 3  # checkpoints
# `steps` may not change: the schedules of t, light, rate and weights are of that length.
_MAY_CHANGE = (
    *("stop_after", "checkpoint_every", "picture_every"),
    *("picture_size", "mesh_resolution", "density_threshold"),  # of what is exported
)


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
      model: the image model, a denoiser or what scores images.
      field: what is optimised, and
      optimiser: by what.
      steps: (large, shaded) -> step.
      pictures: renders a state.
      own: how the network of VSD is trained along, or None.
    """

    model: Prior | ImageScorer
    field: Field
    optimiser: optax.GradientTransformation
    steps: dict[tuple[bool, bool], Callable[..., Any]]
    pictures: object_report.Pictures
    own: OwnTraining | None = None

    @property
    def prior(self) -> Prior:
        """The image model, for what needs a denoiser.

        Raises:
          ValueError: it is none.
        """
        if not isinstance(self.model, Prior):
            raise ValueError("this needs a recipe with a denoiser, and this one scores images")
        return self.model


def prepare(config: Any) -> Tools:
    """Load the model of a recipe and make its steps; they compile when they are first called."""
    model: Prior | ImageScorer = load_scorer(config) if is_scored(config) else load_prior(config)
    scene, own = recipe.make_scene(config, model), recipe.own_training(config)
    steps = {
        (large, shaded): recipe.make_step(config, model, scene, own, large=large, shaded=shaded)
        for large in (False, True)
        for shaded in (False, True)
    }
    if scene.background is not None and isinstance(model, Prior) and config.latent:
        pictures: object_report.Pictures = LatentPictures(
            config, scene.field, scene.background, model
        )
    else:
        pictures = object_report.Pictures(config, scene.field)
    return Tools(model, scene.field, scene.optimiser, steps, pictures, own)


def last_step(config: Any) -> int:
    """Steps at which a run ends, for now or for good."""
    return min(config.stop_after or config.steps, config.steps)


def initial_state(config: Any, tools: Tools) -> text_to_3d.State:
    """The state before the first step."""
    grid = full_grid(config.grid_resolution, config.field.radius)
    key = jax.random.key(config.seed)
    # `init_state` splits the key in two: the third key is neither.
    own = tools.own and init_own_score(jax.random.fold_in(key, 2), tools.prior, tools.own)
    return text_to_3d.init_state(key, tools.field, tools.optimiser, grid, own)


def needed_bytes(config: Any, tools: Tools) -> int:
    """Most bytes that a run writes: checkpoints, one of them on its way, and all its pictures."""
    leaves = jax.eval_shape(lambda: jax.tree.leaves(initial_state(config, tools)))
    state = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    pictures = last_step(config) // config.picture_every + 1
    steps = config.steps * 2**11  # lines of the log, and the same for TensorBoard
    report = (room_report if is_inside(config) else object_report).report_bytes(config)
    return (_KEPT + 1) * state + steps + pictures * object_report.progress_bytes(config) + report


def check_object(config: Any, prompt: str, out: str | Path) -> None:
    """Raise what `open_object` would about the folder; for before the model is loaded."""
    check_run(out, {"prompt": prompt, **config.to_dict()}, _MAY_CHANGE)


def open_object(config: Any, prompt: str, out: str | Path, tools: Tools) -> RunFolder:
    """Open the run of a prompt, new or to go on; see `open_run` for what it refuses."""
    fields = {"prompt": prompt, **config.to_dict()}
    return open_run(out, fields, _MAY_CHANGE, needed_bytes(config, tools))


def embed_prompt(config: Any, prompt: str, model: Prior | ImageScorer) -> text_to_3d.PromptViews:
    """The prompt from every side; one over the limit of tokens loses its end, with a warning."""
    subject, embed = prompt, model.embed
    if isinstance(embed, TextCondition):
        names = [name for row in config.view_suffixes for name in row]
        subject = shorten_prompt(lambda texts: embed.tokenize(texts).cut, prompt, names)
        if subject != prompt:
            logging.warning(
                "prompt over the limit of %d tokens: %r was cut from its end, so that the name of "
                "the view fits after it",
                embed.limit,
                prompt[len(subject) :].strip(),
            )
    elevations = np.radians(config.view_elevations)
    return text_to_3d.embed_views(
        model, subject, config.view_suffixes, elevations, config.negative_prompt
    )


def distill(
    config: Any, prompt: str, run: RunFolder, tools: Tools, started: float | None = None
) -> dict[str, Any]:
    """Run a recipe to its end, from the last checkpoint if there is one; returns the summary.

    Args:
      config: the recipe.
      prompt: what to make.
      run: its folder.
      tools: of the recipe.
      started: `time.monotonic()` at which the work for this run began; now if not given.

    Raises:
      FloatingPointError: something is not finite; says what, and which checkpoint there is.
    """
    started = time.monotonic() if started is None else started
    steps, pictures = tools.steps, tools.pictures
    views = embed_prompt(config, prompt, tools.model)
    state = initial_state(config, tools)
    metadata: dict[str, Any] = {}
    with closing(Checkpointer(run.checkpoints, keep=_KEPT)) as checkpointer:
        if checkpointer.latest_step() is not None:
            _, state, metadata = checkpointer.load(state)
            print(f"resumed at step {int(state.step)}", flush=True)
        # Where a step leaves it: elsewhere, the first step would compile for itself alone.
        everywhere = NamedSharding(recipe.view_mesh(config), PartitionSpec())
        state, views = jax.device_put((state, views), everywhere)
        first, end, collapsed = int(state.step), last_step(config), 0
        spending = Spending(started, spent_before(run.path, first, metadata))
        shown = ("opacity", "gradient_norm", "coherence", "t", "dropped")
        with MetricLog(run.path, end, first, shown=shown) as log:
            for step in range(first, end):
                large = step >= config.large_from * config.steps
                lit = step >= config.shaded_from * config.steps
                # A draw that depends on the step alone: a resumed run makes the same choices.
                chance = np.random.default_rng((config.seed, step)).uniform()
                shaded = lit and chance < config.shaded_share
                state, metrics = steps[large, shaded](state, tools.model.params, views)

                last = step + 1 == end
                figures = {name: float(value) for name, value in metrics.items()}
                trouble = text_to_3d.collapse(figures["opacity"], is_inside(config))
                log.write(step, figures | {"collapsed": float(trouble is not None)})
                save = (step + 1) % config.checkpoint_every == 0 or last
                cause = text_to_3d.non_finite_cause(figures)
                if save and not cause and not _is_finite((state.params, state.own)):
                    cause = "the field is no longer finite after its update (learning rate?)"
                if cause:
                    raise FloatingPointError(f"step {step}: {cause}; {_what_is_left(checkpointer)}")
                if (step + 1) % config.picture_every == 0 or last:
                    picture = _progress_picture(config, pictures, state)
                    write_png(run.path / "progress" / f"{step + 1:06d}.png", picture)
                    log.image(step, "views", picture)
                    collapsed = collapsed + 1 if trouble else 0
                    if trouble and collapsed >= _COLLAPSE_PATIENCE:
                        logging.error("step %d: the object has collapsed, it is %s", step, trouble)
                if save:
                    checkpointer.save(step + 1, state, spending.figures())
            seconds = log.seconds
    print(f"{max(0, end - first)} steps in {time.monotonic() - started:.0f} s", flush=True)
    field = tools.field
    if isinstance(pictures, LatentPictures):
        field = pictures.coloured(state, config.large_size)
    write_report = (room_report if is_inside(config) else object_report).write_report
    figures = write_report(config, prompt, field, state, pictures, run.path)
    summary = {
        "prompt": prompt,
        "seed": config.seed,
        "steps": int(state.step),
        **spending.figures(),
        "seconds_steps": round(seconds, 1),
        **figures,
    }
    write_json(run.path / "summary.json", summary)
    return summary


def _progress_picture(
    config: Any, pictures: object_report.Pictures, state: text_to_3d.State
) -> np.ndarray:
    if is_inside(config):
        return room_report.progress_picture(config, pictures, state)
    return object_report.progress_picture(pictures, state, config.large_size)


def _is_finite(tree: Any) -> bool:
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(tree)))


def _what_is_left(checkpointer: Checkpointer) -> str:
    """Which checkpoint a run that fails leaves, once what is being written is written."""
    checkpointer.wait()
    step = checkpointer.latest_step()
    if step is None:
        return "no checkpoint was made before"
    return f"the checkpoint of step {step} is from before and sound"


def main(argv: list[str]) -> None:
    """Check the flags, open the run, distil."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; everything is a flag")
    started = time.monotonic()
    logging.set_verbosity(logging.WARNING)  # orbax says much at INFO
    config, prompt, out = FLAGS.config, FLAGS.prompt, FLAGS.out
    check_config(config, prompt)
    check_object(config, prompt, out)
    # The model before the folder: one that cannot be loaded must not leave a run behind.
    tools = prepare(config)
    with open_object(config, prompt, out, tools) as run:
        summary = distill(config, prompt, run, tools, started)
    for name, value in summary.items():
        print(f"{name:>20}  {value}")


if __name__ == "__main__":
    with reported("distill"):
        define_flags()
        app.run(main)
