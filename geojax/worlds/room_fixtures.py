"""The shell of a space and what is fixed to it: doors, windows, pillars, pictures and lamps.

A space has four walls, named by the side on which they stand: 0 at low x, 1 at low y, 2 at high x,
3 at high y. Each is a slab of its own behind the space's air, so that the two sides of a wall
between spaces may differ; openings of neighbours lie on each other.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from geojax.worlds.room_furniture import STEEL, Piece, bare_wood, pick
from geojax.worlds.room_materials import PAINTS, Texture, floor_texture, wall_texture
from geojax.worlds.room_scene import Builder, Frame, Put, Space, Vector, sorted_corners

THICKNESS = 0.12
"""Thickness of a wall's slab, metres; between two spaces there are two."""

DOOR = (1.0, 2.1)
"""Width and height of a door, metres."""

SHADE = Texture((1.0, 0.90, 0.66), glow=1.0)
CEILING_LAMP = Texture((1.0, 0.97, 0.90), glow=1.0)
_DOOR_COLOURS = ("brown", "brown", "white", "red", "blue", "green", "yellow", "grey")


class Opening(NamedTuple):
    """A hole in a wall.

    Attributes:
      side: which wall.
      middle: world coordinate of its centre along the wall, metres.
      width: metres.
      bottom, top: heights above the floor, metres.
      window: True for a window to the sky, False for a doorway.
    """

    side: int
    middle: float
    width: float
    bottom: float
    top: float
    window: bool


def wall_frame(space: Space, side: int, at: float, height: float = 0.0) -> Frame:
    """The frame of furniture that stands (or hangs) at a wall, at coordinate `at` along it."""
    (x0, y0, z0), (x1, y1, _) = space.low, space.high
    origin = ((x0, at), (at, y0), (x1, at), (at, y1))[side]
    return Frame((*origin, z0 + height), side)


def wall_span(space: Space, side: int) -> tuple[float, float]:
    """The world coordinates between which a wall runs."""
    axis = 1 if side % 2 == 0 else 0
    return space.low[axis], space.high[axis]


def _slab(
    space: Space, side: int, span: tuple[float, float], z: tuple[float, float], d: Sequence[float]
) -> tuple[Vector, Vector]:
    """World box along a wall; d: distances from the wall's face into the air."""
    (x0, y0, _), (x1, y1, _) = space.low, space.high
    face, sign = ((x0, 1.0), (y0, 1.0), (x1, -1.0), (y1, -1.0))[side]
    a, b = face + sign * d[0], face + sign * d[1]
    if side % 2 == 0:
        return sorted_corners((a, span[0], z[0]), (b, span[1], z[1]))
    return sorted_corners((span[0], a, z[0]), (span[1], b, z[1]))


def build_shell(
    builder: Builder, index: int, space: Space, openings: Sequence[Opening], trim: Texture
) -> None:
    """Floor, ceiling, walls with their openings, and skirting boards."""
    t, (x0, y0, z0), (x1, y1, z1) = THICKNESS, space.low, space.high
    wall = builder.thing("wall", space.wall.colour, index)
    floor = builder.thing("floor", space.floor.colour, index)
    ceiling = builder.thing("ceiling", "", index)
    fixed = builder.thing("", "", index)
    plain = builder.material(Texture((0.93, 0.92, 0.89)))
    ground = builder.material(floor_texture(space.floor))
    face = builder.material(wall_texture(space.wall))
    skirting = builder.material(trim)
    builder.box((x0 - t, y0 - t, z0 - t), (x1 + t, y1 + t, z0), ground, floor)
    builder.box((x0 - t, y0 - t, z1), (x1 + t, y1 + t, z1 + t), plain, ceiling)
    for side in range(4):
        start, end = wall_span(space, side)
        if side % 2 == 0:  # these walls close the corners
            start, end = start - t, end + t
        here = sorted((o for o in openings if o.side == side), key=lambda o: o.middle)
        at = start
        for o in here:
            left, right = o.middle - 0.5 * o.width, o.middle + 0.5 * o.width
            builder.box(*_slab(space, side, (at, left), (z0, z1), (-t, 0.0)), face, wall)
            span, d = (left, right), (-t, 0.0)
            builder.box(*_slab(space, side, span, (z0 + o.top, z1), d), face, wall)
            if o.bottom > 0.0:
                builder.box(*_slab(space, side, span, (z0, z0 + o.bottom), d), face, wall)
            at = right
        builder.box(*_slab(space, side, (at, end), (z0, z1), (-t, 0.0)), face, wall)
        at = start
        doorways = [o for o in here if not o.window]
        for left, right in [(o.middle - o.width / 2, o.middle + o.width / 2) for o in doorways]:
            low = (z0, z0 + 0.1)
            builder.box(*_slab(space, side, (at, left), low, (0.0, 0.015)), skirting, fixed)
            at = right
        builder.box(*_slab(space, side, (at, end), (z0, z0 + 0.1), (0.0, 0.015)), skirting, fixed)
        for o in here:
            _trim_opening(builder, index, space, o, trim)


def _trim_opening(
    builder: Builder, index: int, space: Space, opening: Opening, trim: Texture
) -> None:
    """The frame around an opening; keeps furniture out of its way."""
    o, w = opening, 0.5 * opening.width
    frame = wall_frame(space, o.side, o.middle)
    depth = 0.5 if o.window else 0.9
    builder.occupied.append(frame.box((-0.2, -w - 0.1, o.bottom), (depth, w + 0.1, o.top)))
    put = Put(builder, frame, builder.thing("window" if o.window else "", "", index))
    m = builder.material(trim)
    if not o.window:
        for y in (-w - 0.08, w):
            put.box((0.0, y, 0.0), (0.035, y + 0.08, o.top + 0.08), m)
        put.box((0.0, -w, o.top), (0.035, w, o.top + 0.08), m)
        return
    bar, d = 0.06, (-0.08, -0.03)
    for y in (-w, w - bar):
        put.box((d[0], y, o.bottom), (d[1], y + bar, o.top), m)
    for z in (o.bottom, o.top - bar):
        put.box((d[0], -w + bar, z), (d[1], w - bar, z + bar), m)
    middle = o.bottom + 0.62 * (o.top - o.bottom)
    put.box((d[0], -0.025, o.bottom + bar), (d[1], 0.025, o.top - bar), m)
    put.box((d[0], -w + bar, middle), (d[1] - 0.01, w - bar, middle + 0.05), m)
    put.box((0.0, -w - 0.05, o.bottom - 0.05), (0.1, w + 0.05, o.bottom), m)


def door(rng: np.random.Generator) -> Piece:
    """A closed door in its frame, of wood or painted in a named colour."""
    colour = pick(rng, _DOOR_COLOURS)
    base = PAINTS[colour]
    dark = Texture(tuple(0.82 * c for c in base))  # type: ignore[arg-type]
    leaf = bare_wood(rng)._replace(turned=1.0) if colour == "brown" else Texture(base)
    red, green, blue = (0.8 * c for c in leaf.colour)
    panel = leaf._replace(colour=(red, green, blue)) if leaf.grain else dark
    edge = Texture((0.92, 0.91, 0.88)) if colour != "white" else Texture(PAINTS["grey"])
    (width, height), rows = DOOR, int(rng.integers(2, 4))

    def build(put: Put) -> None:
        m, inner = put.builder.material(leaf), put.builder.material(panel)
        rim, knob = put.builder.material(edge), put.builder.material(STEEL)
        w = 0.5 * width
        put.box((0.0, -w, 0.0), (0.03, w, height), m)
        for y in (-w - 0.09, w):
            put.box((0.0, y, 0.0), (0.06, y + 0.09, height + 0.09), rim)
        put.box((0.0, -w, height), (0.06, w, height + 0.09), rim)
        step = (height - 0.15) / rows
        for i in range(rows):
            z = 0.15 + i * step
            put.box((0.0, -w + 0.14, z), (0.042, w - 0.14, z + step - 0.14), inner)
        put.ellipsoid((0.075, w - 0.08, 1.02), (0.04, 0.04, 0.04), knob)

    return Piece("door", colour, (0.9, width + 0.2, height + 0.1), build)


def picture(rng: np.random.Generator) -> Piece:
    """A frame with a painting of two colours; hung by the frame that places it."""
    width, height = float(rng.uniform(0.6, 1.2)), float(rng.uniform(0.6, 0.9))
    edge = Texture((0.72, 0.55, 0.24)) if rng.uniform() < 0.5 else bare_wood(rng)
    first, second = (pick(rng, tuple(PAINTS)) for _ in range(2))
    painting = Texture(
        PAINTS[first],
        other=PAINTS[second],
        cell=(width * float(rng.uniform(0.2, 0.6)), height * float(rng.uniform(0.2, 0.6))),
        bond=float(rng.uniform(0.0, 0.6)),
        grain=0.8,
        pitch=(3.0, 4.0),
        tint=0.2,
        motley=0.4,
    )

    def build(put: Put) -> None:
        m, canvas = put.builder.material(edge), put.builder.material(painting)
        put.box((0.0, -width / 2, 0.0), (0.04, width / 2, height), m)
        put.box((0.0, -width / 2 + 0.06, 0.06), (0.05, width / 2 - 0.06, height - 0.06), canvas)

    return Piece("picture", "", (0.05, width, height), build)


def pillar(height: float, texture: Texture, round_: bool) -> Piece:
    """A column from floor to ceiling on a base, under a capital."""

    def build(put: Put) -> None:
        m = put.builder.material(texture)
        for z in (0.0, height - 0.22):
            put.box((0.0, -0.25, z), (0.5, 0.25, z + 0.22), m)
        if round_:
            put.cylinder((0.25, 0.0, height / 2), 0.2, height / 2 - 0.22, m)
        else:
            put.box((0.08, -0.17, 0.22), (0.42, 0.17, height - 0.22), m)

    return Piece("pillar", "", (0.5, 0.5, height), build)


def lamp(rng: np.random.Generator) -> Piece:
    """A glowing shade on a pole; its light is a light of the space."""
    height = float(rng.uniform(1.5, 1.75))

    def build(put: Put) -> None:
        steel, shade = put.builder.material(STEEL), put.builder.material(SHADE)
        put.cylinder((0.25, 0.0, 0.02), 0.16, 0.02, steel)
        put.cylinder((0.25, 0.0, height / 2), 0.025, height / 2, steel)
        put.cylinder((0.25, 0.0, height - 0.16), 0.22, 0.17, shade)

    return Piece("lamp", "", (0.5, 0.5, height), build)


def ceiling_lamp(
    builder: Builder, index: int, space: Space, x: float, y: float, power: Vector
) -> None:
    """A glowing disc under the ceiling, and its light."""
    z = space.high[2]

    def build(put: Put) -> None:
        put.cylinder((0.0, 0.0, z - 0.03), 0.22, 0.03, put.builder.material(CEILING_LAMP))

    if builder.put(Frame((x, y, 0.0), 0), "", "", index, build):
        builder.shine((x, y, z - 0.3), power, space)
