"""Where a walk starts: a camera, and a picture with or without depth, or nothing but a prompt."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from PIL import Image

from experiments.painting.inputs import digest, read_picture
from geojax.geometry.camera import Camera, check_camera, focal_from_fov, look_at

INTRINSICS = 4  # fx, fy, cx, cy


class Start(NamedTuple):
    """Frame 0.

    Attributes:
      camera: at the origin, looking along x, z up; of the size of all frames.
      image: [H, W, 3] in [0, 1], or None: it is painted from the prompt.
      depth: z-depth [H, W], 0 where there is none; or None: it is predicted.
    """

    camera: Camera
    image: Float[np.ndarray, "H W 3"] | None
    depth: Float[np.ndarray, "H W"] | None


def frame_size(height: int, width: int, side: int, factor: int) -> tuple[int, int]:
    """H, W of the frames of a picture: the shorter side as the model's, whole cells.

    Args:
      height: of the picture.
      width: of the picture.
      side: the model's.
      factor: pixels of a cell.
    """
    scale = side / min(height, width)
    rows, columns = (max(round(scale * n / factor), 1) * factor for n in (height, width))
    return rows, columns


def parse_intrinsics(text: str | None) -> tuple[float, float, float, float] | None:
    """fx, fy, cx, cy of "fx,fy,cx,cy", in pixels of the picture as it is in its file.

    Raises:
      ValueError: not four numbers, or a focal length that is not positive.
    """
    if text is None:
        return None
    try:
        fx, fy, cx, cy = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"--intrinsics={text} must be four numbers fx,fy,cx,cy") from error
    if not all(math.isfinite(v) for v in (fx, fy, cx, cy)) or fx <= 0 or fy <= 0:
        raise ValueError(f"--intrinsics={text}: focal lengths must be positive, all must be finite")
    return fx, fy, cx, cy


def read_depth_map(path: str, height: int, width: int) -> Float[np.ndarray, "H W"]:
    """The z-depth of --depth: `depth` of an .npz, or an .npy; of the picture's size.

    Raises:
      FileNotFoundError, ValueError: absent, no depth map, another size, or nothing positive in it.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"--depth={path}: no such file")
    try:
        loaded = np.load(file)
        found = np.asarray(loaded["depth"] if file.suffix == ".npz" else loaded, np.float32)
    except (ValueError, KeyError, OSError) as error:
        raise ValueError(
            f"--depth={path} is neither an .npz with `depth` nor an .npy: {error}"
        ) from error
    if found.shape != (height, width):
        raise ValueError(f"--depth={path} is {found.shape}, --image is {height}x{width} pixels")
    missing = ~(np.isfinite(found) & (found > 0))
    if missing.all():
        raise ValueError(f"--depth={path} has no positive depth")
    return np.where(missing, np.float32(0.0), found)


def open_start(settings: dict[str, Any], config: Any, side: int, factor: int) -> Start:
    """Frame 0 of a command; a picture of any size is scaled, its intrinsics with it.

    Settles `settings["image_digest"]` and `settings["depth_digest"]`.

    Args:
      settings: image, depth, intrinsics.
      config: of the walk: size, fov.
      side: of the model's pictures.
      factor: pixels of a latent's cell.

    Raises:
      FileNotFoundError, ValueError: naming the flag.
    """
    given = parse_intrinsics(settings["intrinsics"])
    side = config.size or side
    if side % factor:
        raise ValueError(
            f"config.size={side} must be a multiple of the model's {factor}; the nearest are "
            f"{side // factor * factor} and {(side // factor + 1) * factor}"
        )
    if not 0 < config.fov < 180:
        raise ValueError(f"config.fov={config.fov} must lie between 0 and 180 degrees")
    image = depth = None
    height = width = side
    if settings["image"] is not None:
        picture, alpha = read_picture(settings["image"], "--image")
        if alpha is not None and (alpha < 1.0).any():
            raise ValueError("--image has transparent pixels: fill them first with paint.py")
        height, width = picture.shape[1:3]
        rows, columns = frame_size(height, width, side, factor)
        image = _resized(picture[0], rows, columns)
        if settings["depth"] is not None:
            whole = read_depth_map(settings["depth"], height, width)
            # The nearest pixel: a mean over an edge would be a depth that is nowhere.
            at = [
                ((np.arange(n) + 0.5) * m / n).astype(int)
                for n, m in ((rows, height), (columns, width))
            ]
            depth = whole[at[0][:, None], at[1][None]]
    elif settings["depth"] is not None or given is not None:
        raise ValueError("--depth and --intrinsics describe --image, which is missing")
    else:
        rows = columns = side
    if given is None:
        focal = float(focal_from_fov(math.radians(config.fov), max(height, width)))
        given = focal, focal, 0.5 * width, 0.5 * height
    across, down = columns / width, rows / height
    scaled = np.asarray(given, np.float32) * np.asarray([across, down] * 2, np.float32)
    fx, fy, cx, cy = jnp.asarray(scaled)
    pose = look_at(*(jnp.asarray(v, jnp.float32) for v in ((0, 0, 0), (1, 0, 0), (0, 0, 1))))
    camera = Camera(pose, fx, fy, cx, cy, rows, columns)
    check_camera(camera)
    for name in ("image", "depth"):
        settings[f"{name}_digest"] = digest(settings[name])
    return Start(camera, image, depth)


def _resized(picture: Float[np.ndarray, "h w 3"], height: int, width: int) -> np.ndarray:
    if picture.shape[:2] == (height, width):
        return picture
    size, method = (width, height), Image.Resampling.LANCZOS
    channels = [np.asarray(Image.fromarray(picture[..., i]).resize(size, method)) for i in range(3)]
    return np.clip(np.stack(channels, axis=-1), 0.0, 1.0).astype(np.float32)
