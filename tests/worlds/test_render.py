import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.geometry.camera import camera_rays, project
from geojax.geometry.camera_sampling import orbit
from geojax.worlds import measure, pictures, solids
from geojax.worlds.render import colourise, render_layers, render_truth


@pytest.fixture(scope="module")
def views():
    return orbit(4, math.radians(20.0), 1.5, 1.05, 32, 32)


def test_a_ball_has_its_exact_depth_and_normal(views):
    truth = render_truth("ball", views.camera)
    rays = camera_rays(views.camera)
    toward = jnp.sum(rays.origins * rays.directions, -1)
    root = toward**2 - jnp.sum(rays.origins**2, -1) + 0.38**2
    exact = (-toward - jnp.sqrt(jnp.maximum(root, 0.0))) * rays.z_scale
    sure = np.asarray(truth.mask & (root > 1e-3))
    assert sure.sum() > 100
    np.testing.assert_allclose(truth.depth[sure], exact[sure], atol=5e-4)
    points = rays.origins + rays.directions * (truth.depth / rays.z_scale)[..., None]
    np.testing.assert_allclose(truth.normal[sure], (points / 0.38)[sure], atol=5e-3)
    assert not np.any(np.asarray(truth.mask & (root < -2e-3)))


def test_depth_reprojects_onto_the_surface_of_every_kind(views):
    rays = camera_rays(views.camera)
    for kind in ("chair", "house", "mug"):
        truth = render_truth(kind, views.camera)
        points = rays.origins + rays.directions * (truth.depth / rays.z_scale)[..., None]
        distance = np.asarray(solids.signed_distance(kind, points))
        assert np.abs(distance[np.asarray(truth.mask)]).max() < 2e-3


def test_pictures_are_linear_in_colour_and_background(views):
    light = views.camera.camera_to_world[:, :3, 3]
    layers = render_layers("mushroom", views.camera, light, jnp.full(4, 0.5))
    grey = colourise(layers, jnp.full((4, 3), 0.5), jnp.full((4, 3), 0.5))
    dark = colourise(layers, jnp.zeros((4, 3)), jnp.zeros((4, 3)))
    bright = colourise(layers, jnp.ones((4, 3)), jnp.ones((4, 3)))
    np.testing.assert_allclose(grey, 0.5 * (dark + bright), atol=1e-6)
    assert float(bright.max()) <= 1.0 + 1e-6
    assert float(grey.min()) >= 0.0
    empty = np.asarray(layers.coverage) == 0.0
    np.testing.assert_allclose(np.asarray(grey)[empty], 0.5)


def test_antialiasing_keeps_the_mean_of_the_mask(views):
    light = views.camera.camera_to_world[:, :3, 3]
    layers = render_layers("cone", views.camera, light, jnp.full(4, 0.5), supersample=3)
    truth = render_truth("cone", views.camera)
    assert float(layers.coverage.mean()) == pytest.approx(float(truth.mask.mean()), rel=0.03)
    partial = (layers.coverage > 0.05) & (layers.coverage < 0.95)
    assert 0.0 < float(partial.mean()) < 0.2


def test_the_truth_scores_full_marks():
    inside = solids.occupancy_grid("house", 32, 0.55)
    score = measure.volume_score("house", inside, 0.55)
    assert score.iou > 0.99
    assert score.yaw == 0.0
    views = measure.test_views(32).camera
    truth = render_truth("house", views)
    silhouette, depth = measure.picture_scores(
        "house", views, np.asarray(truth.mask, np.float32), np.asarray(truth.depth), 0.0
    )
    assert silhouette == 1.0
    assert depth < 1e-6


def test_a_turned_solid_is_found_at_its_yaw():
    points = measure.grid_points(32, 0.55)
    turned = measure.turn(points, -math.radians(40.0))
    inside = np.asarray(solids.signed_distance("snowman", jnp.asarray(turned))) < 0.0
    score = measure.volume_score("snowman", inside, 0.55)
    assert math.degrees(score.yaw) == pytest.approx(40.0, abs=0.1)
    assert score.iou > 0.97
    views = measure.test_views(32).camera
    back = render_truth("snowman", measure.turned_camera(views, math.radians(40.0)))
    # A point of the turned solid, seen by the camera, is the unturned point seen by the turned one.
    p = jnp.asarray([[0.2, 0.1, 0.0]])
    moved = jnp.asarray(measure.turn(np.asarray(p), math.radians(40.0)))
    pixels, depth = project(views[0], moved)
    pixels_back, depth_back = project(measure.turned_camera(views, math.radians(40.0))[0], p)
    np.testing.assert_allclose(pixels, pixels_back, atol=1e-3)
    np.testing.assert_allclose(depth, depth_back, atol=1e-5)
    assert back.mask.any()


def test_a_solid_mug_has_the_hull_of_a_mug_but_a_ball_has_not():
    views = measure.hull_views(48).camera
    filled = np.asarray(render_truth("mug", views).mask)
    nothing = np.zeros((32, 32, 32), bool)
    assert measure.volume_score("mug", nothing, 0.55, filled).iou > 0.98
    ball = np.asarray(render_truth("ball", views).mask)
    assert measure.volume_score("mug", nothing, 0.55, ball).iou < 0.8
    with pytest.raises(ValueError, match="silhouettes"):
        measure.volume_score("mug", nothing, 0.55)


def test_draws_keep_to_the_allowed_pairs():
    parts = [
        pictures.trace_kind(jax.random.key(i), kind, 3, 16)
        for i, kind in enumerate(["ball", "mug"])
    ]
    pool = pictures.Pool(*(np.concatenate(leaves) for leaves in zip(*parts, strict=True)))
    names = list(solids.KINDS), list(solids.COLOURS)
    for held_out in (False, True):
        batch = pictures.draw(np.random.default_rng(0), pool, 64, held_out=held_out)
        pairs = {(names[0][k], names[1][c]) for k, c in zip(batch.kind, batch.colour, strict=True)}
        assert all((pair in solids.HELD_OUT) == held_out for pair in pairs)
        assert batch.image.shape == (64, 16, 16, 3)
        assert batch.image.min() >= 0.0
        assert batch.image.max() <= 1.0
