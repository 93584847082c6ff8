"""Meshes: surfaces lie where the density says, face outward, and files read back the same."""

import hashlib
import json
import struct

import numpy as np
import pytest
import trimesh

from geojax.io import mesh_files
from geojax.io.mesh_files import Mesh, mesh_from_density, read_mesh, vertex_normals, write_mesh


def ball(radius: float = 0.6, center=(0.0, 0.0, 0.0), size: int = 41) -> np.ndarray:
    """Density 10 (radius - distance + 0.5) on a grid over [-1, 1]^3: 5 on the sphere."""
    axis = np.linspace(-1, 1, size)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1) - center
    return np.float32(10 * (radius - np.linalg.norm(points, axis=-1) + 0.5))


def volume(mesh: Mesh) -> float:
    """Signed: positive when the triangles face outward."""
    a, b, c = np.moveaxis(mesh.vertices.astype(np.float64)[mesh.faces], 1, 0)
    return float((a * np.cross(b, c)).sum() / 6)


def colored_ball() -> Mesh:
    mesh = mesh_from_density(ball(), 5.0)
    return mesh._replace(colors=np.clip(mesh.vertices * 0.5 + 0.5, 0, 1))


def test_a_ball_comes_out_in_world_coordinates():
    center = np.array([0.1, -0.2, 0.25])
    mesh = mesh_from_density(ball(0.5, center), 5.0)
    distance = np.linalg.norm(mesh.vertices - center, axis=-1)
    assert np.abs(distance - 0.5).max() < 2e-3
    assert volume(mesh) == pytest.approx(4 / 3 * np.pi * 0.5**3, rel=0.01)
    outward = (mesh.vertices - center) / distance[:, None]
    assert (vertex_normals(mesh) * outward).sum(-1).min() > 0.97


def test_bounds_need_not_be_a_cube():
    lower, upper = (0.0, -2.0, 1.0), (1.0, 2.0, 3.0)
    mesh = mesh_from_density(ball(), 5.0, lower, upper)
    middle, half = np.array([0.5, 0.0, 2.0]), np.array([0.5, 2.0, 1.0])
    assert np.abs(np.linalg.norm((mesh.vertices - middle) / half, axis=-1) - 0.6).max() < 5e-3


def test_what_reaches_the_border_is_closed_there():
    mesh = mesh_from_density(np.full((5, 6, 7), 3.0, np.float32), 1.0)
    assert np.abs(mesh.vertices).max() == 1.0
    assert trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).is_watertight
    # Half a cell is cut from the edges and corners.
    assert 7.0 < volume(mesh) <= 8.0 + 1e-6


def test_no_surface_says_why():
    with pytest.raises(ValueError, match=r"lies in \[0, 0.25\], the threshold is 5"):
        mesh_from_density(np.linspace(0, 0.25, 27, dtype=np.float32).reshape(3, 3, 3), 5.0)
    with pytest.raises(ValueError, match="1 densities are not finite"):
        mesh_from_density(np.where(np.arange(8) == 3, np.nan, 1).reshape(2, 2, 2), 0.5)
    with pytest.raises(ValueError, match=r"got shape \(1, 2, 2\)"):
        mesh_from_density(np.ones((1, 2, 2)), 0.5)


@pytest.mark.parametrize("suffix", [".glb", ".ply", ".obj"])
def test_files_read_back_and_bytes_repeat(tmp_path, suffix):
    mesh = colored_ball()
    digests = set()
    for name in ("a", "b"):
        path = tmp_path / f"{name}{suffix}"
        write_mesh(path, mesh)
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1
    found = read_mesh(path)
    assert len(found.faces) == len(mesh.faces)
    np.testing.assert_allclose(found.vertices, mesh.vertices, atol=1e-6)
    np.testing.assert_array_equal(found.faces, mesh.faces)
    assert np.abs(found.colors - mesh.colors).max() < (1e-3 if suffix == ".glb" else 3e-3)
    write_mesh(path, mesh._replace(colors=None))
    assert read_mesh(path).colors is None


def test_glb_holds_gltf_axes_linear_colours_and_a_matte_material(tmp_path):
    vertices = np.array([[1, 2, 3], [2, 2, 3], [1, 3, 3]], np.float32)
    colors = np.array([[0.5, 0.0, 1.0]] * 3, np.float32)
    write_mesh(tmp_path / "a.glb", Mesh(vertices, np.array([[0, 1, 2]]), colors))
    data = (tmp_path / "a.glb").read_bytes()
    assert struct.unpack("<4sII", data[:12]) == (b"glTF", 2, len(data))
    length = struct.unpack("<I", data[12:16])[0]
    document = json.loads(data[20 : 20 + length])
    binary = data[28 + length :]
    assert len(binary) == document["buffers"][0]["byteLength"] and length % 4 == 0

    def array(name: str, dtype: str, width: int) -> np.ndarray:
        index = document["meshes"][0]["primitives"][0]["attributes"][name]
        view = document["bufferViews"][document["accessors"][index]["bufferView"]]
        start = view["byteOffset"]
        return np.frombuffer(binary[start : start + view["byteLength"]], dtype).reshape(-1, width)

    np.testing.assert_array_equal(array("POSITION", "<f4", 3)[0], [2, 3, 1])  # y, z, x
    np.testing.assert_array_equal(array("NORMAL", "<f4", 3)[0], [0, 1, 0])  # world z is glTF's y
    np.testing.assert_allclose(array("COLOR_0", "<u2", 4)[0] / 65535, [0.21404, 0, 1, 1], atol=2e-5)
    assert document["materials"][0]["pbrMetallicRoughness"]["metallicFactor"] == 0


def test_bad_paths_and_empty_meshes(tmp_path):
    mesh = colored_ball()
    with pytest.raises(ValueError, match=r"\.glb, \.ply or \.obj"):
        write_mesh(tmp_path / "a.stl", mesh)
    with pytest.raises(ValueError, match="no triangles"):
        write_mesh(tmp_path / "a.glb", Mesh(mesh.vertices, mesh.faces[:0]))
    with pytest.raises(FileNotFoundError, match=r"a\.glb"):
        read_mesh(tmp_path / "a.glb")


def test_a_cloud_of_points_keeps_its_frame_and_colours(tmp_path, rng):
    points, colors = rng.standard_normal((5, 3)), rng.uniform(size=(5, 3))
    mesh_files.write_points(tmp_path / "a.ply", points, colors)
    found = trimesh.load(tmp_path / "a.ply")
    np.testing.assert_allclose(found.vertices, points, atol=1e-5)
    np.testing.assert_allclose(found.colors[:, :3] / 255, colors, atol=0.5 / 255 + 1e-6)
    with pytest.raises(ValueError, match=r"ending in \.ply"):
        mesh_files.write_points(tmp_path / "a.glb", points, colors)
    for bad in (points[:0], points * np.nan):
        with pytest.raises(ValueError, match="none, or not finite"):
            mesh_files.write_points(tmp_path / "b.ply", bad, colors[: len(bad)])
    assert not (tmp_path / "b.ply").exists()
