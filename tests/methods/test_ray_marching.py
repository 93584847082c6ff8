import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.geometry.camera_sampling import orbit
from geojax.geometry.occupancy import full_grid, update_grid
from geojax.methods.radiance import render
from geojax.methods.ray_marching import Light, intersect_ball
from geojax.worlds.render import render_truth


def ball(params, points):
    """The world's ball as a field: dense inside radius .38, red."""
    inside = jnp.sum(points**2, axis=-1) < params["radius"] ** 2
    density = jnp.where(inside, 200.0, 0.0)
    return density, jnp.broadcast_to(params["colour"], (points.shape[0], 3))


def soft(params, points):
    """A smooth ball, differentiable in its size."""
    distance = jnp.sqrt(jnp.sum(points**2, axis=-1) + 1e-8)
    density = 60.0 * jax.nn.sigmoid(40.0 * (params["radius"] - distance))
    return density, jnp.broadcast_to(params["colour"], (points.shape[0], 3))


@pytest.fixture(scope="module")
def params():
    return {"radius": jnp.float32(0.38), "colour": jnp.asarray([0.9, 0.1, 0.2])}


@pytest.fixture(scope="module")
def camera():
    return orbit(2, math.radians(20.0), 1.5, 1.05, 24, 24).camera


@pytest.fixture(scope="module")
def draw():
    return jax.jit(
        functools.partial(render, samples=96, radius=0.5),
        static_argnums=0,
        static_argnames=("capacity", "chunk", "normals"),
    )


def test_a_ball_field_has_the_picture_of_the_exact_ball(draw, params, camera):
    picture = draw(ball, params, camera, None)
    truth = render_truth("ball", camera)
    mask = np.asarray(truth.mask)
    # Only rays that graze the ball within a sample's length may differ.
    assert np.mean((np.asarray(picture.opacity) > 0.5) != mask) < 0.02
    inner = mask & (np.asarray(picture.opacity) > 0.999)
    assert inner.sum() > 200
    error = np.abs(np.asarray(picture.depth) - np.asarray(truth.depth))[inner]
    assert np.median(error) < 0.02
    np.testing.assert_allclose(
        np.asarray(picture.rgb)[inner], np.tile(params["colour"], (inner.sum(), 1)), atol=2e-3
    )
    np.testing.assert_allclose(np.asarray(picture.rgb)[~mask & (picture.opacity < 1e-3)], 1.0)


def test_normals_point_outward(draw, params, camera):
    picture = draw(soft, params, camera, None, normals=True)
    truth = render_truth("ball", camera)
    solid = np.asarray(truth.mask) & (np.asarray(picture.opacity) > 0.99)
    found = np.asarray(picture.normal)[solid]
    found /= np.linalg.norm(found, axis=-1, keepdims=True)
    assert np.sum(found * np.asarray(truth.normal)[solid], -1).min() > 0.9


def test_skipping_and_chunking_change_nothing(draw, params, camera):
    plain = draw(soft, params, camera, None)
    chunked = draw(soft, params, camera, None, chunk=100)
    grid = full_grid(16, 0.5)
    for seed in range(8):
        grid = update_grid(jax.random.key(seed), grid, lambda p: soft(params, p)[0], threshold=0.01)
    assert 0.1 < float(grid.occupied.mean()) < 0.9
    skipped = draw(soft, params, camera, None, occupancy=grid, capacity=60_000)
    assert float(skipped.dropped) == 0.0
    for name in ("rgb", "opacity", "depth"):
        expected = getattr(plain, name)
        np.testing.assert_allclose(getattr(chunked, name), expected, atol=1e-4)
        if name != "depth":
            np.testing.assert_allclose(getattr(skipped, name), expected, atol=2e-2)


def test_too_small_a_capacity_is_reported_and_keeps_the_brightness(draw, params, camera):
    grid = full_grid(16, 0.5)
    plain = draw(soft, params, camera, None)
    thinned = draw(soft, params, camera, None, occupancy=grid, capacity=20_000)
    assert 0.2 < float(thinned.dropped) < 0.9
    assert float(jnp.mean(thinned.opacity)) == pytest.approx(
        float(jnp.mean(plain.opacity)), rel=0.05
    )


def test_light_from_the_camera_is_brightest_where_the_surface_faces_it(draw, params, camera):
    light = Light(
        position=camera.position,
        ambient=jnp.full(2, 0.2),
        diffuse=jnp.full(2, 0.8),
        texture=jnp.zeros(2),
    )
    lit = np.asarray(draw(soft, params, camera, None, light=light, background=0.0).rgb)
    assert lit[:, 12, 12].min() > 0.9  # white, facing the light
    dark = draw(soft, params, camera, None, light=light, background=0.0).opacity > 0.99
    assert 0.2 < lit[np.asarray(dark)].min() < 0.75  # towards the rim


def test_the_gradient_is_finite_for_rays_that_miss_or_graze(params, camera):
    def loss(params, radius):
        picture = render(soft, params, camera, jax.random.key(0), samples=16, radius=0.3)
        return jnp.sum(picture.rgb**2) + radius * jnp.sum(picture.depth)

    gradient = jax.jit(jax.grad(loss))(params, jnp.float32(1.0))
    assert all(bool(jnp.all(jnp.isfinite(g))) for g in jax.tree.leaves(gradient))
    assert float(jnp.abs(gradient["colour"]).min()) > 0.0
    # Through the centre, tangent, and away from the ball.
    origins = jnp.asarray([[2.0, 0.0, 0.0], [2.0, 1.0, 0.0], [2.0, 0.0, 0.0]])
    directions = jnp.asarray([[-1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    near, far = intersect_ball(origins, directions, 1.0)
    np.testing.assert_allclose(near[0], 1.0, atol=1e-6)
    np.testing.assert_allclose(far[0], 3.0, atol=1e-6)
    np.testing.assert_allclose(far[1:] - near[1:], 0.0, atol=1e-3)
    slope = jax.grad(lambda o: jnp.sum(intersect_ball(o, directions, 1.0)[1]))(origins)
    assert bool(jnp.all(jnp.isfinite(slope)))
