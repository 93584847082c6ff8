"""The ball that a set of views needs: where a field of unit radius is to be put.

Symbols: o_i, d_i position and unit axis of camera i; x points seen; c, r centre and radius.
    (1)  focus   the point nearest to all axes: sum_i (I - d_i d_i^T) (x - o_i) = 0
    (2)  into the ball   p -> (p - c) / r, rotations and intrinsics as they are, depth -> depth / r

With depth the ball holds cameras and points. Without, cameras that surround something tell its
place and their distance: the ball of (1) has them on its surface; cameras that do not surround
anything say nothing of how far the scene goes, and a multiple of their spread is taken.
(1) is the least squares of distances to lines. Everything here runs on the host, in float64.
"""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from geojax.geometry.camera import Camera

MARGIN = 1.02
"""The ball is this much larger than what it holds."""

_REACH = 4.0
"""Radius over spread of the cameras, where neither depth nor a focus is there."""


class Ball(NamedTuple):
    """Centre [3] and radius, world units."""

    centre: Float[np.ndarray, "3"]
    radius: float


def ball_of_views(
    camera: Camera, points: Float[np.ndarray, "n 3"] | None = None, inside: float = 0.999
) -> Ball:
    """The ball of a batch of cameras, and of the points they see if any are known.

    Args:
      camera: [views].
      points: world units; None or empty where no depth is known.
      inside: share of the points that is held: the farthest from their median are left out, so
        that a few wrong ones do not blow the ball up.

    Raises:
      ValueError: `inside` out of (0, 1], or neither points nor two places of cameras.
    """
    if not 0.0 < inside <= 1.0:
        raise ValueError(f"inside={inside} must lie in (0, 1]")
    positions = np.asarray(camera.position, np.float64).reshape(-1, 3)
    if points is not None and len(points):
        points = np.asarray(points, np.float64)
        away = np.linalg.norm(points - np.median(points, axis=0), axis=1)
        held = np.concatenate([points[away <= np.quantile(away, inside)], positions])
        centre = 0.5 * (held.min(axis=0) + held.max(axis=0))
        return Ball(centre, MARGIN * float(np.linalg.norm(held - centre, axis=1).max()))
    middle = positions.mean(axis=0)
    spread = float(np.linalg.norm(positions - middle, axis=1).max())
    if spread < 1e-6:
        raise ValueError(
            "without depth and with all cameras at one place nothing tells the size of the scene"
        )
    focus = _focus(positions, np.asarray(camera.rotation, np.float64).reshape(-1, 3, 3)[:, :, 2])
    if focus is not None:
        return Ball(focus, MARGIN * float(np.linalg.norm(positions - focus, axis=1).max()))
    return Ball(middle, _REACH * spread)


def into_ball(camera: Camera, ball: Ball) -> Camera:
    """Cameras in the units of the ball, equation (2)."""
    position = (np.asarray(camera.position, np.float64) - ball.centre) / ball.radius
    pose = camera.camera_to_world.at[..., :3, 3].set(jnp.asarray(position, jnp.float32))
    return dataclasses.replace(camera, camera_to_world=pose)


def _focus(
    positions: Float[np.ndarray, "n 3"], axes: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, "3"] | None:
    """Equation (1); None where the cameras do not look at one point from several sides."""
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    total = across.sum(axis=0)
    # The least eigenvalue is 0 for parallel axes, 2 n / 3 for axes from everywhere.
    if np.linalg.eigvalsh(total)[0] < 0.05 * len(axes):
        return None
    focus = np.linalg.solve(total, np.einsum("nij,nj->i", across, positions))
    ahead = np.einsum("nj,nj->n", focus - positions, axes)
    return focus if (ahead > 0.0).all() else None
