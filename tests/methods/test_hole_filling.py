import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from geojax.methods import hole_filling as holes


@pytest.fixture(scope="module")
def picture():
    rng = np.random.default_rng(5)
    return jnp.asarray(rng.uniform(size=(2, 20, 28, 3)), jnp.float32)


@pytest.fixture(scope="module")
def mask():
    """A scattered one, and one with a large hole and only few known pixels."""
    rng = np.random.default_rng(6)
    return jnp.asarray(
        np.stack([rng.uniform(size=(20, 28)) < 0.6, rng.uniform(size=(20, 28)) < 0.98])
    )


@pytest.mark.parametrize("reach", [0, 1, 3])
def test_dilation_and_erosion_are_those_of_a_square(mask, reach):
    square = np.ones((2 * reach + 1,) * 2, bool)
    for one, grown, shrunk in zip(
        mask, holes.dilate(mask, reach), holes.erode(mask, reach), strict=True
    ):
        np.testing.assert_array_equal(grown, ndimage.binary_dilation(one, square))
        # Beyond the border lies more hole: the picture's edge is no seam.
        np.testing.assert_array_equal(shrunk, ndimage.binary_erosion(one, square, border_value=1))


def test_the_seam_is_a_band_on_one_side_or_both():
    mask = jnp.zeros((1, 1, 12), bool).at[0, 0, 4:].set(True)
    inside = holes.seam_band(mask, 2)
    assert np.flatnonzero(inside).tolist() == [4, 5]
    both = holes.seam_band(mask, 2, outside=True)
    assert np.flatnonzero(both).tolist() == [2, 3, 4, 5]


def test_the_nearest_colour_is_at_the_exact_distance(picture, mask):
    """scipy may take another pixel of the same distance: so the distance is compared."""
    rows, columns = np.mgrid[:20, :28]
    places = jnp.asarray(np.stack([rows, columns, 0 * rows], -1)[None].repeat(2, 0), jnp.float32)
    source = np.asarray(jax.jit(holes.fill_nearest)(places, mask))
    for i in range(2):
        known = ~np.asarray(mask[i])
        distance = np.hypot(source[i, ..., 0] - rows, source[i, ..., 1] - columns)
        truth = ndimage.distance_transform_edt(~known)
        np.testing.assert_allclose(distance, truth, atol=1e-5)
        row, column = source[i, ..., :2].astype(int).transpose(2, 0, 1)
        assert known[row, column].all()
    # What lies under the mask has no say, and what is known stays.
    filled = holes.fill_nearest(picture, mask)
    np.testing.assert_array_equal(
        filled, holes.fill_nearest(jnp.where(mask[..., None], 7.0, picture), mask)
    )
    np.testing.assert_array_equal(filled[~mask], picture[~mask])


def test_nothing_known_is_mid_grey_and_uniform_noise(picture, key):
    full = jnp.ones((2, 20, 28), bool)
    np.testing.assert_array_equal(holes.fill_nearest(picture, full), 0.5)
    noise = np.asarray(holes.fill_noise(key, jnp.full_like(picture, 7.0), full))
    assert 0.0 <= noise.min() < 0.02 < 0.98 < noise.max() <= 1.0
    # And nothing to fill is the picture.
    for filled in (
        holes.fill_nearest(picture, ~full),
        holes.fill_noise(key, picture, ~full),
    ):
        np.testing.assert_array_equal(filled, picture)


def test_noise_has_the_colours_of_the_picture_in_their_shares(key):
    """Three quarters red, a quarter blue, and a hole with green under it."""
    image = np.zeros((1, 40, 60, 3), np.float32)
    image[:, :, :20], image[:, :30, :20] = (0, 0, 1), (1, 0, 0)
    image[:, :, 20:] = (0, 1, 0)
    mask = jnp.zeros((1, 40, 60), bool).at[:, :, 20:].set(True)
    filled = np.asarray(holes.fill_noise(key, jnp.asarray(image), mask))
    np.testing.assert_array_equal(filled[:, :, :20], image[:, :, :20])
    share = filled[:, :, 20:].mean(axis=(0, 1, 2))
    np.testing.assert_allclose(share, [0.75, 0.0, 0.25], atol=0.04)
    rows = filled[0, :, 20:, 0].mean(axis=1)
    assert rows[:30].mean() - rows[30:].mean() < 0.1  # their order is gone


def test_a_fragment_goes_into_the_hole_alone(picture, mask):
    other = 1.0 - picture
    filled = holes.fill_fragment(picture, mask, other)
    np.testing.assert_array_equal(filled[mask], other[mask])
    np.testing.assert_array_equal(filled[~mask], picture[~mask])


def test_a_picture_covers_a_box():
    """A red and a blue half: the middle of the picture lies in the middle of the box."""
    picture = np.zeros((8, 30, 3), np.float32)
    picture[:, :15], picture[:, 15:] = (1, 0, 0), (0, 0, 1)
    canvas = np.asarray(holes.fit_to_box(jnp.asarray(picture), 20, 24, (2, 4, 18, 20)))
    assert canvas.shape == (20, 24, 3)
    assert np.abs(canvas[2:18, 4:11] - [1.0, 0.0, 0.0]).max() < 1e-6
    assert np.abs(canvas[2:18, 13:20] - [0.0, 0.0, 1.0]).max() < 1e-6
    outside = np.ones((20, 24), bool)
    outside[2:18, 4:20] = False
    assert not canvas[outside].any()
    same = jnp.asarray(np.random.default_rng(0).uniform(size=(6, 9, 3)), jnp.float32)
    np.testing.assert_allclose(holes.fit_to_box(same, 6, 9, (0, 0, 6, 9)), same, atol=1e-6)


@pytest.mark.parametrize("box", [(0, 0, 0, 4), (0, 0, 4, 9), (-1, 0, 3, 3), (3, 3, 2, 5)])
def test_boxes_outside_the_canvas_are_refused(box):
    with pytest.raises(ValueError, match="is not in a 8x8 canvas"):
        holes.fit_to_box(jnp.zeros((3, 3, 3)), 8, 8, box)
