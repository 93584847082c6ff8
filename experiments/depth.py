"""Predict the depth of pictures.

    python -m experiments.depth --image=room.jpg --out=runs/depth
    python -m experiments.depth --image=photos/ --model=depth-anything/Depth-Anything-V2-Small-hf
    python -m experiments.depth --image=room.jpg --model=Intel/dpt-large --fov=60

Of a picture --out gets, of a folder of pictures --out/NAME of each: depth.png (16 bits, nearer is
darker; summary.json says how much a count is), depth.npz (depth, disparity, valid, intrinsics),
preview.png (the picture, and its disparity coloured, nearer brighter), points.ply (z up, the camera
at the origin looking along x). And one config.json and summary.json. The same command again writes
the same files; a folder of another command is left alone.

Depth is z-depth along the optical axis: in metres from a model trained on metres, and otherwise up
to a scale and to a shift of the disparity, which no single picture tells. The focal length is
--focal, or of --fov, or what the picture's EXIF says, or of 55 degrees.
"""

import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jaxtyping import Bool, Float

from experiments.errors import reported
from experiments.painting.inputs import digest, read_picture
from geojax.geometry.camera import focal_from_fov, look_at, pinhole, pixel_centers, unproject
from geojax.geometry.intrinsics import focal_from_equivalent, focal_from_sensor
from geojax.io.atomic import replacing, write_json
from geojax.io.exif import read_lens
from geojax.io.media import color_map, grid, write_png
from geojax.io.mesh_files import write_points
from geojax.io.metric_log import peak_memory
from geojax.io.run_folder import open_run
from geojax.priors.depth import DepthModel, depth_from_disparity, load_depth

EMBEDDED = Path("geojax/assets/worlds-64/depth")
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
DEFAULT_FOV = 55.0
COUNTS = 65535
MILLIMETRE = 1e-3
_NEEDED_BYTES = 50 * 2**20

FLAGS = flags.FLAGS


class Focal(NamedTuple):
    """A focal length in pixels, and who said so."""

    pixels: float
    source: str


class Scene(NamedTuple):
    """What is known of a picture: colours, alpha's visible part, disparity, depth, focal length.

    Attributes:
      rgb: in [0, 1].
      valid: where the picture is not transparent and not beyond the floor.
      disparity: as predicted.
      depth: of the disparity, at least the floor.
      focal: of a camera with square pixels and a centred principal point.
      metric: whether depth is in metres.
    """

    rgb: Float[np.ndarray, "H W 3"]
    valid: Bool[np.ndarray, "H W"]
    disparity: Float[np.ndarray, "H W"]
    depth: Float[np.ndarray, "H W"]
    focal: Focal
    metric: bool


def define_flags(values: flags.FlagValues = FLAGS) -> None:
    """The flags of this binary; not defined on import."""
    flags.DEFINE_string("image", None, "Picture, or folder of pictures.", flag_values=values)
    flags.DEFINE_string(
        "model", None, "Folder or hub id; the embedded model by default.", flag_values=values
    )
    flags.DEFINE_float(
        "fov", None, "Field of view across the longer side, degrees.", flag_values=values
    )
    flags.DEFINE_float("focal", None, "Focal length, pixels.", flag_values=values)
    flags.DEFINE_float(
        "floor",
        0.01,
        "Disparity of the farthest, as a share of the picture's largest.",
        flag_values=values,
    )
    flags.DEFINE_string("out", "runs/depth", "Folder of the results.", flag_values=values)


def check_flags(fov: float | None, focal: float | None, floor: float) -> None:
    """ValueError where one is out of range, or two say the same thing."""
    if fov is not None and focal is not None:
        raise ValueError("--fov and --focal both say the focal length: give one")
    if fov is not None and not 0 < fov < 180:
        raise ValueError(f"--fov={fov} must lie between 0 and 180 degrees")
    if focal is not None and not (focal > 0 and math.isfinite(focal)):
        raise ValueError(f"--focal={focal} must be positive and finite")
    if not 0 < floor < 1:
        raise ValueError(f"--floor={floor} must lie between 0 and 1")


def pictures_in(path: str | None) -> list[Path]:
    """The picture at `path`, or those in the folder, by name.

    Raises:
      ValueError: no path, or a folder without pictures.
      FileNotFoundError: nothing there.
    """
    if not path:
        raise ValueError("--image is missing: a picture, or a folder of pictures")
    place = Path(path)
    if not place.is_dir():
        if not place.exists():
            raise FileNotFoundError(f"--image={place} is neither a file nor a folder")
        return [place]
    found = sorted(p for p in place.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    if not found:
        raise ValueError(f"--image={place} holds no picture ({', '.join(SUFFIXES)})")
    return found


def open_model(path: str | None) -> DepthModel:
    """The model at `path`, or the embedded one.

    Raises:
      FileNotFoundError, ValueError: as `load_depth`; or there is no embedded one.
    """
    if path is None and not EMBEDDED.is_dir():
        raise FileNotFoundError(
            f"the embedded depth model is not there ({EMBEDDED}): name one with --model, such as "
            "depth-anything/Depth-Anything-V2-Small-hf or a folder"
        )
    return load_depth(path or EMBEDDED)


def find_focal(
    path: Path, height: int, width: int, fov: float | None, focal: float | None
) -> Focal:
    """The focal length in pixels: as told, or from the lens, or the default.

    Args:
      path: of the picture.
      height: of the picture as it is now.
      width: of the same.
      fov: degrees across the longer side, or None.
      focal: pixels, or None.
    """
    longer = max(height, width)
    if focal is not None:
        return Focal(focal, "--focal")
    if fov is not None:
        return Focal(float(focal_from_fov(math.radians(fov), longer)), "--fov")
    lens = read_lens(path)
    if lens.focal and lens.pixels_per_millimetre and lens.sensor_side:
        pixels = focal_from_sensor(lens.focal, lens.pixels_per_millimetre, lens.sensor_side, longer)
        return Focal(pixels, "EXIF: lens and sensor")
    if lens.equivalent:
        pixels = focal_from_equivalent(lens.equivalent, height, width)
        return Focal(pixels, "EXIF: 35 mm equivalent")
    return Focal(float(focal_from_fov(math.radians(DEFAULT_FOV), longer)), "default field of view")


def predict(model: DepthModel, compiled: Any, path: Path, floor: float, **focal: Any) -> Scene:
    """Everything about one picture.

    Args:
      model: of the depth.
      compiled: its `predict`, jitted.
      path: of the picture.
      floor: as of the flag.
      focal: `fov` and `focal` of `find_focal`.

    Raises:
      ValueError: the file is no picture, or the model sees no depth in it at all.
    """
    image, alpha = read_picture(str(path), "--image")
    disparity = np.asarray(compiled(model.params, jnp.asarray(image)))[0]
    largest = float(disparity.max())
    if not largest > 0:
        raise ValueError(f"{path}: the predicted disparity is nowhere above 0 (at most {largest})")
    least = floor * largest
    depth = np.asarray(depth_from_disparity(jnp.asarray(disparity), least))
    valid = disparity > least
    if alpha is not None:
        valid &= alpha[0] >= 0.5
    found = find_focal(path, *disparity.shape, **focal)
    return Scene(image[0], valid, disparity, depth, found, model.metric)


def points_of(scene: Scene) -> tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, "N 3"]]:
    """The valid pixels as points, z up, the camera at the origin looking along x; and colours."""
    height, width = scene.depth.shape
    axes = look_at(*(jnp.asarray(v, jnp.float32) for v in ((0, 0, 0), (1, 0, 0), (0, 0, 1))))
    camera = pinhole(axes, scene.focal.pixels, height, width)
    pixels = pixel_centers(height, width).reshape(-1, 2)
    points = unproject(camera, pixels, jnp.asarray(scene.depth).reshape(-1))
    keep = scene.valid.reshape(-1)
    return np.asarray(points)[keep], scene.rgb.reshape(-1, 3)[keep]


def write_scene(folder: Path, scene: Scene) -> dict[str, Any]:
    """Write the files of one picture; what summary.json says of it."""
    height, width = scene.depth.shape
    farthest = float(scene.depth.max())
    in_millimetres = scene.metric and farthest <= COUNTS * MILLIMETRE
    count = MILLIMETRE if in_millimetres else farthest / COUNTS
    write_png(folder / "depth.png", np.round(scene.depth / count).astype(np.uint16))
    focal = scene.focal.pixels
    intrinsics = np.array(
        [[focal, 0, 0.5 * width], [0, focal, 0.5 * height], [0, 0, 1]], np.float32
    )
    with replacing(folder / "depth.npz") as temporary:
        np.savez_compressed(
            temporary,
            depth=scene.depth,
            disparity=scene.disparity,
            valid=scene.valid,
            intrinsics=intrinsics,
        )
    low, high = float(scene.disparity.min()), float(scene.disparity.max())
    shown = color_map((scene.disparity - low) / max(high - low, 1e-12))
    write_png(folder / "preview.png", grid(np.stack([scene.rgb, shown])[None]))
    points, colors = points_of(scene)
    if len(points):
        write_points(folder / "points.ply", points, colors)
    return {
        "height": height,
        "width": width,
        "focal": round(focal, 3),
        "focal_from": scene.focal.source,
        "unit": "metres" if scene.metric else "arbitrary",
        "depth_png_unit": count,
        "nearest": float(scene.depth.min()),
        "median": float(np.median(scene.depth)),
        "farthest": farthest,
        "points": len(points),
    }


def main(argv: list[str]) -> None:
    """Check the flags, predict picture by picture."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; everything is a flag")
    check_flags(FLAGS.fov, FLAGS.focal, FLAGS.floor)
    paths = pictures_in(FLAGS.image)
    for path in paths:
        read_picture(str(path), "--image")  # a bad one is said before anything is written
    model = open_model(FLAGS.model)
    settings = {
        "image": FLAGS.image,
        "pictures": {path.name: digest(str(path)) for path in paths},
        "model": FLAGS.model or str(EMBEDDED),
        "fov": FLAGS.fov,
        "focal": FLAGS.focal,
        "floor": FLAGS.floor,
    }
    compiled = jax.jit(model.predict)
    with open_run(FLAGS.out, settings, needed_bytes=_NEEDED_BYTES) as run:
        started, figures = time.monotonic(), {}
        for path in paths:
            scene = predict(model, compiled, path, FLAGS.floor, fov=FLAGS.fov, focal=FLAGS.focal)
            alone = not Path(FLAGS.image).is_dir()
            figures[path.name] = write_scene(run.path if alone else run.path / path.name, scene)
            print(
                f"{path.name}: focal {scene.focal.pixels:.1f} pixels ({scene.focal.source}), depth "
                f"{figures[path.name]['nearest']:.3g} to {figures[path.name]['farthest']:.3g}"
            )
        summary = {
            **settings,
            "pictures": figures,
            "seconds": round(time.monotonic() - started, 1),
            "peak_memory_bytes": peak_memory().host,
        }
        write_json(run.path / "summary.json", summary)


if __name__ == "__main__":
    with reported("depth"):
        define_flags()
        app.run(main)
