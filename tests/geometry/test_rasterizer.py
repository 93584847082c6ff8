import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.geometry import rasterizer
from geojax.geometry.camera import Camera, camera_rays

HEIGHT, WIDTH = 22, 30


def camera_at(position=(0.1, -0.2, 0.3), angle=0.2):
    c, s = np.cos(angle), np.sin(angle)
    pose = np.eye(4)
    pose[:3, :3] = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    pose[:3, 3] = position
    values = (pose, 25.0, 31.0, 13.3, 12.1)
    return Camera(*(jnp.asarray(v, jnp.float32) for v in values), height=HEIGHT, width=WIDTH)


CAMERA = camera_at()


def cast(vertices, faces, camera, near=rasterizer.NEAR):
    """Moeller and Trumbore (1997) over all faces and pixels, float64, with none of our algebra.

    Returns the nearest face and z-depth of each pixel, and the least margin of any face near it.
    """
    rays = camera_rays(camera)
    d = np.asarray(rays.directions / rays.z_scale[..., None], np.float64).reshape(-1, 1, 3)
    o = np.asarray(camera.position, np.float64)
    v = np.asarray(vertices, np.float64)[np.asarray(faces)]
    e1, e2 = v[:, 1] - v[:, 0], v[:, 2] - v[:, 0]
    h = np.cross(d, e2[None])
    det = (e1[None] * h).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        u = ((o - v[:, 0])[None] * h).sum(-1) / det
        q = np.cross(o - v[:, 0], e1)
        w = (d * q[None]).sum(-1) / det
        t = (e2 * q).sum(-1)[None] / det
    margin = np.minimum(np.minimum(u, w), 1.0 - u - w)
    margin = np.minimum(margin, np.where(t >= near, np.inf, -np.inf))
    hit = (margin >= 0) & np.isfinite(t)
    z = np.where(hit, t, np.inf)
    size = (camera.height, camera.width)
    doubt = np.where(np.isfinite(t) & (t > near - 1e-2), np.abs(margin), np.inf).min(axis=1)
    face = np.where(hit.any(axis=1), z.argmin(axis=1), -1)
    return face.reshape(size), z.min(axis=1).reshape(size), doubt.reshape(size)


def soup(rng, count, size):
    """Triangles all around the camera: before it, behind it, and across its near plane."""
    middle = rng.uniform(-3, 3, (count, 1, 3)) + np.array([0.3, 0.0, 1.5])
    corners = middle + rng.normal(size=(count, 3, 3)) * size
    faces = np.arange(3 * count).reshape(-1, 3)
    return corners.reshape(-1, 3).astype(np.float32), faces.astype(np.int32)


@pytest.mark.parametrize("size", [0.05, 0.5, 4.0])
def test_it_agrees_with_a_ray_caster(rng, size):
    """Coverage identical away from edges, depth within 1e-4, and the face itself."""
    vertices, faces = soup(rng, 150, size)
    seen = rasterizer.rasterize(jnp.asarray(vertices), jnp.asarray(faces), len(faces), CAMERA)
    face, z, doubt = cast(vertices, faces, CAMERA)
    sure = doubt > 1e-3
    assert sure.mean() > 0.3 and (face[sure] >= 0).any()
    np.testing.assert_array_equal(np.asarray(seen.face)[sure], face[sure])
    shown = sure & (face >= 0)
    np.testing.assert_allclose(np.asarray(seen.depth)[shown], z[shown], rtol=1e-4)
    # The weights are those of the point on the ray.
    rays = camera_rays(CAMERA)
    direction = np.asarray(rays.directions / rays.z_scale[..., None])
    point = np.asarray(CAMERA.position) + direction * np.asarray(seen.depth)[..., None]
    mixed = rasterizer.interpolate(seen, jnp.asarray(faces), jnp.asarray(vertices))
    np.testing.assert_allclose(np.asarray(mixed)[shown], point[shown], atol=2e-3)


def grid_mesh(rng, columns=9, rows=7, jitter=0.3):
    """A jittered grid that covers more than the view, triangles of any shape."""
    x, y = np.meshgrid(np.arange(columns), np.arange(rows))
    points = np.stack([x, y], -1) + rng.uniform(-jitter, jitter, (rows, columns, 2))
    points = (points / [columns - 1, rows - 1] - 0.5) * [14.0, 12.0]
    at = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = (p.reshape(-1) for p in (at[:-1, :-1], at[:-1, 1:], at[1:, :-1], at[1:, 1:]))
    faces = np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)])
    return points.reshape(-1, 2), faces.astype(np.int32)


@pytest.mark.parametrize("depth", [2.0, 900.0])
def test_shared_edges_leave_no_crack(rng, depth):
    """Near and far, with edges through pixel centres and beside them."""
    camera = camera_at(angle=0.0)
    for _ in range(4):
        points, faces = grid_mesh(rng)
        vertices = np.concatenate([points * depth / 4, np.full((len(points), 1), depth)], axis=1)
        vertices = vertices + np.asarray(camera.position)
        mesh = jnp.asarray(vertices, jnp.float32), jnp.asarray(faces)
        seen = rasterizer.rasterize(*mesh, len(faces), camera)
        assert bool(jnp.all(seen.face >= 0))
        np.testing.assert_allclose(seen.depth, depth, rtol=1e-5)


def test_edges_through_pixel_centres_are_covered():
    """A square whose diagonal and sides run through centres: all of them belong to it."""
    pose = jnp.eye(4)
    camera = Camera(pose, *(jnp.asarray(v) for v in (10.0, 10.0, 4.0, 4.0)), height=8, width=8)
    corner = np.array([[2.5, 2.5], [5.5, 2.5], [5.5, 5.5], [2.5, 5.5]]) - 4.0
    vertices = np.concatenate([corner / 10.0, np.ones((4, 1))], axis=1).astype(np.float32)
    faces = jnp.asarray([[0, 1, 2], [0, 2, 3]], jnp.int32)
    seen = rasterizer.rasterize(jnp.asarray(vertices), faces, 2, camera)
    expected = np.zeros((8, 8), bool)
    expected[2:6, 2:6] = True
    np.testing.assert_array_equal(seen.face >= 0, expected)


def test_the_order_of_faces_changes_nothing(rng):
    vertices, faces = soup(rng, 120, 0.7)
    order = rng.permutation(len(faces))
    turned = np.stack([np.roll(f, k) for f, k in zip(faces, order % 3, strict=True)])
    a = rasterizer.rasterize(jnp.asarray(vertices), jnp.asarray(faces), len(faces), CAMERA)
    b = rasterizer.rasterize(jnp.asarray(vertices), jnp.asarray(turned[order]), len(faces), CAMERA)
    np.testing.assert_allclose(a.depth, b.depth, rtol=2e-6)
    mapped = np.where(np.asarray(b.face) >= 0, order[np.asarray(b.face)], -1)
    assert (mapped == np.asarray(a.face)).mean() > 0.999


def test_what_is_beyond_the_count_or_has_no_area_is_not_drawn(rng):
    vertices, faces = soup(rng, 40, 0.7)
    alone = rasterizer.rasterize(jnp.asarray(vertices), jnp.asarray(faces), 40, CAMERA)
    big = np.array([[-9, -9, 2], [9, -9, 2], [0, 9, 2], [np.nan, 0, 2], [1, 1, 1]], np.float32)
    n = len(vertices)
    bad = np.array([[n + 3, n, n + 1], [n, n, n + 1], [n + 4, n + 4, n + 4], [n, n + 1, n + 2]])
    every = np.concatenate([faces, bad]).astype(np.int32)
    mesh = jnp.asarray(np.concatenate([vertices, big])), jnp.asarray(every)
    some = rasterizer.rasterize(*mesh, 43, CAMERA)
    for ours, theirs in zip(some, alone, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert (rasterizer.rasterize(*mesh, 44, CAMERA).face == 43).any()
    nothing = rasterizer.rasterize(*mesh, 0, CAMERA)
    assert (nothing.face == -1).all() and not nothing.depth.any()
    assert not nothing.barycentric.any()


def test_one_face_that_reaches_behind_the_camera_is_drawn_where_it_is_ahead():
    """A floor from far ahead to far behind: its depth by the plane's equation, up to the near."""
    camera = camera_at((0.0, 0.0, 0.0), 0.0)
    floor = np.array([[-500, 1, -300], [500, 1, -300], [0, 1, 600]], np.float32)
    faces = jnp.asarray([[0, 1, 2]], jnp.int32)
    seen = rasterizer.rasterize(jnp.asarray(floor), faces, 1, camera)
    rows = np.arange(HEIGHT) + 0.5
    below = rows > 12.1 + 31.0 / 100.0
    assert bool(jnp.all(seen.face[below] == 0)) and not (seen.face[rows < 12.1] == 0).any()
    expected = np.broadcast_to((31.0 / (rows[below] - 12.1))[:, None], (below.sum(), WIDTH))
    np.testing.assert_allclose(np.asarray(seen.depth)[below], expected, rtol=1e-4)
    far = rasterizer.rasterize(jnp.asarray(floor), faces, 1, camera, 5.0)
    np.testing.assert_array_equal(far.face >= 0, (seen.face >= 0) & (seen.depth >= 5.0))


def test_colours_are_linear_on_the_surface_and_gradients_are_the_weights(rng):
    """Perspective-correct: a colour that is linear in the world stays so on a slanted face."""
    points, faces = grid_mesh(rng)
    vertices = np.concatenate([points, 4.0 + 0.3 * points[:, :1]], axis=1).astype(np.float32)
    slope = rng.normal(size=(3, 2)).astype(np.float32)
    seen = rasterizer.rasterize(jnp.asarray(vertices), jnp.asarray(faces), len(faces), CAMERA)
    shown = np.asarray(seen.face >= 0)
    assert shown.mean() > 0.9
    rays = camera_rays(CAMERA)
    along = np.asarray(rays.directions / rays.z_scale[..., None] * seen.depth[..., None])
    point = np.asarray(CAMERA.position) + along
    found = rasterizer.interpolate(seen, jnp.asarray(faces), jnp.asarray(vertices @ slope))
    expected = point @ slope
    np.testing.assert_allclose(np.asarray(found)[shown], expected[shown], atol=2e-4)
    by_value = jax.grad(
        lambda values: rasterizer.interpolate(seen, jnp.asarray(faces), values).sum()
    )(jnp.ones((len(vertices), 1)))
    np.testing.assert_allclose(by_value.sum(), shown.sum(), rtol=1e-5)
    assert bool(jnp.all(jnp.isfinite(by_value)))


def test_samples_of_a_pixel_lie_around_its_centre():
    fine = rasterizer.supersampled(CAMERA, 2)
    assert (fine.height, fine.width) == (2 * HEIGHT, 2 * WIDTH)
    coarse, several = (camera_rays(c).directions for c in (CAMERA, fine))
    mean = several.reshape(HEIGHT, 2, WIDTH, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(mean, coarse, atol=2e-4)
