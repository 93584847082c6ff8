"""What a depth model is fed, as its preprocessor_config.json says.

Symbols: H, W sides of an image; S, T sides the model was trained at; q their multiple; mu, sigma
mean and deviation of the training images.
    (1) scale   s = S / H, t = T / W; keeping proportions, both the one that is nearer to 1
    (2) sides   s H and t W, each to the nearest multiple of q
    (3) pixels  (x at those sides - mu) / sigma

That is transformers' DPTImageProcessor, which rounds to 8 bits on the way. Where its multiple is
not one of the network's patches, transformers' network drops the rows beyond the last whole patch;
here q is the least common multiple of both, and nothing is dropped.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from geojax.priors.image_input import resample
from geojax.priors.prior import Image
from geojax.weights.model_folder import FILTERS, PREPROCESSOR
from geojax.weights.safetensors_io import read_json

STEPS = ("do_resize", "do_rescale", "do_normalize")


class Statistics(NamedTuple):
    """mu and sigma by channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


HALF = Statistics((0.5,) * 3, (0.5,) * 3)
IMAGENET = Statistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclasses.dataclass(frozen=True)
class DepthInput:
    """How a depth model's images are made.

    Attributes:
      height: S.
      width: T.
      keep_aspect_ratio: as in equation (1).
      multiple: q.
      method: of resampling, "linear" or "cubic".
      statistics: mu and sigma.
    """

    height: int
    width: int
    keep_aspect_ratio: bool
    multiple: int
    method: str
    statistics: Statistics

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Equation (2) of an image H x W, at least one multiple."""
        scales = (self.height / height, self.width / width)
        if self.keep_aspect_ratio:
            # A tie goes to the height, as in transformers.
            scales = (min(scales, key=lambda s: abs(1 - s)),) * 2
        rows, columns = (
            max(round(scale * side / self.multiple), 1) * self.multiple
            for scale, side in zip(scales, (height, width), strict=True)
        )
        return rows, columns

    def pixels(self, image: Image) -> Float[Array, "B h w 3"]:
        """Equation (3) of an image [B, H, W, 3] in [0, 1]."""
        image = resample(image, self.size(*image.shape[1:3]), self.method)
        mean, std = (jnp.asarray(v, image.dtype)[None, None, None] for v in self.statistics)
        return (image - mean) / std

    def to_dict(self) -> dict[str, Any]:
        """The fields of preprocessor_config.json, readable by transformers."""
        return {
            "image_processor_type": "DPTImageProcessor",
            **dict.fromkeys(STEPS, True),
            "do_pad": False,
            "size": {"height": self.height, "width": self.width},
            "keep_aspect_ratio": self.keep_aspect_ratio,
            "ensure_multiple_of": self.multiple,
            "resample": {name: number for number, name in FILTERS.items()}[self.method],
            "rescale_factor": 1 / 255,
            "image_mean": list(self.statistics.mean),
            "image_std": list(self.statistics.std),
        }


def read_depth_input(
    folder: Path, image_size: int, patch_size: int, statistics: Statistics
) -> DepthInput:
    """What preprocessor_config.json in `folder` says.

    Args:
      folder: of the file; without one, proportions are kept and the rest are the arguments.
      image_size: side the network was built for.
      patch_size: of the network.
      statistics: of the network's kind.

    Raises:
      ValueError: a step is left out or added, a filter is not known, or sizes that are none.
    """
    file = folder / PREPROCESSOR
    if not file.is_file():
        return DepthInput(image_size, image_size, True, patch_size, "cubic", statistics)
    config = read_json(file)
    skipped = [name for name in STEPS if config.get(name) is False]
    if skipped or config.get("do_pad"):
        raise ValueError(f"{file}: {skipped or 'do_pad'} is unsupported")
    size = config.get("size", image_size)
    named = isinstance(size, dict)
    height: Any = size.get("height") if named else size
    width: Any = size.get("width") if named else size
    multiple = config.get("ensure_multiple_of") or 1
    for value in (height, width, multiple):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{file}: size={size} and ensure_multiple_of={multiple} are no sizes")
    number = config.get("resample", 3)
    if number not in FILTERS:
        raise ValueError(f"{file}: resample={number} is not one of {list(FILTERS)}")
    factor = config.get("rescale_factor", 1 / 255)
    if not math.isclose(factor, 1 / 255, rel_tol=1e-3):
        raise ValueError(f"{file}: rescale_factor={factor} is not 1/255")
    found = Statistics(
        tuple(config.get("image_mean") or statistics.mean),
        tuple(config.get("image_std") or statistics.std),
    )
    if any(len(part) != 3 for part in found):
        raise ValueError(f"{file}: image_mean and image_std must have 3 entries, found {found}")
    keep = bool(config.get("keep_aspect_ratio", False))
    multiple = math.lcm(multiple, patch_size)
    return DepthInput(height, width, keep, multiple, FILTERS[number], found)
