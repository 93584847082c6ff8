"""What stands in a space of each kind, and where.

Furniture is tried at random places until it overlaps nothing; what finds no place is left out. The
middle of a corridor stays free, so that a camera can walk through.
"""

from collections.abc import Callable

import numpy as np

from geojax.worlds import room_furniture as furniture
from geojax.worlds.room_fixtures import (
    DOOR,
    ceiling_lamp,
    door,
    lamp,
    picture,
    pillar,
    wall_frame,
    wall_span,
)
from geojax.worlds.room_furniture import Piece
from geojax.worlds.room_materials import PAINTS, Texture, wall_texture
from geojax.worlds.room_scene import Builder, Frame, Put, Space, Vector

LANE = 0.5
"""Half the width of the strip along a corridor's middle that stays free, metres."""

_TRIES = 16


def at_wall(
    builder: Builder,
    index: int,
    space: Space,
    piece: Piece,
    *,
    sides: tuple[int, ...] = (0, 1, 2, 3),
    height: float = 0.0,
) -> Frame | None:
    """Put a piece somewhere along a wall; its frame, or None when there was no place."""
    if height + piece.size[2] > space.high[2] + 1e-6:
        return None
    for _ in range(_TRIES):
        side = sides[builder.rng.integers(len(sides))]
        low, high = wall_span(space, side)
        margin = 0.5 * piece.size[1] + 0.06
        if high - low <= 2.0 * margin:
            continue
        frame = wall_frame(
            space, side, float(builder.rng.uniform(low + margin, high - margin)), height
        )
        if builder.place(piece.size, frame, piece.kind, piece.colour, index, piece.build):
            return frame
    return None


def in_the_middle(builder: Builder, index: int, space: Space, piece: Piece) -> Frame | None:
    """Put a piece near the middle of a space, turned at random; None when there was no place."""
    rng, depth = builder.rng, piece.size[0]
    for _ in range(_TRIES):
        x, y = (
            float(0.5 * (a + b) + rng.uniform(-0.12, 0.12) * (b - a))
            for a, b in zip(space.low[:2], space.high[:2], strict=True)
        )
        turns = int(rng.integers(4))
        back = Frame((x, y, 0.0), turns).point((-0.5 * depth, 0.0, 0.0))
        frame = Frame(back, turns)
        if builder.place(piece.size, frame, piece.kind, piece.colour, index, piece.build):
            return frame
    return None


def _pictures(builder: Builder, index: int, space: Space, count: int) -> None:
    for _ in range(count):
        hung = float(builder.rng.uniform(1.25, 1.4))
        at_wall(builder, index, space, picture(builder.rng), height=hung)


def _doors(builder: Builder, index: int, space: Space, count: int, sides: tuple[int, ...]) -> None:
    for _ in range(count):
        at_wall(builder, index, space, door(builder.rng), sides=sides)


def _floor_lamp(builder: Builder, index: int, space: Space) -> None:
    piece = lamp(builder.rng)
    frame = at_wall(builder, index, space, piece)
    if frame is not None:
        # Beside the shade, away from the wall: a light inside it would light nothing else evenly.
        spot = frame.point((0.6, 0.0, piece.size[2] - 0.1))
        builder.shine(spot, (0.55, 0.45, 0.30), space)


def _dining(builder: Builder, index: int, space: Space, chairs: int) -> None:
    """A table in the middle with chairs about it."""
    rng = builder.rng
    piece = furniture.table(rng, width=float(rng.uniform(1.2, 1.7)))
    around = piece._replace(size=(piece.size[0] + 1.0, piece.size[1], piece.size[2]))
    frame = in_the_middle(
        builder,
        index,
        space,
        around._replace(build=lambda put: piece.build(_moved(put, (0.5, 0.0, 0.0)))),
    )
    if frame is None:
        return
    for k in range(chairs):
        seat = furniture.chair(rng)
        y = (-0.35, 0.35)[k // 2 % 2] if chairs > 2 else 0.0
        near = k % 2 == 0
        spot = frame.point((0.12 if near else around.size[0] - 0.12, y, 0.0))
        turned = Frame(spot, (frame.turns + (0 if near else 2)) % 4)
        # Chairs stand half under their table: within its place, so nothing else is in the way.
        builder.put(turned, "chair", "", index, seat.build)


def _moved(put: Put, by: Vector) -> Put:
    return put._replace(frame=Frame(put.frame.point(by), put.frame.turns))


def _rug(builder: Builder, index: int, space: Space, depth: float, width: float) -> None:
    """Under everything else, so it asks for no place."""
    x, y = (0.5 * (a + b) for a, b in zip(space.low[:2], space.high[:2], strict=True))
    piece = furniture.rug(builder.rng, depth, width)
    frame = Frame((x - 0.5 * depth, y, 0.0), 0)
    builder.put(frame, piece.kind, piece.colour, index, piece.build)


def _living(builder: Builder, index: int, space: Space) -> None:
    rng = builder.rng
    if rng.uniform() < 0.7:
        _rug(builder, index, space, float(rng.uniform(1.8, 2.4)), float(rng.uniform(1.4, 2.0)))
    for _ in range(int(rng.integers(1, 3))):
        at_wall(builder, index, space, furniture.sofa(rng))
    low = furniture.table(rng, 0.6, 1.0)
    in_the_middle(builder, index, space, low)
    if rng.uniform() < 0.6:
        at_wall(builder, index, space, furniture.shelf(rng))
    if rng.uniform() < 0.7:
        _floor_lamp(builder, index, space)
    if rng.uniform() < 0.6:
        at_wall(builder, index, space, furniture.tree(rng))
    _pictures(builder, index, space, int(rng.integers(0, 4)))


def _kitchen(builder: Builder, index: int, space: Space) -> None:
    rng = builder.rng
    for _ in range(3):
        piece = furniture.counter(rng, float(rng.uniform(1.8, 3.0)))
        if at_wall(builder, index, space, piece) is not None:
            break
    at_wall(builder, index, space, furniture.fridge(rng))
    _dining(builder, index, space, int(rng.integers(1, 3)) * 2)
    _pictures(builder, index, space, int(rng.integers(0, 2)))


def _office(builder: Builder, index: int, space: Space) -> None:
    rng = builder.rng
    for _ in range(int(rng.integers(1, 3))):
        desk = furniture.table(rng, 0.75, 1.5)
        frame = at_wall(builder, index, space, desk)
        if frame is not None:
            seat = Frame(frame.point((1.25, 0.0, 0.0)), (frame.turns + 2) % 4)
            piece = furniture.chair(rng)
            builder.place(piece.size, seat, piece.kind, piece.colour, index, piece.build)
    for _ in range(int(rng.integers(1, 3))):
        at_wall(builder, index, space, furniture.shelf(rng))
    if rng.uniform() < 0.7:
        at_wall(builder, index, space, furniture.tree(rng))
    _pictures(builder, index, space, int(rng.integers(0, 3)))


def _library(builder: Builder, index: int, space: Space) -> None:
    rng = builder.rng
    for _ in range(int(rng.integers(4, 7))):
        at_wall(builder, index, space, furniture.shelf(rng, float(rng.uniform(1.0, 1.5)), 2.1))
    _dining(builder, index, space, 2)
    if rng.uniform() < 0.5:
        _floor_lamp(builder, index, space)


def _bathroom(builder: Builder, index: int, space: Space) -> None:
    rng = builder.rng
    at_wall(builder, index, space, furniture.bathtub(rng))
    at_wall(builder, index, space, furniture.sink(rng))
    if rng.uniform() < 0.3:
        at_wall(builder, index, space, furniture.tree(rng))


def _museum(builder: Builder, index: int, space: Space) -> None:
    rng = builder.rng
    _pictures(builder, index, space, int(rng.integers(4, 8)))
    in_the_middle(builder, index, space, furniture.bench(rng))
    for _ in range(int(rng.integers(2, 5))):
        at_wall(builder, index, space, furniture.exhibit(rng))
    in_the_middle(builder, index, space, furniture.exhibit(rng))


def _church(builder: Builder, index: int, space: Space) -> None:
    """Two rows of pillars along x, benches between them."""
    rng, (x0, y0, _), (x1, y1, z1) = builder.rng, space.low, space.high
    coat = Texture(PAINTS[furniture.pick(rng, ("white", "beige", "grey", "white"))])
    side, round_ = 0.5 * (y1 - y0) - 1.1, bool(rng.uniform() < 0.7)
    middle = 0.5 * (y0 + y1)
    for x in np.linspace(x0 + 1.6, x1 - 1.6, 3):
        for y in (middle - side, middle + side):
            piece = pillar(z1, coat, round_)
            frame = Frame((float(x) - 0.25, y, 0.0), 0)
            builder.place(piece.size, frame, piece.kind, "", index, piece.build)
    for x in np.arange(x0 + 2.2, x1 - 1.8, 1.1)[:6]:
        for y in (-1.0, 1.0):
            piece = furniture.bench(rng, width=1.3, back=True)
            frame = Frame((float(x), middle + y, 0.0), 0)
            builder.place(piece.size, frame, piece.kind, "", index, piece.build)


def _cellar(builder: Builder, index: int, space: Space) -> None:
    rng = builder.rng
    for _ in range(int(rng.integers(3, 7))):
        at_wall(builder, index, space, furniture.stores(rng))
    if rng.uniform() < 0.5:
        at_wall(builder, index, space, furniture.shelf(rng))
    if rng.uniform() < 0.5:
        piece = pillar(space.high[2], wall_texture(space.wall), False)
        in_the_middle(builder, index, space, piece)


def _bedroom(builder: Builder, index: int, space: Space) -> None:
    rng = builder.rng
    if rng.uniform() < 0.5:
        _rug(builder, index, space, 1.8, 1.4)
    at_wall(builder, index, space, furniture.bed(rng))
    if rng.uniform() < 0.6:
        at_wall(builder, index, space, furniture.chair(rng))
    if rng.uniform() < 0.6:
        _floor_lamp(builder, index, space)
    if rng.uniform() < 0.5:
        at_wall(builder, index, space, furniture.shelf(rng, 0.9))
    _pictures(builder, index, space, int(rng.integers(0, 3)))


def _empty(builder: Builder, index: int, space: Space) -> None:
    _pictures(builder, index, space, int(builder.rng.integers(0, 2)))


def _corridor(builder: Builder, index: int, space: Space) -> None:
    """Doors at the end and along the sides, pillars, a runner, and what stands at the walls."""
    rng, (x0, y0, _), (x1, y1, z1) = builder.rng, space.low, space.high
    middle, length = 0.5 * (y0 + y1), x1 - x0
    style = rng.uniform()
    if style < 0.25 and y1 - y0 > 2.2:
        plain = Texture(PAINTS["white"]) if rng.uniform() < 0.5 else wall_texture(space.wall)
        count, round_ = int(length / 3.0), bool(rng.uniform() < 0.5)
        for x in np.linspace(x0 + 1.0, x1 - 1.0, count):
            for side in (1, 3):
                piece = pillar(z1, plain, round_)
                frame = wall_frame(space, side, float(x))
                builder.place(piece.size, frame, piece.kind, "", index, piece.build)
    if rng.uniform() < 0.65:
        end = wall_frame(space, 2, middle)
        piece = door(rng)
        builder.place(piece.size, end, piece.kind, piece.colour, index, piece.build)
    # The middle stays free, after the door at its end.
    builder.occupied.append(((x0, middle - LANE, 0.0), (x1, middle + LANE, 2.3)))
    shallow = [DOOR[1], 0.5 * (y1 - y0) - LANE]
    for _ in range(int(rng.integers(1, 5))):
        piece = door(rng)
        fits = piece._replace(size=(min(piece.size[0], shallow[1]), *piece.size[1:]))
        at_wall(builder, index, space, fits, sides=(1, 3))
    if rng.uniform() < 0.3:
        _rug(builder, index, space, length - 1.0, float(rng.uniform(0.9, 1.3)))
    kinds: list[Callable[[], Piece]] = [
        lambda: furniture.tree(rng),
        lambda: furniture.bench(rng),
        lambda: furniture.shelf(rng, 1.0),
        lambda: furniture.chair(rng),
        lambda: furniture.table(rng, 0.4, 1.0),
    ]
    for _ in range(int(rng.integers(0, 5))):
        at_wall(builder, index, space, kinds[rng.integers(len(kinds))](), sides=(1, 3))
    _pictures(builder, index, space, int(rng.integers(0, 5)))


RECIPES: dict[str, Callable[[Builder, int, Space], None]] = {
    "corridor": _corridor,
    "living room": _living,
    "kitchen": _kitchen,
    "bathroom": _bathroom,
    "office": _office,
    "library": _library,
    "museum": _museum,
    "church": _church,
    "cellar": _cellar,
    "bedroom": _bedroom,
    "empty room": _empty,
}
"""Furnishes a space of each kind. (A "bedroom" is called a room with a bed.)"""


def furnish(builder: Builder, index: int, space: Space) -> None:
    """Ceiling lamps along the space, then what its recipe puts there."""
    (x0, y0, _), (x1, y1, z1) = space.low, space.high
    rows = max(1, round((x1 - x0) / 3.8)), max(1, round((y1 - y0) / 4.5))
    warm = float(builder.rng.uniform(0.0, 1.0))
    power = 0.17 * z1 * (1.0 if rows[0] * rows[1] > 1 else 1.35)
    colour = (power, power * (0.97 - 0.06 * warm), power * (0.92 - 0.22 * warm))
    for i in range(rows[0]):
        for j in range(rows[1]):
            x = x0 + (i + 0.5) / rows[0] * (x1 - x0)
            y = y0 + (j + 0.5) / rows[1] * (y1 - y0)
            ceiling_lamp(builder, index, space, x, y, colour)
    RECIPES[space.kind](builder, index, space)
