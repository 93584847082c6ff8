import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.geometry import camera as cameras
from geojax.geometry.camera import Camera

HEIGHT, WIDTH = 5, 7


def random_camera(rng, batch=()):
    """Any rotation, any intrinsics: non-square pixels, principal point far from the middle."""
    rotation = np.linalg.qr(rng.normal(size=(*batch, 3, 3)))[0]
    rotation[..., 0] *= np.linalg.det(rotation)[..., None]
    pose = np.zeros((*batch, 4, 4))
    pose[..., :3, :3], pose[..., :3, 3], pose[..., 3, 3] = rotation, rng.normal(size=3), 1.0
    intrinsics = (
        rng.uniform(low, high, size=batch) for low, high in [(3, 9), (5, 20), (-2, 9), (0, 5)]
    )
    return Camera(
        *(jnp.asarray(a, jnp.float32) for a in (pose, *intrinsics)), height=HEIGHT, width=WIDTH
    )


def test_rays_equal_a_loop_over_pixels(rng):
    camera = random_camera(rng)
    rays = cameras.camera_rays(camera)
    pose = np.asarray(camera.camera_to_world, np.float64)
    for row in range(HEIGHT):
        for column in range(WIDTH):
            local = np.array(
                [
                    (column + 0.5 - float(camera.cx)) / float(camera.fx),
                    (row + 0.5 - float(camera.cy)) / float(camera.fy),
                    1.0,
                ]
            )
            length = np.linalg.norm(local)
            want = pose[:3, :3] @ local / length
            np.testing.assert_allclose(rays.directions[row, column], want, atol=1e-6)
            np.testing.assert_allclose(rays.z_scale[row, column], 1 / length, rtol=1e-6)
            np.testing.assert_array_equal(rays.origins[row, column], camera.position)


@jax.jit
def there_and_back(camera, distance):
    """Points on the rays of all pixels, their projection, and that unprojected again."""
    rays = cameras.camera_rays(camera)
    points = rays.origins + rays.directions * distance[..., None]
    points = points.reshape(*camera.batch_shape, -1, 3)
    pixels, depth = cameras.project(camera, points)
    z = (distance * rays.z_scale).reshape(depth.shape)
    return points, pixels, depth, z, cameras.unproject(camera, pixels, depth)


@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_points_on_rays_project_to_their_pixels(rng, batch):
    camera = random_camera(rng, batch)
    distance = jnp.asarray(rng.uniform(0.5, 4.0, size=(*batch, HEIGHT, WIDTH)), jnp.float32)
    points, pixels, depth, z, back = there_and_back(camera, distance)
    centers = np.asarray(cameras.pixel_centers(HEIGHT, WIDTH)).reshape(-1, 2)
    np.testing.assert_allclose(pixels, np.broadcast_to(centers, pixels.shape), atol=1e-4)
    np.testing.assert_allclose(depth, z, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(back, points, atol=1e-5)


def test_pixel_centers_are_at_a_half():
    centers = np.asarray(cameras.pixel_centers(2, 3))
    assert centers[0].tolist() == [[0.5, 0.5], [1.5, 0.5], [2.5, 0.5]]
    assert centers[1, 0].tolist() == [0.5, 1.5]


def test_projection_is_finite_at_depth_zero(rng):
    camera = cameras.pinhole(jnp.eye(4), 4.0, HEIGHT, WIDTH)
    points = jnp.asarray([[1.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    pixels, depth = cameras.project(camera, points)
    slope = jax.jit(jax.grad(lambda p: jnp.sum(cameras.project(camera, p)[0])))(points)
    assert np.isfinite(pixels).all() and np.isfinite(slope).all() and not np.any(depth)


def test_what_is_right_and_up_in_the_world_is_right_and_up_in_the_picture():
    """From +x, with z up: +y is on the right, +z at the top (v falls)."""
    pose = cameras.look_at(jnp.array([2.0, 0, 0]), jnp.zeros(3), jnp.array([0.0, 0, 1]))
    camera = cameras.pinhole(pose, 8.0, 6, 6)
    pixels, depth = cameras.project(
        camera, jnp.asarray([[0.0, 0, 0], [0, 0.5, 0], [0, 0, 0.5], [1, 0, 0]])
    )
    np.testing.assert_allclose(pixels, [[3, 3], [5, 3], [3, 1], [3, 3]], atol=1e-6)
    np.testing.assert_allclose(depth, [2, 2, 2, 1], atol=1e-6)


def test_look_at_is_a_rotation_that_looks_at_its_target(rng):
    position, target, up = (jnp.asarray(rng.normal(size=(20, 3)), jnp.float32) for _ in range(3))
    pose = np.asarray(cameras.look_at(position, target, up), np.float64)
    rotation = pose[:, :3, :3]
    np.testing.assert_allclose(np.linalg.det(rotation), 1.0, atol=1e-5)
    np.testing.assert_allclose(
        rotation.transpose(0, 2, 1) @ rotation, np.broadcast_to(np.eye(3), (20, 3, 3)), atol=1e-5
    )
    forward = np.asarray(target - position, np.float64)
    forward /= np.linalg.norm(forward, axis=-1, keepdims=True)
    np.testing.assert_allclose(rotation[:, :, 2], forward, atol=1e-5)
    assert (np.sum(rotation[:, :, 1] * np.asarray(up), axis=-1) < 0).all()  # down, not up
    np.testing.assert_allclose(np.sum(rotation[:, :, 0] * np.asarray(up), -1), 0.0, atol=1e-5)


@pytest.mark.parametrize("position", [[0.0, 0, 3], [0.0, 0, -3]])
def test_look_at_straight_down_or_up(position):
    def pose(p):
        return cameras.look_at(p, jnp.zeros(3), jnp.array([0.0, 0, 1]))

    camera = cameras.pinhole(jax.jit(pose)(jnp.asarray(position)), 4.0, 4, 4)
    cameras.check_camera(camera)
    slope = jax.jit(jax.jacobian(pose))(jnp.asarray(position))
    assert np.isfinite(slope).all()


def test_opengl_axes():
    """A camera at the origin that looks along -z with y up is the identity in OpenGL."""
    pose = cameras.look_at(jnp.zeros(3), jnp.array([0.0, 0, -1]), jnp.array([0.0, 1, 0]))
    np.testing.assert_allclose(cameras.to_opengl(pose), np.eye(4), atol=1e-7)
    np.testing.assert_allclose(cameras.from_opengl(jnp.eye(4)), pose, atol=1e-7)


def test_opengl_conversion_is_a_product_from_the_right(rng):
    pose = random_camera(rng, (3,)).camera_to_world
    flip = np.diag([1.0, -1.0, -1.0, 1.0])
    np.testing.assert_array_equal(cameras.to_opengl(pose), np.asarray(pose) @ flip)
    np.testing.assert_array_equal(cameras.from_opengl(cameras.to_opengl(pose)), pose)


def test_field_of_view():
    """DreamFusion's focal lengths, .7 and 1.35 widths, in degrees."""
    fov = np.degrees(cameras.fov_from_focal(jnp.array([0.7, 1.35]) * 64, 64))
    np.testing.assert_allclose(fov, [71.08, 40.65], atol=5e-3)
    np.testing.assert_allclose(
        cameras.focal_from_fov(jnp.radians(fov), 64), [44.8, 86.4], rtol=1e-5
    )


def test_a_camera_is_a_pytree_with_a_static_size(rng):
    camera = random_camera(rng, (2,))
    assert len(jax.tree.leaves(camera)) == 5
    shapes = jax.tree.map(jnp.shape, camera)  # leaves that are no arrays
    assert shapes.fx == (2,) and shapes.height == HEIGHT
    assert jax.tree.map(lambda _: None, camera).fx is None
    named = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(camera)]
    assert named == [".camera_to_world", ".fx", ".fy", ".cx", ".cy"]
    mapped = jax.jit(jax.vmap(cameras.camera_rays))(camera)
    for got, want in zip(jax.jit(cameras.camera_rays)(camera), mapped, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-6)
    np.testing.assert_array_equal(camera[1].camera_to_world, camera.camera_to_world[1])
    assert camera[:1].batch_shape == (1,)


def broken(**changes):
    camera = cameras.pinhole(jnp.broadcast_to(jnp.eye(4), (2, 4, 4)), 4.0, 4, 6)
    fields = {name: getattr(camera, name) for name in camera.__dataclass_fields__}
    return Camera(**(fields | changes))


def pose_with(entry, value):
    return jnp.broadcast_to(jnp.eye(4), (2, 4, 4)).at[(1, *entry)].set(value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fx": jnp.array([4.0, 0.0])}, r"fx must be positive.*got 0\.0"),
        ({"fy": jnp.array([-3.0, 4.0])}, r"fy must be positive.*got -3\.0"),
        ({"cx": jnp.array([1.0, jnp.nan])}, r"cx is not finite: nan at \(1,\)"),
        ({"height": 0}, "height must be positive, got 0"),
        ({"camera_to_world": pose_with((0, 3), jnp.inf)}, r"not finite: inf at \(1, 0, 3\)"),
        ({"camera_to_world": pose_with((0, 0), 2.0)}, "does not start with a rotation"),
        ({"camera_to_world": pose_with((0, 0), -1.0)}, "mirrored"),
        ({"camera_to_world": pose_with((3, 3), 2.0)}, "must end in the row 0 0 0 1"),
    ],
)
def test_check_names_what_is_wrong(changes, message):
    cameras.check_camera(broken())
    with pytest.raises(ValueError, match=message):
        cameras.check_camera(broken(**changes))
