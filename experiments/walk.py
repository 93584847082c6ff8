"""Walk a camera into a prompt: a scene that grows where it was not seen before.

    python -m experiments.walk --config=configs/walk/worlds.py --frames=24 --out=runs/corridor \
        --prompt="a corridor with brick walls and a wooden floor"
    python -m experiments.walk --image=start.png --depth=start.npz --intrinsics=fx,fy,cx,cy ...
    python -m experiments.walk --story=story.json --method=warp ...

Writes frames/, masks/, warped/, depth/ as it goes on, and at the end walk.mp4, walk_reverse.mp4,
sheet.png, mesh.glb, points.ply, transforms.json (nerfstudio's) and summary.json. Every frame is
committed whole in records/: the same command again goes on where an earlier one stopped.
"""

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from ml_collections import config_flags

from experiments.errors import reported
from experiments.painting import stories
from experiments.walking import models as walking
from experiments.walking import paths, results
from experiments.walking.records import Record, count_records, read_record, write_record
from experiments.walking.start import Start, open_start
from geojax.geometry.camera import Camera
from geojax.io.atomic import write_json
from geojax.io.metric_log import MetricLog, peak_memory
from geojax.io.run_folder import RunFolder, open_run
from geojax.methods.prompt_schedule import PromptSchedule, blend_at, condition_at
from geojax.priors.depth import Alignment

FLAGS = flags.FLAGS
_FRAME_BYTES = 40  # a pixel of a frame takes in records/ and the pictures, at most


def define_flags() -> None:
    """The flags of this binary; not defined on import, so that another one can use what is here."""
    config_flags.DEFINE_config_file(
        "config", "configs/walk/worlds.py", "Recipe, a file of configs/walk.", lock_config=True
    )
    flags.DEFINE_string("prompt", None, "What the scene is; with a told story, its theme.")
    flags.DEFINE_integer("frames", 24, "How many frames, the first among them.")
    flags.DEFINE_string("image", None, "Picture to start from.")
    flags.DEFINE_string("depth", None, "Its z-depth: .npz with `depth`, or .npy.")
    flags.DEFINE_string("intrinsics", None, "Its fx,fy,cx,cy in pixels; of config.fov by default.")
    flags.DEFINE_enum("method", None, walking.METHODS, "In place of the recipe's.")
    flags.DEFINE_bool("blend", False, "Move from prompt to prompt instead of holding each.")
    flags.DEFINE_string("out", None, "Folder of the run; the same folder resumes.", required=True)
    stories.define_flags(FLAGS)


class Plan(NamedTuple):
    """What a walk is to be, before a model has painted anything.

    Attributes:
      start: frame 0.
      way: pose of each frame if every step is taken whole, [N, 4, 4].
      schedule: prompts by frame.
      blend: move between prompts.
    """

    start: Start
    way: np.ndarray
    schedule: PromptSchedule
    blend: bool


class Words(NamedTuple):
    """The prompts as the models take them: conditions [P, L, D], their opposite, CLIP's [P, D]."""

    conditions: jax.Array
    unconditional: jax.Array
    texts: jax.Array


def step_towards(
    look: Callable[[Camera], walking.Known], before: Camera, pose: np.ndarray, config: Any
) -> tuple[Camera, walking.Known, float]:
    """The camera at the pose, or on the way to it where too little would be known; and its view.

    Raises:
      ValueError: however short the step, the view shows too little of what is known.
    """
    share = 1.0
    while True:
        camera = paths.between(before, pose, share)
        known = look(camera)
        hole = float(jnp.mean(known.clean.hole.astype(jnp.float32)))
        if hole <= config.widest_hole:
            return camera, known, share
        if share <= config.shortest_step:
            raise ValueError(
                f"{100 * hole:.0f} % of the view would be new even after {share:g} of the step: "
                "the camera is inside of something or looks away from all that is known "
                f"(config.widest_hole={config.widest_hole}). The frames so far are kept"
            )
        share *= 0.5
        logging.warning("%.0f %% of the view would be new: the step is halved", 100 * hole)


def new_frame(
    config: Any,
    plan: Plan,
    models: walking.Models,
    words: Words,
    scale: Alignment,
    index: int,
    camera: Camera,
    known: walking.Known,
) -> Record:
    """Paint what is not known of a view, and find its depth: the whole method.

    Raises:
      FloatingPointError: the frame is not finite.
    """
    start, hands, began = plan.start, models.hands, time.monotonic()
    clip_params = models.clip.params if models.clip else None
    text = words.texts[blend_at(plan.schedule, index)[0]]
    figures: dict[str, Any] = {}
    if index == 0 and start.image is not None:
        picture = jnp.asarray(start.image)
    else:
        key = jax.random.fold_in(jax.random.key(config.seed), index)
        condition = condition_at(plan.schedule, words.conditions, index, blend=plan.blend)
        painting = hands.paint(
            models.prior.params, clip_params, key, known, condition, words.unconditional, text
        )
        picture, figures = hands.decode(models.prior.params, painting, known)
        if len(painting.scores):
            first, best = painting.scores[0], jnp.max(painting.scores)
            figures = {**figures, "clip_first": first, "clip_chosen": best}
    if index == 0 and start.depth is not None:
        depth, far = jnp.asarray(start.depth), jnp.asarray(start.depth > config.farthest)
    else:
        (depth, far), fit = hands.depth(models.depth.params, picture, known, scale)
        figures = {**figures, **fit}
    hole = known.clean.hole
    record = Record(
        image=np.asarray(picture),
        depth=np.asarray(jnp.where(far, 0.0, depth)),
        new=np.asarray(hole | known.clean.filled),
        hole=np.asarray(hole),
        far=np.asarray(far),
        shown=np.asarray(known.clean.image),
        camera=camera,
        figures={
            "hole": float(np.mean(hole)),
            "clip": float(hands.score(clip_params, picture, text)),
            **{name: float(value) for name, value in figures.items()},
            **results.colours(np.asarray(picture)),
            "frame_seconds": time.monotonic() - began,
        },
    )
    if not (np.isfinite(record.image).all() and np.isfinite(record.depth).all()):
        raise FloatingPointError(f"frame {index} is not finite; the {index} before it are kept")
    return record


def walk(config: Any, plan: Plan, run: RunFolder, models: walking.Models) -> dict[str, Any]:
    """Paint the frames that are not there yet; write films, models and summary.json.

    Raises:
      ValueError: the walk cannot go on; what it has made is kept, and its films are written.
      FloatingPointError: a frame is not finite.
    """
    start = plan.start
    words = embed(config, plan, models)
    scale = walking.first_scale(models, start.image, start.depth)
    scene = models.scene.start(start.camera.height, start.camera.width)
    records: list[Record] = []
    trouble = None
    shown = ("hole", "clip", "depth_error_fitted")
    with MetricLog(run.path, len(plan.way), count_records(run.path), shown=shown) as log:
        for index, pose in enumerate(plan.way):
            look = partial(walking.look, config, models, scene, records[-1:])
            record = read_record(run.path, index)
            if record is not None:
                known = look(record.camera)
            else:
                camera, share = start.camera, 1.0
                if not records:
                    known = look(camera)
                else:
                    try:
                        camera, known, share = step_towards(look, records[-1].camera, pose, config)
                    except ValueError as error:
                        trouble = f"frame {index}: {error}"
                        break
                record = new_frame(config, plan, models, words, scale, index, camera, known)
                record.figures["step_share"] = share
                results.write_frame(run.path, index, record)
                write_record(run.path, index, record)
                log.write(index, record.figures)
            scene = models.scene.learn(scene, record.camera, known.view, walking.learnt(record))
            records.append(record)
        seconds = log.seconds
    summary = {
        "prompts": plan.schedule.to_dict(),
        "seed": config.seed,
        "method": config.method,
        "frames": len(records),
        "stopped": trouble,
        "seconds": round(seconds, 1),
        "peak_memory_bytes": peak_memory().host,
        **results.write_results(run.path, records, scene, config.fps),
        **results.means(records),
    }
    write_json(run.path / "summary.json", summary)
    if trouble:
        raise ValueError(trouble)
    return summary


def embed(config: Any, plan: Plan, models: walking.Models) -> Words:
    """The words of a plan."""
    prompts = plan.schedule.prompts
    embedded = models.prior.embed([config.negative_prompt, *prompts])
    texts = models.clip.embed_text(prompts) if models.clip else jnp.zeros((len(prompts), 1))
    return Words(embedded[1:], embedded[:1], texts)


def prepare(config: Any, settings: dict[str, Any]) -> tuple[Plan, walking.Models]:
    """Check everything and load the models; settles `settings`.

    Raises:
      FileNotFoundError, ValueError, OSError: said before anything is written.
    """
    check_config(config, settings)
    stories.check_prompt(settings)
    schedule = stories.schedule_of(settings)
    settings["schedule"] = schedule.to_dict()
    models = walking.load_models(config)
    factor = models.prior.image_size // models.prior.latent_size
    start = open_start(settings, config, models.prior.image_size, factor)
    if config.pad % factor:
        raise ValueError(f"config.pad={config.pad} must be a multiple of the model's {factor}")
    way = paths.make_way(config.path, start.camera, settings["frames"])
    return Plan(start, way, schedule, settings["blend"]), models


def open_walk(config: Any, settings: dict[str, Any], plan: Plan, out: str | Path) -> RunFolder:
    """Open the run of a walk, new or to go on; see `open_run` for what it refuses."""
    camera = plan.start.camera
    needed = len(plan.way) * camera.height * camera.width * _FRAME_BYTES
    return open_run(out, {**settings, "config": config.to_dict()}, ("config.fps",), needed)


def check_config(config: Any, settings: dict[str, Any]) -> None:
    """Refuse what could only fail later.

    Raises:
      ValueError: naming the field, its value and what was expected.
    """
    if settings["frames"] < 1:
        raise ValueError(f"--frames={settings['frames']} must be at least 1")
    for name in ("candidates", "steps", "antialias", "splat", "decoder.steps", "depth.steps"):
        least = 0 if "." in name else 1
        value = config
        for part in name.split("."):
            value = value[part]
        if value < least:
            raise ValueError(f"config.{name}={value} must be at least {least}")
    if config.method not in walking.METHODS:
        raise ValueError(f"config.method={config.method!r} is not one of {walking.METHODS}")
    if config.depth.fit not in walking.DEPTHS:
        raise ValueError(f"config.depth.fit={config.depth.fit!r} is not one of {walking.DEPTHS}")
    for name in ("widest_hole", "shortest_step"):
        if not 0.0 < config[name] <= 1.0:
            raise ValueError(f"config.{name}={config[name]} must lie in (0, 1]")
    if not config.farthest > 0.0 or config.crack < 1 or config.pad < 0 or config.size < 0:
        raise ValueError(
            f"config.farthest={config.farthest} must be positive, config.crack={config.crack} at "
            f"least 1, config.pad={config.pad} and config.size={config.size} not negative"
        )
    for leaf in jax.tree.leaves(config.to_dict()):
        if isinstance(leaf, float) and math.isnan(leaf):
            raise ValueError("the config holds a nan; every number must be one")


def main(argv: list[str]) -> None:
    """Check the flags, open the run, walk."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; everything is a flag")
    logging.set_verbosity(logging.WARNING)
    config = FLAGS.config
    if FLAGS.method is not None:
        config.method = FLAGS.method
    names = ("prompt", "frames", "image", "depth", "intrinsics", "blend", *stories.FLAGS)
    settings = {name: FLAGS[name].value for name in names} | {"seed": config.seed}
    plan, models = prepare(config, settings)
    with open_walk(config, settings, plan, FLAGS.out) as run:
        summary = walk(config, plan, run, models)
    for name, value in summary.items():
        print(f"{name:>22}  {value}")


if __name__ == "__main__":
    with reported("walk"):
        define_flags()
        app.run(main)
