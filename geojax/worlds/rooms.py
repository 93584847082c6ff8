"""Random rooms: a long corridor with rooms beside it, or a furnished room with a hall behind it.

`sample_room` draws the plan (which spaces, how large, of what, where they open into each other and
to the sky), then builds the shells, which fit into every scene, then the furniture, as much as the
scene holds, then the light. All of it follows from the generator. World: z up, metres, floors at
z = 0; corridors run along x.
"""

import math

import numpy as np

from geojax.worlds.room_fixtures import DOOR, THICKNESS, Opening, build_shell, wall_frame, wall_span
from geojax.worlds.room_furniture import pick
from geojax.worlds.room_materials import FLOORS, GAMMA, HELD_OUT, PAINTS, WALLS, Surface, Texture
from geojax.worlds.room_recipes import RECIPES, furnish
from geojax.worlds.room_scene import Builder, Room, Space, Vector

ROOM_KINDS: tuple[str, ...] = tuple(kind for kind in RECIPES if kind != "corridor")

# Length, width (low, high) and height (low, high) in metres of a space of each kind.
_SIZES: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "corridor": ((13.0, 18.0), (1.9, 3.0), (2.5, 3.2)),
    "living room": ((4.2, 6.5), (3.8, 5.0), (2.5, 3.0)),
    "kitchen": ((3.8, 5.2), (3.4, 4.4), (2.4, 2.8)),
    "bathroom": ((2.8, 4.0), (2.6, 3.4), (2.4, 2.8)),
    "office": ((4.0, 6.0), (3.6, 5.0), (2.5, 3.0)),
    "library": ((4.5, 6.5), (4.0, 5.2), (2.6, 3.4)),
    "museum": ((6.0, 8.0), (4.5, 6.0), (3.2, 4.0)),
    "church": ((9.0, 12.0), (6.4, 8.0), (4.6, 6.0)),
    "cellar": ((4.0, 6.0), (3.4, 4.6), (2.3, 2.6)),
    "bedroom": ((3.8, 5.0), (3.4, 4.4), (2.4, 2.9)),
    "empty room": ((3.6, 6.5), (3.2, 5.0), (2.4, 3.2)),
}
# What some kinds are made of; others may be of anything.
_WALLS_OF = {
    "bathroom": ("tiled", "tiled", "marble", "plaster"),
    "cellar": ("brick", "stone", "concrete", "stone"),
    "church": ("stone", "plaster", "marble", "brick"),
}
_FLOORS_OF = {
    "bathroom": ("tiled", "checkered", "marble", "tiled"),
    "cellar": ("concrete", "stone", "brick", "concrete"),
    "church": ("marble", "stone", "checkered", "tiled"),
    "kitchen": ("tiled", "checkered", "wooden", "stone"),
}
_WINDOWLESS = ("cellar",)
_DAY = ((0.88, 0.93, 0.97), (0.45, 0.66, 0.93))
_NIGHT = ((0.10, 0.11, 0.20), (0.03, 0.03, 0.09))


def sample_surfaces(
    rng: np.random.Generator, kind: str, held_out: bool = False
) -> tuple[Surface, Surface]:
    """Wall and floor of a space; the pair of materials is held out exactly if asked for."""
    walls, floors = _WALLS_OF.get(kind, tuple(WALLS)), _FLOORS_OF.get(kind, tuple(FLOORS))
    if held_out and not any((w, f) in HELD_OUT for w in walls for f in floors):
        walls, floors = tuple(WALLS), tuple(FLOORS)
    while True:
        wall, floor = pick(rng, walls), pick(rng, floors)
        if ((wall, floor) in HELD_OUT) == held_out:
            break
    return (
        Surface(wall, pick(rng, WALLS[wall])),
        Surface(floor, pick(rng, FLOORS[floor])),
    )


def sample_room(
    rng: np.random.Generator, *, kind: str | None = None, held_out: bool = False
) -> Room:
    """A random room with its description.

    Args:
      rng: consumed.
      kind: of the main space, "corridor" or one of `ROOM_KINDS`; None draws it (corridor 45 %).
      held_out: whether the pairs of wall and floor materials are those never trained on.

    Returns:
      the room; its first space is the main one. A corridor is at least 13 m long.

    Raises:
      ValueError: for an unknown kind.
    """
    if kind is None:
        kind = "corridor" if rng.uniform() < 0.45 else pick(rng, ROOM_KINDS)
    if kind not in RECIPES:
        raise ValueError(f"no room is a {kind!r}; kinds are {', '.join(RECIPES)}")
    builder = Builder(rng)
    if kind == "corridor":
        spaces, openings = _corridor_plan(rng, held_out)
    else:
        spaces, openings = _room_plan(rng, kind, held_out)
    trim = Texture(PAINTS[pick(rng, ("white", "white", "brown", "grey", "black"))])
    for index, space in enumerate(spaces):
        build_shell(builder, index, space, openings[index], trim)
    night = bool(rng.uniform() < 0.15)
    windows = [(s, o) for s, there in zip(spaces, openings, strict=True) for o in there if o.window]
    for space, o in windows[:4]:
        _window_light(builder, space, o, 0.06 if night else 0.6)
    for index, space in enumerate(spaces):
        furnish(builder, index, space)

    sunny = bool(windows) and not night and rng.uniform() < 0.5
    side = windows[int(rng.integers(len(windows)))][1].side if windows else 0
    outward = math.pi + 0.5 * math.pi * side
    azimuth = outward + float(rng.uniform(-0.6, 0.6))
    height = float(rng.uniform(0.4, 0.75))
    flat = math.cos(height)
    sun = (flat * math.cos(azimuth), flat * math.sin(azimuth), math.sin(height))
    level = float(rng.uniform(0.16, 0.22)) if night else float(rng.uniform(0.26, 0.36))
    # A little of the walls' colour is in the light that they send on.
    wall = np.asarray(PAINTS[spaces[0].wall.colour]) ** GAMMA
    tint = 0.8 + 0.2 * wall / wall.mean()
    cast = np.asarray((0.9, 0.95, 1.15) if night else (1.0, 0.99, 0.96))
    red, green, blue = (float(v) for v in level * tint * cast)
    scene = builder.scene(
        ambient=(red, green, blue),
        sun=sun,
        sun_colour=(1.5, 1.38, 1.10) if sunny else (0.0, 0.0, 0.0),
        sky=_NIGHT if night else _DAY,
    )
    return Room(scene, tuple(spaces), tuple(builder.things), night, sunny)


def _space(rng: np.random.Generator, kind: str, held_out: bool, low: Vector, high: Vector) -> Space:
    wall, floor = sample_surfaces(rng, kind, held_out)
    return Space(kind, low, high, wall, floor)


def _size(rng: np.random.Generator, kind: str) -> Vector:
    x, y, z = (float(rng.uniform(*span)) for span in _SIZES[kind])
    return x, y, z


def _corridor_plan(
    rng: np.random.Generator, held_out: bool
) -> tuple[list[Space], list[list[Opening]]]:
    """A corridor along x; up to two rooms open into it at its left, and one at its far end."""
    length, width, height = _size(rng, "corridor")
    half, gap = 0.5 * width, 2.0 * THICKNESS
    spaces = [_space(rng, "corridor", held_out, (0.0, -half, 0.0), (length, half, height))]
    openings: list[list[Opening]] = [[]]
    door_height = min(DOOR[1], height - 0.2)

    start = float(rng.uniform(2.0, 5.0))
    for _ in range(int(rng.integers(0, 3))):
        kind = pick(rng, ("living room", "bedroom", "office", "kitchen", "empty room"))
        x, y, z = _size(rng, kind)
        x, y = min(x, 4.2), min(y, 4.0)
        if start + x > length - 0.5:
            break
        low, high = (start, half + gap, 0.0), (start + x, half + gap + y, z)
        spaces.append(_space(rng, kind, held_out, low, high))
        at, wide = start + float(rng.uniform(0.35, 0.65)) * x, float(rng.uniform(1.0, 1.5))
        openings[0].append(Opening(3, at, wide, 0.0, door_height, False))
        there = [Opening(1, at, wide, 0.0, door_height, False)]
        if rng.uniform() < 0.6:
            there.append(Opening(3, start + 0.5 * x, 1.4, 0.9, 2.1, True))
        openings.append(there)
        start += x + gap + float(rng.uniform(0.0, 3.0))

    end = rng.uniform()
    if end < 0.25:  # a room at the end
        kind = pick(rng, ("living room", "office", "empty room", "museum"))
        x, y, z = _size(rng, kind)
        low, high = (length + gap, -0.5 * y, 0.0), (length + gap + x, 0.5 * y, z)
        overlaps = any(s.high[0] + gap > low[0] and s.low[1] - gap < high[1] for s in spaces[1:])
        if not overlaps:
            spaces.append(_space(rng, kind, held_out, low, high))
            openings[0].append(Opening(2, 0.0, 1.2, 0.0, door_height, False))
            openings.append([Opening(0, 0.0, 1.2, 0.0, door_height, False)])
            openings[-1].append(Opening(2, 0.0, 1.5, 0.9, 2.1, True))
    elif end < 0.5:  # a window
        openings[0].append(
            Opening(2, 0.0, min(1.4, width - 0.6), 0.8, min(2.3, height - 0.2), True)
        )
    if rng.uniform() < 0.45:  # windows along the right
        count, wide = int(rng.integers(2, 5)), float(rng.uniform(0.9, 1.5))
        for i in range(count):
            at = (i + 0.5) / count * length + float(rng.uniform(-0.3, 0.3))
            openings[0].append(Opening(1, at, wide, 0.85, min(2.2, height - 0.25), True))
    return spaces, openings


def _room_plan(
    rng: np.random.Generator, kind: str, held_out: bool
) -> tuple[list[Space], list[list[Opening]]]:
    """A room about the origin; behind a doorway in its right wall, sometimes a hall along x."""
    x, y, z = _size(rng, kind)
    spaces = [_space(rng, kind, held_out, (-0.5 * x, -0.5 * y, 0.0), (0.5 * x, 0.5 * y, z))]
    openings: list[list[Opening]] = [[]]
    gap, door_height = 2.0 * THICKNESS, min(DOOR[1], z - 0.2)
    if rng.uniform() < 0.5:
        wide, deep = float(rng.uniform(1.8, 2.4)), float(rng.uniform(5.0, 7.0))
        top = float(rng.uniform(2.4, 2.9))
        low, high = (0.5 * x + gap, -0.5 * wide, 0.0), (0.5 * x + gap + deep, 0.5 * wide, top)
        spaces.append(_space(rng, "empty room", held_out, low, high)._replace(kind="corridor"))
        width = float(rng.uniform(1.0, 1.4))
        openings[0].append(Opening(2, 0.0, width, 0.0, door_height, False))
        openings.append([Opening(0, 0.0, width, 0.0, door_height, False)])
    if kind not in _WINDOWLESS:
        tall = kind == "church"
        bottom, top = (1.6, z - 0.6) if tall else (0.9, min(2.15, z - 0.2))
        for side in rng.permutation(4)[: int(rng.integers(1, 3)) + tall]:
            if side == 2 and len(spaces) > 1:
                continue
            low_, high_ = wall_span(spaces[0], int(side))
            count = max(1, int((high_ - low_) / (2.2 if tall else 2.8)))
            for i in range(count):
                at = low_ + (i + 0.5) / count * (high_ - low_)
                wide = 0.9 if tall else float(rng.uniform(1.0, 1.5))
                openings[0].append(Opening(int(side), at, wide, bottom, top, True))
    return spaces, openings


def _window_light(builder: Builder, space: Space, o: Opening, power: float) -> None:
    """The sky's light through a window: from its middle, inward."""
    frame = wall_frame(space, o.side, o.middle, 0.5 * (o.bottom + o.top))
    inward = tuple(
        b - a for a, b in zip(frame.point((0, 0, 0)), frame.point((1, 0, 0)), strict=True)
    )
    scale = power * o.width * (o.top - o.bottom)
    x, y, z = frame.point((0.05, 0.0, 0.0))
    nx, ny, nz = (float(v) for v in inward)
    builder.shine((x, y, z), (0.92 * scale, 0.97 * scale, scale), space, (nx, ny, nz))
