"""What the surfaces of rooms are made of: named materials in named colours, as rows of numbers.

Every material is one texture function (`room_textures.albedo`) with other numbers: a grid of cells
with joints between them (brick, stone, tiles, planks), cells that alternate or vary in colour
(checkers, stripes, books), a grain (plaster, wood, carpet) and veins (marble). Lengths are metres.
"""

from typing import NamedTuple

import numpy as np

PAINTS: dict[str, tuple[float, float, float]] = {
    "white": (0.93, 0.92, 0.89),
    "grey": (0.56, 0.57, 0.58),
    "black": (0.14, 0.14, 0.15),
    "brown": (0.47, 0.30, 0.17),
    "beige": (0.85, 0.75, 0.58),
    "red": (0.70, 0.20, 0.16),
    "orange": (0.90, 0.54, 0.22),
    "yellow": (0.93, 0.80, 0.38),
    "green": (0.38, 0.60, 0.36),
    "turquoise": (0.34, 0.70, 0.68),
    "blue": (0.27, 0.44, 0.72),
    "purple": (0.52, 0.36, 0.64),
    "pink": (0.91, 0.62, 0.68),
}
"""Display-encoded colour of each colour word, in [0, 1]: muted, as paint is."""

GAMMA = 2.2
"""Albedo = display colour ** GAMMA."""

_FLAT = 1e4  # a cell so large that its edge is never seen, metres


class Texture(NamedTuple):
    """The numbers of one texture; `row` lays them out in this order.

    Attributes:
      colour: display-encoded colour of a cell.
      other: the second colour, of checkers, stripes and grain.
      joint: colour of joints and veins.
      cell: width and height of a cell, metres.
      gap: width of a joint, metres.
      bond: shift of each row against the one below, in cells.
      checker: 1 where cells alternate between the two colours along (u, v).
      tint: relative spread of a cell's brightness.
      motley: relative spread of each channel of a cell.
      grain: share of the second colour that the grain mixes in.
      pitch: frequency of the grain along u and v, 1/metre.
      vein: strength of the veins.
      glow: share of its colour that shines without any light.
      turned: 1 to exchange u and v (upright planks).
    """

    colour: tuple[float, float, float]
    other: tuple[float, float, float] = (0.5, 0.5, 0.5)
    joint: tuple[float, float, float] = (0.5, 0.5, 0.5)
    cell: tuple[float, float] = (_FLAT, _FLAT)
    gap: float = 0.0
    bond: float = 0.0
    checker: tuple[float, float] = (0.0, 0.0)
    tint: float = 0.0
    motley: float = 0.0
    grain: float = 0.0
    pitch: tuple[float, float] = (4.0, 4.0)
    vein: float = 0.0
    glow: float = 0.0
    turned: float = 0.0


ROW = 24
"""Numbers of a row: those of a texture, and the offset of its cells."""


class Surface(NamedTuple):
    """A material in a colour, as captions name it: `Surface("brick", "red")`."""

    material: str
    colour: str


WALLS: dict[str, tuple[str, ...]] = {
    "brick": ("red", "brown", "white", "yellow", "grey"),
    "stone": ("grey", "beige", "brown"),
    "wooden": ("brown", "beige", "white", "green"),
    "plaster": ("white", "yellow", "green", "blue", "pink", "orange", "turquoise", "purple", "red"),
    "tiled": ("white", "blue", "green", "turquoise", "pink"),
    "marble": ("white", "green", "black", "pink"),
    "concrete": ("grey",),
    "striped": ("red", "blue", "green", "yellow", "purple"),
}
"""Materials of walls, and the colours that each comes in."""

FLOORS: dict[str, tuple[str, ...]] = {
    "wooden": ("brown", "beige", "grey"),
    "tiled": ("white", "red", "blue", "grey", "green"),
    "checkered": ("black", "red", "blue", "green"),
    "marble": ("white", "black", "green", "pink"),
    "carpet": ("red", "blue", "green", "grey", "purple", "beige"),
    "concrete": ("grey",),
    "stone": ("grey", "beige", "brown"),
    "brick": ("red", "brown"),
}
"""Materials of floors, and their colours; a checkered floor alternates its colour with white."""

HELD_OUT: frozenset[tuple[str, str]] = frozenset(
    {
        ("brick", "checkered"),
        ("brick", "carpet"),
        ("stone", "wooden"),
        ("wooden", "tiled"),
        ("plaster", "stone"),
        ("tiled", "concrete"),
        ("marble", "brick"),
        ("concrete", "marble"),
        ("striped", "tiled"),
        ("plaster", "checkered"),
    }
)
"""Pairs (wall material, floor material) that are never trained on."""


def _mix(a: tuple[float, ...], b: tuple[float, ...], share: float) -> tuple[float, float, float]:
    x, y, z = ((1.0 - share) * p + share * q for p, q in zip(a, b, strict=True))
    return x, y, z


_DARK, _LIGHT = (0.10, 0.08, 0.07), (0.97, 0.95, 0.92)


def wood(colour: tuple[float, float, float], upright: bool = False) -> Texture:
    """Bare wood without joints, for furniture: a grain along u, or along v where upright."""
    return Texture(
        colour,
        other=_mix(colour, _DARK, 0.45),
        grain=0.6,
        pitch=(1.5, 22.0),
        turned=float(upright),
    )


def paint(colour: str) -> Texture:
    """A plain coat of a named colour."""
    return Texture(PAINTS[colour])


def wall_texture(surface: Surface) -> Texture:
    """The texture of a wall; u runs along the wall, v upward.

    Raises:
      ValueError: for a material that is no wall's.
    """
    material, colour = surface.material, PAINTS[surface.colour]
    dark, light = _mix(colour, _DARK, 0.3), _mix(colour, _LIGHT, 0.25)
    if material == "brick":
        mortar = (0.80, 0.77, 0.72) if surface.colour != "white" else (0.60, 0.58, 0.56)
        return Texture(
            colour,
            other=dark,
            joint=mortar,
            cell=(0.42, 0.17),
            gap=0.026,
            bond=0.5,
            tint=0.30,
            motley=0.10,
            grain=0.25,
            pitch=(9.0, 9.0),
        )
    if material == "stone":
        colour = _mix(colour, PAINTS["grey"], 0.45)
        return Texture(
            colour,
            other=_mix(colour, _DARK, 0.3),
            joint=_mix(colour, _DARK, 0.62),
            cell=(0.85, 0.45),
            gap=0.035,
            bond=0.37,
            tint=0.42,
            motley=0.07,
            grain=0.5,
            pitch=(5.0, 5.0),
        )
    if material == "wooden":
        return Texture(
            colour,
            other=_mix(colour, _DARK, 0.4),
            joint=_mix(colour, _DARK, 0.75),
            cell=(_FLAT, 0.24),
            gap=0.022,
            tint=0.26,
            grain=0.5 if surface.colour in ("brown", "beige") else 0.15,
            pitch=(1.0, 16.0),
            turned=1.0,
        )
    if material == "plaster":
        return Texture(light, other=dark, grain=0.14, pitch=(1.3, 1.3))
    if material == "tiled":
        joint = (0.62, 0.63, 0.64) if surface.colour == "white" else (0.93, 0.92, 0.90)
        return Texture(colour, joint=joint, cell=(0.32, 0.32), gap=0.024, tint=0.12)
    if material == "marble":
        return _marble(colour, cell=(1.3, 1.3))
    if material == "concrete":
        return Texture(
            _mix(colour, _LIGHT, 0.12),
            other=dark,
            joint=_mix(colour, _DARK, 0.5),
            cell=(1.8, 1.2),
            gap=0.022,
            tint=0.10,
            grain=0.5,
            pitch=(2.2, 2.2),
        )
    if material == "striped":
        return Texture(
            colour, other=(0.93, 0.89, 0.80), cell=(0.28, _FLAT), checker=(1.0, 0.0), grain=0.0
        )
    raise ValueError(f"no wall is of {material!r}; walls are of {', '.join(WALLS)}")


def floor_texture(surface: Surface) -> Texture:
    """The texture of a floor; u runs along x, v along y.

    Raises:
      ValueError: for a material that is no floor's.
    """
    material, colour = surface.material, PAINTS[surface.colour]
    dark = _mix(colour, _DARK, 0.35)
    if material == "wooden":
        return Texture(
            colour,
            other=dark,
            joint=_mix(colour, _DARK, 0.75),
            cell=(2.1, 0.22),
            gap=0.018,
            bond=0.38,
            tint=0.34,
            grain=0.5,
            pitch=(1.0, 16.0),
        )
    if material == "tiled":
        joint = _mix(colour, _DARK, 0.45) if surface.colour == "white" else _LIGHT
        return Texture(colour, joint=joint, cell=(0.5, 0.5), gap=0.03, tint=0.14)
    if material == "checkered":
        return Texture(
            colour,
            other=(0.92, 0.91, 0.87),
            joint=(0.5, 0.5, 0.5),
            cell=(0.5, 0.5),
            checker=(1.0, 1.0),
            tint=0.06,
        )
    if material == "marble":
        return _marble(colour, cell=(1.0, 1.0))
    if material == "carpet":
        return Texture(colour, other=dark, grain=0.45, pitch=(14.0, 14.0))
    if material == "concrete":
        return Texture(colour, other=dark, grain=0.6, pitch=(1.6, 1.6))
    if material == "stone":
        colour = _mix(colour, PAINTS["grey"], 0.45)
        return Texture(
            colour,
            other=_mix(colour, _DARK, 0.35),
            joint=_mix(colour, _DARK, 0.6),
            cell=(0.8, 0.6),
            gap=0.035,
            bond=0.43,
            tint=0.40,
            motley=0.07,
            grain=0.4,
            pitch=(4.0, 4.0),
        )
    if material == "brick":
        return Texture(
            colour,
            other=dark,
            joint=(0.72, 0.68, 0.62),
            cell=(0.42, 0.2),
            gap=0.026,
            bond=0.5,
            tint=0.32,
            motley=0.10,
        )
    raise ValueError(f"no floor is of {material!r}; floors are of {', '.join(FLOORS)}")


def _marble(colour: tuple[float, float, float], cell: tuple[float, float]) -> Texture:
    bright = sum(colour) > 1.2
    vein = _mix(colour, _DARK, 0.6) if bright else _LIGHT
    return Texture(
        colour,
        other=_mix(colour, _DARK if bright else _LIGHT, 0.22),
        joint=vein,
        cell=cell,
        gap=0.014,
        tint=0.08,
        grain=0.6,
        pitch=(1.7, 1.1),
        vein=0.6,
    )


def row(texture: Texture, offset: float = 0.0) -> np.ndarray:
    """A texture as numbers [ROW] float32: colours as albedo, cells as frequencies.

    Args:
      texture: the texture.
      offset: metres by which its cells and its grain are shifted, so that no two walls are alike.
    """
    colours = [np.asarray(c, np.float64) ** GAMMA for c in texture[:3]]
    numbers = np.concatenate([*colours, *(np.atleast_1d(n) for n in texture[3:]), [offset]])
    return numbers.astype(np.float32)
