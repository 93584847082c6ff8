"""The way of a walk: poses from a recipe's numbers, or from a file of poses."""

import json
import math
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.colmap_folder import read_colmap
from geojax.geometry import camera_paths
from geojax.geometry.camera import Camera
from geojax.geometry.nerfstudio import camera_from_transforms

KINDS = ("straight", "sideways", "scenescape", "poses")


def make_way(path: Any, start: Camera, frames: int) -> np.ndarray:
    """Poses [frames, 4, 4] of a recipe's `path`; the first is the start's.

    Args:
      path: kind, step, angle, poses, there_and_back.
      start: camera of frame 0.
      frames: how many.

    Raises:
      ValueError, FileNotFoundError: naming the field.
    """
    if path.kind not in KINDS:
        raise ValueError(f"config.path.kind={path.kind!r} is not one of {', '.join(KINDS)}")
    pose = np.asarray(start.camera_to_world, np.float64)
    # There and back takes the middle frame once.
    count = (frames + 1) // 2 if path.there_and_back else frames
    turn = math.radians(path.angle)
    try:
        if path.kind == "straight":
            way = camera_paths.straight(pose, count, (0.0, 0.0, path.step), turn)
        elif path.kind == "sideways":
            way = camera_paths.straight(pose, count, (path.step, 0.0, 0.0), turn)
        elif path.kind == "scenescape":
            way = camera_paths.scenescape(pose, count, path.step, turn)
        else:
            way = _through(path.poses, pose, count)
    except ValueError as error:
        raise ValueError(f"config.path: {error}") from error
    if path.there_and_back:
        way = camera_paths.there_and_back(way)
        # An even number of frames stays at the start for one more.
        way = np.concatenate([way, way[-1:]])[:frames]
    return way


def _through(file: str, start: np.ndarray, frames: int) -> np.ndarray:
    """A spline through given poses, moved so that the first is the start."""
    keys = _poses(file)
    poses = np.asarray(keys.camera_to_world, np.float64)
    moved = start @ np.linalg.inv(poses[0]) @ poses
    return camera_paths.spline(moved, max(frames, 2))[:frames]


def _poses(file: str) -> Camera:
    """Cameras of a transforms.json, or of a folder of COLMAP."""
    place = Path(file)
    if file and place.is_dir():
        return read_colmap(place)[0]
    if not file or not place.is_file():
        raise FileNotFoundError(
            f"config.path.poses={file!r}: no such transforms.json or folder of COLMAP"
        )
    try:
        return camera_from_transforms(json.loads(place.read_text()), height=1, width=1)[0]
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error


def between(before: Camera, pose: np.ndarray, share: float) -> Camera:
    """A camera at a share of the way to a pose, with the intrinsics of the one before."""
    at = camera_paths.interpolate(np.asarray(before.camera_to_world, np.float64), pose, share)
    return Camera(
        jnp.asarray(at, jnp.float32),
        before.fx,
        before.fy,
        before.cx,
        before.cy,
        before.height,
        before.width,
    )
