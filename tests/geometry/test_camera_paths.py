from itertools import pairwise

import numpy as np
import pytest

from geojax.geometry import camera_paths

START = np.array([[0, 0, 1, 2.0], [-1, 0, 0, 3], [0, -1, 0, 1.5], [0, 0, 0, 1]])


def angle_between(a, b):
    return np.arccos(np.clip((np.trace(a[:3, :3].T @ b[:3, :3]) - 1) / 2, -1, 1))


def random_pose(rng):
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    pose = np.eye(4)
    pose[:3, :3] = q * np.sign(np.linalg.det(q))
    pose[:3, 3] = rng.normal(size=3)
    return pose


def test_straight_steps_along_the_cameras_own_axes():
    """This camera looks along x and has y on its left: backward is -x, right is -y."""
    path = camera_paths.straight(START, 5, (0.1, 0.0, -0.5))
    np.testing.assert_array_equal(path[0], START)
    np.testing.assert_allclose(path[4, :3, 3], [2 - 2.0, 3 - 0.4, 1.5])
    np.testing.assert_array_equal(path[:, :3, :3], np.broadcast_to(START[:3, :3], (5, 3, 3)))


def test_a_turn_is_about_the_vertical_to_the_right_and_adds_up():
    path = camera_paths.straight(START, 10, (0.0, 0.0, 0.0), np.pi / 18)
    np.testing.assert_allclose(path[9, :3, 2], [0.0, -1.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(path[:, :3, 1], np.broadcast_to([0, 0, -1.0], (10, 3)), atol=1e-12)
    steps = [angle_between(a, b) for a, b in pairwise(path)]
    np.testing.assert_allclose(steps, np.pi / 18, rtol=1e-6)
    np.testing.assert_array_equal(path[:, :3, 3], np.broadcast_to(START[:3, 3], (10, 3)))


def test_scenescape_walks_backward_by_its_step():
    """Section 4 (c): at zero angle the translation of world to camera is k * .0065625 along z."""
    path = camera_paths.scenescape(np.eye(4), 30, angle=0.0)
    for k, pose in enumerate(path):
        np.testing.assert_allclose(np.linalg.inv(pose)[:3, 3], [0, 0, k * 0.0065625], atol=1e-12)


def test_scenescape_turns_twelve_frames_pauses_and_turns_back():
    path = camera_paths.scenescape(START, 28)
    np.testing.assert_array_equal(path[0], START)
    turned = [angle_between(a, b) for a, b in pairwise(path)]
    np.testing.assert_allclose(turned[:12], 0.03, rtol=1e-6)
    assert turned[12] < 1e-7 and turned[25] < 1e-7
    np.testing.assert_allclose(turned[13:25], 0.03, rtol=1e-6)
    assert angle_between(path[25], START) < 1e-6 < angle_between(path[12], START)
    # Rotation and translation are turned together: one frame by hand.
    extrinsics = np.linalg.inv(START)
    c, s = np.cos(0.03), np.sin(0.03)
    by_hand = np.eye(4)
    by_hand[:3] = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) @ extrinsics[:3]
    by_hand[2, 3] += 0.0065625
    np.testing.assert_allclose(np.linalg.inv(path[1]), by_hand, atol=1e-12)


def test_a_way_back_ends_where_it_began_bit_for_bit():
    path = camera_paths.scenescape(START, 6)
    both = camera_paths.there_and_back(path)
    assert len(both) == 11
    np.testing.assert_array_equal(both[::-1], both)
    np.testing.assert_array_equal(both[-1], START)


def test_a_spline_passes_through_its_keys_smoothly(rng):
    keys = np.stack([random_pose(rng) for _ in range(4)])
    path = camera_paths.spline(keys, 31)
    for k, key in enumerate(keys):
        np.testing.assert_allclose(path[10 * k], key, atol=1e-9)
    for pose in path:
        np.testing.assert_allclose(pose[:3, :3].T @ pose[:3, :3], np.eye(3), atol=1e-9)
    fine = camera_paths.spline(keys, 3001)[:, :3, 3]
    speed = np.diff(fine, axis=0)
    # No corner at a key: the direction changes by little from one short step to the next.
    assert np.abs(np.diff(speed, axis=0)).max() < 0.02 * np.abs(speed).max()
    # Keys on a line, evenly: the line, evenly.
    line = np.stack([camera_paths.straight(START, 3, (0, 0, 1.0))[i] for i in range(3)])
    np.testing.assert_allclose(
        camera_paths.spline(line, 5), camera_paths.straight(START, 5, (0, 0, 0.5)), atol=1e-12
    )


@pytest.mark.parametrize("angle", [0.0, 1e-9, 0.7, 3.0, np.pi])
def test_half_way_is_half_the_turn(angle):
    second = START.copy()
    second[:3, :3] = START[:3, :3] @ camera_paths._turn(angle)
    second[:3, 3] += [1.0, 0.0, 0.0]
    half = camera_paths.interpolate(START, second, 0.5)
    assert angle_between(START, half) == pytest.approx(angle / 2, abs=1e-6)
    assert angle_between(half, second) == pytest.approx(angle / 2, abs=1e-6)
    np.testing.assert_allclose(half[:3, 3], [2.5, 3, 1.5])
    np.testing.assert_array_equal(camera_paths.interpolate(START, second, 1.0), second)
    np.testing.assert_array_equal(camera_paths.interpolate(START, second, 0.0), START)


def test_what_is_no_path_is_refused():
    with pytest.raises(ValueError, match="frames=0"):
        camera_paths.straight(START, 0, (0, 0, 1))
    with pytest.raises(ValueError, match="step"):
        camera_paths.straight(START, 3, (0, 0, np.inf))
    with pytest.raises(ValueError, match="rotation"):
        camera_paths.scenescape(2.0 * START, 3)
    with pytest.raises(ValueError, match="finite"):
        camera_paths.scenescape(START * np.nan, 3)
    with pytest.raises(ValueError, match="keys 0 and 1 are at one place"):
        camera_paths.spline(np.stack([START, START]), 5)
    with pytest.raises(ValueError, match="2 keys"):
        camera_paths.spline(START[None], 5)
