"""Focal lengths: known lenses, exact and spoilt point maps (algorithms.md, section 5)."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.geometry.camera import focal_from_fov, pinhole, pixel_centers, project, unproject
from geojax.geometry.intrinsics import (
    focal_and_shift,
    focal_from_equivalent,
    focal_from_sensor,
    focal_median,
    focal_weiszfeld,
)

HEIGHT, WIDTH, FOCAL = 48, 64, 70.0
ALL = jnp.ones((HEIGHT, WIDTH), bool)


def point_map(rng, focal=FOCAL, center=None):
    """A wavy scene at depths of 1 to 4, seen by a pinhole."""
    center = (WIDTH / 2, HEIGHT / 2) if center is None else center
    u, v = np.moveaxis(np.asarray(pixel_centers(HEIGHT, WIDTH)), -1, 0)
    z = 2.5 + np.sin(u / 9) + 0.5 * np.cos(v / 5)
    return np.stack([(u - center[0]) / focal * z, (v - center[1]) / focal * z, z], axis=-1).astype(
        np.float32
    )


def three_ways(points, mask=ALL):
    """Median, Weiszfeld, least squares, each over the truth minus one."""
    points = jnp.asarray(points)
    found = (
        focal_median(points, mask),
        focal_weiszfeld(points, mask),
        focal_weiszfeld(points, mask, steps=0),
    )
    return [float(f) / FOCAL - 1 for f in found]


def test_a_clean_point_map_gives_the_focal_length_in_every_way(rng):
    points = point_map(rng)
    np.testing.assert_allclose(three_ways(points), 0.0, atol=1e-5)
    found = focal_and_shift(jnp.asarray(points), ALL)
    assert float(found.focal) == pytest.approx(FOCAL, rel=1e-3)
    assert float(found.shift) == pytest.approx(0.0, abs=3e-3)


def test_a_fifth_of_the_points_at_three_times_their_depth(rng):
    points = point_map(rng)
    points[rng.uniform(size=(HEIGHT, WIDTH)) < 0.2, 2] *= 3
    median, weiszfeld, squares = three_ways(points)
    assert abs(median) < 1e-4
    assert abs(weiszfeld) < 1e-3
    assert squares > 0.03


def test_a_fifth_of_the_points_anywhere_is_for_the_median_alone(rng):
    points = point_map(rng)
    spoilt = rng.uniform(size=(HEIGHT, WIDTH)) < 0.2
    points[spoilt] = rng.uniform(0.5, 5.0, size=(spoilt.sum(), 3))
    median, weiszfeld, squares = three_ways(points)
    assert abs(median) < 0.02
    assert weiszfeld < -0.5
    assert squares < -0.5
    # Masked, all are exact again.
    np.testing.assert_allclose(three_ways(points, jnp.asarray(~spoilt)), 0.0, atol=1e-5)


@pytest.mark.parametrize(("shift", "scale"), [(-0.9, 1.0), (3.0, 1.0), (40.0, 100.0), (0.0, 0.01)])
def test_an_unknown_shift_of_depth_is_found(shift, scale, rng):
    points = scale * point_map(rng)
    points[..., 2] += shift
    found = jax.jit(focal_and_shift)(jnp.asarray(points), ALL)
    assert float(found.focal) == pytest.approx(FOCAL, rel=5e-3)
    assert float(found.shift) == pytest.approx(-shift, abs=1e-2 * scale)


def test_points_behind_the_camera_come_before_it(rng):
    points = point_map(rng)
    points[..., 2] -= 8.0
    found = focal_and_shift(jnp.asarray(points), ALL)
    assert float(found.focal) == pytest.approx(FOCAL, rel=5e-3)
    assert float(found.shift) == pytest.approx(8.0, rel=5e-3)


def test_the_principal_point_may_lie_anywhere(rng):
    center = (20.0, 31.0)
    points, at = jnp.asarray(point_map(rng, center=center)), jnp.asarray(center)
    assert float(focal_median(points, ALL, at)) == pytest.approx(FOCAL, rel=1e-4)
    assert float(focal_weiszfeld(points, ALL, at)) == pytest.approx(FOCAL, rel=1e-4)
    assert float(focal_and_shift(points, ALL, at).focal) == pytest.approx(FOCAL, rel=5e-3)
    assert abs(float(focal_median(points, ALL)) / FOCAL - 1) > 0.01


def test_rays_of_any_length_do_as_well(rng):
    points = point_map(rng)
    rays = points / np.linalg.norm(points, axis=-1, keepdims=True)
    np.testing.assert_allclose(three_ways(rays), 0.0, atol=1e-5)


def test_what_is_not_finite_or_not_before_the_camera_does_not_count(rng):
    points = point_map(rng)
    points[0], points[1], points[2, :, 2] = np.nan, np.inf, -1.0
    np.testing.assert_allclose(three_ways(points), 0.0, atol=1e-5)
    assert math.isnan(focal_median(jnp.asarray(points), jnp.zeros_like(ALL)))
    assert math.isnan(focal_weiszfeld(jnp.asarray(points), jnp.zeros_like(ALL)))
    assert math.isnan(focal_and_shift(jnp.asarray(points), jnp.zeros_like(ALL)).focal)


def test_lenses_of_known_angle():
    """28 mm on film sees 75.4 degrees along the diagonal; 50 mm 46.8."""
    for millimetres, degrees in ((28.0, 75.38), (50.0, 46.79)):
        focal = focal_from_equivalent(millimetres, 600, 800)
        expected = float(focal_from_fov(math.radians(degrees), 1000))
        assert focal == pytest.approx(expected, rel=1e-3)
        assert focal_from_equivalent(millimetres, 800, 600) == focal
    # A 36 mm wide sensor of 6000 pixels behind a 50 mm lens, the picture scaled to 1500.
    assert focal_from_sensor(50.0, 6000 / 36, 6000, 1500) == pytest.approx(50 / 36 * 1500)


def test_lengths_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"35 mm equivalent focal length=0\.0"):
        focal_from_equivalent(0.0, 10, 10)
    with pytest.raises(ValueError, match="resolution of the sensor=nan"):
        focal_from_sensor(5.0, math.nan, 10, 10)
    with pytest.raises(ValueError, match="side of the picture=-1"):
        focal_from_sensor(5.0, 1.0, 10, -1)


def test_turning_about_the_centre_needs_no_depth_and_a_step_aside_does(rng):
    """A pixel moves alike at every depth under a rotation, by -f t / z under a step t along x."""
    here = pinhole(jnp.eye(4), FOCAL, HEIGHT, WIDTH)
    pixels = jnp.asarray(rng.uniform(5, 40, size=(50, 2)), jnp.float32)
    angle = 0.1
    turn = jnp.eye(4).at[0, 0].set(math.cos(angle)).at[2, 2].set(math.cos(angle))
    turn = turn.at[0, 2].set(math.sin(angle)).at[2, 0].set(-math.sin(angle))
    turned = pinhole(turn, FOCAL, HEIGHT, WIDTH)
    depths = [jnp.full(50, z) for z in (1.0, 7.0)]
    near, far = (project(turned, unproject(here, pixels, z))[0] for z in depths)
    np.testing.assert_allclose(near, far, atol=1e-3)
    assert float(jnp.abs(near - pixels).max()) > 5
    aside = pinhole(jnp.eye(4).at[0, 3].set(0.25), FOCAL, HEIGHT, WIDTH)
    for z in depths:
        moved = project(aside, unproject(here, pixels, z))[0] - pixels
        expected = jnp.stack([-FOCAL * 0.25 / z, jnp.zeros(50)], axis=-1)
        np.testing.assert_allclose(moved, expected, atol=1e-3)
