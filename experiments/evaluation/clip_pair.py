"""Captions found among many: how well the pair of towers knows both worlds.

Symbols: s_ij similarity of picture i and caption j of a set of n, caption i being picture i's.
    (1) image to text   share of i with  argmax_j s_ij = i
    (2) text to image   share of j with  argmax_i s_ij = j
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from experiments.evaluation.inpainting import in_parts
from experiments.evaluation.unseen import Pictures, distinct_objects, distinct_rooms
from experiments.table import format_table
from geojax.io.atomic import write_json
from geojax.priors.clip_score import CLIPScore, load_clip

SET = 100
"""Captions to choose from."""

Similarity = Float[np.ndarray, "n n"]


def retrieval(similarity: Similarity) -> dict[str, float]:
    """Equations (1) and (2) of one set."""
    right = np.arange(len(similarity))
    return {
        "image_to_text": float((similarity.argmax(axis=1) == right).mean()),
        "text_to_image": float((similarity.argmax(axis=0) == right).mean()),
    }


def similarities(clip: CLIPScore, shown: Pictures) -> Similarity:
    """Every picture with every caption."""
    embed = jax.jit(clip.embed_image)
    images = in_parts(lambda part: embed(clip.params, part), shown.image)
    return images @ np.asarray(clip.embed_text(shown.texts)).T


def judged(whole: Similarity, texts: list[str], sets: list[np.ndarray]) -> dict[str, Any]:
    """Means over sets of rows, and the pictures that were taken for another, by caption."""
    parts = [retrieval(whole[np.ix_(rows, rows)]) for rows in sets]
    wrong = []
    for rows in sets:
        best = rows[whole[np.ix_(rows, rows)].argmax(axis=1)]
        wrong += [
            {"caption": texts[i], "found": texts[j]}
            for i, j in zip(rows, best, strict=True)
            if i != j
        ]
    means = {name: float(np.mean([part[name] for part in parts])) for name in parts[0]}
    return {"captions": len(sets[0]), "pictures": sum(map(len, sets)), **means, "wrong": wrong}


def evaluate_clip(clip_folder: str, count: int, seed: int, out: Path) -> dict[str, Any]:
    """Find captions among `SET`, or among all where there are fewer; write clip.json.

    Half of a set is of objects and half of rooms, as in training; each world alone is harder, and
    is reported too.

    Args:
      clip_folder: of the pair.
      count: pictures, half of them of each world.
      seed: of the pictures.
      out: folder.

    Raises:
      ValueError: a count that does not make whole sets of both worlds.
    """
    size = min(SET, count)
    if count % (2 * (size // 2)) or size % 2 or size < 4:
        raise ValueError(f"--count={count} must be even, at least 4, and over {SET} a multiple")
    clip = load_clip(clip_folder)
    half = count // 2
    worlds = [make(seed, half, clip.image_size) for make in (distinct_objects, distinct_rooms)]
    shown = Pictures(
        np.concatenate([w.image for w in worlds]), [t for w in worlds for t in w.texts]
    )
    whole = similarities(clip, shown)
    objects, rooms = np.arange(half), half + np.arange(half)
    part = size // 2
    mixed = [
        np.concatenate([objects[i : i + part], rooms[i : i + part]]) for i in range(0, half, part)
    ]
    alone = min(SET, half)
    sets = {
        "both": mixed,
        "objects": [objects[i : i + alone] for i in range(0, half - alone + 1, alone)],
        "rooms": [rooms[i : i + alone] for i in range(0, half - alone + 1, alone)],
    }
    found = {name: judged(whole, shown.texts, rows) for name, rows in sets.items()}
    result = {"suite": "clip", "clip": clip_folder, "seed": seed, "count": count, **found}
    write_json(out / "clip.json", result)
    ways = ("image_to_text", "text_to_image")
    table = [
        [name, str(entry["captions"]), str(entry["pictures"])]
        + [f"{100 * entry[way]:.1f} %" for way in ways]
        for name, entry in found.items()
    ]
    print(format_table(["unseen pictures", "captions", "pictures", "to text", "to image"], table))
    return result
