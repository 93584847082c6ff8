"""Depth maps as files: 16-bit PNG for every viewer, .npz for the exact numbers.

A PNG holds whole units, 0 where there is no depth; the unit, in those of the depth map, is in its
text chunk `depth_unit`: 0.001 where that reaches (millimetres of metres), else what makes the
farthest 65535. nerfstudio reads the first kind as it is.
"""

import zipfile
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from geojax.io.atomic import replacing

UNIT = "depth_unit"
MILLI = 1e-3
_COUNTS = 65535


def write_depth(path: str | Path, depth: Float[np.ndarray | jax.Array, "..."]) -> float:
    """Write a z-depth map as .png (returns the unit) or .npz with `depth` (returns 0).

    0 and what is not finite mean that there is none.

    Raises:
      ValueError: another suffix or shape, a negative depth, or none at all.
    """
    path, depth = Path(path), np.asarray(depth, np.float32)
    if depth.ndim != 2:
        raise ValueError(f"expected a depth map [H, W] for {path}, got shape {depth.shape}")
    depth = np.where(np.isfinite(depth), depth, np.float32(0.0))
    if (depth < 0).any():
        raise ValueError(f"{(depth < 0).sum()} depths for {path} are negative, {depth.min():.4g}")
    if not (depth > 0).any():
        raise ValueError(f"no pixel of the depth map for {path} has a depth")
    if path.suffix == ".npz":
        with replacing(path) as temporary:
            np.savez_compressed(temporary, depth=depth)
        return 0.0
    if path.suffix != ".png":
        raise ValueError(f"expected a path ending in .png or .npz, got {path}")
    farthest = float(depth.max())
    unit = MILLI if farthest <= _COUNTS * MILLI else farthest / _COUNTS
    counts = np.clip(np.round(depth / unit), 0, _COUNTS)
    # What is near is near, and not absent.
    counts = np.where((depth > 0) & (counts == 0), 1, counts).astype(np.uint16)
    info = PngInfo()
    info.add_text(UNIT, repr(unit))
    with replacing(path) as temporary:
        Image.fromarray(counts).save(temporary, pnginfo=info)
    return unit


def read_depth(path: str | Path) -> Float[np.ndarray, "H W"]:
    """Read what `write_depth` wrote, or any 16-bit PNG of millimetres; 0 where there is none.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not a depth map.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no depth map at {path}")
    try:
        if path.suffix == ".npz":
            with np.load(path) as stored:
                found = np.asarray(stored["depth"], np.float32)
        elif path.suffix == ".npy":
            found = np.asarray(np.load(path), np.float32)
        else:
            with Image.open(path) as image:
                image.load()
                if not image.mode.startswith("I"):
                    raise ValueError(f"its mode is {image.mode}, expected 16 bits of grey")
                unit = float(getattr(image, "text", {}).get(UNIT, MILLI))
                found = np.asarray(image, np.float32) * np.float32(unit)
    except (ValueError, KeyError, OSError, zipfile.BadZipFile, UnidentifiedImageError) as error:
        raise ValueError(f"{path} is not a depth map: {error}") from error
    if found.ndim != 2:
        raise ValueError(f"{path} is not a depth map: its shape is {found.shape}")
    return np.where(np.isfinite(found) & (found > 0), found, np.float32(0.0))
