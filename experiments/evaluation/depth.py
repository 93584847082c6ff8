"""Depth of unseen rooms against the truth, after what no single picture tells is taken out.

Symbols: d predicted disparity, z true z-depth (metres), over the pixels of one picture that have a
depth (the sky in a window has none).
    (1) scale            z' = k / d,  k = median of z d
    (2) scale and shift  z' = 1 / (s d + t),  s, t = argmin sum (s d + t - 1 / z)^2
    (3) error            mean over pixels of |z' - z| / z

z' is at most `FAR`. (1) asks for depth up to scale; (2) is the measure of models that are trained
with an unknown shift too (Ranftl et al. 2020). The mean of (3) over pictures is reported.
"""

import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from experiments.evaluation.inpainting import in_parts, mean_and_error
from experiments.evaluation.unseen import unseen_rooms
from experiments.table import format_table
from geojax.io.atomic import write_json
from geojax.io.media import color_depth, grid, write_png
from geojax.priors.depth import align, depth_from_disparity, load_depth
from geojax.worlds.room_render import SKY_DEPTH

FAR = SKY_DEPTH
"""Metres; nothing in a room is as far."""

SHEET_ROWS = 12
COLUMNS = ("picture", "true", "scale", "shift too")

Maps = Float[np.ndarray, "N H W"]


class Aligned(NamedTuple):
    """Predicted z-depth in metres: after equation (1), and after (2)."""

    scale: Maps
    scale_and_shift: Maps


def aligned(disparity: Maps, depth: Maps, known: Bool[np.ndarray, "N H W"]) -> Aligned:
    """Equations (1) and (2) of each picture.

    Raises:
      ValueError: a picture without a pixel of known depth.
    """
    if not known.any(axis=(1, 2)).all():
        raise ValueError(f"picture {int(known.any(axis=(1, 2)).argmin())} has no known depth")
    ratio = np.where(known, depth * disparity, np.nan)
    k = np.maximum(np.nanmedian(ratio, axis=(1, 2)), 1e-6)
    scaled = disparity / k[:, None, None].astype(np.float32)
    reference = 1.0 / np.where(known, depth, 1.0).astype(np.float32)
    shifted = align(jnp.asarray(disparity), jnp.asarray(reference), jnp.asarray(known))(
        jnp.asarray(disparity)
    )
    return Aligned(
        *(np.asarray(depth_from_disparity(jnp.asarray(d), 1.0 / FAR)) for d in (scaled, shifted))
    )


def relative_error(
    predicted: Maps, depth: Maps, known: Bool[np.ndarray, "N H W"]
) -> Float[np.ndarray, " N"]:
    """Equation (3) of each picture."""
    error = np.abs(predicted - depth) / np.where(known, depth, 1.0)
    return np.where(known, error, 0.0).sum(axis=(1, 2)) / known.sum(axis=(1, 2))


def sheet(image: Any, depth: Maps, known: Bool[np.ndarray, "N H W"], found: Aligned) -> Any:
    """Picture, truth and both maps, a row a picture; each row has one scale of colours."""
    rows = np.linspace(0, len(image) - 1, min(SHEET_ROWS, len(image))).astype(int)
    cells = []
    for i in rows:
        near, far = (float(f(depth[i][known[i]])) for f in (np.min, np.max))
        maps = (color_depth(z[i], known[i], near, far) for z in (depth, *found))
        cells.append(np.stack([image[i], *maps]))
    return grid(np.stack(cells), (), COLUMNS, gap=4)


def evaluate_depth(model: str, count: int, seed: int, out: Path) -> dict[str, Any]:
    """Predict the depth of unseen rooms; write depth.json and depth.png.

    Args:
      model: folder of the depth model.
      count: pictures, each of another room.
      seed: of the rooms.
      out: folder.
    """
    started = time.monotonic()
    estimator = load_depth(model)
    rooms = unseen_rooms(seed, count, estimator.image_size)
    image, depth = rooms.batch.image, rooms.batch.depth
    known = depth < SKY_DEPTH
    predict = jax.jit(estimator.predict)
    disparity = in_parts(lambda part: predict(estimator.params, part), image)
    found = aligned(disparity, depth, known)
    errors = {name: relative_error(z, depth, known) for name, z in found._asdict().items()}
    summary = {
        name: {**mean_and_error(e), "median": float(np.median(e)), "worst": float(e.max())}
        for name, e in errors.items()
    }
    result = {
        "suite": "depth",
        "model": model,
        "seed": seed,
        "count": count,
        "absolute_relative_error": summary,
        "pictures": [
            {"caption": text, **{name: round(float(e[i]), 4) for name, e in errors.items()}}
            for i, text in enumerate(rooms.texts)
        ],
        "seconds": round(time.monotonic() - started, 1),
    }
    write_json(out / "depth.json", result)
    write_png(out / "depth.png", sheet(image, depth, known, found))
    names = ("mean", "standard_error", "median", "worst")
    table = [[name, *(f"{entry[n]:.3f}" for n in names)] for name, entry in summary.items()]
    print(format_table([f"relative error of depth, {count} unseen rooms", *names], table))
    return result
