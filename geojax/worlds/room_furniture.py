"""Furniture of boxes and round solids, each piece in a frame of its own.

The local frame: x away from the wall behind the piece, y along the wall, z up from the floor. A
piece fills (depth, width, height) from x = 0, centred in y. What free-standing pieces have behind
them is nothing.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from geojax.worlds.room_materials import PAINTS, Texture, wood
from geojax.worlds.room_scene import Put, Vector

WOODS: tuple[Vector, ...] = ((0.47, 0.29, 0.16), (0.62, 0.43, 0.25), (0.34, 0.20, 0.12))
STEEL = Texture((0.62, 0.63, 0.65))
PORCELAIN = Texture((0.94, 0.94, 0.93))
LEAVES = Texture((0.24, 0.46, 0.16), other=(0.42, 0.62, 0.26), grain=0.9, pitch=(14.0, 14.0))
CLAY = Texture((0.72, 0.40, 0.26))
_CLOTHS = ("red", "blue", "green", "beige", "grey", "yellow", "purple", "turquoise", "orange")


class Piece(NamedTuple):
    """A piece of furniture, before it has a place.

    Attributes:
      kind: what a caption calls it, or "".
      colour: its colour word, or "".
      size: depth, width and height, metres.
      build: puts it down.
    """

    kind: str
    colour: str
    size: Vector
    build: Callable[[Put], None]


def pick(rng: np.random.Generator, names: tuple[str, ...]) -> str:
    """One of the names, each as likely."""
    return names[rng.integers(len(names))]


def bare_wood(rng: np.random.Generator) -> Texture:
    """Wood of a random kind, without joints."""
    return wood(WOODS[rng.integers(len(WOODS))])


def table(rng: np.random.Generator, depth: float = 0.9, width: float = 1.5) -> Piece:
    """Four legs under a top."""
    top, height = bare_wood(rng), 0.76

    def build(put: Put) -> None:
        m = put.builder.material(top)
        put.box((0.0, -width / 2, height - 0.06), (depth, width / 2, height), m)
        for x in (0.05, depth - 0.13):
            for y in (-width / 2 + 0.05, width / 2 - 0.13):
                put.box((x, y, 0.0), (x + 0.08, y + 0.08, height - 0.06), m)

    return Piece("table", "", (depth, width, height), build)


def chair(rng: np.random.Generator) -> Piece:
    """Its back is at x = 0; it looks towards +x."""
    timber = bare_wood(rng)

    def build(put: Put) -> None:
        m = put.builder.material(timber)
        put.box((0.0, -0.22, 0.44), (0.46, 0.22, 0.49), m)
        put.box((0.0, -0.22, 0.49), (0.05, 0.22, 0.98), m)
        for x in (0.0, 0.40):
            for y in (-0.22, 0.16):
                put.box((x, y, 0.0), (x + 0.06, y + 0.06, 0.44), m)

    return Piece("chair", "", (0.46, 0.44, 0.98), build)


def sofa(rng: np.random.Generator) -> Piece:
    """Seat, back and two arms, in a cloth of a named colour."""
    colour = pick(rng, _CLOTHS)
    width = float(rng.uniform(1.7, 2.2))
    cloth = Texture(PAINTS[colour])
    cushion = Texture(tuple(min(1.0, 1.12 * c + 0.03) for c in PAINTS[colour]))  # type: ignore[arg-type]

    def build(put: Put) -> None:
        m, soft = put.builder.material(cloth), put.builder.material(cushion)
        put.box((0.0, -width / 2, 0.08), (0.85, width / 2, 0.34), m)
        put.box((0.0, -width / 2, 0.34), (0.22, width / 2, 0.84), m)
        for y in (-width / 2, width / 2 - 0.2):
            put.box((0.22, y, 0.34), (0.85, y + 0.2, 0.6), m)
        for y in (-width / 2 + 0.21, 0.01):
            put.box((0.22, y, 0.34), (0.84, y + width / 2 - 0.22, 0.46), soft)

    return Piece("sofa", colour, (0.85, width, 0.84), build)


def bed(rng: np.random.Generator) -> Piece:
    """A head at the wall, a blanket of a named colour."""
    colour, width = pick(rng, _CLOTHS), float(rng.uniform(1.2, 1.6))
    frame, blanket = bare_wood(rng), Texture(PAINTS[colour])

    def build(put: Put) -> None:
        m = put.builder.material(frame)
        sheet, cover = put.builder.material(PORCELAIN), put.builder.material(blanket)
        put.box((0.0, -width / 2, 0.0), (0.06, width / 2, 0.95), m)
        put.box((0.06, -width / 2, 0.12), (2.05, width / 2, 0.30), m)
        put.box((0.06, -width / 2 + 0.03, 0.30), (2.02, width / 2 - 0.03, 0.48), sheet)
        put.box((0.62, -width / 2, 0.28), (2.04, width / 2, 0.52), cover)
        for y in (-width / 4, width / 4):
            put.box((0.12, y - 0.24, 0.48), (0.5, y + 0.24, 0.58), sheet)

    return Piece("bed", colour, (2.05, width, 0.95), build)


def shelf(rng: np.random.Generator, width: float = 1.2, height: float = 1.95) -> Piece:
    """Boards between two sides, full of books."""
    timber, boards = bare_wood(rng), 5
    books = Texture(
        (0.58, 0.48, 0.42),
        joint=(0.10, 0.08, 0.07),
        cell=(0.075, 50.0),
        gap=0.012,
        tint=0.5,
        motley=0.85,
    )

    def build(put: Put) -> None:
        m, pages = put.builder.material(timber), put.builder.material(books)
        for y in (-width / 2, width / 2 - 0.05):
            put.box((0.0, y, 0.0), (0.34, y + 0.05, height), m)
        put.box((0.0, -width / 2, 0.0), (0.04, width / 2, height), m)
        step = (height - 0.1) / (boards - 1)
        for i in range(boards):
            z = 0.05 + i * step
            put.box((0.0, -width / 2, z - 0.05), (0.34, width / 2, z), m)
            if i < boards - 1:
                full = float(rng.uniform(0.55, 1.0)) * (width - 0.1)
                top = z + step * float(rng.uniform(0.62, 0.82))
                put.box((0.04, -width / 2 + 0.05, z), (0.26, -width / 2 + 0.05 + full, top), pages)

    return Piece("shelf", "", (0.34, width, height), build)


def tree(rng: np.random.Generator) -> Piece:
    """A small tree in a pot."""
    height = float(rng.uniform(1.1, 1.7))

    def build(put: Put) -> None:
        clay, green = put.builder.material(CLAY), put.builder.material(LEAVES)
        trunk = put.builder.material(wood(WOODS[0], upright=True))
        put.cylinder((0.3, 0.0, 0.19), 0.19, 0.19, clay)
        put.cylinder((0.3, 0.0, 0.5), 0.03, 0.3, trunk)
        put.ellipsoid((0.3, 0.0, height - 0.36), (0.28, 0.28, 0.36), green)
        put.ellipsoid((0.33, 0.1, 0.72), (0.24, 0.2, 0.2), green)

    return Piece("tree", "", (0.62, 0.62, height), build)


def bench(rng: np.random.Generator, width: float = 1.5, back: bool = False) -> Piece:
    """A board on two blocks; a church's has a back."""
    timber = bare_wood(rng)

    def build(put: Put) -> None:
        m = put.builder.material(timber)
        put.box((0.0, -width / 2, 0.40), (0.42, width / 2, 0.46), m)
        for y in (-width / 2 + 0.05, width / 2 - 0.13):
            put.box((0.03, y, 0.0), (0.39, y + 0.08, 0.40), m)
        if back:
            put.box((0.0, -width / 2, 0.46), (0.05, width / 2, 0.9), m)

    return Piece("", "", (0.42, width, 0.9 if back else 0.46), build)


def counter(rng: np.random.Generator, width: float) -> Piece:
    """A kitchen's cupboards under a worktop, and others above."""
    colour = pick(rng, ("white", "blue", "green", "red", "beige", "yellow"))
    doors = Texture(PAINTS[colour], joint=(0.2, 0.18, 0.17), cell=(0.6, 50.0), gap=0.02)
    top = bare_wood(rng)

    def build(put: Put) -> None:
        m, board = put.builder.material(doors), put.builder.material(top)
        steel = put.builder.material(STEEL)
        put.box((0.05, -width / 2, 0.0), (0.54, width / 2, 0.1), steel)
        put.box((0.0, -width / 2, 0.1), (0.58, width / 2, 0.86), m)
        put.box((0.0, -width / 2, 0.86), (0.62, width / 2, 0.91), board)
        put.box((0.0, -width / 2, 1.45), (0.34, width / 2, 2.1), m)
        put.box((0.12, -0.25, 0.91), (0.5, 0.25, 0.915), steel)

    return Piece("", colour, (0.62, width, 2.1), build)


def fridge(rng: np.random.Generator) -> Piece:
    """Tall, white or steel, with a line between its two doors."""
    coat = PORCELAIN if rng.uniform() < 0.6 else STEEL

    def build(put: Put) -> None:
        m, steel = put.builder.material(coat), put.builder.material(STEEL)
        put.box((0.0, -0.32, 0.0), (0.6, 0.32, 1.2), m)
        put.box((0.0, -0.32, 1.22), (0.6, 0.32, 1.75), m)
        put.box((0.0, -0.30, 1.2), (0.58, 0.30, 1.22), steel)
        put.box((0.6, 0.22, 0.8), (0.64, 0.26, 1.1), steel)

    return Piece("", "", (0.64, 0.64, 1.75), build)


def bathtub(rng: np.random.Generator) -> Piece:
    """Four walls of porcelain about water, its long side at the wall."""
    width = float(rng.uniform(1.5, 1.8))
    water = Texture((0.60, 0.78, 0.82))

    def build(put: Put) -> None:
        m, w = put.builder.material(PORCELAIN), put.builder.material(water)
        put.box((0.0, -width / 2, 0.0), (0.75, width / 2, 0.1), m)
        put.box((0.0, -width / 2, 0.1), (0.08, width / 2, 0.58), m)
        put.box((0.67, -width / 2, 0.1), (0.75, width / 2, 0.58), m)
        put.box((0.08, -width / 2, 0.1), (0.67, -width / 2 + 0.08, 0.58), m)
        put.box((0.08, width / 2 - 0.08, 0.1), (0.67, width / 2, 0.58), m)
        put.box((0.08, -width / 2 + 0.08, 0.1), (0.67, width / 2 - 0.08, 0.42), w)

    return Piece("", "", (0.75, width, 0.58), build)


def sink(rng: np.random.Generator) -> Piece:
    """A basin on a foot under a mirror."""
    del rng
    glass = Texture((0.74, 0.84, 0.88))

    def build(put: Put) -> None:
        m, mirror = put.builder.material(PORCELAIN), put.builder.material(glass)
        put.cylinder((0.24, 0.0, 0.36), 0.09, 0.36, m)
        put.box((0.0, -0.3, 0.72), (0.48, 0.3, 0.88), m)
        put.box((0.0, -0.3, 1.15), (0.03, 0.3, 1.85), mirror)

    return Piece("", "", (0.48, 0.6, 1.85), build)


def exhibit(rng: np.random.Generator) -> Piece:
    """A museum's pedestal with a vase, a ball, a column or a cube."""
    coat, which = Texture(PAINTS[pick(rng, ("white", "grey", "black"))]), int(rng.integers(4))
    shown = Texture(PAINTS[pick(rng, _CLOTHS)])

    def build(put: Put) -> None:
        m, art = put.builder.material(coat), put.builder.material(shown)
        put.box((0.0, -0.25, 0.0), (0.5, 0.25, 0.95), m)
        if which == 0:
            put.ellipsoid((0.25, 0.0, 1.15), (0.17, 0.17, 0.2), art)
            put.cylinder((0.25, 0.0, 1.4), 0.08, 0.1, art)
        elif which == 1:
            put.ellipsoid((0.25, 0.0, 1.16), (0.21, 0.21, 0.21), art)
        elif which == 2:
            put.cylinder((0.25, 0.0, 1.25), 0.12, 0.3, art)
        else:
            put.box((0.08, -0.17, 0.95), (0.42, 0.17, 1.29), art)

    return Piece("", "", (0.5, 0.5, 1.5), build)


def stores(rng: np.random.Generator) -> Piece:
    """What stands in a cellar: a barrel, or crates."""
    timber = bare_wood(rng)
    if rng.uniform() < 0.5:

        def barrel(put: Put) -> None:
            m, hoop = put.builder.material(timber), put.builder.material(STEEL)
            put.cylinder((0.36, 0.0, 0.45), 0.33, 0.45, m)
            for z in (0.2, 0.7):
                put.cylinder((0.36, 0.0, z), 0.345, 0.04, hoop)

        return Piece("", "", (0.72, 0.72, 0.9), barrel)

    def crates(put: Put) -> None:
        m = put.builder.material(timber._replace(cell=(9.0, 0.15), gap=0.015, joint=(0.1,) * 3))
        put.box((0.0, -0.35, 0.0), (0.6, 0.3, 0.55), m)
        put.box((0.05, -0.25, 0.55), (0.5, 0.2, 0.98), m)

    return Piece("", "", (0.6, 0.7, 0.98), crates)


def rug(rng: np.random.Generator, depth: float, width: float) -> Piece:
    """A flat rug with a border of another shade."""
    colour = pick(rng, ("red", "blue", "green", "purple", "beige", "grey"))
    cloth = Texture(
        PAINTS[colour],
        other=(0.9, 0.86, 0.76),
        cell=(0.22, 0.22),
        checker=(0.0, 0.0),
        grain=0.35,
        pitch=(9.0, 9.0),
    )
    hem = Texture(tuple(0.55 * c for c in PAINTS[colour]))  # type: ignore[arg-type]

    def build(put: Put) -> None:
        m, edge = put.builder.material(cloth), put.builder.material(hem)
        put.box((0.0, -width / 2, 0.0), (depth, width / 2, 0.008), edge)
        put.box((0.12, -width / 2 + 0.12, 0.0), (depth - 0.12, width / 2 - 0.12, 0.014), m)

    return Piece("rug", colour, (depth, width, 0.014), build)
