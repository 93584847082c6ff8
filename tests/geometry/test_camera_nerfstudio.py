import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.geometry.camera import Camera, look_at, pinhole
from geojax.geometry.nerfstudio import camera_from_transforms, camera_to_transforms

FRAME = {"file_path": "a.png", "transform_matrix": np.eye(4).tolist()}
FILE = {"w": 8, "h": 6, "fl_x": 5.0, "frames": [FRAME]}


def assert_same(a: Camera, b: Camera):
    assert (a.height, a.width) == (b.height, b.width)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), a, b)


@pytest.mark.parametrize("own_focal", [True, False])
def test_round_trip_through_json(own_focal):
    rng = np.random.default_rng(0)
    position, up = (jnp.asarray(rng.normal(size=(3, 3)), jnp.float32) for _ in range(2))
    focal = jnp.asarray([5.0, 6.1, 7.3]) if own_focal else 5.3
    camera = pinhole(look_at(position, jnp.zeros((3, 3)), up), focal, 6, 8)
    paths = ["a.png", "b.png", "c.png"]
    written = json.loads(json.dumps(camera_to_transforms(camera, paths)))
    assert ("fl_x" in written["frames"][0]) == own_focal  # shared values stand once, at the top
    assert ("fl_x" in written) != own_focal
    read, read_paths = camera_from_transforms(written)
    assert read_paths == paths
    assert_same(read, camera)


def test_the_file_has_opengl_axes():
    """Identity in the file: at the origin, looking along -z, y up."""
    camera, _ = camera_from_transforms(FILE)
    want = look_at(jnp.zeros(3), jnp.array([0.0, 0, -1]), jnp.array([0.0, 1, 0]))
    assert_same(camera, pinhole(want[None], 5.0, 6, 8))


def test_a_frame_overrides_the_file():
    frames = [FRAME, FRAME | {"fl_x": 7.0, "cx": 1.0}]
    camera, _ = camera_from_transforms(FILE | {"fl_y": 4.0, "frames": frames})
    np.testing.assert_allclose(camera.fx, [5.0, 7.0])
    np.testing.assert_allclose(camera.fy, [4.0, 4.0])
    np.testing.assert_allclose(camera.cx, [4.0, 1.0])


def test_field_of_view_of_blender_files():
    angle = {"camera_angle_x": np.pi / 2, "frames": [FRAME]}
    camera, _ = camera_from_transforms(angle, height=6, width=8)
    np.testing.assert_allclose([camera.fx[0], camera.fy[0]], 4.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (FILE | {"frames": []}, "no frames"),
        ({"fl_x": 5.0, "frames": [FRAME]}, "no image size"),
        ({"w": 8, "h": 6, "frames": [FRAME]}, "neither fl_x nor camera_angle_x"),
        (FILE | {"k1": 0.1}, "lens distortion {'k1': 0.1}"),
        (FILE | {"camera_model": "OPENCV_FISHEYE"}, "'OPENCV_FISHEYE' is not one of"),
        (FILE | {"frames": [FRAME, FRAME | {"w": 9}]}, r"share one .*\(6, 8\), \(6, 9\)"),
        (FILE | {"frames": [{"transform_matrix": [[1.0]]}]}, r"must be 4x4, got shape \(1, 1\)"),
    ],
)
def test_what_cannot_be_read_is_named(file, message):
    with pytest.raises(ValueError, match=message):
        camera_from_transforms(file)


def test_paths_must_match_the_cameras():
    camera, _ = camera_from_transforms(FILE)
    with pytest.raises(ValueError, match=r"2 paths for cameras of batch \(1,\)"):
        camera_to_transforms(camera, ["a", "b"])
