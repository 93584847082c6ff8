import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.geometry.camera import Camera
from geojax.methods import hole_cleanup

SIZE = 16
clean = jax.jit(hole_cleanup.clean)


def camera_at(position=(0.0, 0.0, 0.0), angle=0.0):
    pose = np.eye(4)
    c, s = np.cos(angle), np.sin(angle)
    pose[:3, :3] = [[c, 0, s], [0, 1, 0], [-s, 0, c]]
    pose[:3, 3] = position
    values = (pose, 16.0, 16.0, 8.0, 8.0)
    return Camera(*(jnp.asarray(v, jnp.float32) for v in values), height=SIZE, width=SIZE)


def plane(slope=0.02):
    """A picture and a disparity that are linear in the pixel: means of neighbours are right."""
    u = jnp.broadcast_to(jnp.arange(SIZE, dtype=jnp.float32)[None], (SIZE, SIZE))
    image = jnp.stack([0.2 + slope * u, 0.9 - slope * u, 0.5 + 0 * u], axis=-1)
    return image, 1.0 / (0.5 + slope * u)


def test_cracks_are_filled_and_holes_are_left():
    """A crack along a column takes what is between its sides; a block of 6 x 6 stays a hole."""
    image, depth = plane()
    hole = jnp.zeros((SIZE, SIZE), bool).at[:, 4].set(True).at[8:14, 8:14].set(True)
    found = clean(jnp.where(hole[..., None], 7.0, image), jnp.where(hole, 0.0, depth), hole)
    expected = np.zeros((SIZE, SIZE), bool)
    expected[8:14, 8:14] = True
    np.testing.assert_array_equal(found.hole, expected)
    np.testing.assert_array_equal(found.filled, np.asarray(hole) & ~expected)
    kept = ~expected
    np.testing.assert_allclose(np.asarray(found.image)[kept], np.asarray(image)[kept], atol=1e-5)
    np.testing.assert_allclose(np.asarray(found.depth)[kept], np.asarray(depth)[kept], rtol=1e-5)
    assert not np.asarray(found.depth)[expected].any()


def test_two_pixels_wide_is_filled_from_both_sides():
    image, depth = plane(0.0)
    hole = jnp.zeros((SIZE, SIZE), bool).at[5:7, :].set(True)
    found = clean(jnp.where(hole[..., None], 0.0, image), jnp.where(hole, 0.0, depth), hole)
    assert not found.hole.any()
    np.testing.assert_allclose(found.image, image, atol=1e-5)
    np.testing.assert_allclose(found.depth, depth, rtol=1e-5)


def test_beside_what_is_infinitely_far_a_crack_takes_the_near_depth():
    """Far pixels have a colour and no depth: they must not drag the disparity down."""
    image, depth = plane(0.0)
    depth = depth.at[:, 5:].set(0.0)
    hole = jnp.zeros((SIZE, SIZE), bool).at[:, 4].set(True)
    found = clean(image, jnp.where(hole, 0.0, depth), hole)
    np.testing.assert_allclose(found.depth[1:-1, 4], 2.0, rtol=1e-5)
    far = jnp.zeros((SIZE, SIZE), bool).at[:, 10].set(True)
    found = clean(image, jnp.where(far, 0.0, depth), far)
    assert found.filled[:, 10].all() and not found.depth[:, 10].any()


@pytest.mark.parametrize("width", [1, 3])
def test_a_hole_at_the_border_of_the_picture_stays(width):
    """A camera that steps back by little opens a strip of one pixel: nothing is beyond it."""
    image, depth = plane()
    hole = jnp.zeros((SIZE, SIZE), bool).at[:width].set(True).at[:, -width:].set(True)
    np.testing.assert_array_equal(clean(image, depth, hole).hole, hole)


def test_nothing_known_stays_a_hole_and_nothing_to_fill_changes_nothing():
    image, depth = plane()
    every = jnp.ones((SIZE, SIZE), bool)
    assert clean(image, depth * 0, every).hole.all()
    found = clean(image, depth, ~every)
    np.testing.assert_array_equal(found.image, image)
    np.testing.assert_array_equal(found.depth, depth)


def test_what_shows_behind_the_extended_border_is_a_floater():
    """The previous view ends at a wall 2 m away; turned aside, 6 m there is no true depth."""
    before, after = camera_at(), camera_at(angle=0.5)
    wall = jnp.full((SIZE, SIZE), 2.0)
    far, near = jnp.full((SIZE, SIZE), 6.0), jnp.full((SIZE, SIZE), 1.5)
    found = jax.jit(hole_cleanup.floaters, static_argnames="border")(
        before, wall, after, far, border=8
    )
    # From the right edge of the previous picture, column 7, as far as the border reaches, 12; what
    # it saw itself is not judged.
    assert found[:, 8:12].mean() > 0.9 and not found[2:-2, :7].any() and not found[2:-2, 14:].any()
    assert not hole_cleanup.floaters(before, wall, after, near, border=8).any()
    assert not hole_cleanup.floaters(before, wall, before, far, border=8).any()
