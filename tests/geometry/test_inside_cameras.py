import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.geometry.camera import camera_rays, check_camera
from geojax.geometry.inside_cameras import (
    FreeSpace,
    Gaze,
    box_of,
    facing,
    free_inside,
    free_path,
    freedom,
    grown,
    opening,
    random_inside,
)

BOX, GAZE = box_of((1.0, 0.5, 0.25)), Gaze()
COUNT = 2048
anywhere = jax.jit(random_inside, static_argnums=(2, 3, 4, 5))
INNER, OUTER = 0.5, 0.7
FREE = FreeSpace(clearance=0.08, sight=0.2, reach=0.8, samples=40)


def shell(points):
    """A hollow ball with a thick wall."""
    distance = jnp.linalg.norm(points, axis=-1)
    return jnp.where((distance > INNER) & (distance < OUTER), 100.0, 0.0)


def full(points):
    return jnp.full(points.shape[0], 50.0)


@functools.cache
def finder(density, half, count=32):
    box = box_of(half)
    return jax.jit(lambda key: free_inside(key, box, GAZE, FREE, density, count, 6, 8))


def test_random_cameras_fill_the_box_and_look_all_round():
    views = anywhere(jax.random.key(0), BOX, GAZE, COUNT, 6, 8)
    check_camera(views.camera)
    unit = np.asarray(views.camera.position) / (2.0 * np.asarray(BOX.high)) + 0.5
    # Kolmogorov and Smirnov at the 1 % level, of every axis.
    rank = np.arange(COUNT + 1) / COUNT
    for axis in np.sort(unit, axis=0).T:
        assert (
            max(np.abs(axis - rank[1:]).max(), np.abs(axis - rank[:-1]).max()) < 1.63 / COUNT**0.5
        )
    # The axes are independent of each other and of where the cameras look.
    together = np.corrcoef(np.c_[unit, np.cos(views.azimuth), views.elevation].T)
    assert np.abs(together - np.eye(5)).max() < 4.0 / COUNT**0.5
    assert np.ptp(np.histogram(views.azimuth, 16, (-np.pi, np.pi))[0]) <= 2
    pitch = np.degrees(views.elevation)
    assert -10.0 <= pitch.min() < -9.8 and 4.8 < pitch.max() <= 5.001
    focal = np.asarray(views.camera.fx) / 8
    assert 0.9 <= focal.min() < 0.91 and 1.06 < focal.max() <= 1.07
    away = np.linalg.norm(views.camera.position, axis=-1)
    np.testing.assert_allclose(views.distance, away, rtol=1e-6)


def test_azimuth_and_elevation_are_those_of_the_axis():
    yaw, pitch = jnp.array([0.0, 0.5 * jnp.pi, -2.0]), jnp.array([0.0, 0.2, -0.3])
    views = facing(jnp.ones((3, 3)), yaw, pitch, 1.0, 5, 5)
    axis = np.asarray(camera_rays(views.camera).directions[:, 2, 2])
    np.testing.assert_allclose(axis[0], [1.0, 0.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(axis[1], [0.0, np.cos(0.2), np.sin(0.2)], atol=1e-6)
    np.testing.assert_allclose(np.arctan2(axis[:, 1], axis[:, 0]), yaw, atol=1e-6)
    # Upright: what is above is higher up in the picture.
    top = np.asarray(camera_rays(views.camera).directions[:, 0, 2, 2])
    assert (top > axis[:, 2]).all()
    # The right of the picture is to the right.
    right = np.asarray(camera_rays(views.camera).directions[0, 2, 4])
    assert right[1] < 0.0


def test_the_free_path_is_the_integral_of_the_transmittance():
    origins, directions = jnp.zeros((2, 3)), jnp.eye(3)[:2]

    def wall(points):
        return jnp.where(points[:, 0] > 0.4, 1e4, 0.0)

    ahead = free_path(origins, directions, wall, 1.0, 200)
    np.testing.assert_allclose(ahead, [0.4, 1.0], atol=0.006)
    # In a fog of density k: (1 - exp(-k L)) / k.
    fog = free_path(origins, directions, lambda p: jnp.full(p.shape[0], 3.0), 0.8, 100)
    np.testing.assert_allclose(fog, (1.0 - np.exp(-2.4)) / 3.0, rtol=1e-3)


def test_free_cameras_stand_in_the_hollow_and_never_in_the_wall():
    """Also away from it, and with the wall not before the lens; the box reaches into the wall."""
    find = finder(shell, (0.4, 0.4, 0.4))
    position = np.concatenate([find(jax.random.key(seed)).camera.position for seed in range(8)])
    distance = np.linalg.norm(position, axis=-1)
    # Corners of the box are at 0.69, in the wall. No point is over 27 degrees from one asked.
    assert distance.max() < INNER - np.cos(np.radians(28.0)) * FREE.clearance
    assert len(np.unique(position, axis=0)) == len(position)
    # Where it is free the cameras are spread: not all about the middle.
    assert (distance > 0.3).mean() > 0.3
    # Anywhere in the box, some stand in the wall.
    box = box_of((0.4, 0.4, 0.4))
    other = anywhere(jax.random.key(0), box, GAZE, 256, 6, 8).camera.position
    assert (np.linalg.norm(other, axis=-1) > INNER - FREE.clearance).mean() > 0.15


def test_free_cameras_see_as_far_as_was_asked():
    seen = finder(shell, (0.4, 0.4, 0.4))(jax.random.key(1))
    assert (np.asarray(freedom(seen, FREE, shell)) >= 1.0).all()
    rays = camera_rays(seen.camera)
    ahead = free_path(rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3), shell, 0.8, 100)
    # The middle rays of the 3 x 3 pixels do not reach the corners of the picture.
    assert np.quantile(ahead, 0.02) > FREE.sight - 0.05


def test_where_nothing_is_free_the_freest_is_taken():
    seen = finder(full, (0.4, 0.4, 0.4))(jax.random.key(0))
    check_camera(seen.camera)

    def thinner_in_a_corner(points):
        return 50.0 - 20.0 * points[:, 0]

    seen = finder(thinner_in_a_corner, (0.4, 0.4, 0.4))(jax.random.key(0))
    # The best of 64 candidates of each.
    assert seen.camera.position[:, 0].min() > 0.25


def test_all_of_empty_space_is_free():
    score = freedom(anywhere(jax.random.key(0), BOX, GAZE, 16, 6, 8), FREE, lambda p: 0.0 * p[:, 0])
    np.testing.assert_allclose(score, FREE.reach / FREE.sight, rtol=1e-5)


def test_the_key_decides():
    find = finder(shell, (0.4, 0.4, 0.4))
    one, again, other = (find(jax.random.key(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.camera.camera_to_world, again.camera.camera_to_world)
    assert not np.array_equal(one.camera.position, other.camera.position)


def test_the_views_of_a_step_look_all_round():
    azimuth = finder(shell, (0.4, 0.4, 0.4), 4)(jax.random.key(5)).azimuth
    gaps = np.diff(np.sort(azimuth), append=np.min(azimuth) + 2.0 * np.pi)
    assert gaps.max() < np.pi + 1e-5


def test_the_region_grows_from_its_start_to_the_box():
    start = jnp.array([0.5, -0.1, 0.0])
    share = opening(jnp.asarray([0, 50, 100, 300]), 100, 0.2)
    np.testing.assert_allclose(share, [0.2, 0.6, 1.0, 1.0], rtol=1e-6)
    small, whole = grown(BOX, start, share[0]), grown(BOX, start, share[3])
    np.testing.assert_allclose(whole.low, BOX.low)
    np.testing.assert_allclose(whole.high, BOX.high)
    np.testing.assert_allclose(small.high - small.low, 0.2 * (BOX.high - BOX.low), rtol=1e-5)
    # It stays within the box also where the start is not its middle.
    assert (np.asarray(small.high) <= BOX.high).all() and (np.asarray(small.low) >= BOX.low).all()
    np.testing.assert_allclose(grown(BOX, start, jnp.float32(0.0)).low, start)
    assert float(opening(jnp.asarray(0), 0, 0.2)) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gaze(pitch=(10.0, -10.0)), r"pitch.*\(10.0, -10.0\)"),
        (lambda: Gaze(focal=(0.0, 1.0)), r"focal.*\(0.0, 1.0\)"),
        (lambda: FreeSpace(candidates=0), "candidates must be at least 1, got 0"),
        (lambda: FreeSpace(clearance=0.0), "clearance must be positive"),
        (lambda: FreeSpace(sight=1.0, reach=1.0), "reach=1.0 must be over sight=1.0"),
        (lambda: box_of((1.0, -1.0, 1.0)), "three positive half sides"),
    ],
)
def test_cameras_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
