"""SceneScape's networks with random weights: what a frame costs at full size, not what it shows.

python -m experiments.benchmarks.random_walk --out=/tmp/random_walk
python -m experiments.walk --config=configs/walk/stable_diffusion.py --prompt="a corridor" \
    --image=start.png --frames=2 --out=runs/full_size --config.model=/tmp/random_walk/inpainting \
    --config.depth.model=/tmp/random_walk/depth --config.clip=/tmp/random_walk/clip

Stable Diffusion 2 inpainting, DPT-Large and CLIP ViT-L/14; 8.5 GB.
"""

import dataclasses
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from absl import app, flags

from experiments.benchmarks.originals import AUTOENCODER, CLIP_L, DPT_LARGE, SD2, TEXT_H
from experiments.benchmarks.random_model import (
    Networks,
    random_params,
    write_random_model,
    write_tokenizer,
)
from geojax.models.clip import CLIPText
from geojax.models.clip_vision import CLIP
from geojax.models.dpt import DPT
from geojax.models.unet import UNet
from geojax.models.vae import VAE
from geojax.weights.model_folder import save_model


class WalkNetworks(NamedTuple):
    """What a walk loads."""

    inpainting: Networks
    depth: DPT
    clip: CLIP


SCENESCAPE = WalkNetworks(
    Networks(
        UNet(dataclasses.replace(SD2, in_channels=9)),
        VAE(AUTOENCODER),
        # The last of the 24 layers is left out of 2.x.
        CLIPText(dataclasses.replace(TEXT_H, num_hidden_layers=23)),
    ),
    DPT(DPT_LARGE),
    CLIP(CLIP_L),
)


def write_random_walk(folder: Path, networks: WalkNetworks = SCENESCAPE, seed: int = 0) -> None:
    """Write folder/inpainting, folder/depth and folder/clip.

    Raises:
      FileExistsError: one of them exists and holds something else.
    """
    write_random_model(folder / "inpainting", networks.inpainting, seed)
    _write(folder / "depth", networks.depth, seed + 3)
    limit = networks.clip.config.text_config.max_position_embeddings
    with TemporaryDirectory() as temporary:
        tokenizer = write_tokenizer(Path(temporary), limit)
        _write(folder / "clip", networks.clip, seed + 4, tokenizer=tokenizer)


def _write(folder: Path, module: Any, seed: int, **files: Any) -> None:
    save_model(folder, random_params(module, seed), module.config.to_dict(), **files)


def main(argv: list[str]) -> None:
    """Check the flags, write the folders."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; everything is a flag")
    write_random_walk(Path(flags.FLAGS.out), seed=flags.FLAGS.seed)
    print(f"wrote {flags.FLAGS.out}")


if __name__ == "__main__":
    flags.DEFINE_string("out", None, "New folder.", required=True)
    flags.DEFINE_integer("seed", 0, "Of the weights.")
    app.run(main)
