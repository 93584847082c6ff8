import jax.numpy as jnp
import numpy as np
import pytest

from geojax.geometry.bounding_ball import MARGIN, ball_of_views, into_ball
from geojax.geometry.camera import look_at, pinhole, project

UP = jnp.asarray([0.0, 0.0, 1.0])


def cameras(positions, targets):
    positions = jnp.asarray(positions, jnp.float32)
    targets = jnp.broadcast_to(jnp.asarray(targets, jnp.float32), positions.shape)
    return pinhole(look_at(positions, targets, jnp.broadcast_to(UP, positions.shape)), 40.0, 32, 48)


def circle(count, centre, radius, height):
    a = 2 * np.pi * np.arange(count) / count
    return np.stack([radius * np.cos(a), radius * np.sin(a), 0 * a + height], -1) + centre


def test_cameras_around_a_thing_find_it():
    centre = np.array([3.0, -2.0, 1.0])
    ball = ball_of_views(cameras(circle(7, centre, 4.0, 3.0), centre))
    np.testing.assert_allclose(ball.centre, centre, atol=1e-4)
    assert ball.radius == pytest.approx(MARGIN * 5.0, rel=1e-4)


def test_cameras_that_look_outward_or_along_a_line_take_a_multiple_of_their_spread():
    walk = np.stack([np.arange(5.0), np.zeros(5), np.zeros(5)], -1)
    ahead = ball_of_views(cameras(walk, walk + np.array([1.0, 0, 0])))
    np.testing.assert_allclose(ahead.centre, [2, 0, 0], atol=1e-6)
    assert ahead.radius == pytest.approx(8.0)
    ring = circle(6, 0.0, 1.0, 0.0)
    outward = ball_of_views(cameras(ring, 2 * ring))
    assert outward.radius == pytest.approx(4.0)


def test_points_and_cameras_are_inside_but_not_the_few_far_ones(rng):
    positions = circle(4, 0.0, 2.0, 0.0)
    points = rng.normal(size=(1000, 3)) + np.array([9.0, 0, 0])
    points[:5] *= 1000.0
    ball = ball_of_views(cameras(positions, np.zeros(3)), points, inside=0.99)
    away = np.linalg.norm(points - ball.centre, axis=1) / ball.radius
    assert (away < 1.0).mean() >= 0.99 and (away[:5] > 10.0).all()
    assert (np.linalg.norm(positions - ball.centre, axis=1) < ball.radius).all()
    assert ball.radius < 12.0


def test_in_the_ball_every_point_is_seen_where_it_was(rng):
    camera = cameras(circle(3, 1.0, 5.0, 1.0), np.ones(3))
    points = rng.normal(size=(1, 6, 3)) + np.ones(3)
    ball = ball_of_views(camera, points[0])
    inside = into_ball(camera, ball)
    assert (np.linalg.norm(np.asarray(inside.position), axis=-1) < 1.0).all()
    as_float = lambda x: jnp.broadcast_to(jnp.asarray(x, jnp.float32), (3, 6, 3))  # noqa: E731
    pixels, depth = project(camera, as_float(points))
    moved, moved_depth = project(inside, as_float((points - ball.centre) / ball.radius))
    np.testing.assert_allclose(moved, pixels, atol=1e-3)
    np.testing.assert_allclose(moved_depth * ball.radius, depth, rtol=1e-5)


def test_a_scene_without_a_size_is_refused():
    one = cameras(np.zeros((3, 3)), np.eye(3) + 0.1)
    with pytest.raises(ValueError, match="size of the scene"):
        ball_of_views(one)
    with pytest.raises(ValueError, match="size of the scene"):
        ball_of_views(one, np.zeros((0, 3)))
    with pytest.raises(ValueError, match=r"inside=1\.5"):
        ball_of_views(one, np.ones((2, 3)), inside=1.5)
