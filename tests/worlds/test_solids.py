import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.worlds import shapes, solids


@pytest.fixture(scope="module")
def points():
    return jax.random.uniform(jax.random.key(0), (4096, 3), minval=-0.7, maxval=0.7)


@pytest.mark.parametrize("kind", solids.KINDS)
def test_a_solid_fits_into_the_ball(kind, points):
    outside = points[jnp.linalg.norm(points, axis=-1) > solids.BALL]
    assert jnp.all(solids.signed_distance(kind, outside) > 0.0)


@pytest.mark.parametrize("kind", solids.KINDS)
def test_sphere_tracing_never_oversteps(kind, points):
    # From outside, no point within the distance is inside.
    at = solids.signed_distance(kind, points)
    direction = jax.random.normal(jax.random.key(2), points.shape)
    direction /= jnp.linalg.norm(direction, axis=-1, keepdims=True)
    moved = points + 0.98 * at[:, None] * direction
    assert jnp.all(jnp.where(at > 1e-3, solids.signed_distance(kind, moved), 1.0) > -2e-3)


@pytest.mark.parametrize("kind", solids.KINDS)
def test_the_gradient_is_finite_everywhere(kind):
    awkward = jnp.asarray([[0.0, 0.0, 0.0], [0.0, 0.0, 0.17], [0.1, 0.0, 0.0], [0.28, 0.28, 0.28]])
    gradient = jax.grad(lambda p: jnp.sum(solids.signed_distance(kind, p)))(awkward)
    assert jnp.all(jnp.isfinite(gradient))


def test_known_distances():
    p = jnp.asarray([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(shapes.sphere(p, (0.0, 0.0, 0.0), 0.4), [0.6, -0.4], atol=1e-5)
    np.testing.assert_allclose(
        shapes.box(p, (0.0, 0.0, 0.0), (0.3, 0.2, 0.1)), [0.7, -0.1], atol=1e-5
    )
    np.testing.assert_allclose(
        shapes.torus(p, (0.0, 0.0, 0.0), 0.6, 0.1, axis=2), [0.3, 0.5], atol=1e-5
    )
    np.testing.assert_allclose(
        shapes.cylinder(p, (0.0, 0.0, 0.0), 0.25, 0.5), [0.75, -0.25], atol=1e-5
    )


def test_a_ball_has_the_volume_of_a_ball():
    inside = solids.occupancy_grid("ball", 64, 0.5)
    assert inside.mean() == pytest.approx(4.0 / 3.0 * np.pi * 0.38**3, rel=0.01)


def test_the_mug_has_its_handle_on_the_right_and_is_hollow():
    handle, mirrored, cup = jnp.asarray([[0.0, 0.37, 0.0], [0.0, -0.37, 0.0], [0.0, -0.08, 0.1]])
    assert solids.signed_distance("mug", handle) < 0.0
    assert solids.signed_distance("mug", mirrored) > 0.0
    assert solids.signed_distance("mug", cup) > 0.0


def test_held_out_pairs_exist_and_leave_every_kind_and_colour_to_train_on():
    assert len(solids.HELD_OUT) >= 12
    pairs = set(itertools.product(solids.KINDS, solids.COLOURS))
    assert pairs >= solids.HELD_OUT
    trained = pairs - solids.HELD_OUT
    assert {k for k, _ in trained} == set(solids.KINDS)
    assert {c for _, c in trained} == set(solids.COLOURS)


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match="sofa"):
        solids.signed_distance("sofa", jnp.zeros(3))
