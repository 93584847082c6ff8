"""A room as pure data: boxes, round solids, materials and lights in arrays of fixed size.

All scenes have arrays of the same shapes, so that a renderer compiles once; how many entries are in
use is data. World: right-handed, z up, metres. Boxes are axis-aligned. A round solid is upright:
a cylinder |(x - c) / r|_xy <= 1, |z - c_z| <= r_z, or an ellipsoid |(x - c) / r| <= 1.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from geojax.worlds import room_materials
from geojax.worlds.room_materials import ROW, Surface, Texture

MAX_BOXES, MAX_ROUNDS, MAX_MATERIALS, MAX_LIGHTS = 208, 40, 48, 12
"""Capacities. Boxes and rounds together are at most 256: an index has 8 bits in the renderer."""

_NOWHERE = 1e5  # where unused entries are, metres

Numbers = Float[Array, "..."] | Float[np.ndarray, "..."]
Vector = tuple[float, float, float]


class Scene(NamedTuple):
    """What a renderer needs; NumPy or JAX arrays, with any leading batch shape.

    Attributes:
      low, high: corners of the boxes, [boxes, 3].
      centre, radii: of the round solids, [rounds, 3].
      ellipsoid: 1 for an ellipsoid, 0 for a cylinder, [rounds].
      material: index of the row of each primitive, boxes first, [boxes + rounds].
      thing: index of what each primitive is part of, into `Room.things`, [boxes + rounds].
      used: how many boxes and rounds there are, [2].
      textures: rows of `room_materials.row`, [materials, ROW].
      light: positions, [lights, 3].
      light_colour: radiant intensity, 0 for unused lights, [lights, 3].
      light_normal: direction in which a light shines; 0 for all directions, [lights, 3].
      zone_low, zone_high: the space that each light lights, [lights, 3].
      ambient: light from everywhere, [3].
      sun: unit vector towards the sun, [3].
      sun_colour: irradiance of the sun, 0 without sun, [3].
      sky: display colour at the horizon and at the zenith, [2, 3].
    """

    low: Numbers
    high: Numbers
    centre: Numbers
    radii: Numbers
    ellipsoid: Numbers
    material: Int[Array, "..."] | Int[np.ndarray, "..."]
    thing: Int[Array, "..."] | Int[np.ndarray, "..."]
    used: Int[Array, "..."] | Int[np.ndarray, "..."]
    textures: Numbers
    light: Numbers
    light_colour: Numbers
    light_normal: Numbers
    zone_low: Numbers
    zone_high: Numbers
    ambient: Numbers
    sun: Numbers
    sun_colour: Numbers
    sky: Numbers


class Space(NamedTuple):
    """One closed space between walls: a corridor or a room.

    Attributes:
      kind: what it is called: "corridor", "kitchen", ...
      low, high: corners of its air, metres.
      wall, floor: what they are made of.
    """

    kind: str
    low: Vector
    high: Vector
    wall: Surface
    floor: Surface


class Thing(NamedTuple):
    """What primitives are part of, as a caption names it.

    Attributes:
      kind: "wall", "floor", "door", "table", ...; "" for what no caption names.
      colour: colour word, or "" where a caption is silent about it.
      space: index of the space that it stands in.
    """

    kind: str
    colour: str
    space: int


@dataclass(frozen=True)
class Room:
    """A scene and its structured description.

    Attributes:
      scene: the arrays.
      spaces: the spaces; the first is the main one.
      things: what `Scene.thing` indexes.
      dark: whether it is night.
      sunny: whether the sun shines in.
    """

    scene: Scene
    spaces: tuple[Space, ...]
    things: tuple[Thing, ...]
    dark: bool
    sunny: bool


class Frame(NamedTuple):
    """A place for furniture: +x away from the wall, +y to the left of that, z up, in metres."""

    origin: Vector
    turns: int  # quarter turns, counter-clockwise from above

    def point(self, p: Vector) -> Vector:
        """A local point in the world."""
        x, y = p[0], p[1]
        for _ in range(self.turns % 4):
            x, y = -y, x
        return (self.origin[0] + x, self.origin[1] + y, self.origin[2] + p[2])

    def box(self, low: Vector, high: Vector) -> tuple[Vector, Vector]:
        """A local box in the world: its corners, sorted."""
        a, b = self.point(low), self.point(high)
        return sorted_corners(a, b)


def sorted_corners(a: Vector, b: Vector) -> tuple[Vector, Vector]:
    """(low, high) of the box between two opposite corners."""
    pairs = [(min(p, q), max(p, q)) for p, q in zip(a, b, strict=True)]
    (x0, x1), (y0, y1), (z0, z1) = pairs
    return (x0, y0, z0), (x1, y1, z1)


class Put(NamedTuple):
    """How a piece of furniture is put down: its builder, its place, and what it is called."""

    builder: "Builder"
    frame: Frame
    thing: int

    def box(self, low: Vector, high: Vector, material: int) -> None:
        """Add a box between two local corners."""
        self.builder.box(*self.frame.box(low, high), material, self.thing)

    def cylinder(self, centre: Vector, radius: float, half: float, material: int) -> None:
        """Add an upright cylinder about a local centre, `half` its height."""
        self._round(centre, (radius, radius, half), material, 0.0)

    def ellipsoid(self, centre: Vector, radii: Vector, material: int) -> None:
        """Add an ellipsoid about a local centre; `radii` along local axes."""
        if self.frame.turns % 2:
            radii = (radii[1], radii[0], radii[2])
        self._round(centre, radii, material, 1.0)

    def _round(self, centre: Vector, radii: Vector, material: int, ellipsoid: float) -> None:
        self.builder.rounds.append(
            (self.frame.point(centre), radii, ellipsoid, material, self.thing)
        )


@dataclass
class Builder:
    """Collects a scene on the host; `scene` packs it."""

    rng: np.random.Generator
    boxes: list[tuple[Vector, Vector, int, int]] = field(default_factory=list)
    rounds: list[tuple[Vector, Vector, float, int, int]] = field(default_factory=list)
    things: list[Thing] = field(default_factory=list)
    lights: list[tuple[Vector, Vector, Vector, Vector, Vector]] = field(default_factory=list)
    occupied: list[tuple[Vector, Vector]] = field(default_factory=list)
    _materials: dict[Texture, int] = field(default_factory=dict)

    def material(self, texture: Texture) -> int:
        """The index of a texture; equal textures share one."""
        return self._materials.setdefault(texture, len(self._materials))

    def thing(self, kind: str, colour: str, space: int) -> int:
        """A new thing's index."""
        self.things.append(Thing(kind, colour, space))
        return len(self.things) - 1

    def box(self, low: Vector, high: Vector, material: int, thing: int) -> None:
        """Add a box in the world."""
        self.boxes.append((low, high, material, thing))

    def shine(
        self,
        position: Vector,
        colour: Vector,
        space: Space,
        normal: Vector = (0.0, 0.0, 0.0),
    ) -> None:
        """Add a light that lights one space; beyond the capacity, lights are left out."""
        if len(self.lights) < MAX_LIGHTS:
            self.lights.append((position, colour, normal, space.low, space.high))

    def free(self, low: Vector, high: Vector) -> bool:
        """Whether a box overlaps nothing that is already occupied."""
        return not any(
            all(low[i] < b[i] and a[i] < high[i] for i in range(3)) for a, b in self.occupied
        )

    def put(
        self, frame: Frame, kind: str, colour: str, space: int, build: Callable[[Put], None]
    ) -> bool:
        """Build a piece, whatever is in its way: all of it, or nothing when the scene is full.

        Returns:
          whether it was built.
        """
        grown: tuple[list[Any], ...] = (self.boxes, self.rounds, self.things)
        before, materials = [len(part) for part in grown], len(self._materials)
        build(Put(self, frame, self.thing(kind, colour, space)))
        if not self._over():
            return True
        for part, length in zip(grown, before, strict=True):
            del part[length:]
        for texture in list(self._materials)[materials:]:
            del self._materials[texture]
        return False

    def place(
        self,
        size: Vector,
        frame: Frame,
        kind: str,
        colour: str,
        space: int,
        build: Callable[[Put], None],
    ) -> bool:
        """Build a piece of (depth, width, height) at a place unless something is in the way.

        Returns:
          whether it was built: False too when the scene is full.
        """
        depth, width, height = size
        low, high = frame.box((0.0, -0.5 * width, 0.0), (depth, 0.5 * width, height))
        if not self.free(low, high) or not self.put(frame, kind, colour, space, build):
            return False
        self.occupied.append((low, high))
        return True

    def _over(self) -> list[str]:
        """What exceeds its capacity."""
        return [
            f"at most {most} {what}, got {used}"
            for what, used, most in (
                ("boxes", len(self.boxes), MAX_BOXES),
                ("rounds", len(self.rounds), MAX_ROUNDS),
                ("materials", len(self._materials), MAX_MATERIALS),
            )
            if used > most
        ]

    def scene(
        self, ambient: Vector, sun: Vector, sun_colour: Vector, sky: tuple[Vector, Vector]
    ) -> Scene:
        """The arrays of what was collected.

        Raises:
          ValueError: when a capacity is exceeded.
        """
        if over := self._over():
            raise ValueError(f"a scene holds {' and '.join(over)}")
        box = [np.asarray(column) for column in zip(*self.boxes, strict=True)]
        ball = [np.asarray(column) for column in zip(*self.rounds, strict=True)]
        lamp = [np.asarray(column) for column in zip(*self.lights, strict=True)]
        nowhere, none = np.full(3, _NOWHERE), np.zeros(3)

        def padded(
            columns: list[np.ndarray], i: int, size: int, fill: np.ndarray | float
        ) -> Shaped[np.ndarray, "..."]:
            shape = (size, *np.shape(fill))
            out = np.broadcast_to(fill, shape).astype(np.float32)
            if columns:
                out[: len(columns[i])] = columns[i]
            return out

        def labels(i: int, j: int) -> Int[np.ndarray, "p"]:
            parts = padded(box, i, MAX_BOXES, 0.0), padded(ball, j, MAX_ROUNDS, 0.0)
            return np.concatenate(parts).astype(np.int32)

        offsets = self.rng.uniform(0.0, 9.0, len(self._materials))
        rows = [room_materials.row(t, o) for t, o in zip(self._materials, offsets, strict=True)]
        return Scene(
            low=padded(box, 0, MAX_BOXES, nowhere),
            high=padded(box, 1, MAX_BOXES, nowhere),
            centre=padded(ball, 0, MAX_ROUNDS, nowhere),
            radii=padded(ball, 1, MAX_ROUNDS, np.ones(3)),
            ellipsoid=padded(ball, 2, MAX_ROUNDS, 0.0),
            material=labels(2, 3),
            thing=labels(3, 4),
            used=np.asarray([len(self.boxes), len(self.rounds)], np.int32),
            textures=padded([np.asarray(rows)], 0, MAX_MATERIALS, np.ones(ROW)),
            light=padded(lamp, 0, MAX_LIGHTS, none),
            light_colour=padded(lamp, 1, MAX_LIGHTS, none),
            light_normal=padded(lamp, 2, MAX_LIGHTS, none),
            zone_low=padded(lamp, 3, MAX_LIGHTS, none),
            zone_high=padded(lamp, 4, MAX_LIGHTS, none),
            ambient=np.asarray(ambient, np.float32),
            sun=np.asarray(sun, np.float32),
            sun_colour=np.asarray(sun_colour, np.float32),
            sky=np.asarray(sky, np.float32),
        )
