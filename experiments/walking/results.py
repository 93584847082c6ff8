"""What a walk leaves behind: pictures while it goes on; at its end films, models and figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.walking.records import Record
from geojax.geometry.camera import Camera, pixel_centers, unproject
from geojax.geometry.nerfstudio import camera_to_transforms
from geojax.io.atomic import write_json
from geojax.io.depth_files import write_depth
from geojax.io.media import color_depth, grid, write_png, write_video
from geojax.io.mesh_files import Mesh, write_mesh, write_points
from geojax.methods.mesh_scene import MeshScene

SHEET_COLUMNS = 6


def write_frame(folder: Path, index: int, record: Record) -> None:
    """The files of one frame, for people and for other programs."""
    name = f"{index:04d}.png"
    write_png(folder / "frames" / name, record.image)
    write_png(folder / "masks" / name, record.hole.astype(np.float32))
    write_png(folder / "warped" / name, record.shown)
    near = record.depth[record.depth > 0]
    if near.size:
        write_depth(folder / "depth" / name, record.depth)


def colours(image: np.ndarray) -> dict[str, float]:
    """What drifts: brightness (mean), contrast (deviation) and saturation (range of a pixel)."""
    return {
        "brightness": float(image.mean()),
        "contrast": float(image.mean(axis=-1).std()),
        "saturation": float((image.max(axis=-1) - image.min(axis=-1)).mean()),
    }


def means(records: Sequence[Record]) -> dict[str, float]:
    """Means over the painted frames; of CLIP and the colours also the last less the first."""
    names = sorted({name for record in records for name in record.figures})
    found = {}
    for name in names:
        values = [record.figures[name] for record in records[1:] if name in record.figures]
        if values:
            found[name] = round(float(np.mean(values)), 4)
    first, last = records[0].figures, records[-1].figures
    for name in ("clip", "brightness", "contrast", "saturation"):
        found[f"{name}_drift"] = round(last[name] - first[name], 4)
    return found


def stacked(cameras: Sequence[Camera]) -> Camera:
    """One batch of cameras."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *cameras)


def mesh_of(scene: Any) -> Mesh | None:
    """The mesh of a mesh scene; None of any other, or of one without a face."""
    if not isinstance(scene, MeshScene) or not int(scene.mesh.face_count):
        return None
    mesh = scene.mesh
    vertices, faces = int(mesh.vertex_count), int(mesh.face_count)
    # Counter-clockwise as the cameras saw them.
    return Mesh(
        np.asarray(mesh.vertices[:vertices]),
        np.asarray(mesh.faces[:faces]),
        np.asarray(mesh.colors[:vertices]),
    )


def new_points(record: Record) -> tuple[np.ndarray, np.ndarray]:
    """World points and colours of what a frame added."""
    pixels = pixel_centers(*record.depth.shape).reshape(-1, 2)
    points = unproject(record.camera, pixels, jnp.asarray(record.depth).reshape(-1))
    keep = (record.new & (record.depth > 0)).reshape(-1)
    return np.asarray(points)[keep], record.image.reshape(-1, 3)[keep]


def sheet(records: Sequence[Record]) -> np.ndarray:
    """Evenly from the walk: what the scene showed, the frame, its depth."""
    chosen = [
        records[i]
        for i in np.linspace(0, len(records) - 1, min(SHEET_COLUMNS, len(records))).astype(int)
    ]
    depths = color_depth(
        np.stack([r.depth for r in chosen]), np.stack([r.depth > 0 for r in chosen])
    )
    masked = [np.where(r.hole[..., None], np.float32(1.0), r.shown) for r in chosen]
    rows = [np.stack(masked), np.stack([r.image for r in chosen]), depths]
    return grid(np.stack(rows), ("known", "frame", "depth"), gap=4)


def write_results(folder: Path, records: Sequence[Record], scene: Any, fps: float) -> dict:
    """Films, mesh, points, cameras; returns what summary.json says of them."""
    frames = [record.image for record in records]
    write_video(folder / "walk.mp4", frames, fps)
    write_video(folder / "walk_reverse.mp4", frames[::-1], fps)
    write_png(folder / "sheet.png", sheet(records))
    names = [f"frames/{index:04d}.png" for index in range(len(records))]
    transforms = camera_to_transforms(stacked([record.camera for record in records]), names)
    for index, frame in enumerate(transforms["frames"]):
        if (folder / "depth" / f"{index:04d}.png").is_file():
            frame["depth_file_path"] = f"depth/{index:04d}.png"
    write_json(folder / "transforms.json", transforms)
    mesh = mesh_of(scene)
    if mesh is not None:
        write_mesh(folder / "mesh.glb", mesh)
    parts = [new_points(record) for record in records]
    points, colors = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    if len(points):
        write_points(folder / "points.ply", points, colors)
    return {
        "points": len(points),
        "vertices": len(mesh.vertices) if mesh is not None else 0,
        "faces": len(mesh.faces) if mesh is not None else 0,
    }
