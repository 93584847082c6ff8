"""The rasteriser against Embree, which casts the rays of the same pixels.

A bumpy ground of half a million faces, seen from above so that most of them are in view. Both run
in turn on the same machine: geojax on all its cores and without an index, Embree on one core over
one that it builds first, so its time is given with the building and without. It answers with a face
a pixel; geojax with the weights and the depth as well. Embree is optional: without it only geojax's
time is measured.
"""

import importlib.util
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.timing import interleaved
from experiments.table import format_table
from geojax.geometry.camera import Camera, camera_rays, look_at, pinhole
from geojax.geometry.rasterizer import rasterize

CELLS = 500  # along a side of the ground, two faces each
SIZE = 512  # pixels
SAME = 1e-4  # relative: depths of one surface
ROWS = {
    "geojax": "geojax",
    "embree_cast": "embree, cast",
    "embree_build_and_cast": "embree, build and cast",
}


def make_scene(cells: int, size: int) -> tuple[np.ndarray, np.ndarray, Camera]:
    """Vertices [V, 3] and faces [F, 3] of the ground, and a camera above it."""
    x, y = np.meshgrid(*2 * [np.linspace(-1.0, 1.0, cells + 1)])
    hills = 0.08 * np.sin(9 * x + 1) * np.cos(7 * y)
    bumps = 0.02 * np.sin(41 * x) * np.sin(37 * y + 2)
    vertices = np.stack([x, y, hills + bumps], axis=-1).reshape(-1, 3).astype(np.float32)
    at = np.arange(len(vertices), dtype=np.int32).reshape(x.shape)
    a, b, c, d = (part.reshape(-1) for part in (at[:-1, :-1], at[:-1, 1:], at[1:, :-1], at[1:, 1:]))
    squares = np.stack([np.stack([a, b, d], -1), np.stack([a, d, c], -1)], axis=1)
    eye, middle, up = jnp.asarray([[0.0, -1.7, 1.5], [0.0, -0.08, 0.0], [0.0, 0.0, 1.0]])
    return (
        vertices,
        squares.reshape(-1, 3),
        pinhole(look_at(eye, middle, up), 1.4 * size, size, size),
    )


def measure(config: Any, repeats: int, cells: int = CELLS, size: int = SIZE) -> dict[str, Any]:
    """Seconds of each, their ratio, and where they see something else.

    Args:
      config: not looked at.
      repeats: of which the median is taken.
      cells: along a side of the ground.
      size: of the picture.
    """
    del config
    vertices, faces, camera = make_scene(cells, size)
    mesh = jax.device_put((vertices, faces))
    functions = {"geojax": lambda: rasterize(*mesh, len(faces), camera)}
    seen = rasterize(*mesh, len(faces), camera)
    face, depth = np.asarray(seen.face), np.asarray(seen.depth)
    found: dict[str, Any] = {
        "faces": len(faces),
        "size": size,
        "faces_seen": len(np.unique(face[face >= 0])),
        "pixels_covered": int((face >= 0).sum()),
    }
    if importlib.util.find_spec("embreex") is None:
        print("Embree is not installed, so there is no comparison: pip install embreex")
        return {**found, **interleaved(functions, repeats)}

    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene

    rays = camera_rays(camera)
    # Copies: Embree takes no array that may not be written to.
    origins, directions = (np.array(part).reshape(-1, 3) for part in rays[:2])

    def build() -> Any:
        scene = EmbreeScene()
        TriangleMesh(scene, vertices, faces)
        return scene

    scene = build()
    functions["embree_cast"] = lambda: scene.run(origins, directions)
    functions["embree_build_and_cast"] = lambda: build().run(origins, directions)
    seconds = interleaved(functions, repeats)
    hits = scene.run(origins, directions, output=True)
    hit = (hits["primID"] >= 0).reshape(size, size)
    theirs = hits["tfar"].reshape(size, size) * np.asarray(rays.z_scale)
    both = hit & (face >= 0)
    return {
        **found,
        **seconds,
        "ratio": seconds["geojax"] / seconds["embree_cast"],
        "covered_by_one_only": int((hit != (face >= 0)).sum()),
        "depth_differs": int((np.abs(depth - theirs)[both] > SAME * theirs[both]).sum()),
    }


def title(figures: dict[str, Any]) -> str:
    """What the table shows."""
    text = (
        f"{figures['faces']} faces, of which {figures['faces_seen']} are seen, at "
        f"{figures['size']} x {figures['size']}"
    )
    if "ratio" not in figures:
        return text
    return (
        f"{text}: geojax takes {figures['ratio']:.2f} times what Embree's casting does; "
        f"{figures['covered_by_one_only']} pixels are covered by one of them only, of "
        f"{figures['pixels_covered']} the depth differs in {figures['depth_differs']}"
    )


def table(figures: dict[str, Any]) -> str:
    """A row for each."""
    rows = [[name, f"{1e3 * figures[key]:.1f}"] for key, name in ROWS.items() if key in figures]
    return format_table(["implementation", "ms"], rows)
