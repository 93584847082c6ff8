import math

import numpy as np
import pytest

from geojax.geometry.camera import check_camera, fov_from_focal
from geojax.worlds import room_cameras, rooms
from geojax.worlds.room_cameras import CLEARANCE, EYES, FOV, free_distance


@pytest.fixture(scope="module")
def corridor():
    return rooms.sample_room(np.random.default_rng(4), kind="corridor")


def test_cameras_stand_free_and_level():
    for seed, kind in enumerate((*rooms.ROOM_KINDS, "corridor")):
        room = rooms.sample_room(np.random.default_rng(seed), kind=kind)
        views = room_cameras.sample_views(np.random.default_rng(seed), room, 4, 32)
        check_camera(views.camera)
        position = np.float64(views.camera.position)
        assert free_distance(room, position).min() > CLEARANCE - 1e-4
        assert position[:, 2].min() > EYES[0] - 1e-3
        assert position[:, 2].max() < EYES[1] + 1e-3
        for p, index in zip(position, views.space, strict=True):
            space = room.spaces[index]
            assert np.all((p > space.low) & (p < space.high))
        rotation = np.asarray(views.camera.rotation)
        np.testing.assert_allclose(rotation[:, 2, 0], 0.0, atol=1e-5)  # right is level
        assert np.abs(rotation[:, 2, 2]).max() < 0.5  # and forward nearly so
        fov = np.degrees(fov_from_focal(views.camera.fx, 32))
        assert fov.min() >= FOV[0] - 1e-3
        assert fov.max() <= FOV[1] + 1e-3


def test_views_follow_from_the_generator(corridor):
    first, again = (
        room_cameras.sample_views(np.random.default_rng(1), corridor, 3, 32) for _ in range(2)
    )
    np.testing.assert_array_equal(first.camera.camera_to_world, again.camera.camera_to_world)


def test_the_free_distance_changes_sign_at_a_wall(corridor):
    low = np.asarray(corridor.spaces[0].low)
    # Along a line up into the ceiling.
    top = corridor.spaces[0].high[2]
    x = np.asarray([low[0] + 1.2, 0.0, top])
    up = np.asarray([0.0, 0.0, 1.0])
    inside = free_distance(corridor, (x + 0.06 * up)[None])[0]
    assert inside < 0.0
    free = free_distance(corridor, (x - 0.3 * up)[None])[0]
    assert 0.0 < free <= 0.3 + 1e-6


def test_the_free_distance_is_no_more_than_the_nearest_solid(corridor):
    """In every direction the ray goes at least as far as the free distance says."""
    rng = np.random.default_rng(0)
    views = room_cameras.sample_views(rng, corridor, 4, 32)
    for p in np.float64(views.camera.position):
        d = rng.normal(size=(64, 3))
        d /= np.linalg.norm(d, axis=-1, keepdims=True)
        bound = free_distance(corridor, p[None])[0]
        assert room_cameras.clear_paths(corridor, p, d, 50.0).min() >= bound - 0.1


@pytest.mark.parametrize("backward", [False, True])
def test_a_walk_stays_in_the_corridor_and_goes_its_way(corridor, backward):
    camera = room_cameras.walk(
        np.random.default_rng(0), corridor, 24, 32, step=0.3, backward=backward
    )
    check_camera(camera)
    position = np.float64(camera.position)
    assert free_distance(corridor, position).min() >= CLEARANCE
    forward = np.asarray(camera.rotation)[:, :, 2]
    moved = np.diff(position[:, 0]) * np.sign(forward[:-1, 0])
    np.testing.assert_allclose(moved, -0.3 if backward else 0.3, atol=1e-4)
    assert np.abs(forward[:, 0]).min() > math.cos(0.2)


def test_a_walk_that_does_not_fit_is_refused(corridor):
    with pytest.raises(ValueError, match=r"100 frames .* 29\.7 m long"):
        room_cameras.walk(np.random.default_rng(0), corridor, 100, 32, step=0.3)
    kitchen = rooms.sample_room(np.random.default_rng(0), kind="kitchen")
    with pytest.raises(ValueError, match="kitchen"):
        room_cameras.walk(np.random.default_rng(0), kitchen, 4, 32)
