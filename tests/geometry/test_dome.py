import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.geometry import dome
from geojax.geometry.camera import Camera, camera_rays, look_at

SIZE, ROWS = 24, 60
paint, look = jax.jit(dome.paint), jax.jit(dome.look)


def camera_at(position, towards):
    position = jnp.asarray(position, jnp.float32)
    pose = look_at(position, position + jnp.asarray(towards), jnp.asarray([0.0, 0.0, 1.0]))
    values = (20.0, 22.0, 12.5, 11.0)
    return Camera(pose, *(jnp.asarray(v, jnp.float32) for v in values), height=SIZE, width=SIZE)


def sky(camera):
    """A smooth colour of each direction."""
    return 0.5 + 0.4 * camera_rays(camera).directions


ALL = jnp.ones((SIZE, SIZE), bool)


@pytest.mark.parametrize(
    "towards", [(1.0, 0.0, 0.1), (-1.0, 0.02, 0.3), (0.0, 0.0, 1.0), (0.3, -0.2, -1.0)]
)
def test_what_was_painted_is_seen_again_from_elsewhere(towards):
    """Across the seam of the columns and at the poles too; moving changes nothing."""
    here = camera_at((0.0, 0.0, 0.0), towards)
    painted = paint(dome.empty_dome(ROWS), here, sky(here), ALL)
    there = camera_at((3.0, -20.0, 7.0), towards)
    colours, known = look(painted, there)
    inner = np.zeros((SIZE, SIZE), bool)
    inner[3:-3, 3:-3] = True
    assert np.asarray(known)[inner].all()
    # A texel is 3 degrees: half of it is 0.026 radians of a colour with slope 0.4.
    error = np.abs(np.asarray(colours - sky(there))).max(-1)
    assert error[inner].max() < 0.012


def test_only_far_pixels_are_painted_and_none_of_the_others_bleeds_in():
    here = camera_at((0.0, 0.0, 0.0), (1.0, 0.0, 0.0))
    far = jnp.broadcast_to(jnp.arange(SIZE)[None] < 12, (SIZE, SIZE))
    image = jnp.where(far[..., None], jnp.asarray([[[0.0, 0.0, 1.0]]]), 1.0)
    painted = paint(dome.empty_dome(ROWS), here, image, far)
    colours, known = look(painted, here)
    assert 0.3 < float(jnp.mean(known)) < 0.6
    assert not known[:, 14:].any()
    blue = np.asarray(colours)[np.asarray(known)]
    np.testing.assert_allclose(blue, [[0.0, 0.0, 1.0]] * len(blue), atol=1e-5)
    assert not np.asarray(colours)[~np.asarray(known)].any()


def test_what_is_known_stays():
    here = camera_at((0.0, 0.0, 0.0), (1.0, 0.0, 0.0))
    first = paint(dome.empty_dome(ROWS), here, sky(here), ALL)
    again = paint(first, here, jnp.zeros((SIZE, SIZE, 3)), ALL)
    np.testing.assert_array_equal(first.colors, again.colors)
    assert bool(jnp.all(first.known == again.known))


def test_texels_point_where_the_map_says():
    """Unit length; the first row is the zenith, the first column azimuth 0."""
    omega = dome.directions(ROWS)
    np.testing.assert_allclose(jnp.linalg.norm(omega, axis=-1), 1.0, atol=1e-6)
    np.testing.assert_allclose(omega[0, 0], [0.0, 0.0, 1.0], atol=0.03)
    np.testing.assert_allclose(omega[ROWS // 2, 0], [1.0, 0.0, 0.0], atol=0.03)
    np.testing.assert_allclose(omega[ROWS // 2, ROWS // 2], [0.0, 1.0, 0.0], atol=0.03)


def test_a_dome_of_no_rows_is_an_error():
    with pytest.raises(ValueError, match="got 1"):
        dome.empty_dome(1)
