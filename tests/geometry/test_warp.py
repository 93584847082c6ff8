import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.geometry import warp
from geojax.geometry.camera import Camera, camera_rays

HEIGHT, WIDTH = 12, 16
FX, FY, CX, CY = 14.0, 17.0, 6.5, 7.25


def camera_at(position=(0.0, 0.0, 0.0), rotation=None, height=HEIGHT, width=WIDTH):
    pose = np.eye(4)
    pose[:3, :3] = np.eye(3) if rotation is None else rotation
    pose[:3, 3] = position
    values = (pose, FX, FY, CX, CY)
    return Camera(*(jnp.asarray(v, jnp.float32) for v in values), height=height, width=width)


def yaw(angle):
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def random_picture(rng, low=1.0, high=9.0):
    image = jnp.asarray(rng.uniform(size=(HEIGHT, WIDTH, 3)), jnp.float32)
    return image, jnp.asarray(rng.uniform(low, high, size=(HEIGHT, WIDTH)), jnp.float32)


def loop_warp(images, depths, poses, target, splat):
    """Equations (1) to (4) in loops, float64."""
    best = np.full((HEIGHT, WIDTH), np.inf)
    image = np.zeros((HEIGHT, WIDTH, 3))
    for picture, depth, pose in zip(images, depths, poses, strict=True):
        for j in range(HEIGHT):
            for i in range(WIDTH):
                z = float(depth[j, i])
                point = np.array([(i + 0.5 - CX) / FX * z, (j + 0.5 - CY) / FY * z, z, 1.0])
                x, y, far, _ = np.linalg.inv(target) @ pose @ point
                if far < warp.NEAR:
                    continue
                u, v = FX * x / far + CX, FY * y / far + CY
                reach = 0.5 * max(1.0, z / far) + warp.SLACK
                columns = np.floor(u - 0.5 * (splat - 1)) + np.arange(splat)
                rows = np.floor(v - 0.5 * (splat - 1)) + np.arange(splat)
                for row in rows:
                    for column in columns:
                        a = abs(column + 0.5 - u) <= reach or column == np.floor(u)
                        b = abs(row + 0.5 - v) <= reach or row == np.floor(v)
                        inside = 0 <= row < HEIGHT and 0 <= column < WIDTH
                        if a and b and inside and far < best[int(row), int(column)]:
                            best[int(row), int(column)] = far
                            image[int(row), int(column)] = picture[j, i]
    return image, best


@pytest.mark.parametrize("splat", [1, 2, 3])
def test_it_equals_a_loop_over_points(rng, splat):
    """Two frames, a target that turns and steps; splats of odd and even size."""
    views = [camera_at(), camera_at((0.3, 0.1, -0.4), yaw(0.1))]
    target = camera_at((-0.2, 0.05, 0.5), yaw(-0.15))
    pictures = [random_picture(rng) for _ in views]
    frames = warp.single_frame(*pictures[0], views[0])
    frames = warp.add_frame(frames, *pictures[1], views[1])
    assert frames.capacity == 2 and int(frames.count) == 2
    seen = warp.forward_warp(frames, target, splat)
    image, depth = loop_warp(
        *(np.asarray([p[i] for p in pictures], np.float64) for i in (0, 1)),
        [np.asarray(v.camera_to_world, np.float64) for v in views],
        np.asarray(target.camera_to_world, np.float64),
        splat,
    )
    np.testing.assert_array_equal(seen.hole, np.isinf(depth))
    np.testing.assert_allclose(seen.depth, np.where(np.isinf(depth), 0, depth), rtol=1e-4)
    np.testing.assert_allclose(seen.image, image, atol=1e-6)


def test_an_identity_move_returns_the_picture(rng):
    """To the bit, however wild the depth: near things do not grow."""
    image, depth = random_picture(rng, 0.1, 50.0)
    seen = warp.forward_warp(warp.single_frame(image, depth, camera_at()), camera_at())
    assert not seen.hole.any()
    np.testing.assert_array_equal(seen.image, image)
    np.testing.assert_allclose(seen.depth, depth, rtol=1e-6)


@pytest.mark.parametrize("swapped", [False, True])
def test_of_two_points_the_nearer_wins_in_either_order(rng, swapped):
    """Whichever frame comes first, and whichever pixel comes first within one."""
    image, _ = random_picture(rng)
    near, far = jnp.full((HEIGHT, WIDTH), 2.0), jnp.full((HEIGHT, WIDTH), 4.0)
    first, second = (far, near) if swapped else (near, far)
    frames = warp.single_frame(image * 0 + (0.0 if swapped else 1.0), first, camera_at())
    frames = warp.add_frame(frames, image * 0 + (1.0 if swapped else 0.0), second, camera_at())
    seen = warp.forward_warp(frames, camera_at())
    np.testing.assert_array_equal(seen.image, jnp.ones_like(image))
    # Pixels 3 and 6 of a row collide after a step: the shift is f t / z.
    at, other = (6, 3) if swapped else (3, 6)
    depth = jnp.full((HEIGHT, WIDTH), jnp.nan).at[5, at].set(2.0).at[5, other].set(4.0)
    step = (at - other) / (FX * (1 / 2 - 1 / 4))
    seen = warp.forward_warp(
        warp.single_frame(image, depth, camera_at()), camera_at((step, 0, 0)), 1
    )
    column = round(at - FX * step / 2.0)
    if 0 <= column < WIDTH:
        np.testing.assert_array_equal(seen.image[5, column], image[5, at])
        assert int(jnp.sum(~seen.hole)) == 1


def test_a_pure_rotation_does_not_see_depth(rng):
    """Section 5 (c): the same picture whatever the depth, where the depth is one surface."""
    image, _ = random_picture(rng)
    target = camera_at(rotation=yaw(0.2))
    views = [
        warp.forward_warp(
            warp.single_frame(image, jnp.full((HEIGHT, WIDTH), z), camera_at()), target, 1
        )
        for z in (0.5, 40.0)
    ]
    # Which of two points over one pixel wins is up to their depths, which a rotation scales alike.
    np.testing.assert_array_equal(views[0].hole, views[1].hole)
    np.testing.assert_array_equal(views[0].image, views[1].image)
    assert 0 < int(jnp.sum(views[0].hole)) < HEIGHT * WIDTH


@pytest.mark.parametrize("kind", [warp.forward_warp, warp.soft_warp])
def test_a_step_aside_moves_a_plane_by_the_disparity(rng, kind):
    """Section 5 (d): by -f t / z pixels; what comes into view is a hole."""
    image, _ = random_picture(rng)
    shift, z = 3, 5.0
    target = camera_at((shift * z / FX, 0, 0))
    frames = warp.single_frame(image, jnp.full((HEIGHT, WIDTH), z), camera_at())
    seen = kind(frames, target)
    np.testing.assert_allclose(seen.image[:, :-shift], image[:, shift:], atol=1e-4)
    np.testing.assert_array_equal(seen.hole, np.arange(WIDTH)[None].repeat(HEIGHT, 0) >= 13)


def test_splats_close_the_cracks_of_a_plane_that_comes_nearer(rng):
    """At 1.9 times the size one pixel a point leaves most of the view open, three close it."""
    image, _ = random_picture(rng)
    frames = warp.single_frame(image, jnp.full((HEIGHT, WIDTH), 1.9), camera_at())
    target = camera_at((0, 0, 0.9))
    assert float(jnp.mean(warp.forward_warp(frames, target, 1).hole)) > 0.5
    assert not warp.forward_warp(frames, target, 3).hole.any()


def test_what_is_behind_or_not_there_is_not_seen(rng):
    image, depth = random_picture(rng, 1.0, 2.0)
    depth = depth.at[0].set(jnp.nan).at[1].set(jnp.inf).at[2].set(0.0).at[3].set(-1.0)
    frames = warp.single_frame(image, depth, camera_at())
    seen = warp.forward_warp(frames, camera_at(), 1)
    np.testing.assert_array_equal(seen.hole[:, 0], np.arange(HEIGHT) < 4)
    for kind in (warp.forward_warp, warp.soft_warp):
        behind = kind(frames, camera_at((0, 0, 2.5)))
        assert behind.hole.all() and not behind.image.any() and not behind.depth.any()


def test_room_for_frames_changes_nothing(rng):
    """Frames beyond the count are not seen, whatever they hold; the third one doubles the room."""
    target = camera_at((0.2, 0, 0.1))
    frames = warp.single_frame(*random_picture(rng), camera_at())
    for _ in range(2):
        frames = warp.add_frame(frames, *random_picture(rng), camera_at((0.1, 0, 0)))
    assert frames.capacity == 4 and int(frames.count) == 3
    exact = jax.tree.map(lambda leaf: leaf[:3] if leaf.ndim else leaf, frames)
    rubbish = warp.Frames(
        frames.images.at[3].set(7.0), frames.depths.at[3].set(0.01), frames.cameras, frames.count
    )
    for kind in (warp.forward_warp, warp.soft_warp):
        for a, b in zip(kind(exact, target), kind(rubbish, target), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


def test_another_size_is_an_error(rng):
    image, depth = random_picture(rng)
    frames = warp.single_frame(image, depth, camera_at())
    with pytest.raises(ValueError, match="12x16, the new one is 6x16"):
        warp.add_frame(frames, image[:6], depth[:6], camera_at(height=6))
    with pytest.raises(ValueError, match="at least 1"):
        warp.forward_warp(frames, camera_at(), 0)


def test_a_target_of_another_size_sees_the_same_world(rng):
    """A plane at depth 4 in a colour that is linear in the world, seen by a larger image."""
    rays = camera_rays(camera_at())
    points = rays.directions / rays.z_scale[..., None] * 4.0
    frames = warp.single_frame(0.05 * points + 0.5, points[..., 2], camera_at())
    target = camera_at((0.0, 0.0, -0.5), height=15, width=22)
    seen = warp.forward_warp(frames, target)
    rays = camera_rays(target)
    there = rays.origins + rays.directions / rays.z_scale[..., None] * 4.5
    error = jnp.abs(seen.image - (0.05 * there + 0.5)).max(-1)
    # At most the 0.7 pixel of the new view that a splat may reach: 0.7 * 4.5 / 14 * 0.05.
    assert float(jnp.max(jnp.where(seen.hole, 0.0, error))) < 0.01126
    assert not seen.hole[2:10, 2:12].any()
    np.testing.assert_allclose(seen.depth[~seen.hole], 4.5, rtol=1e-5)


def test_soft_gradients_are_those_of_differences(rng):
    """In the depth and the image, with a depth that is not there among them."""
    image, depth = random_picture(rng, 2.0, 3.0)
    depth = depth.at[2, 3].set(jnp.nan)
    target = camera_at((0.11, 0.07, 0.1))

    @jax.jit
    def score(image, depth):
        seen = warp.soft_warp(warp.single_frame(image, depth, camera_at()), target)
        return jnp.sum(seen.image**2) + jnp.sum(seen.depth)

    by_image, by_depth = jax.jit(jax.grad(score, argnums=(0, 1)))(image, depth)
    assert bool(jnp.all(jnp.isfinite(by_image)))
    assert float(by_depth[2, 3]) == 0.0 and bool(jnp.all(jnp.isfinite(by_depth)))
    for at in ((5, 6), (8, 10)):
        change = jnp.zeros_like(depth).at[at].set(1e-3)
        numeric = (score(image, depth + change) - score(image, depth - change)) / 2e-3
        np.testing.assert_allclose(by_depth[at], numeric, rtol=0.05, atol=0.02)
