"""Random holes to inpaint, like those that a moving camera leaves.

A mask is True where the picture is to be filled. Its kinds: what a camera further ahead did not see
of this view (the hole that one step of a walk leaves, from the view's own depth), bands along the
border (outpainting), slivers, rectangles, and blobs.
"""

import math

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

COVERAGE = (0.1, 0.6)
"""Range of the share of pixels in a hole."""

_TRIES = 12


def unseen(
    depth: Float[np.ndarray, "h w"],
    focal: float,
    motion: Float[np.ndarray, "3"],
    yaw: float = 0.0,
) -> Bool[np.ndarray, "h w"]:
    """Pixels of a view that another camera did not see: out of its picture, or hidden.

    Hidden is what lies behind another point of this view there; what hides it may be out of this
    view, and is then not known.

    Args:
      depth: z-depth of the view, metres.
      focal: in pixels; the principal point is in the middle.
      motion: position of the other camera in this one's axes (right, down, forward), metres.
      yaw: how far the other camera is turned to the right, radians.

    Returns:
      the hole.
    """
    height, width = depth.shape
    z = depth.astype(np.float64)
    v, u = np.meshgrid(np.arange(height) + 0.5, np.arange(width) + 0.5, indexing="ij")
    x, y = (u - 0.5 * width) / focal * z, (v - 0.5 * height) / focal * z
    x, y, z = x - motion[0], y - motion[1], z - motion[2]
    c, s = math.cos(yaw), math.sin(yaw)
    x, z = c * x - s * z, s * x + c * z
    ahead = z > 0.05
    safe = np.where(ahead, z, 1.0)
    i = np.floor(focal * x / safe + 0.5 * width).astype(int)
    j = np.floor(focal * y / safe + 0.5 * height).astype(int)
    seen = ahead & (i >= 0) & (i < width) & (j >= 0) & (j < height)
    # The nearest point in each pixel there, spread by one pixel: points lie apart when magnified.
    nearest = np.full((height, width), np.inf)
    np.minimum.at(nearest, (j[seen], i[seen]), z[seen])
    nearest = ndimage.minimum_filter(nearest, 3)
    hole = ~seen
    # A slanted surface differs from its neighbours by itself, an occluder by much more.
    hole[seen] = z[seen] > 1.15 * nearest[j[seen], i[seen]] + 0.05
    return hole


def walk_hole(
    rng: np.random.Generator, depth: Float[np.ndarray, "h w"], focal: float
) -> Bool[np.ndarray, "h w"]:
    """The hole that a step backward or aside leaves in a view."""
    scale = float(np.median(depth))
    if rng.uniform() < 0.7:
        motion = np.asarray([rng.normal(0, 0.03), rng.normal(0, 0.01), rng.uniform(0.05, 0.45)])
    else:
        motion = np.asarray([rng.choice([-1, 1]) * rng.uniform(0.05, 0.4), 0.0, 0.0])
    return unseen(depth, focal, motion * scale, float(rng.normal(0.0, 0.08)))


def bands(rng: np.random.Generator, size: int) -> Bool[np.ndarray, "s s"]:
    """Bands along one or more sides."""
    hole = np.zeros((size, size), bool)
    for side in rng.permutation(4)[: rng.integers(1, 5)]:
        width = int(rng.integers(size // 16 + 1, size // 3 + 1))
        np.rot90(hole, side)[:width] = True
    return hole


def slivers(rng: np.random.Generator, size: int) -> Bool[np.ndarray, "s s"]:
    """A few long wedges, upright mostly, as behind the edges of things."""
    v, u = np.mgrid[:size, :size] + 0.5
    hole = np.zeros((size, size), bool)
    for _ in range(rng.integers(1, 7)):
        angle = rng.normal(0.0, 0.25) + (math.pi / 2 if rng.uniform() < 0.25 else 0.0)
        x, y = rng.uniform(0.0, size, 2)
        across = (u - x) * math.cos(angle) + (v - y) * math.sin(angle)
        along = (v - y) * math.cos(angle) - (u - x) * math.sin(angle)
        half = rng.uniform(0.2, 0.7) * size
        width = rng.uniform(0.01, 0.07) * size * (1.0 + rng.uniform(-1.0, 1.0) * along / half)
        hole |= (np.abs(across) < width) & (np.abs(along) < half)
    return hole


def rectangles(rng: np.random.Generator, size: int) -> Bool[np.ndarray, "s s"]:
    """One to three rectangles."""
    hole = np.zeros((size, size), bool)
    for _ in range(rng.integers(1, 4)):
        height, width = (int(n) for n in rng.integers(size // 8 + 1, size * 3 // 4, 2))
        j, i = int(rng.integers(0, size - height + 1)), int(rng.integers(0, size - width + 1))
        hole[j : j + height, i : i + width] = True
    return hole


def blobs(rng: np.random.Generator, size: int) -> Bool[np.ndarray, "s s"]:
    """Smooth noise over a threshold."""
    noise = rng.normal(size=(size, size))
    smooth = ndimage.gaussian_filter(noise, size * rng.uniform(0.04, 0.14), mode="reflect")
    share = rng.uniform(*COVERAGE)
    return smooth > np.quantile(smooth, 1.0 - share)


def random_hole(
    rng: np.random.Generator,
    size: int,
    depth: Float[np.ndarray, "s s"] | None = None,
    focal: float | None = None,
) -> Bool[np.ndarray, "s s"]:
    """A random hole whose share of the picture is in `COVERAGE`.

    Args:
      rng: consumed.
      size: height and width of the picture, pixels.
      depth: z-depth of the picture, for the holes that a walk leaves; without it there are none.
      focal: in pixels, with `depth`.

    Returns:
      the hole, True where the picture is to be filled.

    Raises:
      ValueError: if only one of `depth` and `focal` is given.
    """
    if (depth is None) != (focal is None):
        raise ValueError("a hole from depth needs the focal length too, and the other way round")
    low, high = COVERAGE
    for _ in range(_TRIES):
        kind = rng.uniform()
        if depth is not None and focal is not None and kind < 0.45:
            hole = walk_hole(rng, depth, focal)
        else:
            make = (bands, slivers, rectangles, blobs)[rng.integers(4)]
            hole = make(rng, size)
        if rng.uniform() < 0.2:
            hole = hole | slivers(rng, size)
        if low <= hole.mean() <= high:
            return hole
    while True:  # a blob's share is what was asked for, up to a pixel
        hole = blobs(rng, size)
        if low <= hole.mean() <= high:
            return hole
