"""The frames of a walk on disk: each is committed whole, and together they are the walk's state.

    records/NNNN.npz   picture, depth, what was new, what is far, camera; float32, as computed

A scene is built again from them, by learning the frames in their order: the same functions on the
same numbers. So a killed walk goes on as if nothing had happened, and what is done is never lost.
"""

import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from geojax.geometry.camera import Camera
from geojax.io.atomic import replacing

_CAMERA = ("camera_to_world", "fx", "fy", "cx", "cy")


class Record(NamedTuple):
    """A frame that is done.

    Attributes:
      image: [H, W, 3] in [0, 1].
      depth: z-depth [H, W]; 0 where it is far.
      new: [H, W], was painted or filled.
      hole: [H, W], was painted.
      far: [H, W].
      shown: what the scene showed before [H, W, 3].
      camera: of the frame.
      figures: name -> number.
    """

    image: Float[np.ndarray, "H W 3"]
    depth: Float[np.ndarray, "H W"]
    new: Bool[np.ndarray, "H W"]
    hole: Bool[np.ndarray, "H W"]
    far: Bool[np.ndarray, "H W"]
    shown: Float[np.ndarray, "H W 3"]
    camera: Camera
    figures: dict[str, float]


def record_file(folder: Path, index: int) -> Path:
    """Where frame `index` is kept."""
    return folder / "records" / f"{index:04d}.npz"


def count_records(folder: Path) -> int:
    """How many frames are done, from the first on."""
    count = 0
    while record_file(folder, count).is_file():
        count += 1
    return count


def write_record(folder: Path, index: int, record: Record) -> None:
    """Commit a frame: whole or not at all."""
    arrays: dict[str, Any] = {
        name: np.asarray(getattr(record, name))
        for name in ("image", "depth", "new", "hole", "far", "shown")
    }
    arrays |= {name: np.asarray(getattr(record.camera, name)) for name in _CAMERA}
    arrays |= {f"figure.{name}": np.float64(value) for name, value in record.figures.items()}
    with replacing(record_file(folder, index)) as temporary:
        np.savez_compressed(temporary, **arrays)


def read_record(folder: Path, index: int) -> Record | None:
    """Frame `index`, or None when it is not done.

    Raises:
      ValueError: the file is damaged; says which, and that it may be removed to paint it again.
    """
    file = record_file(folder, index)
    if not file.is_file():
        return None
    try:
        with np.load(file) as stored:
            arrays = {name: stored[name] for name in stored.files}
        height, width = arrays["depth"].shape
        pose, fx, fy, cx, cy = (jnp.asarray(arrays[name]) for name in _CAMERA)
        camera = Camera(pose, fx, fy, cx, cy, height, width)
        prefix = "figure."
        return Record(
            image=arrays["image"],
            depth=arrays["depth"],
            new=arrays["new"],
            hole=arrays["hole"],
            far=arrays["far"],
            shown=arrays["shown"],
            camera=camera,
            figures={
                name.removeprefix(prefix): float(value)
                for name, value in arrays.items()
                if name.startswith(prefix)
            },
        )
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError, OSError) as error:
        raise ValueError(
            f"{file} is damaged ({error}): remove it, and those after it, to paint them again"
        ) from error
