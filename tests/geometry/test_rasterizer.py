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
ROOM = 512  # faces, and twice as many vertices: one shape, so that one program serves all tests


def draw(vertices, faces, count=None, camera=CAMERA, near=rasterizer.NEAR, rasterize=None):
    """The mesh in a room whose rest is rubbish; and the faces of that room."""
    room_faces = np.random.default_rng(1).integers(0, 3 * ROOM, (ROOM, 3)).astype(np.int32)
    room_vertices = np.full((2 * ROOM, 3), np.nan, np.float32)
    room_faces[: len(faces)] = faces
    room_vertices[: len(vertices)] = vertices
    mesh = jnp.asarray(room_vertices), jnp.asarray(room_faces)
    count = len(faces) if count is None else count
    return (rasterize or rasterizer.rasterize)(*mesh, jnp.asarray(count), camera, near)


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


@pytest.mark.parametrize("size", [0.02, 0.2, 0.7, 4.0])
def test_it_agrees_with_a_ray_caster(rng, size):
    """Coverage identical away from edges, depth within 1e-4, and the face itself."""
    vertices, faces = soup(rng, 150, size)
    seen = draw(vertices, faces)
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


def test_what_is_drawn_together_changes_nothing(rng, monkeypatch):
    """Many blocks, groups and batches of tiles, the last of each in part."""
    meshes = [soup(rng, count, size) for count, size in ((200, 0.05), (90, 0.2), (40, 0.7))]
    vertices = np.concatenate([v for v, _ in meshes])
    faces = np.arange(len(vertices)).reshape(-1, 3)[rng.permutation(len(vertices) // 3)]
    whole = draw(vertices, faces)
    for name, value in (("_BLOCK", 37), ("_GROUP", 7), ("_TILES", 5)):
        monkeypatch.setattr(rasterizer, name, value)
    parts = draw(vertices, faces, rasterize=jax.jit(rasterizer.rasterize.__wrapped__))
    np.testing.assert_array_equal(parts.face, whole.face)
    np.testing.assert_allclose(parts.depth, whole.depth, rtol=1e-6)
    assert len(np.unique(whole.face)) > 20


def sheet(rng, columns=9, rows=7, jitter=0.3):
    """A jittered grid that covers more than the view, triangles of any shape."""
    x, y = np.meshgrid(np.arange(columns), np.arange(rows))
    points = np.stack([x, y], -1) + rng.uniform(-jitter, jitter, (rows, columns, 2))
    points = (points / [columns - 1, rows - 1] - 0.5) * [14.0, 12.0]
    return points.reshape(-1, 2), quads(rows, columns)


def quads(rows, columns):
    """Two faces for each square of a grid of vertices."""
    at = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = (p.reshape(-1) for p in (at[:-1, :-1], at[:-1, 1:], at[1:, :-1], at[1:, 1:]))
    return np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)]).astype(np.int32)


@pytest.mark.parametrize("depth", [2.0, 900.0])
def test_shared_edges_leave_no_crack(rng, depth):
    camera = camera_at(angle=0.0)
    for _ in range(4):
        points, faces = sheet(rng)
        vertices = np.concatenate([points * depth / 4, np.full((len(points), 1), depth)], axis=1)
        seen = draw(vertices + np.asarray(camera.position), faces, camera=camera)
        assert bool(jnp.all(seen.face >= 0))
        np.testing.assert_allclose(seen.depth, depth, rtol=1e-5)


@pytest.mark.parametrize("step", [1, 2, 5])
def test_vertices_and_edges_on_pixel_centres_leave_no_crack(rng, step):
    """Every vertex lies on the ray of a pixel, so do the diagonals: rounding decides it all."""
    rays = camera_rays(CAMERA)
    holes = 0
    for _ in range(3):
        rows, columns = np.arange(0, HEIGHT, step)[:16], np.arange(0, WIDTH, step)[:16]
        at = np.asarray(rays.directions / rays.z_scale[..., None])[rows][:, columns]
        depth = rng.uniform(5, 6, at.shape[:2])[..., None] * np.exp(rng.uniform(-5, 5))
        vertices = (np.asarray(CAMERA.position) + at * depth).reshape(-1, 3)
        seen = draw(vertices, quads(len(rows), len(columns)))
        inside = np.asarray(seen.face)[: rows[-1] + 1, : columns[-1] + 1]
        holes += (inside < 0).sum()
    assert holes == 0


def test_edges_through_pixel_centres_are_covered():
    """A square whose diagonal and sides run through centres: all of them belong to it."""
    values = (jnp.eye(4), *(jnp.asarray(v) for v in (10.0, 10.0, 4.0, 4.0)))
    camera = Camera(*values, height=HEIGHT, width=WIDTH)
    corner = np.array([[2.5, 2.5], [5.5, 2.5], [5.5, 5.5], [2.5, 5.5]]) - 4.0
    vertices = np.concatenate([corner / 10.0, np.ones((4, 1))], axis=1)
    seen = draw(vertices, [[0, 1, 2], [0, 2, 3]], camera=camera)
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[2:6, 2:6] = True
    np.testing.assert_array_equal(seen.face >= 0, expected)


def test_the_order_of_faces_changes_nothing(rng):
    vertices, faces = soup(rng, 120, 0.7)
    order = rng.permutation(len(faces))
    turned = np.stack([np.roll(f, k) for f, k in zip(faces, order % 3, strict=True)])
    a, b = draw(vertices, faces), draw(vertices, turned[order])
    np.testing.assert_allclose(a.depth, b.depth, rtol=2e-6)
    mapped = np.where(np.asarray(b.face) >= 0, order[np.asarray(b.face)], -1)
    assert (mapped == np.asarray(a.face)).mean() > 0.999


def test_of_equally_near_faces_the_first_is_seen(rng):
    vertices, faces = soup(rng, 60, 0.7)
    once = draw(vertices, faces)
    order = rng.permutation(2 * len(faces))
    twice = draw(vertices, np.concatenate([faces, faces])[order])
    copies = np.stack([np.argsort(order)[: len(faces)], np.argsort(order)[len(faces) :]])
    expected = np.where(np.asarray(once.face) >= 0, copies.min(axis=0)[np.asarray(once.face)], -1)
    np.testing.assert_array_equal(twice.face, expected)


def test_what_is_beyond_the_count_or_has_no_area_is_not_drawn(rng):
    vertices, faces = soup(rng, 40, 0.7)
    alone = draw(vertices, faces)
    big = np.array([[-9, -9, 2], [9, -9, 2], [0, 9, 2], [np.nan, 0, 2], [np.inf, 1, 1]])
    n = len(vertices)
    bad = [[n + 3, n, n + 1], [n, n + 4, n + 1], [n, n, n + 1], [n + 1, n + 1, n + 1]]
    every = np.concatenate([faces, bad, [[n, n + 1, n + 2]]])
    mesh = np.concatenate([vertices, big])
    some = draw(mesh, every, 44)
    for ours, theirs in zip(some, alone, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (draw(mesh, every, 45).face == 44).any()


def test_nothing_is_seen_of_an_empty_mesh_and_its_rubbish_stays_out():
    nothing = draw(np.full((3, 3), np.nan), np.full((1, 3), 10**6), 0)
    assert (nothing.face == -1).all() and not nothing.depth.any()
    assert not nothing.barycentric.any()
    values = jnp.full((4, 2), jnp.nan)
    mixed = rasterizer.interpolate(nothing, jnp.full((ROOM, 3), 10**6, jnp.int32), values)
    assert not mixed.any()
    for vertices, faces in ((0, 4), (4, 0)):
        with pytest.raises(ValueError, match=f"room for a vertex and a face, got {vertices} and"):
            mesh = jnp.zeros((vertices, 3)), jnp.zeros((faces, 3), jnp.int32)
            rasterizer.rasterize(*mesh, 0, CAMERA)


def test_three_points_of_a_line_are_no_face(rng):
    """The lines run through pixel centres, where rounding alone would make them seen."""
    rays = camera_rays(CAMERA)
    direction = np.asarray(rays.directions / rays.z_scale[..., None]).reshape(-1, 3)
    ends = direction[rng.integers(0, len(direction), (2, 300))] * rng.uniform(1, 9, (2, 300, 1))
    part = rng.uniform(0.2, 0.8, (300, 1))
    third = ends[0] + part * (ends[1] - ends[0])
    vertices = np.asarray(CAMERA.position) + np.stack([*ends, third], axis=1).reshape(-1, 3)
    seen = draw(vertices, np.arange(900).reshape(-1, 3))
    assert (seen.face == -1).all()


def test_a_face_seen_from_its_edge_is_no_nearer_than_its_corners(rng):
    """Where its plane runs through pixel centres its depth is anything between them, or nothing."""
    rays = camera_rays(CAMERA)
    direction = np.asarray(rays.directions / rays.z_scale[..., None]).reshape(-1, 3)
    a, b = direction[rng.integers(0, len(direction), (2, 300))]
    corners = np.stack([3 * a, 7 * b, 5 * (0.5 * a + 0.5 * b) + 1.0 * a], axis=1)
    vertices = np.asarray(CAMERA.position) + corners.reshape(-1, 3)
    depth = np.asarray(draw(vertices, np.arange(900).reshape(-1, 3)).depth)
    assert (depth > 0).any()
    assert depth[depth > 0].min() > 2.9 and depth.max() < 7.1


def test_one_face_that_reaches_behind_the_camera_is_drawn_where_it_is_ahead():
    """A floor from far ahead to far behind: its depth by the plane's equation, up to the near."""
    camera = camera_at((0.0, 0.0, 0.0), 0.0)
    floor = [[-500, 1, -300], [500, 1, -300], [0, 1, 600]]
    seen = draw(floor, [[0, 1, 2]], camera=camera)
    rows = np.arange(HEIGHT) + 0.5
    below = rows > 12.1 + 31.0 / 100.0
    assert bool(jnp.all(seen.face[below] == 0)) and not (seen.face[rows < 12.1] == 0).any()
    expected = np.broadcast_to((31.0 / (rows[below] - 12.1))[:, None], (below.sum(), WIDTH))
    np.testing.assert_allclose(np.asarray(seen.depth)[below], expected, rtol=1e-4)
    far = draw(floor, [[0, 1, 2]], camera=camera, near=5.0)
    np.testing.assert_array_equal(far.face >= 0, (seen.face >= 0) & (seen.depth >= 5.0))


def test_colours_are_linear_on_the_surface_and_gradients_are_the_weights(rng):
    """Perspective-correct: a colour that is linear in the world stays so on a slanted face."""
    points, faces = sheet(rng)
    vertices = np.concatenate([points, 4.0 + 0.3 * points[:, :1]], axis=1).astype(np.float32)
    slope = rng.normal(size=(3, 2)).astype(np.float32)
    seen = draw(vertices, faces)
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


def test_depth_is_differentiable_in_the_vertices(rng):
    """A plane before the camera: moved ahead by d, every depth that is seen grows by d."""
    camera = camera_at(angle=0.0)
    points, faces = sheet(rng)
    vertices = np.concatenate([0.2 * points, np.full((len(points), 1), 3.0)], axis=1)
    seen = draw(vertices, faces, camera=camera)
    room = np.full((2 * ROOM, 3), np.nan, np.float32)
    room[: len(vertices)] = vertices
    every = np.zeros((ROOM, 3), np.int32)
    every[: len(faces)] = faces

    def total(vertices):
        drawn = jnp.asarray(len(faces))
        return jnp.sum(rasterizer.rasterize(vertices, jnp.asarray(every), drawn, camera).depth)

    slope = jax.grad(total)(jnp.asarray(room))
    assert bool(jnp.all(jnp.isfinite(slope)))
    count = (seen.face >= 0).sum()
    assert 0 < count < HEIGHT * WIDTH
    np.testing.assert_allclose(slope[:, 2].sum(), count, rtol=1e-4)


def test_samples_of_a_pixel_lie_around_its_centre():
    fine = rasterizer.supersampled(CAMERA)
    assert (fine.height, fine.width) == (2 * HEIGHT, 2 * WIDTH)
    coarse, several = (camera_rays(c).directions for c in (CAMERA, fine))
    mean = several.reshape(HEIGHT, 2, WIDTH, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(mean, coarse, atol=2e-4)
