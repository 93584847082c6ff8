"""Ways of a camera through a scene: poses from where it starts, and from numbers.

Symbols: M = [R | p] camera_to_world of the start, columns of R right, down, forward; i frame 0 ...;
E = M^-1 world_to_camera; R_y(a) the turn by a about the camera's own down axis.
    (1) straight     p_i = p + i R step
    (2) turn         R_i = R R_y(i a)
    (3) scenescape   E_{i+1} = [R_y(+-angle) E_i's rotation and translation] + (0, 0, step)
    (4) spline       Catmull-Rom of positions, slerp of rotations, through given poses
    (5) back         the path, and its frames in reverse: it ends where it began

(3) Fridman et al., "SceneScape" (2023), released code: twelve turning frames, one straight on, then
the other way round. (4) Catmull and Rom (1974); Shoemake (1985). All in float64 on the host; frame
0 is the start itself, bit for bit.
"""

import numpy as np
from jaxtyping import Float

Pose = Float[np.ndarray, "4 4"]
Path = Float[np.ndarray, "N 4 4"]

SCENESCAPE_STEP, SCENESCAPE_ANGLE, SCENESCAPE_TURNS = 0.0065625, 0.03, 12


def straight(start: Pose, frames: int, step: tuple[float, float, float], turn: float = 0.0) -> Path:
    """Equations (1) and (2): a step in the camera's axes and a turn from each frame to the next.

    Args:
      start: camera_to_world of frame 0.
      frames: N, at least 1.
      step: right, down, forward, in the start's axes; (0, 0, -s) walks backward.
      turn: a in radians a frame, to the right.

    Raises:
      ValueError: no frames, a pose that is none, or a number that is not finite.
    """
    start, count = _checked(start, frames), np.arange(frames)
    _finite(step=step, turn=turn)
    path = np.repeat(start[None], frames, axis=0)
    path[:, :3, 3] += count[:, None] * (start[:3, :3] @ np.asarray(step, np.float64))
    path[1:, :3, :3] = start[:3, :3] @ _turn(turn * count[1:])
    return path


def scenescape(
    start: Pose,
    frames: int,
    step: float = SCENESCAPE_STEP,
    angle: float = SCENESCAPE_ANGLE,
    turns: int = SCENESCAPE_TURNS,
) -> Path:
    """Equation (3): backward, swaying to one side and to the other.

    Args:
      start: camera_to_world of frame 0.
      frames: N, at least 1.
      step: backward a frame.
      angle: radians of a turning frame.
      turns: turning frames in a row; after them one goes straight and the sign flips.

    Raises:
      ValueError: as `straight`; or no turns.
    """
    start = _checked(start, frames)
    _finite(step=step, angle=angle)
    if turns < 1:
        raise ValueError(f"turns={turns} must be at least 1")
    extrinsics, sign, path = np.linalg.inv(start), 1.0, [start]
    for i in range(frames - 1):
        if i % (turns + 1) == turns:
            sign = -sign
        else:
            extrinsics = np.block(
                [[_turn(sign * angle) @ extrinsics[:3]], [np.array([[0.0, 0.0, 0.0, 1.0]])]]
            )
        extrinsics[2, 3] += step
        path.append(np.linalg.inv(extrinsics))
    return np.stack(path)


def there_and_back(path: Path) -> Float[np.ndarray, "M 4 4"]:
    """Equation (5): 2 N - 1 frames; the last equals the first."""
    return np.concatenate([path, path[-2::-1]])


def spline(keys: Float[np.ndarray, "K 4 4"], frames: int) -> Path:
    """Equation (4): N poses, evenly in the parameter, through K keys.

    Args:
      keys: camera_to_world of K >= 2 poses.
      frames: N, at least 2.

    Raises:
      ValueError: fewer keys or frames, a pose that is none, or two keys in a row at one place.
    """
    if len(keys) < 2 or frames < 2:
        raise ValueError(f"a spline needs 2 keys and 2 frames, got {len(keys)} and {frames}")
    keys = np.stack([_checked(key, frames) for key in keys])
    position = keys[:, :3, 3]
    gaps = np.linalg.norm(np.diff(position, axis=0), axis=1)
    if (gaps < 1e-9).any():
        at = int(gaps.argmin())
        raise ValueError(f"keys {at} and {at + 1} are at one place, {position[at].tolist()}")
    # Ends go on as they came.
    padded = np.concatenate(
        [[2 * position[0] - position[1]], position, [2 * position[-1] - position[-2]]]
    )
    path = np.empty((frames, 4, 4))
    for i, at in enumerate(np.linspace(0.0, len(keys) - 1.0, frames)):
        k = min(int(at), len(keys) - 2)
        u = at - k
        path[i] = interpolate(keys[k], keys[k + 1], u)
        a, b, c, d = padded[k : k + 4]
        path[i, :3, 3] = 0.5 * (
            2 * b
            + (c - a) * u
            + (2 * a - 5 * b + 4 * c - d) * u**2
            + (3 * b - a - 3 * c + d) * u**3
        )
    return path


def interpolate(first: Pose, second: Pose, share: float) -> Pose:
    """The pose at a share of the way: straight in position, by slerp in rotation.

    At 0 the first and at 1 the second, bit for bit.
    """
    if share in (0.0, 1.0):
        return np.array(second if share else first, np.float64)
    relative = np.asarray(first)[:3, :3].T @ np.asarray(second)[:3, :3]
    pose = np.eye(4)
    pose[:3, :3] = np.asarray(first)[:3, :3] @ _rotation(share * _rotation_vector(relative))
    pose[:3, 3] = (1 - share) * np.asarray(first)[:3, 3] + share * np.asarray(second)[:3, 3]
    return pose


def _rotation(vector: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """Rodrigues' formula."""
    angle = np.linalg.norm(vector)
    x, y, z = vector / angle if angle > 0 else vector
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * (k @ k)


def _rotation_vector(rotation: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3"]:
    """Its inverse: axis times angle, the angle at most pi."""
    angle = np.arccos(np.clip(0.5 * (np.trace(rotation) - 1), -1.0, 1.0))
    if angle < 1e-8:
        return np.zeros(3)
    skew = np.array(
        [
            rotation[2, 1] - rotation[1, 2],
            rotation[0, 2] - rotation[2, 0],
            rotation[1, 0] - rotation[0, 1],
        ]
    )
    if np.pi - angle > 1e-6:
        return angle * skew / (2 * np.sin(angle))
    # Half a turn: the axis is the eigenvector of 1.
    symmetric = 0.5 * (rotation + np.eye(3))
    axis = symmetric[:, int(np.argmax(np.diag(symmetric)))]
    return angle * axis / np.linalg.norm(axis)


def _turn(angle: float | Float[np.ndarray, "n"]) -> Float[np.ndarray, "*n 3 3"]:
    """R_y: positive turns forward towards right."""
    c, s = np.cos(angle), np.sin(angle)
    zero, one = np.zeros_like(c), np.ones_like(c)
    rows = [[c, zero, s], [zero, one, zero], [-s, zero, c]]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def _checked(pose: Pose, frames: int) -> Pose:
    if frames < 1:
        raise ValueError(f"frames={frames} must be at least 1")
    pose = np.asarray(pose, np.float64)
    if pose.shape != (4, 4) or not np.isfinite(pose).all():
        raise ValueError(f"a pose must be 4x4 and finite, got\n{pose}")
    rotation = pose[:3, :3]
    if not np.allclose(rotation.T @ rotation, np.eye(3), atol=1e-3) or np.linalg.det(rotation) < 0:
        raise ValueError(f"a pose must start with a rotation, got\n{pose}")
    return pose


def _finite(**numbers: object) -> None:
    for name, value in numbers.items():
        if not np.isfinite(np.asarray(value, np.float64)).all():
            raise ValueError(f"{name}={value} must be finite")
