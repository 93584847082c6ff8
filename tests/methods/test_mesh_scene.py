"""Scenes of a mesh and of frames, on planes and rooms whose views are known."""

import jax.numpy as jnp
import numpy as np
import pytest

from geojax.geometry.camera import Camera, camera_rays
from geojax.methods.mesh_scene import mesh_scene
from geojax.methods.scene import Learnt
from geojax.methods.warp_scene import warp_scene

HEIGHT, WIDTH = 16, 20
POSE = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]])
NONE = np.zeros((HEIGHT, WIDTH), bool)


def camera_at(x=0.0, y=0.0):
    """Looking along the world's x, z up."""
    pose = POSE.copy()
    pose[:2, 3] = x, y
    values = (pose, 18.0, 18.0, 10.0, 8.0)
    return Camera(*(jnp.asarray(v, jnp.float32) for v in values), height=HEIGHT, width=WIDTH)


def wall(camera, at=4.0):
    """The wall x = at, in colours that are linear on it."""
    rays = camera_rays(camera)
    distance = (at - camera.position[0]) / rays.directions[..., 0]
    point = np.asarray(rays.directions) * np.asarray(distance)[..., None]
    point = point + np.asarray(camera.position)
    image = 0.5 + np.stack([0.08 * point[..., 1], 0.08 * point[..., 2], 0 * point[..., 0]], -1)
    return image.astype(np.float32), np.full((HEIGHT, WIDTH), at - float(camera.position[0]))


def learn(kind, scene, camera, new=None, far=NONE, picture=None):
    view = kind.look(scene, camera)
    image, depth = wall(camera) if picture is None else picture
    new = np.asarray(view.hole) if new is None else new
    parts = (image, depth.astype(np.float32), new, far)
    learnt = Learnt(*(jnp.asarray(part) for part in parts))
    return kind.learn(scene, camera, view, learnt)


KINDS = [mesh_scene(dome_rows=64), mesh_scene(antialias=1, dome_rows=64), warp_scene(dome_rows=64)]


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_scene_is_all_hole(kind):
    view = kind.look(kind.start(HEIGHT, WIDTH), camera_at())
    assert view.hole.all() and not view.far.any() and not view.image.any()
    assert (view.vertex == -1).all() and not view.depth.any()


@pytest.mark.parametrize("kind", KINDS)
def test_an_identity_move_returns_what_was_learnt(kind):
    """Colours that are linear come back as they are; the hole is empty."""
    camera = camera_at()
    image, depth = wall(camera)
    view = kind.look(learn(kind, kind.start(HEIGHT, WIDTH), camera), camera)
    inner = np.s_[1:-1, 1:-1]
    assert not view.hole[inner].any()
    np.testing.assert_allclose(np.asarray(view.image)[inner], image[inner], atol=1e-4)
    np.testing.assert_allclose(np.asarray(view.depth)[inner], depth[inner], rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_stepping_back_shrinks_the_wall_and_opens_a_border(kind):
    """Section 4 (c): at z from z - t away its size is z / (z + t)."""
    before, after = camera_at(), camera_at(x=-1.0)
    scene = learn(kind, kind.start(HEIGHT, WIDTH), before)
    view = kind.look(scene, after)
    known = ~np.asarray(view.hole)
    assert abs(known.mean() - (4.0 / 5.0) ** 2) < 0.12
    image, _ = wall(after)
    # A splat may lie .7 of a pixel off, of .08 * 5 / 18 a pixel.
    np.testing.assert_allclose(np.asarray(view.image)[known], image[known], atol=0.017)
    np.testing.assert_allclose(np.asarray(view.depth)[known], 5.0, rtol=1e-3)
    # What is painted round it closes the view, without a crack at the seam.
    closed = kind.look(learn(kind, scene, after), after)
    assert not closed.hole[1:-1, 1:-1].any()
    np.testing.assert_allclose(closed.image[2:-2, 2:-2], image[2:-2, 2:-2], atol=0.017)


def test_the_new_part_is_stitched_to_the_old_mesh():
    """Faces join old vertices to new ones; a vertex is added for new pixels alone."""
    kind = KINDS[0]
    scene = learn(kind, kind.start(HEIGHT, WIDTH), camera_at())
    vertices, faces = int(scene.mesh.vertex_count), int(scene.mesh.face_count)
    assert vertices == HEIGHT * WIDTH
    after = camera_at(x=-1.0)
    new = np.asarray(kind.look(scene, after).hole)
    scene = learn(kind, scene, after)
    assert int(scene.mesh.vertex_count) == vertices + new.sum()
    added = np.asarray(scene.mesh.faces)[faces : int(scene.mesh.face_count)]
    mixed = (added < vertices).any(axis=1) & (added >= vertices).any(axis=1)
    assert mixed.sum() > 2 * (HEIGHT + WIDTH) - 20
    # One surface still: every vertex of the wall lies on it.
    used = np.asarray(scene.mesh.vertices)[: int(scene.mesh.vertex_count)]
    np.testing.assert_allclose(used[:, 0], 4.0, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sky_behind_does_not_move_and_covers_no_hole(kind):
    """The right half is sky: two steps aside it is still there, and what is beyond is a hole."""
    camera = camera_at()
    image, depth = wall(camera)
    far = NONE.copy()
    far[:, 10:] = True
    image = np.where(far[..., None], np.float32([0.2, 0.4, 0.9]), image)
    scene = learn(kind, kind.start(HEIGHT, WIDTH), camera, far=far, picture=(image, depth))
    moved = kind.look(scene, camera_at(y=2.0))
    sky = np.asarray(moved.far)
    # The wall went 9 pixels to the right, and covers the sky but for the last column.
    assert not sky[:, 9:19].any() and not np.asarray(moved.depth)[sky].any()
    assert np.asarray(moved.hole)[:, :8].mean() > 0.9
    same = kind.look(scene, camera_at(x=-30.0))
    seen = np.asarray(same.far)[2:-2, 12:-2]
    assert seen.all()
    blue = np.asarray(same.image)[2:-2, 12:-2]
    np.testing.assert_allclose(
        blue, np.broadcast_to(np.float32([0.2, 0.4, 0.9]), blue.shape), atol=1e-3
    )


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="antialias=0"):
        mesh_scene(antialias=0)
    with pytest.raises(ValueError, match="splat=0"):
        warp_scene(splat=0)
