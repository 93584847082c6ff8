"""Train the embedded families on their procedural worlds, resumably.

    python -m experiments.train_worlds --config=configs/train_worlds.py --out=runs/worlds-64
    python -m experiments.train_worlds --config=configs/train_worlds.py:editor --out=runs/editor

The first makes `worlds-64`: autoencoder, denoiser with its text encoder, and the judge, of objects,
and a classifier and a discriminator that score renderings (`scorers/`); with --stage=classifier or
--stage=discriminator, that one alone.
The second makes what edits and measures pictures of objects and rooms: an inpainting family, the
pair that scores captions, and the depth model. Pictures are traced first; a stage that is finished
is not trained again, an interrupted one goes on. Everything is written to OUT in the layout of
Stable Diffusion, CLIP and DPT, half precision.
"""

from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from experiments.devices import use_every_core
from experiments.errors import reported
from experiments.training.autoencoder import train_autoencoder
from experiments.training.classifier import train_classifier
from experiments.training.clip_pair import train_clip
from experiments.training.denoiser import train_denoiser
from experiments.training.depth import train_depth
from experiments.training.discriminator import train_discriminator
from experiments.training.inpainting import train_inpainting
from experiments.training.judge import train_judge
from experiments.training.worlds import load_worlds
from geojax.io.run_folder import open_run

FLAGS = flags.FLAGS

_STAGES = {
    "vae": train_autoencoder,
    "unet": train_denoiser,
    "judge": train_judge,
    "classifier": train_classifier,
    "discriminator": train_discriminator,
    "inpainting": train_inpainting,
    "clip": train_clip,
    "depth": train_depth,
}
# A stage may be lengthened; anything else is another training.
_MAY_CHANGE = (*(f"{stage}.steps" for stage in _STAGES), "checkpoint_seconds")
_NEEDED_BYTES = 2**30


def define_flags() -> None:
    """The flags of this binary."""
    config_flags.DEFINE_config_file(
        "config", "configs/train_worlds.py", "Recipe, a file of configs/.", lock_config=True
    )
    flags.DEFINE_string("out", "runs/worlds-64", "Folder of this run; the same folder resumes.")
    flags.DEFINE_enum(
        "stage",
        "all",
        ["all", "pictures", *_STAGES],
        "Which stage to run: all that the recipe names, or one of them; pictures traces only.",
    )


def main(argv: list[str]) -> None:
    """Run the stages."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; everything is a flag")
    config, out, stage = FLAGS.config, Path(FLAGS.out), FLAGS.stage
    if stage not in ("all", "pictures", *config.stages):
        raise ValueError(f"--stage={stage} is not in this recipe, which has {config.stages}")
    use_every_core()
    with open_run(out, config.to_dict(), _MAY_CHANGE, _NEEDED_BYTES):
        worlds = load_worlds(config, out)
        for name in config.stages:
            if stage in ("all", name):
                _STAGES[name](config, worlds, out)


if __name__ == "__main__":
    with reported("train_worlds"):
        define_flags()
        app.run(main)
