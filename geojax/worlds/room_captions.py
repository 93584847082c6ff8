"""What a view of a room is called: "a corridor with brick walls and a wooden floor".

`observe` reads off what a view shows from its map of things; `describe` says it in one fixed way,
`random_caption` in many. Every word is one of `vocabulary.world_words`, and no caption is longer
than the text encoder reads. Left and right are the picture's.
"""

import re
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int8

from geojax.worlds.room_materials import FLOORS, PAINTS, WALLS, Surface
from geojax.worlds.room_recipes import RECIPES
from geojax.worlds.room_scene import Room

MAX_WORDS = 22
"""Words and commas of a caption: with start and end, `vocabulary.MAX_TOKENS` tokens."""

THINGS: tuple[str, ...] = (
    "door", "window", "table", "chair", "sofa", "bed",
    "shelf", "lamp", "tree", "picture", "pillar", "rug",
)  # fmt: skip
"""What captions name, apart from walls and floors."""

MOST_SEEN = 6
"""Things that are kept of a view, the largest first."""

SIDES: tuple[str, ...] = ("left", "", "right")
LIGHTS: tuple[str, ...] = ("", "dark", "sunny")
WIDTHS: tuple[str, ...] = ("", "narrow", "wide")

_KINDS, _COLOURS = tuple(RECIPES), ("", *PAINTS)
_WALLS, _FLOORS = ("", *WALLS), ("", *FLOORS)
_PLURAL = ("door", "window", "pillar")
_COUNTS = ("", "", "two", "three", "four")
_FRACTION = {"window": 0.004, "lamp": 0.004, "chair": 0.006, "tree": 0.006}  # of the pixels
_LEAST = 0.008
_OPENINGS = ("a {}", "a {}", "a photo of a {}", "a picture of a {}", "an image of a {}")
_SPACES = {
    "corridor": ("corridor", "hallway", "hall"),
    "bedroom": ("room",),
    "empty room": ("room", "empty room"),
}


class Seen(NamedTuple):
    """A thing in a view, or several of a kind: its colour word or "", its side, how many."""

    kind: str
    colour: str
    side: str
    number: int


class RoomView(NamedTuple):
    """What a caption can say of a view.

    Attributes:
      kind: of the space that fills most of the picture, a key of `room_recipes.RECIPES`.
      wall, floor: what they are made of; None where (almost) none is seen.
      light: one of `LIGHTS`.
      width: one of `WIDTHS`, of corridors.
      things: the largest first.
    """

    kind: str
    wall: Surface | None
    floor: Surface | None
    light: str
    width: str
    things: tuple[Seen, ...]


def observe(room: Room, things: Int[np.ndarray, "h w"]) -> RoomView:
    """What one view of a room shows.

    Args:
      room: the room.
      things: index of the thing in each pixel, -1 in the sky (`room_render.Truth.thing`).
    """
    size, width = things.size, things.shape[1]
    seen = np.bincount(things[things >= 0], minlength=len(room.things)) / size
    # The space: that of most walls and floors.
    area = np.zeros(len(room.spaces))
    for thing, share in zip(room.things, seen, strict=True):
        if thing.kind in ("wall", "floor"):
            area[thing.space] += share
    index = int(np.argmax(area))
    space = room.spaces[index]

    def visible(kind: str) -> bool:
        return any(
            t.kind == kind and t.space == index and share > 0.03
            for t, share in zip(room.things, seen, strict=True)
        )

    found: dict[str, list[tuple[float, float, str]]] = {}
    columns = np.broadcast_to((np.arange(width) + 0.5) / width, things.shape)
    for i in np.argsort(-seen):
        thing = room.things[i]
        if thing.kind in THINGS and seen[i] > _FRACTION.get(thing.kind, _LEAST):
            middle = float(columns[things == i].mean())
            found.setdefault(thing.kind, []).append((float(seen[i]), middle, thing.colour))
    named = []
    for kind, entries in found.items():
        _, middle, colour = entries[0]
        side = SIDES[0] if middle < 0.38 else SIDES[2] if middle > 0.62 else SIDES[1]
        one = len(entries) == 1
        named.append(Seen(kind, colour if one else "", side if one else "", min(len(entries), 4)))
    breadth = space.high[1] - space.low[1]
    wide = "narrow" if breadth < 2.2 else "wide" if breadth > 2.7 else ""
    return RoomView(
        kind=space.kind,
        wall=space.wall if visible("wall") else None,
        floor=space.floor if visible("floor") else None,
        light="dark" if room.dark else "sunny" if room.sunny else "",
        width=wide if space.kind == "corridor" else "",
        things=tuple(named[:MOST_SEEN]),
    )


def wall_words(wall: Surface, colour: bool = True) -> str:
    """ "red brick walls", "blue walls" """
    if wall.material == "plaster" and colour:
        return f"{wall.colour} walls"
    if wall.material == "concrete" or not colour:
        return f"{wall.material} walls"
    return f"{wall.colour} {wall.material} walls"


def floor_words(floor: Surface, colour: bool = True) -> str:
    """ "a brown wooden floor", "a red carpet" """
    noun = "carpet" if floor.material == "carpet" else f"{floor.material} floor"
    plain = floor.material == "concrete" or not colour
    return _article(f"a {noun}" if plain else f"a {floor.colour} {noun}")


def thing_words(seen: Seen, where: bool = True, colour: bool = True) -> str:
    """ "a red door on the left", "two windows" """
    if seen.number > 1 and seen.kind in _PLURAL:
        return f"{_COUNTS[seen.number]} {seen.kind}s"
    noun = f"{seen.colour} {seen.kind}" if seen.colour and colour else seen.kind
    place = f" on the {seen.side}" if seen.side and where and seen.number == 1 else ""
    return _article(f"a {noun}") + place


def describe(view: RoomView, details: int = 2) -> str:
    """The one canonical caption: space, walls, floor, and the largest things that fit."""
    words = _SPACES.get(view.kind, (view.kind,))[0]
    parts = [*_surfaces(view, True)]
    text = f"a {words}" + (f" with {' and '.join(parts)}" if parts else "")
    return _with_details(_article(text), [thing_words(t) for t in view.things[:details]])


def random_caption(rng: np.random.Generator, view: RoomView) -> str:
    """A caption in a random phrasing, that leaves out this or that."""
    names = _SPACES.get(view.kind, (view.kind,))
    words = names[rng.integers(len(names))]
    adjectives = [a for a in (view.light, view.width) if a and rng.uniform() < 0.35]
    head = _OPENINGS[rng.integers(len(_OPENINGS))].format(" ".join([*adjectives[:1], words]))
    parts = _surfaces(view, bool(rng.uniform() < 0.75))
    if len(parts) == 2 and rng.uniform() < 0.15:
        parts = [parts[rng.integers(2)]]
    style = rng.uniform()
    if not parts or style < 0.05:
        text = head
    elif style < 0.75:
        text = f"{head} with {' and '.join(parts)}"
    else:
        text = ", ".join([head, *parts])
    chosen = [t for t in view.things if rng.uniform() < 0.55][: int(rng.integers(0, 4))]
    where, colour = bool(rng.uniform() < 0.7), bool(rng.uniform() < 0.7)
    return _with_details(_article(text), [thing_words(t, where, colour) for t in chosen])


def _surfaces(view: RoomView, colour: bool) -> list[str]:
    walls = [wall_words(view.wall, colour)] if view.wall else []
    return walls + ([floor_words(view.floor, colour)] if view.floor else [])


def _article(text: str) -> str:
    return re.sub(r"\ba (?=[aeio])", "an ", text)


def _with_details(text: str, details: list[str]) -> str:
    for detail in details:
        longer = f"{text}, {detail}"
        if count_words(longer) <= MAX_WORDS:
            text = longer
    return text


def count_words(text: str) -> int:
    """Words and commas: tokens, where the vocabulary knows every word."""
    return len(re.findall(r"\w+|,", text))


FACTS = 7 + 4 * MOST_SEEN
"""Numbers of a view as a row."""


def to_row(view: RoomView) -> Int8[np.ndarray, " n"]:
    """A view as small numbers, to be stored."""
    wall, floor = view.wall or Surface("", ""), view.floor or Surface("", "")
    row = [
        _KINDS.index(view.kind),
        _WALLS.index(wall.material),
        _COLOURS.index(wall.colour),
        _FLOORS.index(floor.material),
        _COLOURS.index(floor.colour),
        LIGHTS.index(view.light),
        WIDTHS.index(view.width),
    ]
    for t in view.things:
        row += [THINGS.index(t.kind), _COLOURS.index(t.colour), SIDES.index(t.side), t.number]
    return np.asarray(row + [-1] * (FACTS - len(row)), np.int8)


def from_row(row: Int8[np.ndarray, " n"]) -> RoomView:
    """The view that `to_row` stored."""
    kind, wall, wall_colour, floor, floor_colour, light, width = (int(n) for n in row[:7])
    things = [
        Seen(THINGS[k], _COLOURS[c], SIDES[s], int(n))
        for k, c, s, n in row[7:].reshape(-1, 4)
        if k >= 0
    ]
    return RoomView(
        kind=_KINDS[kind],
        wall=Surface(_WALLS[wall], _COLOURS[wall_colour]) if wall else None,
        floor=Surface(_FLOORS[floor], _COLOURS[floor_colour]) if floor else None,
        light=LIGHTS[light],
        width=WIDTHS[width],
        things=tuple(things),
    )


def mirrored(rows: Int8[np.ndarray, "n m"]) -> Int8[np.ndarray, "n m"]:
    """Rows of the same views, left and right exchanged."""
    rows = rows.copy()
    sides = rows[:, 9::4]
    rows[:, 9::4] = np.where(sides >= 0, 2 - sides, sides)
    return rows
