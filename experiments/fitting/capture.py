"""Posed pictures of a folder: nerfstudio's transforms.json, or a text model of COLMAP.

    DATA/transforms.json            frames[].file_path, depth_file_path?, mask_path?
    DATA/[sparse/[0/]]cameras.txt   with images.txt; pictures in DATA/images/ or DATA/

Everything that is wrong with a folder is said here, before a run begins.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, UInt8

from experiments.colmap_folder import read_colmap
from geojax.geometry.camera import Camera, check_camera, pixel_centers, unproject
from geojax.geometry.nerfstudio import camera_from_transforms
from geojax.io.depth_files import read_depth
from geojax.io.media import read_image, to_uint8

_LEAST_FRAMES = 2


class Capture(NamedTuple):
    """Views of a scene, in its own units.

    Attributes:
      camera: [F].
      image: [F, H, W, 3]; where a file has alpha, over the background.
      depth: z-depth [F, H, W], 0 where unknown.
      kept: pixels that count, [F, H, W].
      names: of the picture files.
      digest: of all that was read.
    """

    camera: Camera
    image: UInt8[np.ndarray, "F H W 3"]
    depth: Float[np.ndarray, "F H W"]
    kept: Bool[np.ndarray, "F H W"]
    names: list[str]
    digest: str


class _Files(NamedTuple):
    """Files of the frames; None where a frame has none."""

    images: list[Path]
    depths: list[Path | None]
    masks: list[Path | None]


def read_capture(data: str | Path, background: Sequence[float]) -> Capture:
    """Read a folder, or a transforms.json by its own path.

    Args:
      data: the folder or file.
      background: colour in [0, 1] behind transparent pixels.

    Raises:
      FileNotFoundError: no folder, no cameras in it, or a picture that is named and not there.
      ValueError: naming the file and what is wrong with it.
    """
    place = Path(data)
    file = place / "transforms.json" if place.is_dir() else place
    if file.is_file():
        camera, files, text = _from_transforms(file)
    elif place.is_dir():
        camera, files, text = _from_colmap(place)
    else:
        raise FileNotFoundError(f"--data={data}: no such folder")
    check_camera(camera)
    if len(files.images) < _LEAST_FRAMES:
        raise ValueError(f"--data={data} has {len(files.images)} frame; a fit needs at least 2")
    shape = (camera.height, camera.width)
    behind = np.asarray(background, np.float32)
    images, depths, masks = [], [], []
    for picture, depth, mask in zip(*files, strict=True):
        images.append(to_uint8(_read_picture(picture, shape, behind)))
        depths.append(np.zeros(shape, np.float32) if depth is None else _read_depth(depth, shape))
        masks.append(np.ones(shape, bool) if mask is None else _read_mask(mask, shape))
    found = hashlib.sha256(text.encode())
    for array in (*images, *depths, *masks):
        found.update(np.ascontiguousarray(array).tobytes())
    names = [path.name for path in files.images]
    stacks = np.stack(images), np.stack(depths), np.stack(masks)
    return Capture(camera, *stacks, names, found.hexdigest()[:16])


def seen_points(capture: Capture, most: int = 100_000) -> Float[np.ndarray, "n 3"]:
    """World points of known depth, evenly thinned to about `most`."""
    count = int((capture.depth > 0.0).sum())
    step = max(1, count // most)
    height, width = capture.depth.shape[1:]
    pixels = jnp.broadcast_to(
        pixel_centers(height, width).reshape(1, -1, 2), (len(capture.depth), height * width, 2)
    )
    depth = jnp.asarray(capture.depth.reshape(len(capture.depth), -1))
    points = np.asarray(unproject(capture.camera, pixels, depth))
    return points[np.asarray(depth) > 0.0][::step]


def _from_transforms(file: Path) -> tuple[Camera, _Files, str]:
    text = file.read_text()
    try:
        transforms = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    if not isinstance(transforms, dict) or not isinstance(transforms.get("frames"), list):
        raise ValueError(f"{file} has no list of frames")
    frames: list[dict[str, Any]] = transforms["frames"]
    images = []
    for index, frame in enumerate(frames):
        name = frame.get("file_path") if isinstance(frame, dict) else None
        if not isinstance(name, str) or not name:
            raise ValueError(f"{file}: frame {index} has no file_path")
        # Blender's files leave the suffix out.
        bare = file.parent / name
        images.append(bare if bare.suffix else bare.with_suffix(".png"))

    def others(key: str) -> list[Path | None]:
        return [file.parent / frame[key] if frame.get(key) else None for frame in frames]

    height = width = None
    if images and images[0].is_file():
        height, width = read_image(images[0]).rgb.shape[:2]
    try:
        camera, _ = camera_from_transforms(transforms, height, width)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}: {error}") from error
    return camera, _Files(images, others("depth_file_path"), others("mask_path")), text


def _from_colmap(folder: Path) -> tuple[Camera, _Files, str]:
    try:
        camera, names, text = read_colmap(folder)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"--data={folder} has neither transforms.json nor cameras.txt and images.txt of COLMAP"
        ) from error
    pictures = folder / "images" if (folder / "images").is_dir() else folder
    none: list[Path | None] = [None] * len(names)
    return camera, _Files([pictures / name for name in names], none, none), text


def _read_picture(
    path: Path, shape: tuple[int, int], behind: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "H W 3"]:
    picture = read_image(path)
    _check_size(path, picture.rgb.shape[:2], shape)
    if picture.alpha is None:
        return picture.rgb
    alpha = picture.alpha[..., None]
    return alpha * picture.rgb + (1.0 - alpha) * behind


def _read_depth(path: Path, shape: tuple[int, int]) -> Float[np.ndarray, "H W"]:
    depth = read_depth(path)
    _check_size(path, depth.shape, shape)
    return depth


def _read_mask(path: Path, shape: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
    """nerfstudio's masks: black pixels do not count."""
    mask = read_image(path).rgb.max(axis=-1) >= 0.5
    _check_size(path, mask.shape, shape)
    return mask


def _check_size(path: Path, found: tuple[int, ...], expected: tuple[int, int]) -> None:
    if tuple(found) != expected:
        raise ValueError(
            f"{path} is {found[1]}x{found[0]} pixels, its camera {expected[1]}x{expected[0]}"
        )
