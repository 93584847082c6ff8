import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.geometry.camera import camera_rays, pixel_centers, project, unproject
from geojax.worlds import room_cameras, room_render, room_textures, rooms
from geojax.worlds.room_materials import PAINTS, Surface, Texture, floor_texture, row
from geojax.worlds.room_scene import Builder, Frame, Put, Scene

SIZE = 24
SIDE = 80  # points a side of a footprint
KINDS = ("corridor", "living room", "church", "cellar")


def slow_cast(scene, origin, direction):
    """One ray against one solid after the other, in float64: (t, primitive, normal)."""
    best, index, normal = np.inf, -1, np.zeros(3)
    boxes, rounds = scene.used
    with np.errstate(divide="ignore", invalid="ignore"):
        for i in range(boxes):
            low = (np.float64(scene.low[i]) - origin) / direction
            high = (np.float64(scene.high[i]) - origin) / direction
            near, far = np.minimum(low, high), np.maximum(low, high)
            if 1e-6 < near.max() <= far.min() and near.max() < best:
                best, index = near.max(), i
                axis = int(np.argmax(near))
                normal = -np.sign(direction) * np.eye(3)[axis]
        for i in range(rounds):
            r, c = np.float64(scene.radii[i]), np.float64(scene.centre[i])
            p, q = (origin - c) / r, direction / r
            flat = np.asarray([1.0, 1.0, float(scene.ellipsoid[i])])
            a, b, k = (flat * q * q).sum(), (flat * p * q).sum(), (flat * p * p).sum() - 1.0
            if b * b <= a * k:
                continue
            roots = (-b + np.asarray([-1.0, 1.0]) * np.sqrt(b * b - a * k)) / a
            caps = np.sort((np.asarray([-1.0, 1.0]) - p[2]) / q[2])
            near, far = max(roots[0], caps[0]), min(roots[1], caps[1])
            if 1e-6 < near <= far and near < best:
                best, index = near, len(scene.low) + i
                normal = flat * (p + near * q) / r
                if flat[2] == 0.0 and caps[0] >= roots[0]:
                    normal = np.asarray([0.0, 0.0, -np.sign(q[2])])
                normal = normal / np.linalg.norm(normal)
    return best, index, normal


@pytest.fixture(scope="module")
def views():
    """One view of a room of each kind: rooms, stacked scenes, cameras, truth, pictures."""
    some = [rooms.sample_room(np.random.default_rng((7, i)), kind=k) for i, k in enumerate(KINDS)]
    cameras = [
        room_cameras.sample_views(np.random.default_rng(i), room, 1, SIZE).camera
        for i, room in enumerate(some)
    ]
    camera = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *cameras)
    scene = Scene(*(np.stack(leaves) for leaves in zip(*(r.scene for r in some), strict=True)))
    truth = room_render.render_truth(scene, camera)
    return some, scene, camera, truth, room_render.render(scene, camera)


def test_depth_and_normals_are_those_of_a_slow_ray_caster(views):
    some, _, camera, truth, _ = views
    rays = camera_rays(camera)
    rng = np.random.default_rng(0)
    for b, room in enumerate(some):
        for j, i in rng.integers(0, SIZE, (40, 2)):
            origin = np.float64(rays.origins[b, j, i])
            direction = np.float64(rays.directions[b, j, i])
            distance, index, normal = slow_cast(room.scene, origin, direction)
            if index < 0:
                assert truth.sky[b, j, i]
                assert truth.depth[b, j, i] == room_render.SKY_DEPTH
                continue
            depth = distance * float(rays.z_scale[b, j, i])
            assert float(truth.depth[b, j, i]) == pytest.approx(depth, rel=1e-4)
            if truth.primitive[b, j, i] == index:
                np.testing.assert_allclose(truth.normal[b, j, i], normal, atol=2e-3)


def test_normals_are_unit_and_face_the_camera(views):
    _, _, camera, truth, _ = views
    hit = ~np.asarray(truth.sky)
    normal = np.asarray(truth.normal)
    np.testing.assert_allclose(np.linalg.norm(normal[hit], axis=-1), 1.0, atol=1e-5)
    facing = (normal * np.asarray(camera_rays(camera).directions)).sum(-1)
    assert facing[hit].max() <= 1e-5
    assert np.all(normal[~hit] == 0.0)


def test_pictures_are_in_range_and_show_something(views):
    *_, image = views
    assert image.shape == (len(KINDS), SIZE, SIZE, 3)
    assert np.all(np.isfinite(image))
    assert image.min() >= 0.0
    assert image.max() <= 1.0
    assert np.asarray(image).std(axis=(1, 2)).max(axis=-1).min() > 0.02


def test_a_batch_of_rooms_is_what_each_room_is_alone(views):
    some, _, camera, truth, image = views
    four = jax.tree.map(lambda leaf: jnp.repeat(leaf[1:2], len(KINDS), axis=0), camera)
    np.testing.assert_allclose(room_render.render(some[1].scene, four)[2], image[1], atol=2e-3)
    again = room_render.render_truth(some[1].scene, four)
    np.testing.assert_array_equal(again.depth[3], truth.depth[1])


def test_too_few_scenes_are_refused(views):
    _, scene, camera, *_ = views
    with pytest.raises(ValueError, match="4 scenes for 2 cameras"):
        room_render.render(scene, camera[:2])


def test_rooms_without_windows_show_no_sky(views):
    some, _, _, truth, _ = views
    assert not any(thing.kind == "window" for thing in some[3].things)
    assert not truth.sky[3].any()
    assert truth.depth[3].max() < room_render.SKY_DEPTH


def test_a_point_has_one_colour_and_one_place_in_two_views():
    """A walk's frames agree wherever the second sees what the first saw."""
    room = rooms.sample_room(np.random.default_rng((7, 0)), kind="corridor")
    camera = room_cameras.walk(np.random.default_rng(0), room, 4, SIZE, step=0.1)
    # Smooth materials alone: across an edge of a texture a pixel's mean depends on the pixel.
    flat = np.array(room.scene.textures)
    flat[:, 3:9] = np.tile(flat[:, :3], 2)
    flat[:, 15:18], flat[:, 20] = 0.0, 0.0
    scene = room.scene._replace(textures=flat, sun_colour=np.zeros(3, np.float32))
    image = np.asarray(room_render.render(scene, camera))
    truth = room_render.render_truth(scene, camera)
    pixels = pixel_centers(SIZE, SIZE).reshape(1, -1, 2)
    points = unproject(camera[:1], pixels, truth.depth[:1].reshape(1, -1))
    there, depth = (np.asarray(x)[0] for x in project(camera[3:], points))
    i, j = np.floor(there).astype(int).T
    inside = (i >= 0) & (i < SIZE) & (j >= 0) & (j < SIZE)
    i, j = i[inside], j[inside]
    first = np.asarray(truth.thing[0]).reshape(-1)[inside]
    second, z = np.asarray(truth.thing)[3, j, i], np.asarray(truth.depth)[3, j, i]
    # Inside one thing in both views, at the depth that the point has there.
    same = (first == second) & (first >= 0) & (abs(z - depth[inside]) < 0.03 * z)
    assert same.mean() > 0.6
    a, b = image[0].reshape(-1, 3)[inside][same], image[3, j, i][same]
    assert np.median(np.abs(a - b)) < 0.01
    assert np.quantile(np.abs(a - b), 0.9) < 0.06


def test_the_sun_throws_shadows_and_only_brightens():
    """A slab over half of a floor: below it the sun is not seen."""
    builder = Builder(np.random.default_rng(0))
    white = builder.material(Texture(PAINTS["white"]))
    put = Put(builder, Frame((0.0, 0.0, 0.0), 0), builder.thing("floor", "white", 0))
    put.box((-9.0, -9.0, -0.1), (9.0, 9.0, 0.0), white)
    put.box((-9.0, 0.0, 2.5), (9.0, 9.0, 2.6), white)
    dim, up, day = (0.1, 0.1, 0.1), (0.0, 0.0, 1.0), (0.8, 0.8, 0.9)
    dark = builder.scene(dim, up, (0.0, 0.0, 0.0), (day, day))
    sunny = builder.scene(dim, up, (0.5, 0.5, 0.5), (day, day))
    # Straight down from above the floor and below the slab; the image's left is y > 0.
    down = np.asarray([[0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, -1, 2.4], [0, 0, 0, 1]], np.float32)
    # Four views, as in `views`: nothing is compiled anew.
    camera = room_cameras._cameras(np.zeros((4, 3)), np.zeros((4, 2)), np.full(4, 60.0), SIZE)
    camera = dataclasses.replace(camera, camera_to_world=jnp.asarray(np.stack([down] * 4)))
    scene = Scene(*(np.stack(leaves) for leaves in zip(dark, sunny, dark, sunny, strict=True)))
    without, lit = np.asarray(room_render.render(scene, camera))[:2]
    ys = np.asarray(unproject(camera[:1], jnp.asarray([[[0.5, 12.0]]]), jnp.full((1, 1), 2.4)))[
        0, 0, 1
    ]
    shaded = slice(0, 11) if ys > 0.0 else slice(13, None)
    open_ = slice(13, None) if ys > 0.0 else slice(0, 11)
    np.testing.assert_allclose(lit[:, shaded], without[:, shaded], atol=1e-5)
    assert np.all(lit[:, open_] > without[:, open_] + 0.1)


@pytest.mark.parametrize(
    "texture",
    [
        Texture((0.7, 0.2, 0.1), joint=(0.9, 0.9, 0.9), cell=(0.4, 0.2), gap=0.03),
        Texture((0.7, 0.2, 0.1), other=(0.1, 0.2, 0.9), cell=(0.5, 0.5), checker=(1.0, 1.0)),
        Texture((0.7, 0.2, 0.1), other=(0.1, 0.2, 0.9), cell=(0.3, 1e4), checker=(1.0, 0.0)),
    ],
    ids=["tiles", "checkers", "stripes"],
)
def test_a_regular_texture_over_a_footprint_is_its_mean(texture):
    """Equations (1) and (2) against the mean of many points."""
    rng = np.random.default_rng(0)
    at = rng.uniform(-3.0, 3.0, (12, 1, 2))
    extent = rng.uniform(0.1, 1.2, (12, 1, 2))
    grid = (np.stack(np.meshgrid(*[np.arange(SIDE)] * 2), -1).reshape(-1, 2) + 0.5) / SIDE - 0.5
    uv = np.concatenate([at, at + extent * grid], axis=1)
    w = np.concatenate([extent, np.full((12, SIDE * SIDE, 2), 1e-4)], axis=1)
    colours = albedo(texture, uv, w)
    np.testing.assert_allclose(colours[:, 0], colours[:, 1:].mean(axis=1), atol=0.03)


def test_far_away_a_texture_is_its_mean():
    """Brick, wood and carpet do not sparkle: their variance vanishes with the footprint."""
    uv = np.random.default_rng(1).uniform(-9.0, 9.0, (12, 1 + SIDE * SIDE, 2))
    for surface in (Surface("brick", "red"), Surface("wooden", "brown"), Surface("carpet", "blue")):
        near, far = (
            albedo(floor_texture(surface), uv, np.full(uv.shape, w)).std(axis=(0, 1)).max()
            for w in (1e-3, 4.0)
        )
        assert far < 0.25 * near
        assert far < 0.02


def albedo(texture, uv, w):
    """A texture at [12, n] points with their footprints; always one n, for one compilation."""
    numbers = [jnp.full(uv.shape[:-1], x) for x in row(texture)]
    u, v, w_u, w_v = (jnp.asarray(x[..., k], jnp.float32) for x in (uv, w) for k in (0, 1))
    return np.stack(room_textures.albedo(numbers, (u, v), (w_u, w_v)), axis=-1)
