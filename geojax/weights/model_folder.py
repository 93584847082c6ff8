"""A model that stands alone: a component with the tokenizer and image processor it is used with.

config.json, model.safetensors, digests.json     as any component
vocab.json, merges.txt, ...                      where it reads text (CLIP)
preprocessor_config.json                         where it reads images (CLIP, DPT)

The layout is that of transformers' `save_pretrained`, which reads it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike

from geojax.weights.folder import Params, write_component
from geojax.weights.new_folder import new_folder
from geojax.weights.pipeline_folder import copy_tokenizer
from geojax.weights.safetensors_io import read_json

PREPROCESSOR = "preprocessor_config.json"
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
# Pillow's numbers in `resample`; both of JAX's filters are Pillow's (the cubic one with a = -1/2).
FILTERS = {2: "linear", 3: "cubic"}
STEPS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")


class ClipInput(NamedTuple):
    """How CLIP's images are made: side of the crop, shorter side before it, filter, mean, std."""

    crop: int
    shorter: int
    method: str = "cubic"
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD

    def to_dict(self) -> dict[str, Any]:
        """The fields of preprocessor_config.json, readable by transformers."""
        number = {name: number for number, name in FILTERS.items()}[self.method]
        return {
            "image_processor_type": "CLIPImageProcessor",
            **dict.fromkeys(STEPS, True),
            "do_convert_rgb": True,
            "size": {"shortest_edge": self.shorter},
            "crop_size": {"height": self.crop, "width": self.crop},
            "resample": number,
            "rescale_factor": 1 / 255,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }


def read_clip_input(folder: Path, image_size: int) -> ClipInput:
    """What preprocessor_config.json says, or CLIP's own settings where there is none.

    Raises:
      ValueError: a step is left out, a filter is not known, or the crop is not `image_size`.
    """
    file = folder / PREPROCESSOR
    if not file.is_file():
        return ClipInput(image_size, image_size)
    config = read_json(file)
    skipped = [name for name in STEPS if config.get(name) is False]
    if skipped:
        raise ValueError(f"{file} leaves out {skipped}, which is unsupported")

    def side(name: str) -> int:
        size = config.get(name, image_size)
        sides = set(size.values()) if isinstance(size, Mapping) else {size}
        if len(sides) != 1 or not isinstance(next(iter(sides)), int):
            raise ValueError(f"{file}: {name}={size} must be one side")
        return next(iter(sides))

    crop, shorter = side("crop_size"), side("size")
    if crop != image_size or shorter < crop:
        raise ValueError(
            f"{file}: crop_size={crop} of size={shorter}, the image tower takes {image_size}"
        )
    resample = config.get("resample", 3)
    if resample not in FILTERS:
        raise ValueError(f"{file}: resample={resample} is not one of {list(FILTERS)}")
    mean, std = config.get("image_mean", CLIP_MEAN), config.get("image_std", CLIP_STD)
    return ClipInput(crop, shorter, FILTERS[resample], tuple(mean), tuple(std))


def save_model(
    path: str | Path,
    params: Params,
    config: Mapping[str, Any],
    class_name: str | None = None,
    dtype: DTypeLike = jnp.float32,
    *,
    tokenizer: str | Path | None = None,
    preprocessor: Mapping[str, Any] | None = None,
    max_shard_bytes: int | None = None,
    overwrite: bool = False,
) -> None:
    """Write a model that stands alone: all of it or nothing.

    Args:
      path: the model's folder.
      params: as in `save_component`, like `config`, `class_name`, `dtype`, `max_shard_bytes`.
      config: fields of config.json.
      class_name: needed where the config does not name it.
      dtype: on disk.
      tokenizer: folder to copy one from.
      preprocessor: fields of preprocessor_config.json, for CLIP `ClipInput(...).to_dict()`.
      max_shard_bytes: largest file, roughly.
      overwrite: replace a folder that differs.

    Raises:
      FileExistsError: the folder exists and differs.
      FileNotFoundError: there is no tokenizer in that folder.
      ValueError, OSError: as `save_component`.
    """
    with new_folder(Path(path), overwrite) as folder:
        write_component(folder, params, config, class_name, dtype, max_shard_bytes)
        if tokenizer is not None:
            copy_tokenizer(tokenizer, folder)
        if preprocessor is not None:
            text = json.dumps(dict(preprocessor), indent=2, sort_keys=True) + "\n"
            (folder / PREPROCESSOR).write_text(text)
