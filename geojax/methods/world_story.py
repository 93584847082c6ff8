"""Stories that the embedded family can draw: captions of the worlds, one change at a time.

A story of objects keeps its colour or its kind from one prompt to the next; a story of rooms keeps
all but one of place, walls, floor and what stands there. Materials, colours and phrasing are those
of the rooms' own captions, so each word is one that the family was trained on. No model is asked
and nothing is read: a seed is a story, the same on every machine.
"""

import re

import numpy as np

from geojax.methods.prompt_schedule import PromptSchedule
from geojax.worlds import captions, room_materials, solids
from geojax.worlds.room_captions import floor_words, wall_words
from geojax.worlds.room_materials import Surface

PLACES = (
    *("corridor", "living room", "kitchen", "bathroom", "office", "library", "museum", "church"),
    *("cellar", "room"),
)
# "" is an empty room.
THINGS = (
    *("", "two windows", "a door", "two pillars", "a sofa", "a table", "a chair", "a bed"),
    *("a shelf", "a lamp", "a rug"),
)


def _surfaces(materials: dict[str, tuple[str, ...]]) -> tuple[Surface, ...]:
    return tuple(Surface(name, colour) for name, colours in materials.items() for colour in colours)


WALLS = tuple(wall_words(surface) for surface in _surfaces(room_materials.WALLS))
FLOORS = tuple(floor_words(surface) for surface in _surfaces(room_materials.FLOORS))


def room_caption(place: str, walls: str, floor: str, thing: str = "") -> str:
    """ "a corridor with red brick walls and a brown wooden floor", and ", two windows"."""
    caption = f"a {place} with {walls} and {floor}"
    caption = re.sub(r"\ba (?=[aeio])", "an ", caption)
    return f"{caption}, {thing}" if thing else caption


def object_story(seed: int, count: int, every: int) -> PromptSchedule:
    """A story of objects: "a red mug", "a blue mug", "a blue house", ...

    Args:
      seed: of the choices.
      count: prompts, at least 1.
      every: frames that each lasts, at least 1.

    Raises:
      ValueError: a count or a length below 1.
    """
    choices = _walk(seed, count, every, (tuple(solids.COLOURS), tuple(solids.KINDS)))
    return _timed([captions.subject(colour, kind) for colour, kind in choices], every)


def room_story(seed: int, count: int, every: int) -> PromptSchedule:
    """A story of rooms, as "a corridor with red brick walls and a brown wooden floor, a door".

    Arguments and errors as `object_story`.
    """
    choices = _walk(seed, count, every, (PLACES, WALLS, FLOORS, THINGS))
    return _timed([room_caption(*choice) for choice in choices], every)


def _walk(
    seed: int, count: int, every: int, options: tuple[tuple[str, ...], ...]
) -> list[tuple[str, ...]]:
    """`count` choices of one of each, each differing from the one before in one place."""
    for name, value in (("count", count), ("every", every)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    rng = np.random.default_rng(seed)
    at = [int(rng.integers(len(names))) for names in options]
    walk = [tuple(at)]
    for _ in range(count - 1):
        place = int(rng.integers(len(options)))
        # Any but the present one.
        at[place] = (at[place] + int(rng.integers(1, len(options[place])))) % len(options[place])
        walk.append(tuple(at))
    return [tuple(names[i] for names, i in zip(options, at, strict=True)) for at in walk]


def _timed(prompts: list[str], every: int) -> PromptSchedule:
    return PromptSchedule(tuple(range(0, every * len(prompts), every)), tuple(prompts))
