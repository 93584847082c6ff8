"""How far a reconstructed object is from the exact solid: IoU, silhouettes, depth.

A reconstruction has no preferred heading, so volumes are compared at the best yaw (a turn about z),
found on the grid and then used for the pictures too. What no silhouette shows (the inside of a mug)
is not held against it: kinds with a cavity are compared by their visual hulls, the largest shapes
with the same silhouettes (A. Laurentini, "The visual hull concept", 1994). Space enclosed by a
surface counts as inside: a field's density behind an opaque surface is never seen nor trained.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from geojax.geometry.camera import Camera, project
from geojax.geometry.camera_sampling import ViewSample, orbit
from geojax.worlds import solids
from geojax.worlds.render import render_truth

_YAW_STEP = 5.0  # degrees


class VolumeScore(NamedTuple):
    """Agreement of volumes.

    Attributes:
      iou: intersection over union at the best yaw, in [0, 1].
      yaw: by which the solid is turned to meet the reconstruction, radians in (-pi, pi].
    """

    iou: float
    yaw: float


def grid_points(resolution: int, bound: float) -> np.ndarray:
    """Centres of the cells of [-bound, bound]^3: [N, N, N, 3] float32, axes x, y, z."""
    centres = ((np.arange(resolution) + 0.5) / resolution * 2.0 - 1.0) * bound
    axes = np.meshgrid(centres, centres, centres, indexing="ij")
    return np.stack(axes, axis=-1).astype(np.float32)


def intersection_over_union(a: Bool[np.ndarray, "*b"], b: Bool[np.ndarray, "*b"]) -> float:
    """|a and b| / |a or b|; two empty sets agree fully."""
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0


def turn(points: Float[np.ndarray, "*b 3"], yaw: float) -> Float[np.ndarray, "*b 3"]:
    """Turn points by `yaw` radians about z, counter-clockwise from above."""
    c, s = math.cos(yaw), math.sin(yaw)
    rotation = np.asarray([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]], np.float32)
    return points @ rotation.T


def carve(mask: Bool[np.ndarray, "V H W"], camera: Camera, points: np.ndarray) -> np.ndarray:
    """Visual hull: whether each point [..., 3] is in the mask of every view that sees it."""
    flat = jnp.asarray(points.reshape(-1, 3))
    inside = np.ones(len(flat), bool)
    each = jnp.broadcast_to(flat, (len(mask), *flat.shape))
    pixels, depth = (np.asarray(x) for x in project(camera, each))
    for view, (uv, z) in enumerate(zip(pixels, depth, strict=True)):
        u, v = np.floor(uv[:, 0]).astype(int), np.floor(uv[:, 1]).astype(int)
        seen = (u >= 0) & (u < camera.width) & (v >= 0) & (v < camera.height) & (z > 0.0)
        hit = np.zeros(len(flat), bool)
        hit[seen] = mask[view, v[seen], u[seen]]
        inside &= hit | ~seen
    return inside.reshape(points.shape[:-1])


def hull_views(size: int = 96) -> ViewSample:
    """The views that carve: three orbits of twelve, and one from overhead."""
    rings = [orbit(12, math.radians(e), 1.45, 1.26, size, size) for e in (-8.0, 20.0, 50.0)]
    rings.append(orbit(1, math.radians(89.0), 1.45, 1.26, size, size))
    return _join(rings)


def test_views(size: int = 64) -> ViewSample:
    """24 views for silhouettes and depth, between those that prompts and hulls use."""
    rings = [
        orbit(8, math.radians(e), 1.45, 1.26, size, size, azimuth0=math.radians(a))
        for e, a in ((5.0, 10.0), (35.0, 25.0), (65.0, 40.0))
    ]
    return _join(rings)


def _join(views: list[ViewSample]) -> ViewSample:
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *views)


def volume_score(
    kind: str,
    occupied: Bool[np.ndarray, "N N N"],
    bound: float,
    hull_mask: Bool[np.ndarray, "V H W"] | None = None,
) -> VolumeScore:
    """IoU of a reconstruction with the exact solid, at the best yaw.

    Args:
      kind: one of `solids.KINDS`.
      occupied: cells of [-bound, bound]^3 that the reconstruction fills.
      bound: half side of the grid, world units.
      hull_mask: the reconstruction's silhouettes in `hull_views`; needed for kinds with a cavity.

    Returns:
      the score.

    Raises:
      ValueError: the kind has a cavity and no silhouettes are given.
    """
    points = grid_points(occupied.shape[0], bound)
    cavity = solids.KINDS[kind].cavity
    if cavity:
        if hull_mask is None:
            raise ValueError(f"a {kind} has a cavity: its IoU needs silhouettes in hull_views()")
        views = hull_views(hull_mask.shape[-1]).camera
        occupied = carve(hull_mask, views, points)
        # The exact hull is carved once, on the same grid, and turned by nearest cells.
        exact = carve(np.asarray(render_truth(kind, views).mask), views, points)
    else:
        occupied = ndimage.binary_fill_holes(occupied)
    best = VolumeScore(-1.0, 0.0)
    for degrees in np.arange(-180.0 + _YAW_STEP, 180.0 + 1e-6, _YAW_STEP):
        yaw = math.radians(degrees)
        turned = turn(points, -yaw)
        if cavity:
            index = np.floor((turned / bound + 1.0) * 0.5 * len(exact)).astype(int)
            index = np.clip(index, 0, len(exact) - 1)
            solid = exact[index[..., 0], index[..., 1], index[..., 2]]
        else:
            solid = np.asarray(solids.signed_distance(kind, jnp.asarray(turned))) < 0.0
        iou = intersection_over_union(occupied, solid)
        # A round solid fits at every yaw: prefer the smallest turn among equals.
        if iou > best.iou + 1e-3 or (iou > best.iou - 1e-3 and abs(yaw) < abs(best.yaw)):
            best = VolumeScore(iou, yaw)
    return best


def pieces(occupied: Bool[np.ndarray, "N N N"], least: float = 0.01) -> int:
    """How many separate pieces a reconstruction has; the exact solids have one.

    An overlap hardly sees that a handle floats beside its cup.

    Args:
      occupied: filled cells; cells that touch at a corner belong together.
      least: share of the filled cells below which a piece is dust.
    """
    labels, count = ndimage.label(occupied, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    return int(np.count_nonzero(sizes >= least * max(1, sizes.sum())))


def two_faced(kind: str, occupied: Bool[np.ndarray, "N N N"], bound: float) -> float:
    """How much more a reconstruction looks the same from front and back than the exact solid does.

    The IoU of the reconstruction with itself turned by half a turn, less that of the exact solid:
    0 where they are alike, and up to 1; what has two faces or two chimneys is above 0. For kinds
    that are the same after half a turn it says nothing, and is about 0 or below.

    Args:
      kind: one of `solids.KINDS`.
      occupied: cells of [-bound, bound]^3 that the reconstruction fills.
      bound: half side of the grid, world units.
    """
    points = jnp.asarray(grid_points(occupied.shape[0], bound))
    exact = np.asarray(solids.signed_distance(kind, points)) < 0.0
    filled = ndimage.binary_fill_holes(occupied)
    overlaps = [intersection_over_union(x, x[::-1, ::-1]) for x in (filled, exact)]
    return overlaps[0] - overlaps[1]


def turned_camera(camera: Camera, yaw: float) -> Camera:
    """Cameras that see the unturned solid as the given ones see it turned by `yaw`."""
    c, s = math.cos(-yaw), math.sin(-yaw)
    back = jnp.asarray(
        [[c, -s, 0.0, 0.0], [s, c, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    )
    return Camera(
        back @ camera.camera_to_world,
        camera.fx,
        camera.fy,
        camera.cx,
        camera.cy,
        height=camera.height,
        width=camera.width,
    )


def picture_scores(
    kind: str,
    camera: Camera,
    opacity: Float[np.ndarray, "V H W"],
    depth: Float[np.ndarray, "V H W"],
    yaw: float,
) -> tuple[float, float]:
    """Mean silhouette IoU over views, and mean absolute relative depth error where both are solid.

    Args:
      kind: one of `solids.KINDS`.
      camera: V views of the reconstruction.
      opacity: its opacity in [0, 1]; solid above 0.5.
      depth: its z-depth, world units.
      yaw: as found by `volume_score`.

    Returns:
      (silhouette IoU in [0, 1], depth error; nan where nothing overlaps).
    """
    truth = render_truth(kind, turned_camera(camera, yaw))
    exact_mask, exact_depth = np.asarray(truth.mask), np.asarray(truth.depth)
    mask = opacity > 0.5
    overlap = [intersection_over_union(a, b) for a, b in zip(mask, exact_mask, strict=True)]
    both = mask & exact_mask
    error = np.abs(depth - exact_depth)[both] / exact_depth[both]
    return float(np.mean(overlap)), float(np.mean(error)) if both.any() else math.nan
