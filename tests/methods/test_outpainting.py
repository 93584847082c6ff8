import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.methods.outpainting import borders, shift_canvas, shrink_canvas, zoom_view

HEIGHT, WIDTH, BORDER = 16, 24, 3
view = jax.jit(zoom_view, static_argnums=2)


@pytest.fixture(scope="module")
def picture():
    """Smooth, so that resampling it loses little."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] / np.asarray([HEIGHT, WIDTH])[:, None, None]
    waves = [np.sin(3 * x + 2 * y), np.cos(4 * y - x), np.sin(2 * x * y + 1)]
    return jnp.asarray(0.5 + 0.4 * np.stack(waves, -1)[None], jnp.float32)


@pytest.mark.parametrize(("down", "right"), [(0, 5), (-3, 0), (2, -4)])
def test_a_shift_moves_every_pixel_and_marks_what_it_leaves(picture, down, right):
    canvas, hole = shift_canvas(picture, down, right)
    for y in range(HEIGHT):
        for x in range(WIDTH):
            y0, x0 = y - down, x - right
            outside = not (0 <= y0 < HEIGHT and 0 <= x0 < WIDTH)
            assert bool(hole[0, y, x]) == outside
            expected = 0.0 if outside else picture[0, y0, x0]
            np.testing.assert_array_equal(canvas[0, y, x], expected)


def test_shifts_that_leave_no_hole_or_no_picture_are_refused(picture):
    for shift, message in [
        ((0, 0), "leaves no hole"),
        ((16, 0), "nothing of 24x16"),
        ((0, -24), "-24 right"),
    ]:
        with pytest.raises(ValueError, match=message):
            shift_canvas(picture, *shift)


def test_borders_are_in_proportion():
    assert borders(64, 64, 4) == (4, 4)
    assert borders(16, 24, 3) == (2, 3)
    assert borders(10, 200, 4) == (1, 4)  # never none
    for border, message in [(0, "at least 1 pixel, got 0"), (12, "leaves nothing of 24x16")]:
        with pytest.raises(ValueError, match=message):
            borders(HEIGHT, WIDTH, border)


def test_shrinking_leaves_a_border_and_the_picture_within(picture):
    canvas, hole = shrink_canvas(picture, BORDER)
    inside = np.zeros((1, HEIGHT, WIDTH), bool)
    inside[:, 2:-2, 3:-3] = True
    np.testing.assert_array_equal(hole, ~inside)
    assert not np.asarray(canvas)[~inside].any()
    expected = jax.image.resize(picture, (1, 12, 18, 3), "linear", antialias=True)
    np.testing.assert_allclose(canvas[:, 2:-2, 3:-3], expected, atol=1e-5)


def test_a_zoom_begins_at_one_frame_and_ends_at_the_next(picture):
    canvas, hole = shrink_canvas(picture, BORDER)
    outer = jnp.where(hole[..., None], 0.25, canvas)
    np.testing.assert_allclose(view(picture, outer, BORDER, 0.0), picture, atol=1e-5)
    np.testing.assert_allclose(view(picture, outer, BORDER, 1.0), outer, atol=1e-5)


def test_between_two_frames_everything_shrinks_alike(picture):
    """A world much larger than the frames: a view at any time is the world at that scale."""

    def world(scale):
        """What is seen when the middle of the frame covers `scale` of it."""
        middles = (np.arange(n) + 0.5 - n / 2 for n in (HEIGHT, WIDTH))
        y, x = np.meshgrid(*middles, indexing="ij")
        y, x = y / scale[0] / HEIGHT, x / scale[1] / WIDTH
        waves = [np.sin(2 * x + y), np.cos(y), 0 * x]
        return 0.5 + 0.3 * np.stack(waves, -1)

    kept = np.asarray([(HEIGHT - 4) / HEIGHT, (WIDTH - 6) / WIDTH])
    inner, outer = (jnp.asarray(world(kept**k)[None], jnp.float32) for k in (0, 1))
    for f in (0.25, 0.5, 0.9):
        found = np.asarray(view(inner, outer, BORDER, f))[0]
        np.testing.assert_allclose(found, world(kept**f), atol=0.02)


def test_the_views_of_a_film_compile_once(picture):
    views = jax.jit(functools.partial(zoom_view, border=BORDER))
    for f in (0.0, 0.3, 1.0):
        views(picture, outer=picture, fraction=f)
    assert views._cache_size() == 1
