"""Cameras in the free space of rooms, and walks along corridors.

Cameras stand as people do: eyes at 1.2 to 1.7 m, the horizon level, looking where there is much to
see. Their field of view is about that of SceneScape (54 degrees).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from geojax.geometry.camera import Camera, focal_from_fov, look_at, pinhole
from geojax.worlds.room_fixtures import THICKNESS
from geojax.worlds.room_scene import Room

CLEARANCE = 0.3
"""Least distance of a camera from any solid, metres."""

EYES = (1.2, 1.7)
"""Range of the camera's height, metres."""

FOV = (50.0, 58.0)
"""Range of the field of view across the image, degrees."""

WALK_FOV = 54.22
"""Field of view of a walk, degrees: SceneScape's 500 pixels across 512."""

_AHEAD = 1.8  # least distance of a walk from the end of the corridor that it looks at, metres
_TRIES = 400


_look_at = jax.jit(look_at)  # op by op it would take longer than to render the picture


class RoomViews(NamedTuple):
    """Cameras in a room.

    Attributes:
      camera: b cameras.
      space: index of the space that each stands in, [b].
    """

    camera: Camera
    space: Int[np.ndarray, " b"]


def free_distance(room: Room, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
    """Distance from points to the nearest solid, metres; negative inside of one.

    Of ellipsoids it is a lower bound. Points outside of all spaces have a distance too.
    """
    scene, p = room.scene, points.astype(np.float64)[:, None, :]
    boxes, rounds = (int(n) for n in np.asarray(scene.used))
    low, high = np.asarray(scene.low)[:boxes], np.asarray(scene.high)[:boxes]
    q = np.abs(p - 0.5 * (low + high)) - 0.5 * (high - low)
    outside = np.linalg.norm(np.maximum(q, 0.0), axis=-1)
    least = np.min(outside + np.minimum(q.max(axis=-1), 0.0), axis=1)
    if rounds:
        centre, radii = np.asarray(scene.centre)[:rounds], np.asarray(scene.radii)[:rounds]
        x = (p - centre) / radii
        ball = (np.linalg.norm(x, axis=-1) - 1.0) * radii.min(axis=-1)
        side = (np.linalg.norm(x[..., :2], axis=-1) - 1.0) * radii[:, :2].min(axis=-1)
        cap = (np.abs(x[..., 2]) - 1.0) * radii[:, 2]
        can = np.hypot(np.maximum(side, 0.0), np.maximum(cap, 0.0))
        can = can + np.minimum(np.maximum(side, cap), 0.0)
        is_ball = np.asarray(scene.ellipsoid)[:rounds] > 0.5
        least = np.minimum(least, np.where(is_ball, ball, can).min(axis=1))
    return least


def clear_paths(
    room: Room,
    origin: Float[np.ndarray, "3"],
    directions: Float[np.ndarray, "n 3"],
    reach: float,
) -> Float[np.ndarray, " n"]:
    """How far one can look from a point along directions, at most `reach` metres.

    A window ends the view; a round solid is taken for the box around it.
    """
    scene = room.scene
    boxes, rounds = (int(n) for n in np.asarray(scene.used))
    centre, radii = np.asarray(scene.centre)[:rounds], np.asarray(scene.radii)[:rounds]
    low = np.concatenate([np.asarray(scene.low)[:boxes], centre - radii])
    high = np.concatenate([np.asarray(scene.high)[:boxes], centre + radii])
    near, far = _crossings(origin, directions, low, high)
    ahead = np.min(near, axis=1, where=(near <= far) & (near > 0.0), initial=reach)
    # The view goes on from a space into the next where their boxes, with walls, overlap.
    low = np.asarray([space.low for space in room.spaces]) - 1.01 * THICKNESS
    high = np.asarray([space.high for space in room.spaces]) + 1.01 * THICKNESS
    near, far = _crossings(origin, directions, low, high)
    inside = np.zeros(len(directions))
    for _ in room.spaces:
        joined = (near <= inside[:, None]) & (far >= inside[:, None])
        inside = np.max(far, axis=1, where=joined, initial=0.0)
    return np.minimum(ahead, inside)


def _crossings(
    origin: Float[np.ndarray, "3"],
    directions: Float[np.ndarray, "n 3"],
    low: Float[np.ndarray, "m 3"],
    high: Float[np.ndarray, "m 3"],
) -> tuple[Float[np.ndarray, "n m"], Float[np.ndarray, "n m"]]:
    """Where rays enter and leave boxes."""
    safe = np.where(np.abs(directions) < 1e-9, 1e-9, directions)[:, None]
    first, second = (low - origin) / safe, (high - origin) / safe
    return np.minimum(first, second).max(-1), np.maximum(first, second).min(-1)


def sample_views(
    rng: np.random.Generator, room: Room, count: int, size: int, *, main: float = 0.8
) -> RoomViews:
    """Random cameras that look level and into the depth of the space that they stand in.

    Args:
      rng: consumed.
      room: the room.
      count: how many.
      size: height and width of the images, pixels.
      main: share of the cameras that stand in the room's main space.

    Returns:
      the views; none is nearer than `CLEARANCE` to a solid.

    Raises:
      ValueError: if a space has no free place (which `sample_room` does not draw).
    """
    spaces, positions, headings, fovs = [], [], [], []
    for _ in range(count):
        others = len(room.spaces) - 1
        index = 0 if others == 0 or rng.uniform() < main else int(rng.integers(1, others + 1))
        views = []
        for _ in range(int(rng.integers(1, 4))):
            position = _free_place(rng, room, index)
            views.append((*_heading(rng, room, index, position), position))
        _, heading, position = max(views, key=lambda view: view[0])
        spaces.append(index)
        positions.append(position)
        headings.append(heading)
        fovs.append(rng.uniform(*FOV))
    camera = _cameras(np.asarray(positions), np.asarray(headings), np.asarray(fovs), size)
    return RoomViews(camera, np.asarray(spaces, np.int32))


def _free_place(rng: np.random.Generator, room: Room, index: int) -> Float[np.ndarray, "3"]:
    space = room.spaces[index]
    low, high = np.asarray(space.low), np.asarray(space.high)
    for _ in range(_TRIES // 20):
        points = rng.uniform(low + CLEARANCE, high - CLEARANCE, (20, 3))
        points[:, 2] = rng.uniform(*EYES, 20)
        free = np.flatnonzero(free_distance(room, points) > CLEARANCE)
        if len(free):
            return points[free[0]]
    raise ValueError(f"no place in the {space.kind} (space {index}) is {CLEARANCE} m from a solid")


def _heading(
    rng: np.random.Generator, room: Room, index: int, position: Float[np.ndarray, "3"]
) -> tuple[float, tuple[float, float]]:
    """Yaw and pitch, radians: along a corridor mostly, else wherever 2 metres can be seen."""
    if room.spaces[index].kind == "corridor" and rng.uniform() < 0.75:
        yaw = rng.integers(2, size=5) * math.pi + rng.normal(0.0, 0.16, 5)
    else:
        yaw = rng.uniform(-math.pi, math.pi, 5)
        targets = _furniture(room, index)
        if len(targets) and rng.uniform() < 0.6:
            to = targets[rng.integers(len(targets), size=5)] - position
            yaw = np.arctan2(to[:, 1], to[:, 0]) + rng.normal(0.0, 0.2, 5)
    directions = np.stack([np.cos(yaw), np.sin(yaw), np.zeros(5)], axis=-1)
    reach = clear_paths(room, position, directions, 6.0)
    best = int(np.argmax(reach))
    return float(reach[best]), (float(yaw[best]), float(rng.normal(-0.09, 0.07)))


def _furniture(room: Room, index: int) -> Float[np.ndarray, "n 3"]:
    """Centres of the boxes of what a caption would name in a space."""
    named = [
        thing.space == index and thing.kind not in ("", "wall", "floor", "ceiling", "window")
        for thing in room.things
    ]
    scene = room.scene
    boxes = int(np.asarray(scene.used)[0])
    chosen = np.asarray(named)[np.asarray(scene.thing)[:boxes]]
    return 0.5 * (np.asarray(scene.low)[:boxes] + np.asarray(scene.high)[:boxes])[chosen]


def _cameras(
    positions: Float[np.ndarray, "b 3"],
    headings: Float[np.ndarray, "b 2"],
    fovs: Float[np.ndarray, " b"],
    size: int,
) -> Camera:
    """Level cameras from positions, (yaw, pitch) in radians and fields of view in degrees."""
    yaw, pitch = headings[:, 0], headings[:, 1]
    forward = np.stack(
        [np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)], axis=-1
    )
    position = jnp.asarray(positions, jnp.float32)
    up = jnp.broadcast_to(jnp.asarray([0.0, 0.0, 1.0]), position.shape)
    pose = _look_at(position, position + jnp.asarray(forward, jnp.float32), up)
    focal = focal_from_fov(jnp.asarray(np.radians(fovs), jnp.float32), size)
    return pinhole(pose, focal, size, size)


def walk(
    rng: np.random.Generator,
    room: Room,
    frames: int,
    size: int,
    *,
    step: float = 0.3,
    backward: bool = True,
    sway: float = 0.08,
) -> Camera:
    """A walk along the middle of a corridor, looking along it.

    Args:
      rng: consumed: where the walk starts, which end it looks at, its height and its sway.
      room: one whose main space is a corridor.
      frames: how many cameras.
      size: height and width of the images, pixels.
      step: metres from a frame to the next.
      backward: whether the camera moves away from what it looks at, as SceneScape's does.
      sway: amplitude of the yaw, radians; the path sways with it.

    Returns:
      the cameras in the order of the walk, each `CLEARANCE` from all solids.

    Raises:
      ValueError: if the main space is no corridor, or the walk does not fit into it.
    """
    space = room.spaces[0]
    if space.kind != "corridor":
        raise ValueError(f"a walk needs a corridor; the main space is a {space.kind}")
    (x0, y0, _), (x1, y1, _) = space.low, space.high
    length, most = (frames - 1) * step, x1 - x0 - _AHEAD - 2.0 * CLEARANCE
    if length > most:
        raise ValueError(
            f"a walk of {frames} frames with steps of {step} m is {length:.1f} m long; "
            f"this corridor has {most:.1f} m"
        )
    ahead = 1.0 if rng.uniform() < 0.5 else -1.0  # along which direction of x it looks
    from_end = _AHEAD + float(rng.uniform(0.0, most - length)) + step * np.arange(frames)
    from_end = from_end if backward else from_end[::-1]
    x = x1 - from_end if ahead > 0.0 else x0 + from_end
    phase, height = float(rng.uniform(0.0, 2.0 * math.pi)), float(rng.uniform(1.35, 1.6))
    turn = np.sin(2.0 * math.pi * np.arange(frames) / 24.0 + phase)
    y = 0.5 * (y0 + y1) + 0.12 * turn
    positions = np.stack([x, y, np.full(frames, height)], axis=-1)
    nearest = free_distance(room, positions).min()
    if nearest < CLEARANCE:
        raise ValueError(f"the walk comes within {nearest:.2f} m of a solid")
    yaw = (0.0 if ahead > 0.0 else math.pi) + sway * np.roll(turn, 6)
    headings = np.stack([yaw, np.full(frames, -0.03)], axis=-1)
    return _cameras(positions, headings, np.full(frames, WALK_FOV), size)
