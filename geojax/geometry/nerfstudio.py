"""Cameras as nerfstudio's transforms.json holds them.

The file keeps one camera_to_world a frame with OpenGL axes (right, up, backward), and intrinsics
fl_x, fl_y, cx, cy, w, h in pixels at the top or, where they differ, in the frame. Blender's files
give camera_angle_x, the horizontal field of view in radians, instead of a focal length.
(nerfstudio documentation, "Data conventions".) Poses are taken and given as the file has them: an
`applied_transform` is not undone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from geojax.geometry.camera import Camera, from_opengl, to_opengl

_PINHOLE_MODELS = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE")
_DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")


def camera_from_transforms(
    transforms: Mapping[str, Any], height: int | None = None, width: int | None = None
) -> tuple[Camera, list[str]]:
    """The cameras of a parsed transforms.json, in the order of its frames.

    Args:
        transforms: the parsed file.
        height: image height in pixels, where the file does not say (Blender's do not).
        width: image width in pixels, likewise.

    Returns:
        a Camera of batch shape [frames], and each frame's file_path.

    Raises:
        ValueError: for no frames, a missing focal length or size, frames of different sizes, a
            matrix that is not 4x4, or a camera that is not a pinhole (fisheye, lens distortion).
    """
    frames = transforms.get("frames", [])
    if not frames:
        raise ValueError("transforms has no frames")
    merged = [{"h": height, "w": width} | _known(transforms) | _known(frame) for frame in frames]
    poses, intrinsics, sizes, paths = [], [], [], []
    for index, frame in enumerate(merged):
        _check_pinhole(frame, index)
        if frame["h"] is None or frame["w"] is None:
            raise ValueError(
                f"frame {index} has no image size: w and h are neither in it nor given"
            )
        size = int(frame["h"]), int(frame["w"])
        pose = np.asarray(frame.get("transform_matrix"), np.float32)
        if pose.shape != (4, 4):
            raise ValueError(f"frame {index}: transform_matrix must be 4x4, got shape {pose.shape}")
        poses.append(pose)
        intrinsics.append(_intrinsics(frame, size, index))
        sizes.append(size)
        paths.append(frame.get("file_path", ""))
    if len(set(sizes)) > 1:
        raise ValueError(f"frames must share one (height, width), got {sorted(set(sizes))}")
    fx, fy, cx, cy = jnp.asarray(np.asarray(intrinsics, np.float32).T)
    camera_to_world = from_opengl(jnp.asarray(np.stack(poses)))
    return Camera(camera_to_world, fx, fy, cx, cy, *sizes[0]), paths


def camera_to_transforms(camera: Camera, file_paths: Sequence[str]) -> dict[str, Any]:
    """The dictionary of a transforms.json, ready for `json.dump`.

    Intrinsics that all frames share are written once at the top, the others in the frames.

    Args:
        camera: a batch [frames] of cameras.
        file_paths: an image path a frame.

    Raises:
        ValueError: when the numbers of cameras and paths differ.
    """
    if camera.batch_shape != (len(file_paths),):
        raise ValueError(f"{len(file_paths)} paths for cameras of batch {camera.batch_shape}")
    poses = np.asarray(to_opengl(camera.camera_to_world), np.float64)
    values = {"fl_x": camera.fx, "fl_y": camera.fy, "cx": camera.cx, "cy": camera.cy}
    values = {name: np.asarray(value, np.float64).tolist() for name, value in values.items()}
    shared = {name: value[0] for name, value in values.items() if len(set(value)) == 1}
    frames = [
        {"file_path": path, "transform_matrix": pose.tolist()}
        | {name: value[i] for name, value in values.items() if name not in shared}
        for i, (path, pose) in enumerate(zip(file_paths, poses, strict=True))
    ]
    size = {"w": camera.width, "h": camera.height}
    return {"camera_model": "OPENCV"} | size | shared | {"frames": frames}


def _known(entries: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value for name, value in entries.items() if name != "frames" and value is not None
    }


def _check_pinhole(frame: Mapping[str, Any], index: int) -> None:
    model = frame.get("camera_model", "OPENCV")
    if model not in _PINHOLE_MODELS:
        raise ValueError(f"frame {index}: camera_model {model!r} is not one of {_PINHOLE_MODELS}")
    bent = {name: frame[name] for name in _DISTORTION if frame.get(name, 0.0) != 0.0}
    if bent:
        raise ValueError(f"frame {index} has lens distortion {bent}: undistort the images first")


def _intrinsics(
    frame: Mapping[str, Any], size: tuple[int, int], index: int
) -> tuple[float, float, float, float]:
    height, width = size
    if "fl_x" in frame:
        fx = float(frame["fl_x"])
    elif "camera_angle_x" in frame:
        fx = 0.5 * width / float(np.tan(0.5 * float(frame["camera_angle_x"])))
    else:
        raise ValueError(f"frame {index} has neither fl_x nor camera_angle_x")
    fy = float(frame.get("fl_y", fx))
    cx, cy = float(frame.get("cx", 0.5 * width)), float(frame.get("cy", 0.5 * height))
    return fx, fy, cx, cy
