"""Sample and edit pictures with a text-to-image model.

    python -m experiments.paint --task=generate --prompt="a red mug, front view" --count=8 \
        --out=runs/paint
    python -m experiments.paint --task=image_to_image --image=mug.png --strength=0.6 --prompt=...
    python -m experiments.paint --task=depth_to_image --image=mug.png --model=PATH_OR_ID ...
    python -m experiments.paint --task=inpaint --image=room.png --mask=mask.png --fill=nearest \
        --seam=4 --prompt=...
    python -m experiments.paint --task=outpaint --image=room.png --direction=right --frames=4 ...
    python -m experiments.paint --task=zoom --frames=16 --story=rooms ...

Every task writes its pictures (000.png, ..., or frames/0000.png, ...), sheet.png, config.json and
summary.json; outpaint writes panorama.png too, and zoom zoom.mp4. The same command again makes the
same pictures; a folder of another command is left alone.
"""

import functools
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import app, flags

from experiments.errors import reported
from experiments.model_options import DTYPES, model_options
from experiments.model_options import NAMES as MODEL_OPTIONS
from experiments.painting import inputs, stories
from experiments.painting.canvas import DIRECTIONS, prepare_outpaint, prepare_zoom
from experiments.painting.editing import Result, prepare_image_to_image, prepare_inpaint
from experiments.painting.sampling import SAMPLERS, contact_sheet, make_painter, paint_prompts
from geojax.io.atomic import write_json
from geojax.io.media import write_png
from geojax.io.metric_log import peak_memory
from geojax.io.run_folder import open_run
from geojax.priors.prior import Prior

_NEEDED_BYTES = 50 * 2**20

FLAGS = flags.FLAGS

# The flags of each task beside --task and --out; another one given is a mistake, and said so.
COMMON = ("model", *MODEL_OPTIONS, "prompt", "steps", "guidance", "sampler", "seed")
MANY = ("count", "batch")
HOLES = (
    *("strength", "fill", "fill_image", "seam", "seam_strength", "seam_outside"),
    *("resample", "jump", "match"),
)
FRAMES = ("image", *HOLES, "frames", "blend", *stories.FLAGS)
TASK_FLAGS = {
    "generate": (*COMMON, *MANY, "size"),
    "image_to_image": (*COMMON, *MANY, "image", "strength"),
    "depth_to_image": (*COMMON, *MANY, "image", "strength", "depth", "depth_model"),
    "inpaint": (*COMMON, *MANY, "image", "mask", *HOLES),
    "outpaint": (*COMMON, *FRAMES, "direction", "shift"),
    "zoom": (*COMMON, *FRAMES, "border", "views", "fps"),
}
NEEDED = {
    "image_to_image": ("image",),
    "depth_to_image": ("image",),
    "inpaint": ("image",),
}
STRENGTH = {"image_to_image": 0.6, "depth_to_image": 0.8}  # 1 elsewhere


def define_flags(values: flags.FlagValues = FLAGS) -> None:
    """The flags of this binary; not defined on import, so that another one can use what is here."""
    string = functools.partial(flags.DEFINE_string, flag_values=values)
    integer = functools.partial(flags.DEFINE_integer, flag_values=values)
    number = functools.partial(flags.DEFINE_float, flag_values=values)
    choice = functools.partial(flags.DEFINE_enum, flag_values=values)
    yes_or_no = functools.partial(flags.DEFINE_bool, flag_values=values)
    choice("task", "generate", list(TASK_FLAGS), "What to do.")
    string("model", None, "Folder, hub id or .safetensors file; the embedded model by default.")
    string("revision", None, "Of a hub id: branch, tag or commit.")
    string("variant", None, "fp16 to read *.fp16.safetensors.")
    choice("dtype", None, DTYPES, "Of parameters and computation; float32 by default.")
    string("lora", None, "Adaptations to merge: FILE[:SCALE][,FILE[:SCALE]...].")
    string("tokenizer", None, "Folder of the tokenizer, which a single file has not.")
    string("prediction_type", None, "Of a single file: epsilon or v_prediction.")
    string("prompt", None, "What to show; with a story told by a model, its theme.")
    integer("count", 8, "How many pictures.", lower_bound=1)
    integer("batch", 8, "How many at a time.", lower_bound=1)
    integer("steps", 30, "Steps of the sampler.", lower_bound=1)
    number("guidance", 4.0, "g of eps_u + g (eps_c - eps_u).")
    choice("sampler", "ddim", SAMPLERS, "Sampler.")
    integer("seed", 0, "Picture i of a seed is the same in any count.")
    integer("size", None, "generate: side in pixels; the model's own by default.")
    string("out", "runs/paint", "Folder of the pictures.")

    string("image", None, "Picture to start from.")
    number("strength", None, "Share of the steps that run: 0 nothing, 1 from noise.")
    string("depth", None, "depth_to_image: depth map, brighter where nearer; else it is predicted.")
    string(
        "depth_model",
        None,
        "depth_to_image: what predicts it; the model's own depth_estimator, or the embedded one.",
    )
    string(
        "mask", None, "inpaint: white where to paint; by default the picture's transparent pixels."
    )
    choice("fill", "nearest", ["nearest", "noise", "image"], "In the hole before it is painted.")
    string("fill_image", None, "Picture for --fill=image, fitted to the hole.")
    integer("seam", 0, "Width in pixels of the hole's edge to paint again; 0 leaves.")
    number("seam_strength", 0.5, "Strength of that second pass.")
    yes_or_no("seam_outside", False, "Let it change known pixels as far from the edge.")
    integer(
        "resample",
        None,
        "How often RePaint walks each stretch, with a model not trained to inpaint; 1 replaces "
        "only. By default 4, and 1 with a model that was.",
        lower_bound=1,
    )
    integer("jump", 5, "Steps of such a stretch.", lower_bound=1)
    number(
        "match",
        None,
        "Pixels over which the hole takes up the colours at its edge; the model's size by default, "
        "0 leaves.",
        lower_bound=0.0,
    )

    integer("frames", 4, "How many frames to go on.", lower_bound=1)
    choice("direction", "right", list(DIRECTIONS), "outpaint: where the view goes.")
    integer("shift", None, "outpaint: pixels a frame; a quarter by default.", lower_bound=1)
    integer("border", None, "zoom: new pixels on each side; an eighth by default.", lower_bound=1)
    integer("views", 12, "zoom: views of the film a frame.", lower_bound=1)
    number("fps", 24.0, "zoom: views a second.", lower_bound=1.0)
    yes_or_no("blend", False, "Move from prompt to prompt instead of holding each.")
    stories.define_flags(values)


def read_settings(values: flags.FlagValues = FLAGS) -> dict[str, Any]:
    """The command as config.json keeps it; defaults of the task filled in.

    Raises:
      ValueError: a flag is missing, of another task, or out of range.
      FileNotFoundError: the task has no default model.
    """
    task = values.task
    mine = TASK_FLAGS[task]
    others = {name for names in TASK_FLAGS.values() for name in names} - set(mine)
    given = [f"--{name}" for name in sorted(others) if values[name].present]
    if given:
        raise ValueError(f"--task={task} does not take {', '.join(given)}")
    settings = {"task": task, **{name: values[name].value for name in mine}}
    for name in NEEDED.get(task, ()):
        if settings[name] is None:
            raise ValueError(f"--task={task} needs --{name}")
    if "strength" in settings and settings["strength"] is None:
        settings["strength"] = STRENGTH.get(task, 1.0)
    for name, value in settings.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"--{name}={value} must be finite")
    if settings.get("seam", 0) < 0:
        raise ValueError(f"--seam={settings['seam']} must not be negative")
    if settings.get("depth") is not None and settings["depth_model"] is not None:
        raise ValueError("--depth and --depth_model: give one of them")
    stories.check_prompt(settings)
    settings["model"] = settings["model"] or inputs.default_model(task)
    if task == "depth_to_image" and settings["depth"] is None:
        settings["depth_model"] = settings["depth_model"] or inputs.own_estimator(settings["model"])
    return settings


def prepare_generate(settings: dict[str, Any], prior: Prior) -> Callable[[], Result]:
    """generate: what is returned paints.

    Raises:
      ValueError: a size or a number of steps that cannot be.
    """
    settings["size"] = settings["size"] or prior.image_size
    painter = make_painter(
        prior,
        sampler=settings["sampler"],
        steps=settings["steps"],
        guidance=settings["guidance"],
        size=settings["size"],
    )

    def run() -> Result:
        prompts = [settings["prompt"]] * settings["count"]
        pictures = paint_prompts(prior, painter, prompts, settings["seed"], settings["batch"])
        return Result(pictures, contact_sheet(pictures), {})

    return run


def prepare(settings: dict[str, Any]) -> Callable[[Path], Result]:
    """Load the model, read the pictures, tell the story; what is returned paints into a folder.

    Raises:
      FileNotFoundError, ValueError, OSError: said before anything is written.
    """
    task = settings["task"]
    for name in ("image", "mask", "fill_image", "depth"):
        if settings.get(name) is not None:
            inputs.read_picture(settings[name], f"--{name}")
            settings[f"{name}_digest"] = inputs.digest(settings[name])
    prior: Any = inputs.load_model(task, settings["model"], **model_options(settings))
    if task in ("outpaint", "zoom"):
        schedule = stories.schedule_of(settings)
        settings["schedule"] = schedule.to_dict()
        follow = prepare_outpaint if task == "outpaint" else prepare_zoom
        return follow(settings, prior, schedule)
    if task == "generate":
        paint = prepare_generate(settings, prior)
    elif task == "inpaint":
        paint = prepare_inpaint(settings, prior)
    else:
        paint = prepare_image_to_image(settings, prior)

    def run(folder: Path) -> Result:
        result = paint()
        for i, picture in enumerate(result.pictures):
            write_png(folder / f"{i:03d}.png", picture)
        return result

    return run


def main(argv: list[str]) -> None:
    """Check the flags, paint."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; everything is a flag")
    settings = read_settings()
    paint = prepare(settings)
    with open_run(FLAGS.out, settings, needed_bytes=_NEEDED_BYTES) as run:
        started = time.monotonic()
        result = paint(run.path)
        write_png(run.path / "sheet.png", result.sheet)
        summary = {
            **settings,
            **result.figures,
            "seconds": round(time.monotonic() - started, 1),
            "peak_memory_bytes": peak_memory().host,
        }
        write_json(run.path / "summary.json", summary)
    for name, value in summary.items():
        print(f"{name:>20}  {value if not isinstance(value, dict) else json.dumps(value)}")


if __name__ == "__main__":
    with reported("paint"):
        define_flags()
        app.run(main)
