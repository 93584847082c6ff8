"""The pictures that the stages draw from: objects, and rooms where the recipe has them."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from geojax.worlds import captions, pictures, room_captions, room_pictures


class Worlds(NamedTuple):
    """Traced pictures of both worlds; `rooms` is None in a family of objects alone."""

    objects: pictures.Pool
    rooms: room_pictures.Pool | None


class Captioned(NamedTuple):
    """Pictures of both worlds, objects first.

    Attributes:
      image: [B, S, S, 3] float32 in [0, 1].
      objects: what the first K show.
      rooms: what the others show; None where there are none.
    """

    image: np.ndarray
    objects: pictures.Batch
    rooms: room_pictures.Batch | None


def load_worlds(config: Any, out: Path) -> Worlds:
    """Trace the pictures of a recipe, or read those that were."""
    parts = []
    for kind, part in pictures.load_or_trace(
        out / "pictures", config.seed, config.views_per_kind, config.image_size
    ):
        logging.info("pictures of %s: %d", kind, len(part.kind))
        parts.append(part)
    objects = pictures.Pool(*(np.concatenate(leaves) for leaves in zip(*parts, strict=True)))
    if not config.rooms:
        return Worlds(objects, None)
    files = []
    for file in room_pictures.load_or_trace(
        out / "rooms", config.seed, config.rooms, config.image_size
    ):
        files.append(file)
        logging.info("pictures of rooms: %d", sum(len(f.focal) for f in files))
    return Worlds(objects, room_pictures.concatenate(files))


def draw(
    rng: np.random.Generator,
    worlds: Worlds,
    batch: int,
    rooms_share: float,
    *,
    held_out: bool = False,
) -> Captioned:
    """Draw pictures, `rooms_share` of them of rooms; `held_out` concerns the objects' pairs."""
    count = round(rooms_share * batch) if worlds.rooms is not None else 0
    objects = pictures.draw(rng, worlds.objects, batch - count, held_out=held_out)
    if worlds.rooms is None or not count:
        return Captioned(objects.image, objects, None)
    rooms = room_pictures.draw(rng, worlds.rooms, count)
    return Captioned(np.concatenate([objects.image, rooms.image]), objects, rooms)


def loose_captions(rng: np.random.Generator, drawn: Captioned, dropped: float) -> list[str]:
    """A random caption of each picture, of rooms "" with probability `dropped` (objects: 0.2)."""
    texts = [pictures.loose_caption(rng, drawn.objects, i) for i in range(len(drawn.objects.kind))]
    return texts + (
        room_pictures.captions(rng, drawn.rooms, dropped=dropped) if drawn.rooms else []
    )


def full_captions(rng: np.random.Generator, drawn: Captioned) -> list[str]:
    """A caption of each picture that says much: an object's view, a room's things."""
    texts = []
    for i, (kind, colour) in enumerate(zip(drawn.objects.kind, drawn.objects.colour, strict=True)):
        azimuth, elevation = float(drawn.objects.azimuth[i]), float(drawn.objects.elevation[i])
        nearest = max(captions.grid_weights(azimuth, elevation), key=lambda node: node[2])
        text = pictures.random_caption(rng, int(kind), int(colour))
        texts.append(text + captions.view_suffix(nearest[1], nearest[0]))
    for row in drawn.rooms.facts if drawn.rooms else ():
        view = room_captions.from_row(row)
        texts.append(
            room_captions.describe(view, int(rng.integers(1, 5)))
            if rng.uniform() < 0.6
            else room_captions.random_caption(rng, view)
        )
    return texts
