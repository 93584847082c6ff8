"""Walks through rooms that no training draws, from an exact first frame, against the truth.

Symbols: x_i, z_i, m_i picture, z-depth and hole of frame i; x*_i, z*_i what a camera there truly
sees; V_i pixels whose true surface was in sight in frame 0, so that their truth is known to the
walk; W(j -> i) frame j warped into camera i by its own depth.
    (1) truth         PSNR of x_i to x*_i over V_i, and mean |z_i - z*_i| / z*_i there
    (2) reprojection  PSNR of x_i to W(i - 1 -> i) where it has no hole: 3D and photometric
                      consistency in one
    (3) control       largest distance between the cameras asked for and taken
    (4) style         mean over channels of |mean x_i - mean x_0| + |deviation x_i - deviation x_0|
    (5) round trip    PSNR of the last frame to frame 0, of a walk that comes back

(2) to (4) are the aspects of WorldScore (Duan et al. 2025) that have an exact counterpart here.
What tuning and choosing bring is measured inside one walk: before and after on the same frame.
"""

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from experiments import walk
from experiments.evaluation.inpainting import mean_and_error
from experiments.table import format_table
from experiments.walking.records import Record, read_record
from experiments.walking.start import Start
from geojax.geometry import warp
from geojax.geometry.camera import Camera, pixel_centers, project, unproject
from geojax.io.atomic import write_json
from geojax.io.media import grid, write_png
from geojax.io.run_folder import open_run
from geojax.methods.prompt_schedule import constant_schedule
from geojax.worlds import room_cameras, room_captions
from geojax.worlds.room_pictures import UNSEEN_SEED
from geojax.worlds.room_render import render, render_truth
from geojax.worlds.rooms import sample_room

STEP = 0.3
"""Metres from a frame to the next."""

PSNR_LIMIT = 60.0
DETAILS = 3
_SAME = 0.03  # relative depth within which a point is the one that frame 0 saw

VARIANTS: dict[str, Mapping[str, Any]] = {
    "mesh": {},
    "warp": {"method": "warp"},
    "loose": {"keep_known": False, "match": 0.0},
    "round": {"path.there_and_back": True},
}
"""Names and what they change: all of it; the plain warp; nothing against drift; there and back."""


class TrueWalk(NamedTuple):
    """A walk as it truly looks.

    Attributes:
      camera: N cameras.
      image: [N, H, W, 3] in [0, 1].
      depth: z-depth [N, H, W]; `room_render.SKY_DEPTH` in the sky.
      caption: of the first view.
    """

    camera: Camera
    image: Float[np.ndarray, "N H W 3"]
    depth: Float[np.ndarray, "N H W"]
    caption: str


def true_walks(seed: int, count: int, frames: int, size: int) -> list[TrueWalk]:
    """Walks backward along `count` corridors that no training draws.

    Raises:
      ValueError: too many of them do not fit into their corridor.
    """
    found: list[TrueWalk] = []
    for number in range(8 * count):
        rng = np.random.default_rng((UNSEEN_SEED + seed, number, 5))
        room = sample_room(rng, kind="corridor")
        try:
            camera = room_cameras.walk(rng, room, frames, size, step=STEP)
        except ValueError:
            continue
        image, truth = render(room.scene, camera), render_truth(room.scene, camera)
        view = room_captions.observe(room, np.asarray(truth.thing)[0])
        found.append(
            TrueWalk(
                camera,
                np.asarray(image),
                np.asarray(truth.depth),
                room_captions.describe(view, DETAILS),
            )
        )
        if len(found) == count:
            return found
    raise ValueError(f"only {len(found)} of {count} walks of {frames} frames fit into a corridor")


def in_first_sight(truth: TrueWalk) -> Bool[np.ndarray, "N H W"]:
    """V: pixels whose surface frame 0 saw."""
    height, width = truth.depth.shape[1:]
    pixels = pixel_centers(height, width).reshape(-1, 2)
    first = truth.camera[0]
    limit = np.asarray([width, height], np.float32)

    @jax.jit
    def reach(camera, depth):
        return project(first, unproject(camera, pixels, depth.reshape(-1)))

    seen = []
    for i, z in enumerate(truth.depth):
        at, depth = (np.asarray(v) for v in reach(truth.camera[i], jnp.asarray(z)))
        inside = (depth > 0) & (at >= 0).all(axis=1) & (at < limit).all(axis=1)
        column, row = np.where(inside[:, None], at, 0.0).astype(int).T
        same = np.abs(truth.depth[0][row, column] / np.maximum(depth, 1e-6) - 1.0) < _SAME
        seen.append((inside & same).reshape(height, width))
    return np.stack(seen)


def psnr(
    picture: Float[np.ndarray, "H W 3"],
    truth: Float[np.ndarray, "H W 3"],
    where: Bool[np.ndarray, "H W"],
) -> float:
    """dB over some pixels, at most `PSNR_LIMIT`; nan without any."""
    if not where.any():
        return float("nan")
    error = ((picture.astype(np.float64) - truth) ** 2).mean(axis=-1)[where].mean()
    return float(-10.0 * np.log10(max(error, 10.0 ** (-PSNR_LIMIT / 10.0))))


_warp = jax.jit(
    lambda image, depth, before, camera: warp.forward_warp(
        warp.single_frame(image, depth, before), camera
    )
)


def reprojection(before: Record, after: Record) -> float:
    """Equation (2)."""
    arrays = jnp.asarray(before.image), jnp.asarray(before.depth)
    seen = _warp(*arrays, before.camera, after.camera)
    # Where frame i has something nearer, the two show different things.
    depth = np.asarray(seen.depth)
    same = ~np.asarray(seen.hole) & (np.abs(after.depth - depth) < _SAME * depth)
    return psnr(after.image, np.asarray(seen.image), same)


def measure(truth: TrueWalk, records: list[Record]) -> dict[str, float]:
    """Equations (1) to (5) of a walk, means over its frames but the first; and its own figures."""
    sight = in_first_sight(truth)
    image, depth, style, again, hole = [], [], [], [], []
    first = records[0].image
    for i, record in enumerate(records[1:], start=1):
        there = sight[i] & (record.depth > 0)
        image.append(psnr(record.image, truth.image[i], sight[i]))
        if there.any():
            error = np.abs(record.depth - truth.depth[i]) / truth.depth[i]
            depth.append(float(error[there].mean()))
        again.append(reprojection(records[i - 1], record))
        hole.append(float(record.hole.mean()))
        moments = [np.abs(f(record.image) - f(first)).mean() for f in (_mean, _deviation)]
        style.append(float(sum(moments)))
    asked = np.asarray(truth.camera.position)
    taken = np.stack([np.asarray(record.camera.position) for record in records])
    found = {
        "psnr_truth": float(np.nanmean(image)),
        "depth_error": float(np.mean(depth)),
        "psnr_reprojection": float(np.nanmean(again)),
        "hole": float(np.mean(hole)),
        "control": float(np.linalg.norm(taken - asked[: len(taken)], axis=1).max()),
        "style": float(np.mean(style)),
        "style_last": style[-1],
        "psnr_return": psnr(records[-1].image, first, np.ones(first.shape[:2], bool)),
    }
    own = sorted({name for record in records[1:] for name in record.figures})
    for name in own:
        values = [record.figures[name] for record in records[1:] if name in record.figures]
        found[name] = float(np.mean(values))
    for name in ("clip", "brightness", "contrast", "saturation"):
        found[f"{name}_drift"] = records[-1].figures[name] - records[0].figures[name]
    return found


def _mean(image: np.ndarray) -> np.ndarray:
    return image.mean(axis=(0, 1))


def _deviation(image: np.ndarray) -> np.ndarray:
    return image.std(axis=(0, 1))


def there_and_back(truth: TrueWalk) -> TrueWalk:
    """The first half of a walk and its way back, of as many frames."""
    count = len(truth.image)
    half = np.arange((count + 1) // 2)
    order = np.concatenate([half, half[-2::-1], [0]])[:count]
    camera = jax.tree.map(lambda leaf: leaf[order], truth.camera)
    return TrueWalk(camera, truth.image[order], truth.depth[order], truth.caption)


def run_walk(config: Any, truth: TrueWalk, models: Any, out: Path) -> list[Record]:
    """Walk along the true cameras from the exact first frame, or go on with it."""
    first = dataclasses.replace(truth.camera[0])
    start = Start(first, truth.image[0], truth.depth[0])
    way = np.asarray(truth.camera.camera_to_world, np.float64)
    plan = walk.Plan(start, way, constant_schedule(truth.caption), False)
    settings = {"prompt": truth.caption, "config": config.to_dict()}
    with open_run(out, settings) as run:
        walk.walk(config, plan, run, models)
    records = [read_record(out, index) for index in range(len(way))]
    return [record for record in records if record is not None]


def sheet(truth: TrueWalk, records: Mapping[str, list[Record]]) -> np.ndarray:
    """The truth and every variant, evenly along a walk."""
    at = np.linspace(0, len(truth.image) - 1, min(7, len(truth.image))).astype(int)
    rows = [truth.image[at]] + [
        np.stack([frames[i].image for i in at]) for frames in records.values()
    ]
    return grid(np.stack(rows), ("true", *records), gap=4)


def evaluate_scene_walk(
    config: Any, names: list[str], count: int, frames: int, seed: int, out: Path
) -> dict[str, Any]:
    """Walk, measure, write scene_walk.json and a sheet a walk; what is finished is not done again.

    Args:
      config: a recipe of configs/walk.
      names: of `VARIANTS`.
      count: corridors.
      frames: of each walk.
      seed: of the corridors.
      out: folder; each walk has one of its own in it.
    """
    started = time.monotonic()
    recipes = {name: changed(config, VARIANTS[name]) for name in names}
    loaded = {name: walk.walking.load_models(recipe) for name, recipe in recipes.items()}
    size = loaded[names[0]].prior.image_size
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for number, truth in enumerate(true_walks(seed, count, frames, size)):
        shown: dict[str, list[Record]] = {}
        for name, recipe in recipes.items():
            straight = truth if name != "round" else there_and_back(truth)
            records = run_walk(recipe, straight, loaded[name], out / name / f"{number:02d}")
            rows[name].append(measure(straight, records))
            if name != "round":
                shown[name] = records
            print(f"walk {number + 1}/{count} {name}: {brief(rows[name][-1])}", flush=True)
        if shown:
            write_png(out / f"walk_{number:02d}.png", sheet(truth, shown))
    result = {
        "suite": "scene_walk",
        "walks": count,
        "frames": frames,
        "seed": seed,
        "seconds": round(time.monotonic() - started, 1),
        "variants": {
            name: {
                figure: mean_and_error([row[figure] for row in found])
                for figure in sorted(set.intersection(*(set(row) for row in found)))
            }
            for name, found in rows.items()
        },
        "each": rows,
    }
    write_json(out / "scene_walk.json", result)
    print(walk_table(result))
    return result


def changed(config: Any, changes: Mapping[str, Any]) -> Any:
    """A copy of a recipe with other values."""
    copy = config.copy_and_resolve_references()
    for name, value in changes.items():
        copy.update_from_flattened_dict({name: value})
    return copy


def brief(row: Mapping[str, float]) -> str:
    """A line about one walk."""
    return (
        f"truth {row['psnr_truth']:.1f} dB, depth {100 * row['depth_error']:.1f} %, "
        f"reprojection {row['psnr_reprojection']:.1f} dB, hole {100 * row['hole']:.0f} %"
    )


TABLE = {
    "psnr_truth": ("PSNR to the truth, dB", 1.0),
    "depth_error": ("depth error, %", 100.0),
    "psnr_reprojection": ("reprojection, dB", 1.0),
    "hole": ("hole, %", 100.0),
    "depth_error_predicted": ("depth before fit, %", 100.0),
    "depth_error_fitted": ("depth after fit, %", 100.0),
    "psnr_decoded": ("known, decoded, dB", 1.0),
    "psnr_tuned": ("known, tuned, dB", 1.0),
    "clip_first": ("CLIP of one", 1.0),
    "clip_chosen": ("CLIP of the chosen", 1.0),
    "style_last": ("style, last frame", 1.0),
    "clip_drift": ("CLIP drift", 1.0),
    "psnr_return": ("PSNR at the end to frame 0, dB", 1.0),
    "control": ("control, m", 1.0),
    "frame_seconds": ("seconds a frame", 1.0),
}


def walk_table(result: Mapping[str, Any]) -> str:
    """Figures down, variants across, with standard errors."""
    variants = result["variants"]
    rows = []
    for name, (title, scale) in TABLE.items():
        cells = [
            f"{scale * v[name]['mean']:.3g} ± {scale * v[name]['standard_error']:.2g}"
            if name in v
            else "-"
            for v in variants.values()
        ]
        rows.append([title, *cells])
    return format_table([f"{result['walks']} walks x {result['frames']} frames", *variants], rows)
