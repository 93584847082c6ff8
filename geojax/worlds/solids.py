"""The object world: twelve kinds of solid in eight colours, each an exact signed distance.

Every solid lies in the ball of radius `BALL` about the origin, z up, its front towards +x (azimuth
0), its left towards -y (what a camera in front sees on the left). A solid is a function from points
to distances of two materials: the *body*, which takes the colour of the prompt, and the *accent*,
which has a colour of its own (a tree's trunk). The solid's distance is the smaller one.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from geojax.worlds import shapes
from geojax.worlds.shapes import Distances, Points

BALL = 0.5
"""Every solid fits into a ball of this radius about the origin."""

# Body and accent. A solid of one material has an accent infinitely far away.
_FAR = 1e3

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.85, 0.10, 0.10),
    "orange": (0.95, 0.50, 0.08),
    "yellow": (0.95, 0.85, 0.12),
    "green": (0.13, 0.62, 0.18),
    "turquoise": (0.15, 0.78, 0.78),
    "blue": (0.12, 0.25, 0.85),
    "purple": (0.50, 0.15, 0.70),
    "pink": (0.98, 0.50, 0.72),
}
"""Linear-light albedo of each colour word, in [0, 1]."""

WOOD = (0.42, 0.26, 0.13)
CREAM = (0.93, 0.88, 0.76)
SLATE = (0.22, 0.22, 0.25)


class Kind(NamedTuple):
    """One kind of solid.

    Attributes:
      distances: points [..., 3] -> (body, accent) distances [...].
      accent: albedo of the accent, in [0, 1].
      cavity: whether it has a concavity that no silhouette shows; its IoU is then that of hulls.
    """

    distances: Callable[[Points], tuple[Distances, Distances]]
    accent: tuple[float, float, float] = SLATE
    cavity: bool = False


def _scaled(
    distances: Callable[[Points], tuple[Distances, Distances]], scale: float
) -> Callable[[Points], tuple[Distances, Distances]]:
    """The same solid, smaller: a distance scales with its space."""

    def scaled(p: Points) -> tuple[Distances, Distances]:
        body, accent = distances(p / scale)
        return body * scale, accent * scale

    return scaled


def _plain(distance: Distances) -> tuple[Distances, Distances]:
    return distance, jnp.full_like(distance, _FAR)


def _ball(p: Points) -> tuple[Distances, Distances]:
    return _plain(shapes.sphere(p, (0.0, 0.0, 0.0), 0.38))


def _cube(p: Points) -> tuple[Distances, Distances]:
    return _plain(shapes.box(p, (0.0, 0.0, 0.0), (0.28, 0.28, 0.28), 0.02))


def _cylinder(p: Points) -> tuple[Distances, Distances]:
    return _plain(shapes.cylinder(p, (0.0, 0.0, 0.0), 0.25, 0.38, 0.02))


def _cone(p: Points) -> tuple[Distances, Distances]:
    return _plain(shapes.cone(p, -0.32, 0.46, 0.36))


def _donut(p: Points) -> tuple[Distances, Distances]:
    return _plain(shapes.torus(p, (0.0, 0.0, 0.0), 0.31, 0.15, axis=2))


def _snowman(p: Points) -> tuple[Distances, Distances]:
    body = jnp.minimum(
        shapes.sphere(p, (0.0, 0.0, -0.2), 0.28), shapes.sphere(p, (0.0, 0.0, 0.17), 0.19)
    )
    brim = shapes.cylinder(p, (0.0, 0.0, 0.32), 0.18, 0.025)
    crown = shapes.cylinder(p, (0.0, 0.0, 0.39), 0.11, 0.08)
    nose = shapes.ellipsoid(p, (0.23, 0.0, 0.17), (0.12, 0.045, 0.045))
    return body, jnp.minimum(jnp.minimum(brim, crown), nose)


def _table(p: Points) -> tuple[Distances, Distances]:
    top = shapes.box(p, (0.0, 0.0, 0.2), (0.28, 0.39, 0.055), 0.015)
    # The four legs are one leg, mirrored.
    q = jnp.stack([jnp.abs(p[..., 0]), jnp.abs(p[..., 1]), p[..., 2]], axis=-1)
    leg = shapes.box(q, (0.21, 0.31, -0.09), (0.06, 0.06, 0.25), 0.01)
    return _plain(jnp.minimum(top, leg))


def _chair(p: Points) -> tuple[Distances, Distances]:
    seat = shapes.box(p, (0.0, 0.0, -0.05), (0.25, 0.24, 0.055), 0.015)
    back = shapes.box(p, (-0.2, 0.0, 0.2), (0.055, 0.24, 0.28), 0.015)
    q = jnp.stack([jnp.abs(p[..., 0]), jnp.abs(p[..., 1]), p[..., 2]], axis=-1)
    leg = shapes.box(q, (0.19, 0.18, -0.23), (0.055, 0.055, 0.2), 0.01)
    return _plain(jnp.minimum(jnp.minimum(seat, back), leg))


def _mug(p: Points) -> tuple[Distances, Distances]:
    outer = shapes.cylinder(p, (0.0, -0.08, 0.0), 0.27, 0.32, 0.03)
    inner = shapes.cylinder(p, (0.0, -0.08, 0.1), 0.21, 0.32)
    # The handle is on the right of a camera in front; what would show inside the cup is cut off.
    handle = shapes.torus(p, (0.0, 0.2, 0.0), 0.17, 0.05, axis=0)
    return _plain(jnp.maximum(jnp.minimum(outer, handle), -inner))


def _mushroom(p: Points) -> tuple[Distances, Distances]:
    dome = shapes.ellipsoid(p, (0.0, 0.0, 0.05), (0.4, 0.4, 0.33))
    cap = jnp.maximum(dome, 0.03 - p[..., 2])
    stem = shapes.cylinder(p, (0.0, 0.0, -0.18), 0.14, 0.24, 0.03)
    return cap, stem


def _tree(p: Points) -> tuple[Distances, Distances]:
    crown = jnp.minimum(shapes.cone(p, -0.22, 0.24, 0.37), shapes.cone(p, 0.05, 0.48, 0.27))
    trunk = shapes.cylinder(p, (0.0, 0.0, -0.32), 0.1, 0.15)
    return crown, trunk


def _house(p: Points) -> tuple[Distances, Distances]:
    walls = shapes.box(p, (0.0, 0.0, -0.14), (0.25, 0.32, 0.2))
    roof = shapes.wedge(p, 0.04, 0.34, 0.31, 0.37)
    door = shapes.box(p, (0.25, 0.1, -0.2), (0.02, 0.075, 0.14))
    chimney = shapes.box(p, (-0.12, -0.2, 0.3), (0.06, 0.06, 0.12))
    return walls, jnp.minimum(jnp.minimum(roof, door), chimney)


KINDS: dict[str, Kind] = {
    "ball": Kind(_ball),
    "cube": Kind(_cube),
    "cylinder": Kind(_cylinder),
    "cone": Kind(_cone),
    "donut": Kind(_donut, cavity=True),
    "snowman": Kind(_snowman),
    "table": Kind(_scaled(_table, 0.86), cavity=True),
    "chair": Kind(_scaled(_chair, 0.85), cavity=True),
    "mug": Kind(_mug, cavity=True),
    "mushroom": Kind(_mushroom, accent=CREAM),
    "tree": Kind(_tree, accent=WOOD),
    "house": Kind(_scaled(_house, 0.93)),
}

HELD_OUT: frozenset[tuple[str, str]] = frozenset(
    [
        ("ball", "purple"),
        ("ball", "yellow"),
        ("cube", "orange"),
        ("cube", "turquoise"),
        ("cylinder", "pink"),
        ("cylinder", "green"),
        ("cone", "yellow"),
        ("cone", "blue"),
        ("donut", "turquoise"),
        ("donut", "red"),
        ("snowman", "green"),
        ("snowman", "orange"),
        ("table", "red"),
        ("table", "turquoise"),
        ("chair", "blue"),
        ("chair", "yellow"),
        ("mug", "red"),
        ("mug", "green"),
        ("mushroom", "purple"),
        ("mushroom", "red"),
        ("tree", "pink"),
        ("tree", "blue"),
        ("house", "orange"),
        ("house", "purple"),
    ]
)
"""Kind x colour pairs that no model of the family is trained on: two a kind, three a colour."""


def signed_distance(kind: str, points: Points) -> Distances:
    """Signed distance of a solid.

    Args:
      kind: one of `KINDS`.
      points: [..., 3] in world units.

    Returns:
      distances [...], negative inside.

    Raises:
      ValueError: the kind is unknown.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; expected one of {sorted(KINDS)}")
    return jnp.minimum(*KINDS[kind].distances(points))


def occupancy_grid(kind: str, resolution: int, bound: float) -> np.ndarray:
    """Cells of [-bound, bound]^3 whose centres are inside the solid: bool [N, N, N] in x, y, z."""
    centres = ((np.arange(resolution) + 0.5) / resolution * 2.0 - 1.0) * bound
    grid = np.stack(np.meshgrid(centres, centres, centres, indexing="ij"), axis=-1)
    inside: Float[Array, "N N N"] = signed_distance(kind, jnp.asarray(grid, jnp.float32)) < 0.0
    return np.asarray(inside)
