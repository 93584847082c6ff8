"""What a fitted field leaves on disk: pictures beside the true ones, a flight, and figures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.fitting.capture import Capture
from geojax.geometry import camera_paths
from geojax.geometry.camera import Camera
from geojax.io.atomic import write_json
from geojax.io.media import color_depth, grid, write_png, write_video
from geojax.io.metric_log import peak_memory
from geojax.methods.field_fitting import psnr
from geojax.methods.radiance import Rendering

Picture = Callable[[Any, Camera], Rendering]

SHEET_COLUMNS = 8
_KEYS = 12  # of the film's spline, at most
_SOLID = 0.5  # opacity from which a pixel has a depth


def held_out(frames: int, every: int) -> np.ndarray:
    """Which frames are not fitted: the middle one of each `every`; none with 0 or few frames.

    Inside the capture, so that what they show is seen by others: the ends are fitted.
    """
    index = np.arange(frames)
    return np.zeros(frames, bool) if every < 2 else index % every == every // 2


def flight(camera: Camera, frames: int, sway: float) -> Float[np.ndarray, "N 4 4"]:
    """The way of a film: through the cameras, circling around their way once a quarter.

    Args:
      camera: [F] in the order of the capture.
      frames: N.
      sway: radius of the circles, in the units of the poses, across the view.
    """
    poses = np.asarray(camera.camera_to_world, np.float64)
    keys = [poses[0]]
    for pose in poses[np.unique(np.linspace(0, len(poses) - 1, _KEYS).round().astype(int))]:
        # Coming back to a place is a way; staying there is none.
        if np.linalg.norm(pose[:3, 3] - keys[-1][:3, 3]) > 1e-6:
            keys.append(pose)
    if len(keys) > 1:
        path = camera_paths.spline(np.stack(keys), frames)
    else:
        path = poses[np.linspace(0, len(poses) - 1, frames).round().astype(int)]
    turn = 8.0 * np.pi * np.arange(frames) / frames
    offset = sway * np.stack([np.sin(turn), np.cos(turn) - 1.0, 0.0 * turn], axis=-1)
    path = path.copy()
    path[:, :3, 3] += np.einsum("nij,nj->ni", path[:, :3, :3], offset)
    return path


def draw(
    picture: Picture, params: Any, camera: Camera
) -> tuple[Float[np.ndarray, "F H W 3"], Float[np.ndarray, "F H W"], Float[np.ndarray, "F H W"]]:
    """Colours, z-depth and opacity of cameras [F], one at a time."""
    seen = []
    for index in range(len(camera.camera_to_world)):
        out = picture(params, camera[index])
        seen.append(jax.device_get((out.rgb, out.depth, out.opacity)))
    rgb, depth, opacity = (np.stack(part) for part in zip(*seen, strict=True))
    return np.clip(rgb, 0.0, 1.0), depth, opacity


def sheet(
    truth: Float[np.ndarray, "F H W 3"],
    rgb: Float[np.ndarray, "F H W 3"],
    depth: Float[np.ndarray, "F H W"],
    opacity: Float[np.ndarray, "F H W"],
) -> Float[np.ndarray, "height width 3"]:
    """Rows: the true pictures, the fitted ones, their depth; evenly from the frames."""
    n = min(SHEET_COLUMNS, len(truth))
    some = np.linspace(0, len(truth) - 1, n).round().astype(int)
    rows = [truth[some], rgb[some], color_depth(depth[some], opacity[some] > _SOLID)]
    return grid(np.stack(rows), ("truth", "field", "depth"), gap=4)


def row(pictures: Float[np.ndarray, "F H W 3"]) -> Float[np.ndarray, "height width 3"]:
    """Pictures side by side, to look at while the run goes on."""
    return grid(pictures[None])


def figures_of(
    capture: Capture,
    camera: Camera,
    radius: float,
    picture: Picture,
    params: Any,
    chosen: np.ndarray,
    out: Path,
) -> dict[str, float | None]:
    """PSNR and depth error of some frames, and a sheet of them; None where there is nothing."""
    index = np.flatnonzero(chosen)
    kept = capture.kept[index]
    if not kept.any():
        return {"psnr": None, "depth_error": None}
    rgb, depth, opacity = draw(picture, params, camera[jnp.asarray(index)])
    truth = capture.image[index].astype(np.float32) / np.float32(255)
    write_png(out, sheet(truth, rgb, depth, opacity))
    known = kept & (capture.depth[index] > 0.0)
    error = np.abs(radius * depth[known] / capture.depth[index][known] - 1.0)
    return {
        "psnr": round(psnr(rgb, truth, kept), 3),
        "depth_error": round(float(np.median(error)), 5) if error.size else None,
    }


def plain_psnr(capture: Capture, fitted: np.ndarray, chosen: np.ndarray) -> float | None:
    """PSNR on the chosen frames of the mean colour of the fitted ones: what knowing nothing is."""
    if not capture.kept[chosen].any():
        return None
    truth = capture.image.astype(np.float32) / np.float32(255)
    mean = truth[fitted][capture.kept[fitted]].mean(axis=0)
    plain = np.broadcast_to(mean, truth[chosen].shape)
    return round(psnr(plain, truth[chosen], capture.kept[chosen]), 3)


def write_report(
    config: Any,
    capture: Capture,
    camera: Camera,
    ball: tuple[Float[np.ndarray, "3"], float],
    picture: Picture,
    params: Any,
    out: Path,
    seconds: float,
) -> dict[str, Any]:
    """Write views.png, held_out.png, flight.mp4 and summary.json; returns the summary.

    Args:
      config: the recipe.
      capture: what was fitted, in the scene's units.
      camera: the same cameras in the ball.
      ball: centre and radius.
      picture: draws a camera of the ball.
      params: of the field.
      out: folder of the run.
      seconds: spent so far.
    """
    held = held_out(len(capture.names), config.hold_every)
    centre, radius = ball
    about = (capture, camera, radius, picture, params)
    train = figures_of(*about, ~held, out / "views.png")
    other = figures_of(*about, held, out / "held_out.png")
    known = capture.depth[capture.depth > 0.0]
    unit = float(np.median(known)) / radius if known.size else 1.0
    path: Array = jnp.asarray(flight(camera, config.film_frames, config.film_sway * unit))
    film = jax.tree.map(lambda leaf: jnp.repeat(leaf[:1], len(path), axis=0), camera)
    film = Camera(
        path.astype(jnp.float32), film.fx, film.fy, film.cx, film.cy, film.height, film.width
    )
    write_video(out / "flight.mp4", draw(picture, params, film)[0], config.fps)
    summary = {
        "frames": len(held),
        "held_out": [name for name, yes in zip(capture.names, held, strict=True) if yes],
        "seed": config.seed,
        "steps": config.steps,
        "seconds": round(seconds, 1),
        "peak_memory_bytes": peak_memory().host,
        "centre": [round(float(x), 5) for x in centre],
        "radius": round(radius, 5),
        "psnr_train": train["psnr"],
        "psnr_held_out": other["psnr"],
        "psnr_plain": plain_psnr(capture, ~held, held if held.any() else ~held),
        "depth_error_train": train["depth_error"],
        "depth_error_held_out": other["depth_error"],
    }
    write_json(out / "summary.json", summary)
    return summary
