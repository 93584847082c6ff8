"""Stories that the embedded family can draw: captions of the worlds, one change at a time.

A story of objects keeps its colour or its kind from one prompt to the next; a story of rooms keeps
all but one of place, walls, floor and what stands there. The words are those of
`worlds.vocabulary`, each a token of its own. No model is asked and nothing is read: a seed is a
story, the same on every machine.
"""

import numpy as np

from geojax.methods.prompt_schedule import PromptSchedule
from geojax.worlds import captions, solids

PLACES = ("corridor", "hallway", "living room", "kitchen", "library", "museum", "church", "cellar")
WALLS = ("brick", "stone", "wooden", "plaster", "tiled", "white", "grey", "beige", "striped")
FLOORS = ("wooden", "stone", "tiled", "marble", "concrete", "checkered", "carpet")
# "" is an empty room.
THINGS = (
    "",
    "two windows",
    "an open door",
    "three pillars",
    "a red sofa",
    "a wooden table",
    "a green carpet",
    "a lamp",
)


def room_caption(place: str, walls: str, floor: str, thing: str = "") -> str:
    """ "a corridor with brick walls and a wooden floor", and ", two windows" where they are."""
    caption = f"a {place} with {walls} walls and a {floor} floor"
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
    """A story of rooms, as "a corridor with brick walls and a wooden floor, two windows".

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
