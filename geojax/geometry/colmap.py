"""Cameras as the text models of COLMAP hold them: cameras.txt and images.txt.

Symbols: q = (w, x, y, z) a unit quaternion, t a translation, both world to camera, OpenCV axes;
K the intrinsics in pixels, the centre of the first pixel at (.5, .5), as here.
    (1)  x_cam = R(q) x_world + t,   camera_to_world = [R(q)^T | -R(q)^T t]
    (2)  R(q) = I + 2 w [v]x + 2 [v]x^2,   v = (x, y, z),  [v]x its cross product as a matrix

cameras.txt   CAMERA_ID MODEL WIDTH HEIGHT PARAMS...
images.txt    two lines an image: IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, and its points
              (X Y POINT3D_ID)..., which may be an empty line: so empty lines count.
(COLMAP documentation, "Output Format".) Text in, cameras out; who calls reads the files.
"""

import math
from collections.abc import Iterator, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from geojax.geometry.camera import Camera, check_camera

# Model -> (focal lengths, parameters). After focal lengths and centre comes the distortion.
_MODELS = {
    "SIMPLE_PINHOLE": (1, 3),
    "PINHOLE": (2, 4),
    "SIMPLE_RADIAL": (1, 4),
    "RADIAL": (1, 5),
    "OPENCV": (2, 8),
    "FULL_OPENCV": (2, 12),
}
_IMAGE_FIELDS = 10
_UNIT_MARGIN = 1e-2  # of the length of a quaternion: files are rounded, not scaled

Intrinsics = tuple[float, float, float, float, int, int]  # fx, fy, cx, cy, height, width


def camera_from_colmap(cameras: str, images: str) -> tuple[Camera, list[str]]:
    """The cameras of a text model, sorted by the names of their images.

    Args:
      cameras: content of cameras.txt.
      images: content of images.txt.

    Returns:
      a Camera of batch shape [images], and the names.

    Raises:
      ValueError: naming file and line, for a line that is none of the format, numbers that are not
        finite, a focal length or size that is not positive, lens distortion, an unknown camera, a
        name twice; or for no images, or images of several sizes.
    """
    known = dict(_intrinsics(cameras))
    found: dict[str, tuple[np.ndarray, Intrinsics]] = {}
    for line, camera_id, name, pose in _poses(images):
        if camera_id not in known:
            raise ValueError(f"images.txt line {line}: camera {camera_id} is not in cameras.txt")
        if name in found:
            raise ValueError(f"images.txt line {line}: there are two images {name!r}")
        found[name] = pose, known[camera_id]
    if not found:
        raise ValueError("images.txt has no images")
    names = sorted(found)
    sizes = {found[name][1][4:] for name in names}
    if len(sizes) > 1:
        raise ValueError(f"images must share one (height, width), got {sorted(sizes)}")
    poses = jnp.asarray(np.stack([found[name][0] for name in names]), jnp.float32)
    fx, fy, cx, cy = jnp.asarray([found[name][1][:4] for name in names], jnp.float32).T
    camera = Camera(poses, fx, fy, cx, cy, *sizes.pop())
    check_camera(camera)
    return camera, names


def camera_to_colmap(camera: Camera, names: Sequence[str]) -> tuple[str, str]:
    """The content of cameras.txt and images.txt; images have no points.

    Args:
      camera: a batch [images] of cameras; equal intrinsics become one camera of the file.
      names: of the images, without line breaks.

    Raises:
      ValueError: the numbers of cameras and names differ, a camera is none (`check_camera`), or a
        name is empty or would break the file.
    """
    if camera.batch_shape != (len(names),):
        raise ValueError(f"{len(names)} names for cameras of batch {camera.batch_shape}")
    check_camera(camera)
    for name in names:
        if not name or name != name.strip() or "\n" in name:
            raise ValueError(f"{name!r} cannot be the name of an image in images.txt")
    numbers = np.stack([np.asarray(x, np.float64) for x in _parts(camera)], axis=-1)
    ids: dict[tuple[float, ...], int] = {}
    rows = ["# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME; POINTS2D[]"]
    poses = np.asarray(camera.camera_to_world, np.float64)
    for i, (name, pose) in enumerate(zip(names, poses, strict=True)):
        camera_id = ids.setdefault(tuple(numbers[i].tolist()), len(ids) + 1)
        rotation = pose[:3, :3].T
        values = *quaternion(rotation), *(-rotation @ pose[:3, 3])
        text = " ".join(repr(float(v)) for v in values)
        rows += [f"{i + 1} {text} {camera_id} {name}", ""]
    head = "# CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]"
    lines = [
        f"{camera_id} PINHOLE {camera.width} {camera.height} {' '.join(map(repr, values))}"
        for values, camera_id in ids.items()
    ]
    return "\n".join([head, *lines]) + "\n", "\n".join(rows) + "\n"


def rotation_matrix(q: Float[np.ndarray, "4"]) -> Float[np.ndarray, "3 3"]:
    """Equation (2); q = (w, x, y, z) of unit length."""
    w, x, y, z = q
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + 2.0 * w * cross + 2.0 * cross @ cross


def quaternion(rotation: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "4"]:
    """The inverse of equation (2), w >= 0: the eigenvector of a symmetric matrix.

    Exact for half turns too, and the nearest where the matrix is a rotation up to rounding
    (Bar-Itzhack, "New method for extracting the quaternion from a rotation matrix", 2000).
    """
    r = np.asarray(rotation, np.float64)
    skew = np.array([r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]])
    matrix = np.empty((4, 4))
    matrix[0, 0] = np.trace(r)
    matrix[0, 1:] = matrix[1:, 0] = skew
    matrix[1:, 1:] = r + r.T - np.trace(r) * np.eye(3)
    q = np.linalg.eigh(matrix)[1][:, -1]
    return -q if q[0] < 0.0 else q


def _parts(camera: Camera) -> tuple:
    return camera.fx, camera.fy, camera.cx, camera.cy


def _intrinsics(text: str) -> Iterator[tuple[str, Intrinsics]]:
    """(camera id, intrinsics) of cameras.txt."""
    seen = set()
    for number, line in enumerate(text.splitlines(), 1):
        where = f"cameras.txt line {number}"
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        camera_id, *fields = line.split()
        if len(fields) < 3:
            raise ValueError(f"{where}: expected ID MODEL WIDTH HEIGHT PARAMS, got {line!r}")
        model, size = fields[0], _numbers(where, fields[1:3])
        if model not in _MODELS:
            raise ValueError(f"{where}: camera model {model!r} is not one of {', '.join(_MODELS)}")
        focals, count = _MODELS[model]
        values = _numbers(where, fields[3:])
        if len(values) != count:
            raise ValueError(f"{where}: {model} has {count} parameters, got {len(values)}")
        if any(values[focals + 2 :]):
            bent = values[focals + 2 :]
            raise ValueError(f"{where}: lens distortion {bent}: undistort the images first")
        if min(values[:focals]) <= 0.0:
            raise ValueError(f"{where}: focal lengths must be positive, got {values[:focals]}")
        if min(size) < 1 or any(n != int(n) for n in size):
            raise ValueError(f"{where}: width and height must be positive integers, got {size}")
        if camera_id in seen:
            raise ValueError(f"{where}: there are two cameras {camera_id}")
        seen.add(camera_id)
        fx, fy = values[0], values[focals - 1]
        cx, cy = values[focals : focals + 2]
        yield camera_id, (fx, fy, cx, cy, int(size[1]), int(size[0]))


def _poses(text: str) -> Iterator[tuple[int, str, str, Float[np.ndarray, "4 4"]]]:
    """(line, camera id, name, camera_to_world) of images.txt."""
    lines = enumerate(text.splitlines(), 1)
    for number, line in lines:
        where = f"images.txt line {number}"
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        fields = line.split(maxsplit=_IMAGE_FIELDS - 1)
        if len(fields) != _IMAGE_FIELDS:
            raise ValueError(
                f"{where}: expected ID QW QX QY QZ TX TY TZ CAMERA NAME, got {line[:80]!r}"
            )
        values = np.asarray(_numbers(where, fields[1:8]))
        q, t = values[:4], values[4:]
        length = float(np.linalg.norm(q))
        if abs(length - 1.0) > _UNIT_MARGIN:
            raise ValueError(f"{where}: the quaternion {q.tolist()} has length {length:.4g}, not 1")
        after, points = next(lines, (number + 1, ""))
        # A file without the lines of points would lose every other image in silence.
        if len(_numbers(f"images.txt line {after}, points of an image", points.split())) % 3:
            raise ValueError(f"images.txt line {after}: expected X Y POINT3D_ID ..., got {points}")
        pose = np.eye(4)
        pose[:3, :3] = rotation_matrix(q / length).T
        pose[:3, 3] = -pose[:3, :3] @ t
        yield number, fields[8], fields[9].strip(), pose


def _numbers(where: str, fields: Sequence[str]) -> list[float]:
    """Finite numbers of the fields of a line."""
    try:
        values = [float(field) for field in fields]
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if not all(map(math.isfinite, values)):
        raise ValueError(f"{where}: numbers must be finite, got {' '.join(fields)[:80]}")
    return values
