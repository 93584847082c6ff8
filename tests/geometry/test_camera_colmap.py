import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.geometry.camera import Camera, project
from geojax.geometry.colmap import (
    camera_from_colmap,
    camera_to_colmap,
    quaternion,
    rotation_matrix,
)

CAMERAS = """# Camera list
1 PINHOLE 640 480 500 510 300.5 250.25
2 SIMPLE_PINHOLE 640 480 400 320 240
3 SIMPLE_RADIAL 640 480 450 320 240 0
"""
# The second line of an image holds its points, and may be empty.
IMAGES = """# Image list with two lines of data per image
7 1 0 0 0 0.5 -1 2 1 zoo/b 2.png
10.5 20.25 -1 11 21 4
3 0.7071067811865476 0 0.7071067811865476 0 0 0 3 2 a.png

4 0 0 0 1 1 2 3 3 c.png
"""


def random_cameras(rng, count):
    q, _ = np.linalg.qr(rng.normal(size=(count, 3, 3)))
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, :3] = q * np.sign(np.linalg.det(q))[:, None, None]
    poses[:, :3, 3] = rng.normal(size=(count, 3))
    numbers = rng.uniform(100.0, 200.0, (2, 4))[np.arange(count) % 2]
    f32 = lambda x: jnp.asarray(x, jnp.float32)  # noqa: E731
    return Camera(f32(poses), *f32(numbers.T), 48, 64)


def test_a_model_is_read_sorted_by_name():
    camera, names = camera_from_colmap(CAMERAS, IMAGES)
    assert names == ["a.png", "c.png", "zoo/b 2.png"]
    assert (camera.height, camera.width) == (480, 640)
    np.testing.assert_allclose(camera.fx, [400, 450, 500])
    np.testing.assert_allclose(camera.fy, [400, 450, 510])
    np.testing.assert_allclose(camera.cx, [320, 320, 300.5])
    np.testing.assert_allclose(camera.cy, [240, 240, 250.25])
    # x_cam = R x + t by hand: a quarter turn about y, a half turn about z, none.
    np.testing.assert_allclose(camera.position, [[3, 0, 0], [1, 2, -3], [-0.5, 1, -2]], atol=1e-6)
    np.testing.assert_allclose(camera.rotation[0, :, 2], [-1, 0, 0], atol=1e-6)


def test_a_point_lands_where_colmaps_own_formula_puts_it(rng):
    camera, _ = camera_from_colmap(CAMERAS, IMAGES)
    point = rng.normal(size=3) + np.array([0, 0, 5])
    pixel, depth = project(camera[2], jnp.asarray(point[None], jnp.float32))
    x, y, z = point + np.array([0.5, -1, 2])
    np.testing.assert_allclose(depth, [z], rtol=1e-6)
    np.testing.assert_allclose(pixel[0], [500 * x / z + 300.5, 510 * y / z + 250.25], rtol=1e-5)


def test_what_is_written_is_read_again(rng):
    camera = random_cameras(rng, 5)
    names = [f"frames/{i:04d}.png" for i in (3, 1, 4, 0, 2)]
    cameras, images = camera_to_colmap(camera, names)
    assert cameras.count("PINHOLE") == 2
    found, sorted_names = camera_from_colmap(cameras, images)
    assert sorted_names == sorted(names)
    expected = camera[np.argsort(names)]
    assert (found.height, found.width) == (48, 64)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1.0, np.pi - 1e-9, np.pi])
def test_a_quaternion_is_that_of_its_rotation(rng, angle):
    axis = rng.normal(size=3)
    axis /= np.linalg.norm(axis)
    q = np.array([np.cos(angle / 2), *(np.sin(angle / 2) * axis)])
    r = rotation_matrix(q)
    np.testing.assert_allclose(r @ axis, axis, atol=1e-12)
    assert np.trace(r) == pytest.approx(1 + 2 * np.cos(angle))
    np.testing.assert_allclose(r @ r.T, np.eye(3), atol=1e-12)
    across = np.cross(axis, [0.3, -0.5, 0.8])
    assert np.cross(across, r @ across) @ axis == pytest.approx(
        np.sin(angle) * across @ across, abs=1e-9
    )
    found = quaternion(r)
    np.testing.assert_allclose(found * np.sign(found @ q), q, atol=1e-8)


@pytest.mark.parametrize(
    ("cameras", "images", "said"),
    [
        (CAMERAS.replace("PINHOLE 640", "OPENCV_FISHEYE 640", 1), IMAGES, "cameras.txt line 2"),
        (CAMERAS.replace("240 0", "240 0.1"), IMAGES, r"line 4: lens distortion \[0.1\]"),
        (CAMERAS.replace("500", "-500"), IMAGES, "line 2: focal lengths must be positive"),
        (CAMERAS.replace("500", "nan"), IMAGES, "line 2: numbers must be finite"),
        (CAMERAS.replace("250.25", ""), IMAGES, "line 2: PINHOLE has 4 parameters, got 3"),
        (CAMERAS.replace("640", "0", 1), IMAGES, "line 2: width and height"),
        (CAMERAS.replace("480", "481", 1), IMAGES, "images must share one"),
        (CAMERAS.replace("2 SIMPLE", "1 SIMPLE"), IMAGES, "line 3: there are two cameras 1"),
        (CAMERAS + "5 PINHOLE\n", IMAGES, "line 5: expected ID MODEL"),
        (CAMERAS, IMAGES.replace(" 3 2 a", " 3 9 a"), "line 4: camera 9 is not in cameras.txt"),
        (CAMERAS, IMAGES.replace("7 1 0", "7 2 0"), "line 2: the quaternion .* has length 2"),
        (CAMERAS, IMAGES.replace("7 1 0", "7 x 0"), "line 2: could not convert"),
        (CAMERAS, IMAGES.replace("\n\n", "\n"), "images.txt line 5, points of an image"),
        (CAMERAS, IMAGES.replace(" -1 11", " 11"), "line 3: expected X Y POINT3D_ID"),
        (CAMERAS, IMAGES.replace(" 3 c.png", ""), "line 6: expected ID QW"),
        (CAMERAS, IMAGES.replace("c.png", "a.png"), "line 6: there are two images 'a.png'"),
        (CAMERAS, "# nothing\n", "no images"),
    ],
)
def test_what_is_no_model_is_refused_with_its_line(cameras, images, said):
    with pytest.raises(ValueError, match=said):
        camera_from_colmap(cameras, images)


def test_what_cannot_be_written_is_refused(rng):
    camera = random_cameras(rng, 2)
    with pytest.raises(ValueError, match="1 names"):
        camera_to_colmap(camera, ["a.png"])
    with pytest.raises(ValueError, match="cannot be the name"):
        camera_to_colmap(camera, ["a.png", "b\n.png"])
