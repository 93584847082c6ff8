"""Train the embedded family `worlds-64` on its procedural worlds, resumably.

    python -m experiments.train_worlds --config=configs/train_worlds.py --out=runs/worlds-64

Stages, each skipped when its result is on disk: trace the pictures; train the autoencoder; train
the denoiser with its text encoder; train the judge. The same command goes on where it stopped. The
family is written to OUT/family in Stable Diffusion's folder layout, half precision.
"""

from pathlib import Path

import numpy as np
from absl import app, flags, logging
from ml_collections import config_flags

from experiments.devices import use_every_core
from experiments.training.autoencoder import train_autoencoder
from experiments.training.denoiser import train_denoiser
from experiments.training.judge import train_judge
from geojax.worlds import pictures

_CONFIG = config_flags.DEFINE_config_file("config", "configs/train_worlds.py", lock_config=True)
_OUT = flags.DEFINE_string("out", "runs/worlds-64", "Folder of this run; the same folder resumes.")
_STAGE = flags.DEFINE_enum(
    "stage", "all", ["all", "pictures", "vae", "unet", "judge"], "Which stage to run."
)


def main(argv: list[str]) -> None:
    """Run the stages."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; everything is a flag")
    use_every_core()
    config, out, stage = _CONFIG.value, Path(_OUT.value), _STAGE.value
    parts = []
    for kind, part in pictures.load_or_trace(
        out / "pictures", config.seed, config.views_per_kind, config.image_size
    ):
        logging.info("pictures of %s: %d", kind, len(part.kind))
        parts.append(part)
    pool = pictures.Pool(*(np.concatenate(leaves) for leaves in zip(*parts, strict=True)))
    stages = {"vae": train_autoencoder, "unet": train_denoiser, "judge": train_judge}
    for name, run in stages.items():
        if stage in ("all", name):
            run(config, pool, out)


if __name__ == "__main__":
    app.run(main)
