import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.geometry.camera import check_camera, project
from geojax.geometry.camera_sampling import (
    CameraDistribution,
    orbit,
    sample_light,
    sample_views,
    sphere_point,
)

COUNT = 4096
STILL = CameraDistribution(position_jitter=0.0, target_std=0.0, up_std=0.0)
draw = jax.jit(sample_views, static_argnums=(1, 2, 3, 4))
turn = jax.jit(orbit, static_argnums=(0, 4, 5))


@pytest.fixture(scope="module")
def views():
    return draw(jax.random.key(3), CameraDistribution(), COUNT, 6, 8)


def distance_to_cdf(values, cdf):
    """Kolmogorov-Smirnov statistic."""
    values = np.sort(np.asarray(values, np.float64))
    rank = np.arange(len(values) + 1) / len(values)
    return max(np.abs(cdf(values) - rank[1:]).max(), np.abs(cdf(values) - rank[:-1]).max())


def test_cameras_are_valid_and_in_range(views):
    check_camera(views.camera)
    assert np.degrees(views.elevation.min()) >= -10.0 - 1e-4
    assert np.degrees(views.elevation.max()) <= 90.0 + 1e-4
    assert -np.pi <= views.azimuth.min() and views.azimuth.max() < np.pi
    assert views.distance.min() >= 1.0 and views.distance.max() <= 1.5
    focal = np.asarray(views.camera.fx) / 8
    assert focal.min() >= 0.7 and focal.max() <= 1.35
    np.testing.assert_array_equal(views.camera.cx, 4.0)
    np.testing.assert_array_equal(views.camera.cy, 3.0)


def test_elevation_is_half_by_angle_half_by_area(views):
    low, high = np.radians([-10.0, 90.0])

    def cdf(e):
        by_angle = (e - low) / (high - low)
        by_area = (np.sin(e) - np.sin(low)) / (np.sin(high) - np.sin(low))
        return 0.5 * by_angle + 0.5 * by_area

    critical = 1.63 / np.sqrt(COUNT)  # 1 % level
    assert distance_to_cdf(views.elevation, cdf) < critical
    # and the test tells the mixture from either of its halves
    assert distance_to_cdf(views.elevation, lambda e: (e - low) / (high - low)) > critical


def test_one_azimuth_in_each_sector(views):
    azimuth = draw(jax.random.key(0), STILL, 8, 6, 8).azimuth
    gaps = np.diff(np.sort(azimuth))
    assert gaps.max() < 2 * 2 * np.pi / 8
    offset = np.sort((np.asarray(views.azimuth) / (2 * np.pi) * COUNT) % COUNT)
    assert np.abs(offset - offset[0] - np.arange(COUNT)).max() < 1.0 + 1e-2


def test_a_single_azimuth_is_uniform():
    keys = jax.random.split(jax.random.key(5), 1000)
    azimuth = jax.jit(jax.vmap(lambda key: sample_views(key, STILL, 2, 4, 4).azimuth[0]))(keys)
    assert distance_to_cdf(azimuth, lambda a: (a + np.pi) / (2 * np.pi)) < 1.63 / np.sqrt(1000)


def test_jitter(views):
    undisturbed = sphere_point(views.azimuth, views.elevation, views.distance)
    offset = np.asarray(views.camera.position - undisturbed)
    assert np.abs(offset).max() <= 0.1 + 1e-6
    np.testing.assert_allclose(offset.std(axis=0), 0.2 / np.sqrt(12), rtol=0.05)


def test_without_jitter_the_origin_is_in_the_middle():
    views = draw(jax.random.key(0), STILL, 8, 6, 8)
    pixels, depth = project(views.camera, jnp.zeros((8, 1, 3)))
    np.testing.assert_allclose(pixels[:, 0], np.tile([4.0, 3.0], (8, 1)), atol=1e-4)
    np.testing.assert_allclose(depth[:, 0], views.distance, rtol=1e-5)


def test_same_key_same_views_other_key_other_views(views):
    again = draw(jax.random.key(3), CameraDistribution(), COUNT, 6, 8)
    other = draw(jax.random.key(4), CameraDistribution(), COUNT, 6, 8)
    np.testing.assert_array_equal(views.camera.camera_to_world, again.camera.camera_to_world)
    assert not np.allclose(views.azimuth, other.azimuth)


@pytest.mark.parametrize("elevation", [0.0, 0.5, np.pi / 2])
def test_orbit(elevation):
    views = turn(4, elevation, 2.0, 1.2, 6, 8)
    check_camera(views.camera)
    np.testing.assert_allclose(np.abs(views.azimuth), [0, np.pi / 2, np.pi, np.pi / 2], atol=1e-6)
    height = 2 * np.sin(elevation)
    np.testing.assert_allclose(
        views.camera.position[0], [2 * np.cos(elevation), 0, height], atol=1e-6
    )
    np.testing.assert_allclose(
        views.camera.position[1], [0, 2 * np.cos(elevation), height], atol=1e-6
    )
    np.testing.assert_allclose(views.camera.fx, 1.2 * 8)
    # Even from straight above, where all stand in one place, each is a quarter turn on.
    np.testing.assert_allclose(views.camera.rotation[0, :, 0], [0, 1, 0], atol=1e-6)
    np.testing.assert_allclose(views.camera.rotation[1, :, 0], [-1, 0, 0], atol=1e-6)


def test_light_stands_around_the_camera():
    cameras = jnp.tile(jnp.array([[0.0, 3.0, 0.0]]), (COUNT, 1))
    light = np.asarray(jax.jit(sample_light)(jax.random.key(0), cameras))
    distance = np.linalg.norm(light, axis=-1)
    assert distance.min() >= 0.8 and distance.max() <= 1.5
    np.testing.assert_allclose(distance.mean(), 1.15, atol=0.02)
    # unit((0, 3, 0) + N(0, I)), drawn apart in numpy
    noisy = np.array([0.0, 3.0, 0.0]) + np.random.default_rng(0).normal(size=(100_000, 3))
    want = (noisy / np.linalg.norm(noisy, axis=-1, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose((light / distance[:, None]).mean(axis=0), want, atol=0.02)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"elevation": (90.0, -10.0)}, "elevation must be"),
        ({"elevation": (0.0, 100.0)}, "elevation must be"),
        ({"distance": (0.0, 1.0)}, "distance must be positive"),
        ({"focal": (1.0, float("nan"))}, "focal must be"),
        ({"target_std": -1.0}, "target_std must not be negative, got -1.0"),
    ],
)
def test_an_impossible_distribution_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        CameraDistribution(**changes)
