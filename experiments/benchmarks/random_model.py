"""A Stable Diffusion 1.5 with random weights, as a folder that geojax and PyTorch diffusers read.

python -m experiments.benchmarks.random_model --out=/tmp/random_sd15

For what does not depend on what the weights are: speed, memory, whether a recipe runs. 4.3 GB. The
architecture is the original's at full size; its tokenizer is that of the embedded worlds, so that
nothing has to be at hand.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import app, flags

from experiments.benchmarks.originals import AUTOENCODER, SD1, TEXT_L
from geojax.models.clip import CLIPText
from geojax.models.unet import UNet
from geojax.models.vae import VAE
from geojax.weights.folder import abstract_params
from geojax.weights.pipeline_folder import STABLE_DIFFUSION_SCHEDULER, Component, save_pipeline
from geojax.worlds import vocabulary


class Networks(NamedTuple):
    """The networks of a pipeline."""

    unet: UNet
    vae: VAE
    text_encoder: CLIPText


STABLE_DIFFUSION_1 = Networks(UNet(SD1), VAE(AUTOENCODER), CLIPText(TEXT_L))


def random_params(module: Any, seed: int) -> Any:
    """Uniform kernels of variance 1 / fan-in, biases 0, scales 1: float32 numpy arrays.

    What is stored stays near the size of its input, so that a sampler of 20 steps stays finite.
    """
    rng = np.random.default_rng(seed)

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        kind = path[-1].key
        if kind == "scale":
            return np.ones(leaf.shape, np.float32)
        if kind == "bias":
            return np.zeros(leaf.shape, np.float32)
        # Of an embedding the rows are inputs, so that its fan-in is one row's width.
        fan_in = leaf.shape[-1] if kind == "embedding" else np.prod(leaf.shape[:-1])
        values = rng.random(leaf.shape, np.float32)
        values -= np.float32(0.5)
        values *= np.float32(np.sqrt(12.0 / fan_in))
        return values

    return jax.tree_util.tree_map_with_path(draw, abstract_params(module))


def write_random_model(
    folder: Path, networks: Networks = STABLE_DIFFUSION_1, seed: int = 0
) -> None:
    """Write the folder: all of it or nothing.

    Raises:
      FileExistsError: `folder` exists and holds something else.
    """
    with TemporaryDirectory() as temporary:
        save_pipeline(
            folder,
            {
                name: Component(random_params(module, seed + i), module.config.to_dict())
                for i, (name, module) in enumerate(networks._asdict().items())
            },
            STABLE_DIFFUSION_SCHEDULER,
            write_tokenizer(Path(temporary), networks.text_encoder.config.max_position_embeddings),
        )


def write_tokenizer(folder: Path, limit: int) -> Path:
    """The embedded worlds' tokenizer with another limit of tokens, in a folder; the folder."""
    vocabulary.write_tokenizer(folder)
    file = folder / "tokenizer_config.json"
    fields = json.loads(file.read_text()) | {"model_max_length": limit}
    file.write_text(json.dumps(fields, indent=2) + "\n")
    return folder


def main(argv: list[str]) -> None:
    """Check the flags, write the folder."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; everything is a flag")
    write_random_model(Path(flags.FLAGS.out), seed=flags.FLAGS.seed)
    print(f"wrote {flags.FLAGS.out}")


if __name__ == "__main__":
    flags.DEFINE_string("out", None, "New folder.", required=True)
    flags.DEFINE_integer("seed", 0, "Of the weights.")
    app.run(main)
