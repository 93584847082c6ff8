"""Measure the embedded families, and what is made with them, against ground truth.

    python -m experiments.evaluate --suite=text_to_3d --config=configs/distill/worlds.py \
        --prompts=12 --seeds=2 --out=runs/evaluate [--config.FIELD=...]
    python -m experiments.evaluate --suite=losses --losses=sds,csd --prompts=4 --seeds=2 \
        --out=runs/losses [--config.FIELD=...]
    python -m experiments.evaluate --suite=generate --count=96 --out=runs/evaluate
    python -m experiments.evaluate --suite=inpaint --count=200 --out=runs/evaluate
    python -m experiments.evaluate --suite=clip --count=400 --out=runs/evaluate
    python -m experiments.evaluate --suite=depth --count=200 --out=runs/evaluate
    python -m experiments.evaluate --suite=scene_walk --config=configs/walk/worlds.py --count=8 \
        --frames=24 --out=runs/evaluate

`text_to_3d` distils prompts that the prior was never trained on, each in a folder of its own under
OUT: what is finished is not done again, and an interrupted one goes on. It writes table.json and
objects.png. `losses` does that with each loss of the family, and compares quality, colours,
diversity and cost; what --config.FIELD changes it changes for all. It writes losses.json and
losses.png beside a folder a loss; --losses may name image scorers too. `generate` samples pictures
of such captions and asks the judge what they show; it writes generate.json and generate.png.

`inpaint` paints into holes of rooms that were never drawn in training, and compares with what was
there, with the nearest known colours, and with another prompt by CLIP; it writes inpaint.json and
inpaint.png. `clip` looks for the captions of unseen pictures among 100; it writes clip.json.
`depth` compares the depth of unseen rooms with the truth; it writes depth.json and depth.png.
`scene_walk` walks through unseen corridors from an exact first frame, by the mesh, by the plain
warp, without what holds colours, and there and back; it writes scene_walk.json and a sheet a walk.
"""

from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from experiments.errors import reported
from experiments.evaluation.clip_pair import evaluate_clip
from experiments.evaluation.depth import evaluate_depth
from experiments.evaluation.inpainting import evaluate_inpainting
from experiments.evaluation.losses import evaluate_losses, loss_configs
from experiments.evaluation.objects import PROMPTS, evaluate_objects
from experiments.evaluation.pictures import evaluate_pictures
from experiments.evaluation.scene_walk import VARIANTS, evaluate_scene_walk
from experiments.painting.inputs import EMBEDDED, EMBEDDED_INPAINTING
from experiments.painting.sampling import SAMPLERS

FLAGS = flags.FLAGS

COUNT = {"generate": 96, "inpaint": 200, "clip": 400, "depth": 200, "scene_walk": 8}
PROMPT_COUNT = {"text_to_3d": 12, "losses": 4}
# The flags that only some suites look at; another one given is a mistake, and said so.
SUITES = {
    "prompts": tuple(PROMPT_COUNT),
    "seeds": tuple(PROMPT_COUNT),
    "losses": ("losses",),
    "count": tuple(COUNT),
    "steps": ("generate", "inpaint"),
    "guidance": ("generate", "inpaint"),
    "sampler": ("generate", "inpaint"),
    "model": ("inpaint",),
    "seam": ("inpaint",),
    "strength": ("inpaint",),
    "match": ("inpaint",),
    "batch": ("inpaint",),
    "clip": ("inpaint", "clip"),
    "depth": ("depth",),
    "frames": ("scene_walk",),
    "variants": ("scene_walk",),
}


def define_flags() -> None:
    """The flags of this binary."""
    flags.DEFINE_enum("suite", "text_to_3d", [*PROMPT_COUNT, *COUNT], "What to measure.")
    config_flags.DEFINE_config_file(
        "config", "configs/distill/worlds.py", "Recipe, a file of configs/.", lock_config=True
    )
    flags.DEFINE_string("out", "runs/evaluate", "Folder of the runs and the tables.")
    flags.DEFINE_integer(
        "prompts", None, f"The first so many of PROMPTS: {PROMPT_COUNT} by default."
    )
    flags.DEFINE_integer("seeds", 2, "text_to_3d, losses: runs a prompt.", lower_bound=1)
    flags.DEFINE_list("losses", None, "losses: of the recipe; by default the family, no scorers.")
    flags.DEFINE_integer(
        "count", None, f"How many pictures or walks: {COUNT} by default.", lower_bound=1
    )
    flags.DEFINE_integer("steps", 30, "Steps of the sampler.", lower_bound=1)
    flags.DEFINE_float("guidance", 4.0, "g of eps_u + g (eps_c - eps_u).")
    flags.DEFINE_enum("sampler", "ddim", SAMPLERS, "Sampler.")
    flags.DEFINE_string("model", str(EMBEDDED_INPAINTING), "inpaint: folder of the family.")
    flags.DEFINE_integer("seam", 0, "inpaint: width of the hole's edge to paint again, pixels.")
    flags.DEFINE_float(
        "strength", 1.0, "inpaint: of the noise over the nearest known colours; 1 hides them."
    )
    flags.DEFINE_float("match", None, "inpaint: reach of the match at the edge; as of paint.")
    flags.DEFINE_integer("batch", 25, "inpaint: how many at a time.", lower_bound=1)
    flags.DEFINE_string("clip", str(EMBEDDED / "clip"), "inpaint, clip: folder of CLIP.")
    flags.DEFINE_string("depth", str(EMBEDDED / "depth"), "depth: folder of the depth model.")
    flags.DEFINE_integer("frames", 24, "scene_walk: frames of a walk.", lower_bound=2)
    flags.DEFINE_multi_enum(
        "variants", list(VARIANTS), list(VARIANTS), "scene_walk: what to compare."
    )


def check_flags() -> None:
    """ValueError naming a flag of another suite, or one that is out of range."""
    suite = FLAGS.suite
    if wrong := [f"--{n}" for n, of in SUITES.items() if FLAGS[n].present and suite not in of]:
        raise ValueError(f"--suite={suite} does not take {', '.join(wrong)}")
    if suite == "scene_walk" and "method" not in FLAGS.config:
        raise ValueError("--suite=scene_walk needs a recipe of configs/walk for --config")
    if FLAGS.prompts is not None and not 1 <= FLAGS.prompts <= len(PROMPTS):
        raise ValueError(f"--prompts={FLAGS.prompts} must be in 1..{len(PROMPTS)}")


def main(argv: list[str]) -> None:
    """Check the flags, run a suite."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; everything is a flag")
    logging.set_verbosity(logging.WARNING)  # orbax says much at INFO
    check_flags()
    out, config, suite = Path(FLAGS.out), FLAGS.config, FLAGS.suite
    if suite in PROMPT_COUNT:
        prompts = PROMPTS[: FLAGS.prompts or PROMPT_COUNT[suite]]
        if suite == "text_to_3d":
            evaluate_objects(config, prompts, FLAGS.seeds, out)
        else:
            flag = FLAGS["config"]
            recipe = config_flags.get_config_filename(flag)
            changes = config_flags.get_override_values(flag)
            evaluate_losses(loss_configs(recipe, FLAGS.losses, changes), prompts, FLAGS.seeds, out)
        return
    count = FLAGS.count or COUNT[suite]
    sampling = {"sampler": FLAGS.sampler, "steps": FLAGS.steps, "guidance": FLAGS.guidance}
    if suite == "generate":
        evaluate_pictures(config.model, count, config.seed, out, **sampling)
    elif suite == "inpaint":
        settings = {**sampling, "seam": FLAGS.seam, "batch": FLAGS.batch}
        settings |= {"strength": FLAGS.strength, "match": FLAGS.match}
        evaluate_inpainting(FLAGS.model, FLAGS.clip, count, config.seed, out, **settings)
    elif suite == "scene_walk":
        evaluate_scene_walk(config, FLAGS.variants, count, FLAGS.frames, config.seed, out)
    elif suite == "clip":
        evaluate_clip(FLAGS.clip, count, config.seed, out)
    else:
        evaluate_depth(FLAGS.depth, count, config.seed, out)


if __name__ == "__main__":
    with reported("evaluate"):
        define_flags()
        app.run(main)
