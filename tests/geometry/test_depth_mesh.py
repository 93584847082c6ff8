import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.geometry import depth_mesh
from geojax.geometry.camera import Camera, pixel_centers, unproject

HEIGHT, WIDTH = 10, 14
NONE = jnp.full((HEIGHT, WIDTH), -1, jnp.int32)
ALL = jnp.ones((HEIGHT, WIDTH), bool)


def camera_at(position=(0.0, 0.0, 0.0)):
    pose = np.eye(4)
    pose[:3, 3] = position
    values = (pose, 12.0, 15.0, 6.5, 5.25)
    return Camera(*(jnp.asarray(v, jnp.float32) for v in values), height=HEIGHT, width=WIDTH)


def grown(depth, new=ALL, mesh=None, seen=NONE, camera=None):
    mesh = depth_mesh.empty_mesh(512, 1024) if mesh is None else mesh
    image = jnp.broadcast_to(depth[..., None] / 10.0, (*depth.shape, 3))
    growth = jax.jit(depth_mesh.grow)(mesh, camera or camera_at(), image, depth, new, seen)
    return growth, depth_mesh.add(mesh, growth)


def test_a_plane_gives_two_faces_a_square_none_dropped():
    """Section 4 (b): 2 (H - 1) (W - 1) faces, all of them towards the camera."""
    _, mesh = grown(jnp.full((HEIGHT, WIDTH), 3.0))
    count = 2 * (HEIGHT - 1) * (WIDTH - 1)
    assert int(mesh.face_count) == count and int(mesh.vertex_count) == HEIGHT * WIDTH
    corners = mesh.vertices[mesh.faces[:count]]
    cosine, solid = depth_mesh.facing(corners, jnp.zeros(3))
    assert bool(jnp.all(solid)) and float(cosine.max()) < -0.5
    pixels = pixel_centers(HEIGHT, WIDTH).reshape(-1, 2)
    expected = unproject(camera_at(), pixels, jnp.full(HEIGHT * WIDTH, 3.0))
    np.testing.assert_allclose(mesh.vertices[: HEIGHT * WIDTH], expected, atol=1e-6)


def test_a_jump_in_depth_leaves_a_gap():
    """Near on the left, far on the right: no face joins the two, every other one is there."""
    columns = jnp.arange(WIDTH)[None].repeat(HEIGHT, 0)
    depth = jnp.where(columns < 7, 1.0, 8.0)
    _, mesh = grown(depth)
    faces = np.asarray(mesh.faces[: int(mesh.face_count)])
    z = np.asarray(mesh.vertices)[faces][..., 2]
    assert (np.ptp(z, axis=1) < 1e-6).all()
    assert len(faces) == 2 * (HEIGHT - 1) * (WIDTH - 2)


def test_a_slope_that_is_seen_well_stays_whole():
    rows = jnp.arange(HEIGHT, dtype=jnp.float32)[:, None].repeat(WIDTH, 1)
    _, mesh = grown(2.0 + 0.3 * (HEIGHT - rows))
    assert int(mesh.face_count) == 2 * (HEIGHT - 1) * (WIDTH - 1)


@pytest.mark.parametrize("size", [6, 9])
def test_edges_are_those_of_a_slow_filter(rng, size):
    """Equation (3) by loops, with SceneScape's own form of the threshold."""
    disparity = rng.uniform(0.1, 1.0, (size, size + 3)).astype(np.float32) ** 0.2
    disparity[2:, 2:] += 1.0
    d = (disparity - disparity.min()) / np.ptp(disparity)
    padded = np.pad(d, 1, mode="edge")
    kernel = np.outer([1, 2, 1], [-1, 0, 1])
    steep = np.zeros(d.shape, bool)
    for j in range(d.shape[0]):
        for i in range(d.shape[1]):
            window = padded[j : j + 3, i : i + 3]
            m = np.hypot((window * kernel).sum(), (window * kernel.T).sum())
            steep[j, i] = np.exp(-12.0 * m) < 0.3
    expected = np.zeros_like(steep)
    for j, i in np.argwhere(steep):
        expected[max(j - 2, 0) : j + 3, max(i - 2, 0) : i + 3] = True
    np.testing.assert_array_equal(depth_mesh.edges(jnp.asarray(disparity)), expected)


def test_new_pixels_are_stitched_to_the_old_ones():
    """Two halves of a plane, one after the other: the surface of one go, no vertex twice."""
    depth = jnp.full((HEIGHT, WIDTH), 3.0)
    left = jnp.broadcast_to(jnp.arange(WIDTH)[None] < 6, (HEIGHT, WIDTH))
    _, mesh = grown(depth, left)
    first = int(mesh.face_count)
    assert int(mesh.vertex_count) == 6 * HEIGHT and first == 2 * (HEIGHT - 1) * 5
    ids = jnp.cumsum(left.reshape(-1).astype(jnp.int32)).reshape(HEIGHT, WIDTH) - 1
    before = np.asarray(mesh.vertices)[: 6 * HEIGHT]
    _, mesh = grown(depth, ~left, mesh, jnp.where(left, ids, -1))
    assert int(mesh.vertex_count) == HEIGHT * WIDTH
    assert int(mesh.face_count) == 2 * (HEIGHT - 1) * (WIDTH - 1)
    np.testing.assert_array_equal(mesh.vertices[: 6 * HEIGHT], before)
    # The area of the plane between the outermost pixel centres, each part once.
    corners = np.asarray(mesh.vertices)[np.asarray(mesh.faces[: int(mesh.face_count)])]
    area = (
        np.linalg.norm(
            np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
        ).sum()
        / 2
    )
    expected = (HEIGHT - 1) * (WIDTH - 1) * (3.0 / 12.0) * (3.0 / 15.0)
    np.testing.assert_allclose(area, expected, rtol=1e-5)


def test_what_has_no_depth_is_not_there():
    """NaN, infinity and 0: no vertex, no face, and the others keep theirs."""
    depth = jnp.full((HEIGHT, WIDTH), 3.0)
    depth = depth.at[0, 0].set(jnp.nan).at[0, 5].set(jnp.inf).at[9, 13].set(0.0)
    _, mesh = grown(depth)
    assert int(mesh.vertex_count) == HEIGHT * WIDTH - 3
    used = mesh.vertices[: int(mesh.vertex_count)]
    assert bool(jnp.all(jnp.isfinite(used)))
    assert int(mesh.faces[: int(mesh.face_count)].max()) < int(mesh.vertex_count)


def test_old_pixels_that_share_a_vertex_make_no_empty_face():
    """A near old face covers several pixels: their squares collapse and are dropped."""
    depth = jnp.full((HEIGHT, WIDTH), 3.0)
    left = jnp.broadcast_to(jnp.arange(WIDTH)[None] < 6, (HEIGHT, WIDTH))
    _, mesh = grown(depth, left)
    _, mesh = grown(depth, ~left, mesh, jnp.where(left, 4, -1))
    faces = np.asarray(mesh.faces[: int(mesh.face_count)])
    assert all(len(set(face)) == 3 for face in faces.tolist())


def test_room_grows_in_steps_and_keeps_what_is_there():
    mesh = depth_mesh.empty_mesh(HEIGHT * WIDTH, 300)
    _, mesh = grown(jnp.full((HEIGHT, WIDTH), 3.0), mesh=mesh)
    assert depth_mesh.with_room(mesh, 0, 60) is not mesh  # a copy of references
    same = depth_mesh.with_room(mesh, 0, 60)
    assert same.faces.shape == (300, 3) and same.vertices.shape == (HEIGHT * WIDTH, 3)
    more = depth_mesh.with_room(mesh, 1, 900)
    assert more.faces.shape == (1200, 3) and more.vertices.shape == (2 * HEIGHT * WIDTH, 3)
    np.testing.assert_array_equal(more.vertices[: HEIGHT * WIDTH], mesh.vertices)
    with pytest.raises(ValueError, match="got 0 and 4"):
        depth_mesh.empty_mesh(0, 4)


def test_the_nearest_vertex_is_that_of_the_largest_weight():
    faces = jnp.asarray([[5, 6, 7], [8, 9, 10]], jnp.int32)
    face = jnp.asarray([[0, 1], [-1, 1]], jnp.int32)
    weights = jnp.asarray([[[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]], [[0.0, 0.0, 0.0], [0.1, 0.8, 0.1]]])
    found = depth_mesh.nearest_vertex(face, weights, faces)
    np.testing.assert_array_equal(found, [[7, 8], [-1, 9]])
