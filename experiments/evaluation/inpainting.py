"""Inpainting on unseen rooms against what was there.

Symbols: x picture, m hole, y its filling by the model with the picture's own caption c, y' with the
caption of another room (from the same noise), n by the nearest known colour; f_v, f_t of CLIP.
    (1) PSNR       -10 log10 mean over m of (y - x)^2, at most `PSNR_LIMIT`
    (2) gain       PSNR(y) - PSNR(n), dB
    (3) preferred  <f_v(y), f_t(c)> > <f_v(y'), f_t(c)>: the prompt says what comes into the hole
"""

import functools
import itertools
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from experiments.evaluation.unseen import Rooms, unseen_rooms
from experiments.painting.editing import AnyPrior, Brush, make_brush, paint_hole
from experiments.painting.inputs import load_model
from experiments.painting.sampling import in_batches, picture_keys
from experiments.table import format_table
from geojax.io.atomic import write_json
from geojax.io.media import grid, write_png
from geojax.methods.hole_filling import fill_nearest
from geojax.priors.clip_score import CLIPScore, load_clip
from geojax.worlds import room_pictures

PSNR_LIMIT = 100.0
"""dB; of a filling that is the truth."""

SHARES = (0.1, 0.25, 0.4, 0.6)
"""Edges of the classes of holes that figures are given for apart, shares of the picture."""

SHEET_ROWS = 16
COLUMNS = ("true", "masked", "nearest", "ours", "other")

Images = Float[np.ndarray, "N H W 3"]
Holes = Bool[np.ndarray, "N H W"]


def hole_psnr(filled: Images, image: Images, hole: Holes) -> Float[np.ndarray, " N"]:
    """Equation (1) of each picture."""
    square = ((filled.astype(np.float64) - image) ** 2).mean(axis=-1)
    error = (square * hole).sum(axis=(1, 2)) / hole.sum(axis=(1, 2))
    return -10.0 * np.log10(np.maximum(error, 10.0 ** (-PSNR_LIMIT / 10.0)))


def known_difference(filled: Images, image: Images, hole: Holes) -> float:
    """The largest difference of a pixel that was known; it must be 0."""
    return float(np.abs(filled - image)[~hole].max())


def others(texts: list[str]) -> list[int]:
    """For each caption the index of another one, half a list away, of another text.

    Raises:
      ValueError: all are the same.
    """
    count, chosen = len(texts), []
    for i, text in enumerate(texts):
        steps = (j % count for j in range(i + count // 2, i + count // 2 + count))
        other = next((j for j in steps if texts[j] != text), None)
        if other is None:
            raise ValueError(f"all {count} captions are {text!r}; there is no other prompt")
        chosen.append(other)
    return chosen


def agreement(clip: CLIPScore, images: Images, texts: list[str]) -> Float[np.ndarray, " N"]:
    """<f_v, f_t> of each picture with its own text."""
    embed = jax.jit(clip.embed_image)
    of_images = in_parts(lambda part: embed(clip.params, part), images)
    return (of_images * np.asarray(clip.embed_text(texts))).sum(axis=-1)


def in_parts(function: Any, images: Images, batch: int = 50) -> np.ndarray:
    """`function` of every picture, `batch` at a time; the last batch is filled up."""
    batch = min(batch, len(images))
    parts = []
    for start in range(0, len(images), batch):
        rows = np.minimum(np.arange(start, start + batch), len(images) - 1)
        parts.append(np.asarray(function(jnp.asarray(images[rows])))[: len(images) - start])
    return np.concatenate(parts)


def make_inpainter(prior: AnyPrior, brush: Brush) -> Any:
    """(params, keys [B], image, hole, condition [B, L, D], unconditional [L, D]) -> filled."""

    def one(params, key, image, hole, condition, unconditional):
        parts = (x[None] for x in (image, hole, condition, unconditional))
        return paint_hole(prior, brush, params, key, *parts)[0]

    # Mapped over pictures, so that one does not depend on those beside it.
    return jax.jit(jax.vmap(one, in_axes=(None, 0, 0, 0, 0, None)))


def mean_and_error(values: Any) -> dict[str, float]:
    """Mean and its standard error."""
    values = np.asarray(values, np.float64)
    return {
        "mean": float(values.mean()),
        "standard_error": float(values.std() / np.sqrt(len(values))),
    }


def figures(
    image: Images,
    hole: Holes,
    fillings: dict[str, Images],
    scores: dict[str, Float[np.ndarray, " N"]],
) -> dict[str, Any]:
    """What the suite reports.

    Args:
      image: the true pictures.
      hole: what was painted.
      fillings: "nearest", "ours" and "other".
      scores: CLIP's agreement of "ours" and "other" with the pictures' own captions.
    """
    psnr = {name: hole_psnr(filled, image, hole) for name, filled in fillings.items()}
    gain, preferred = psnr["ours"] - psnr["nearest"], scores["ours"] > scores["other"]
    share = hole.mean(axis=(1, 2))
    by_share = []
    for low, high in itertools.pairwise(SHARES):
        inside = (share >= low) & ((share < high) | (high == SHARES[-1]))
        if inside.any():
            part = {"from": low, "to": high, "count": int(inside.sum())}
            part |= {f"psnr_{name}": float(values[inside].mean()) for name, values in psnr.items()}
            part |= {"gain_db": float(gain[inside].mean())}
            by_share.append(part | {"clip_prefers_own": float(preferred[inside].mean())})
    return {
        "known_difference": max(
            known_difference(fillings[name], image, hole) for name in ("ours", "other")
        ),
        **{f"psnr_{name}": mean_and_error(values) for name, values in psnr.items()},
        "gain_db": mean_and_error(gain),
        "better_than_nearest": float((gain > 0.0).mean()),
        "clip_prefers_own": mean_and_error(preferred),
        "by_hole": by_share,
        "pictures": [
            {
                "hole": round(float(share[i]), 4),
                **{f"psnr_{name}": round(float(values[i]), 3) for name, values in psnr.items()},
                "clip_prefers_own": bool(preferred[i]),
            }
            for i in range(len(image))
        ],
    }


def sheet(image: Images, hole: Holes, fillings: dict[str, Images]) -> np.ndarray:
    """True, masked, and the fillings: a row a picture, evenly from all."""
    rows = np.linspace(0, len(image) - 1, min(SHEET_ROWS, len(image))).astype(int)
    masked = np.where(hole[..., None], np.float32(1.0), image)
    columns = [image, masked, *(fillings[name] for name in COLUMNS[2:])]
    return grid(np.stack([c[rows] for c in columns], axis=1), (), COLUMNS, gap=4)


def fill_all(
    prior: AnyPrior, rooms: Rooms, hole: Holes, seed: int, batch: int, settings: dict[str, Any]
) -> dict[str, Images]:
    """The fillings "nearest", "ours" and "other" of every hole."""
    nearest = jax.jit(fill_nearest)
    brush = make_brush(settings, prior, lambda key, image, mask: fill_nearest(image, mask))
    painter = make_inpainter(prior, brush)
    keys, image = picture_keys(seed, len(hole)), jnp.asarray(rooms.batch.image)
    mask = jnp.asarray(hole)
    condition = prior.embed(["", *rooms.texts])
    index = np.arange(len(hole))

    def paint(said: np.ndarray, rows: np.ndarray) -> jax.Array:
        shown = image[rows], mask[rows], condition[1 + said[rows]]
        return painter(prior.params, keys[rows], *shown, condition[0])

    other = np.asarray(others(rooms.texts))
    return {
        "nearest": np.asarray(nearest(image, mask)),
        "ours": in_batches(functools.partial(paint, index), len(hole), batch),
        "other": in_batches(functools.partial(paint, other), len(hole), batch),
    }


def evaluate_inpainting(
    model: str, clip_folder: str, count: int, seed: int, out: Path, **settings: Any
) -> dict[str, Any]:
    """Paint into holes of unseen rooms; write inpaint.json and inpaint.png.

    Args:
      model: folder of an inpainting family, or of a plain one.
      clip_folder: of the pair that judges.
      count: pictures, each of another room.
      seed: of rooms, holes and noise.
      out: folder.
      settings: sampler, steps, guidance, strength, match, seam and batch.
    """
    started = time.monotonic()
    clip, prior = load_clip(clip_folder), load_model("inpaint", model)
    rooms = unseen_rooms(seed, count, prior.image_size)
    hole = room_pictures.holes(np.random.default_rng((seed, 3)), rooms.batch)
    batch = settings.pop("batch")
    brush = {**settings, "seam_strength": 0.5, "seam_outside": False, "jump": 5, "resample": None}
    fillings = fill_all(prior, rooms, hole, seed, batch, brush)
    scores = {name: agreement(clip, fillings[name], rooms.texts) for name in ("ours", "other")}
    found = figures(rooms.batch.image, hole, fillings, scores)
    other = others(rooms.texts)
    for i, picture in enumerate(found["pictures"]):
        picture |= {"caption": rooms.texts[i], "other": rooms.texts[other[i]]}
    result = {
        "suite": "inpaint",
        "model": model,
        "clip": clip_folder,
        "seed": seed,
        "count": count,
        **brush,
        "seconds": round(time.monotonic() - started, 1),
        **found,
    }
    write_json(out / "inpaint.json", result)
    write_png(out / "inpaint.png", sheet(rooms.batch.image, hole, fillings))
    print(inpaint_table(result))
    return result


def inpaint_table(result: dict[str, Any]) -> str:
    """The result, to read."""

    def row(name: str, entry: dict[str, Any]) -> list[str]:
        values = [entry[f"psnr_{kind}"] for kind in ("nearest", "ours", "other")]
        values += [entry["gain_db"], entry["clip_prefers_own"]]
        plain = [v["mean"] if isinstance(v, dict) else v for v in values]
        shown = [f"{v:.2f}" for v in plain[:3]] + [f"{plain[3]:+.2f}", f"{100 * plain[4]:.1f} %"]
        return [name, str(entry["count"]), *shown]

    rows = [
        row(f"holes of {100 * part['from']:.0f}-{100 * part['to']:.0f} %", part)
        for part in result["by_hole"]
    ]
    rows.append(row("all", result))
    header = ["PSNR in the hole, dB", "pictures", "nearest", "ours", "other", "gain", "CLIP: own"]
    error = result["gain_db"]["standard_error"], result["clip_prefers_own"]["standard_error"]
    return "\n".join(
        [
            format_table(header, rows),
            f"standard errors: gain {error[0]:.2f} dB, CLIP {100 * error[1]:.1f} %; "
            f"known pixels differ by {result['known_difference']:g}",
        ]
    )
