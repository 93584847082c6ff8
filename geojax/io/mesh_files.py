"""Surfaces: from a density grid to a triangle mesh to a file.

Vertices are in the world frame (right-handed, z up, an object's front faces +x); triangles run
counter-clockwise seen from outside. The same mesh gives the same bytes.

glTF is y up and its front faces +z, so GLB files hold (y, z, x) of the world; its vertex colours
are linear light, so sRGB is decoded. `read_mesh` undoes both. PLY and OBJ hold the world as it is.
"""

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import trimesh
from jaxtyping import Float, Int
from skimage.measure import marching_cubes
from trimesh.visual import ColorVisuals, TextureVisuals

from geojax.io.atomic import replacing, write_bytes

_FLOAT, _USHORT, _UINT = 5126, 5123, 5125  # glTF component types
_VERTICES, _INDICES = 34962, 34963  # glTF buffer targets


class Mesh(NamedTuple):
    """Triangles with one colour (sRGB, [0, 1]) a vertex, or none."""

    vertices: Float[np.ndarray, "V 3"]
    faces: Int[np.ndarray, "F 3"]
    colors: Float[np.ndarray, "V 3"] | None = None


def mesh_from_density(
    density: Float[np.ndarray, "X Y Z"],
    threshold: float,
    lower: Sequence[float] = (-1.0, -1.0, -1.0),
    upper: Sequence[float] = (1.0, 1.0, 1.0),
) -> Mesh:
    """Marching cubes (Lewiner et al. 2003) at density = threshold; inside is above it.

    `density[i, j, k]` is the value at a point of the regular grid whose first point is `lower` and
    whose last is `upper`. What reaches the border is closed there. Raises ValueError when the field
    is not finite or has no surface, with the range of the density.
    """
    density = np.asarray(density, np.float32)
    if density.ndim != 3 or min(density.shape) < 2:
        raise ValueError(f"expected a grid of at least 2x2x2 densities, got shape {density.shape}")
    if not np.isfinite(density).all():
        raise ValueError(f"{(~np.isfinite(density)).sum()} densities are not finite")
    low, high = float(density.min()), float(density.max())
    if high <= threshold:
        raise ValueError(
            f"no surface: the density lies in [{low:.4g}, {high:.4g}], the threshold is "
            f"{threshold:.4g}"
        )
    # A rim below the threshold closes what reaches the border.
    outside = min(low, threshold - max(high - threshold, 1e-6))
    padded = np.pad(density, 1, constant_values=outside)
    vertices, faces, _, _ = marching_cubes(padded, threshold, gradient_direction="ascent")
    start, end = np.asarray(lower, np.float64), np.asarray(upper, np.float64)
    cell = (end - start) / (np.array(density.shape) - 1)
    # The rim's caps are moved onto the border, so that the mesh stays inside [lower, upper].
    world = np.clip(start + (vertices.astype(np.float64) - 1.0) * cell, start, end)
    return Mesh(world.astype(np.float32), faces.astype(np.int32))


def vertex_normals(mesh: Mesh) -> Float[np.ndarray, "V 3"]:
    """Unit normals, outward: the sum of the face normals around a vertex, weighted by area."""
    corners = mesh.vertices.astype(np.float64)[mesh.faces]
    face = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.zeros(mesh.vertices.shape, np.float64)
    for corner in range(3):
        np.add.at(total, mesh.faces[:, corner], face)
    length = np.linalg.norm(total, axis=-1, keepdims=True)
    # A vertex of degenerate triangles alone has no direction; glTF still asks for a unit vector.
    up = np.array([0.0, 0.0, 1.0])
    return np.where(length > 0, total / np.maximum(length, 1e-300), up).astype(np.float32)


def write_mesh(path: str | Path, mesh: Mesh) -> None:
    """Write .glb, .ply or .obj, chosen by the suffix. ValueError on another, or an empty mesh."""
    path = Path(path)
    if not len(mesh.faces):
        raise ValueError(f"the mesh for {path} has no triangles")
    if path.suffix == ".glb":
        write_bytes(path, _glb(mesh))
    elif path.suffix in (".ply", ".obj"):
        with replacing(path) as temporary:
            _to_trimesh(mesh).export(temporary)
    else:
        raise ValueError(f"expected a path ending in .glb, .ply or .obj, got {path}")


def write_points(
    path: str | Path, points: Float[np.ndarray, "N 3"], colors: Float[np.ndarray, "N 3"]
) -> None:
    """Write a cloud of points with colours in [0, 1] as .ply, in the frame it is in.

    Raises ValueError on another suffix, no points, or one that is not finite.
    """
    path = Path(path)
    if path.suffix != ".ply":
        raise ValueError(f"expected a path ending in .ply, got {path}")
    if not len(points) or not np.isfinite(points).all():
        raise ValueError(f"the points for {path} are none, or not finite")
    cloud = trimesh.PointCloud(points, np.round(np.clip(colors, 0, 1) * 255).astype(np.uint8))
    with replacing(path) as temporary:
        cloud.export(temporary)


def read_mesh(path: str | Path) -> Mesh:
    """Read a GLB, PLY or OBJ file as one mesh in the world frame.

    Raises FileNotFoundError, and ValueError when there are no triangles.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no mesh file at {path}")
    is_gltf = path.suffix in (".glb", ".gltf")
    scene = trimesh.load_scene(path, process=False)
    vertices, faces, colors, count = [], [], [], 0
    for node in scene.graph.nodes_geometry:
        to_scene, name = scene.graph[node]
        part = scene.geometry[name]
        if not isinstance(part, trimesh.Trimesh):
            continue
        vertices.append(trimesh.transform_points(part.vertices, to_scene))
        faces.append(np.asarray(part.faces) + count)
        colors.append(_colors_of(part))
        count += len(part.vertices)
    if not sum(map(len, faces)):
        raise ValueError(f"{path} holds no triangles")
    points = np.concatenate(vertices).astype(np.float32)
    known = [c for c in colors if c is not None]
    rgb = np.concatenate(known) if len(known) == len(colors) else None
    if is_gltf:
        points = points[:, [2, 0, 1]]
        rgb = None if rgb is None else _linear_to_srgb(rgb)
    return Mesh(points, np.concatenate(faces).astype(np.int32), rgb)


def _colors_of(part: trimesh.Trimesh) -> np.ndarray | None:
    """Vertex colours [V, 3] in [0, 1] as stored, or None."""
    if isinstance(part.visual, ColorVisuals) and part.visual.kind == "vertex":
        stored = np.asarray(part.visual.vertex_colors)
    elif isinstance(part.visual, TextureVisuals) and "color" in part.visual.vertex_attributes:
        # A glTF mesh with a material: trimesh keeps its vertex colours here, as they are.
        stored = np.asarray(part.visual.vertex_attributes["color"])
    else:
        return None
    limit = np.iinfo(stored.dtype).max if stored.dtype.kind == "u" else 1.0
    return (stored[:, :3] / limit).astype(np.float32)


def _to_trimesh(mesh: Mesh) -> trimesh.Trimesh:
    colors = None
    if mesh.colors is not None:
        colors = np.round(np.clip(mesh.colors, 0.0, 1.0) * 255.0).astype(np.uint8)
    return trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_colors=colors, process=False)


def _glb(mesh: Mesh) -> bytes:
    """A binary glTF 2.0 file of one mesh.

    Written here because trimesh gives colours 8 bits, which in linear light bands the dark ones,
    and no material, which glTF reads as polished metal.
    """
    order = [1, 2, 0]
    positions = np.ascontiguousarray(mesh.vertices[:, order], "<f4")
    arrays = [
        ("POSITION", positions, _FLOAT, "VEC3"),
        ("NORMAL", np.ascontiguousarray(vertex_normals(mesh)[:, order], "<f4"), _FLOAT, "VEC3"),
    ]
    if mesh.colors is not None:
        linear = _srgb_to_linear(np.clip(mesh.colors, 0.0, 1.0))
        # Alpha is there because four 16-bit numbers keep each vertex on a multiple of 4 bytes.
        rgba = np.concatenate([linear, np.ones((len(linear), 1))], axis=-1)
        arrays.append(("COLOR_0", np.round(rgba * 65535.0).astype("<u2"), _USHORT, "VEC4"))
    arrays.append(("indices", np.ascontiguousarray(mesh.faces, "<u4").reshape(-1), _UINT, "SCALAR"))
    views, accessors, offset = [], [], 0
    for name, array, component, kind in arrays:
        target = _INDICES if name == "indices" else _VERTICES
        views.append(
            {"buffer": 0, "byteOffset": offset, "byteLength": array.nbytes, "target": target}
        )
        accessor: dict[str, Any] = {
            "bufferView": len(views) - 1,
            "componentType": component,
            "count": len(array),
            "type": kind,
        }
        if name == "POSITION":
            accessor |= {"min": array.min(0).tolist(), "max": array.max(0).tolist()}
        if name == "COLOR_0":
            accessor["normalized"] = True
        accessors.append(accessor)
        offset += array.nbytes  # each array's size is a multiple of 4, as the alignment asks
    attributes = {name: i for i, (name, *_) in enumerate(arrays[:-1])}
    primitive = {"attributes": attributes, "indices": len(arrays) - 1, "material": 0, "mode": 4}
    document = {
        "asset": {"version": "2.0", "generator": "geojax"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "materials": [{"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0}}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": offset}],
    }
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    binary = b"".join(array.tobytes() for _, array, _, _ in arrays)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text
    chunks += struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _srgb_to_linear(color: np.ndarray) -> np.ndarray:
    return np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)


def _linear_to_srgb(color: np.ndarray) -> np.ndarray:
    curve = 1.055 * np.maximum(color, 0.0031308) ** (1 / 2.4) - 0.055
    return np.where(color <= 0.0031308, color * 12.92, curve).astype(np.float32)
