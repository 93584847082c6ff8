"""Focal lengths: from a lens, and from a map of points.

Symbols: f focal length in pixels; (u, v) pixel centres from the principal point; H, W sides,
r = sqrt(H^2 + W^2) / 2; (x, y, z) a point in camera axes, a = (x / z, y / z); tau unknown shift.
    (1) equivalent   f = 2 r f_35 / sqrt(36^2 + 24^2)      f_35 in mm, by the diagonal
    (2) sensor       f = f_mm * (pixels of the sensor a mm) * (pixels kept of one on the sensor)
    (3) median       f = median over both axes of u z / x and v z / y
    (4) least sq.    f = sum (u, v).a / sum a.a
    (5) Weiszfeld    f = sum w (u, v).a / sum w a.a,  w = 1 / max(|(u, v) - f a|, eps), from (4)
    (6) shift        argmin over tau of sum |(u, v) - f a|^2 with a of z + tau and f by (4)

A z-depth map alone does not determine f: every f gives a scene that looks the same from here. A
point map does; so does a map of rays, which are points at unknown distances.

(1) CIPA DCG-001 (2018), annex; (3), (5) Wang et al., "DUSt3R" (2024), section 3.3 and its code; (6)
Wang et al., "MoGe" (2025), eq. 6 and its code, by Levenberg-Marquardt.

Which one. All are exact on points that are. With a fifth of the points at three times their depth
(3) and (5) stay exact where (4) is 5 % off. With a fifth of them anywhere, points far off the axis
are levers, and (5) is as lost as (4): take the median, or mask first.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from geojax.geometry.camera import pixel_centers

FULL_FRAME_DIAGONAL = math.hypot(36.0, 24.0)
WEISZFELD_STEPS = 10
EPSILON = 1e-8
SHIFT_STEPS = 60
SHIFT_SIDE = 64
"""(6) looks at a grid of at most 64 x 64 points, as MoGe."""

Points = Float[Array, "H W 3"]
Mask = Bool[Array, "H W"]


class FocalShift(NamedTuple):
    """f of equation (6) in pixels, and tau in the unit of the points."""

    focal: Float[Array, ""]
    shift: Float[Array, ""]


def focal_from_equivalent(millimetres: float, height: int, width: int) -> float:
    """Equation (1): pixels, from the focal length that 35 mm film would need.

    Raises:
      ValueError: it is not positive and finite.
    """
    _check("35 mm equivalent focal length", millimetres)
    return math.hypot(height, width) * millimetres / FULL_FRAME_DIAGONAL


def focal_from_sensor(
    millimetres: float, pixels_per_millimetre: float, sensor_side: int, side: int
) -> float:
    """Equation (2): pixels, from the lens and the sensor behind it.

    Args:
      millimetres: focal length of the lens.
      pixels_per_millimetre: of the picture as it was taken.
      sensor_side: longer side of the picture as it was taken, pixels.
      side: of the picture as it is now, scaled but not cropped.

    Raises:
      ValueError: a length is not positive and finite.
    """
    for name, value in (
        ("focal length", millimetres),
        ("resolution of the sensor", pixels_per_millimetre),
        ("side of the sensor", sensor_side),
        ("side of the picture", side),
    ):
        _check(name, value)
    return millimetres * pixels_per_millimetre * side / sensor_side


def focal_median(
    points: Points, mask: Mask, center: Float[Array, "2"] | None = None
) -> Float[Array, ""]:
    """Equation (3).

    Args:
      points: one a pixel, in camera axes; or rays of any length.
      mask: which count.
      center: principal point (u, v) in pixels; None is the middle.

    Returns:
      Pixels; nan where nothing counts.
    """
    pixels, slopes, valid = _votes(points, mask, center)
    usable = valid[..., None] & (jnp.abs(slopes) > EPSILON)
    votes = pixels / jnp.where(usable, slopes, 1.0)
    return jnp.nanmedian(jnp.where(usable, votes, jnp.nan))


def focal_weiszfeld(
    points: Points,
    mask: Mask,
    center: Float[Array, "2"] | None = None,
    steps: int = WEISZFELD_STEPS,
) -> Float[Array, ""]:
    """Equation (5); with no steps (4).

    Args:
      points: one a pixel, in camera axes; or rays of any length.
      mask: which count.
      center: principal point (u, v) in pixels; None is the middle.
      steps: of the iteration.

    Returns:
      Pixels; nan where nothing counts.
    """
    pixels, slopes, valid = _votes(points, mask, center)
    # In units of the half-diagonal: sums of squares of pixels lose digits.
    radius = _radius(points)
    pixels = pixels / radius

    def solve(weight: Float[Array, "H W"]) -> Float[Array, ""]:
        return _least_squares(pixels, slopes, jnp.where(valid, weight, 0.0))

    def step(focal: Float[Array, ""], _: None) -> tuple[Float[Array, ""], None]:
        miss = jnp.linalg.norm(pixels - focal * slopes, axis=-1)
        return solve(1.0 / jnp.maximum(miss, EPSILON)), None

    focal, _ = jax.lax.scan(step, solve(jnp.ones_like(points[..., 2])), length=steps)
    return focal * radius


def focal_and_shift(
    points: Points, mask: Mask, center: Float[Array, "2"] | None = None
) -> FocalShift:
    """Equation (6): of points whose z is off by one unknown number.

    Args:
      points: one a pixel, in camera axes but for z, which wants tau added. Of any scale.
      mask: which count.
      center: principal point (u, v) in pixels; None is the middle.

    Returns:
      f and tau; the points with tau added lie before the camera. nan where nothing counts.
    """
    radius = _radius(points)
    height, width = points.shape[:2]
    pixels = _offsets(height, width, center) / radius
    rows, columns = (
        jnp.linspace(0, n - 1, min(n, SHIFT_SIDE)).round().astype(int) for n in (height, width)
    )
    pixels, points, mask = (x[rows][:, columns] for x in (pixels, points, mask))
    valid = mask & jnp.all(jnp.isfinite(points), axis=-1)
    points = jnp.where(valid[..., None], points, 1.0)
    # In units of their own size, so that one damping and one guard fit all.
    scale = jnp.sqrt(jnp.mean(jnp.square(points), where=valid[..., None]))
    points = points / scale
    z = points[..., 2]
    nearest = jnp.min(jnp.where(valid, z, jnp.inf))

    def slopes_at(depth: Float[Array, ""]) -> Float[Array, "h w 2"]:
        return points[..., :2] / (z - nearest + depth)[..., None]

    def focal_at(depth: Float[Array, ""]) -> Float[Array, ""]:
        return _least_squares(pixels, slopes_at(depth), valid.astype(z.dtype))

    def miss(log_depth: Float[Array, ""]) -> Float[Array, "h w 2"]:
        depth = jnp.exp(log_depth)
        error = pixels - focal_at(depth) * slopes_at(depth)
        return jnp.where(valid[..., None], error, 0.0)

    # The unknown is the logarithm of the nearest point's depth, z_min + tau: no step leaves z > 0.
    def step(
        state: tuple[Float[Array, ""], Float[Array, ""]], _: None
    ) -> tuple[tuple[Float[Array, ""], Float[Array, ""]], None]:
        at, damping = state
        error, slope = jax.jvp(miss, (at,), (jnp.ones_like(at),))
        gain = jnp.sum(slope * error) / (jnp.sum(slope**2) * (1.0 + damping) + 1e-20)
        new = at - jnp.clip(gain, -1.0, 1.0)
        better = jnp.sum(jnp.square(miss(new))) < jnp.sum(jnp.square(error))
        damping = jnp.where(better, 0.3 * damping, jnp.minimum(10.0 * damping, 1e6))
        return (jnp.where(better, new, at), jnp.maximum(damping, 1e-6)), None

    start = jnp.log(jnp.where(nearest > 0, nearest, 1.0))
    (at, _), _ = jax.lax.scan(step, (start, jnp.full_like(start, 1e-2)), length=SHIFT_STEPS)
    depth = jnp.exp(at)
    return FocalShift(focal_at(depth) * radius, (depth - nearest) * scale)


def _check(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name}={value} must be positive and finite")


def _radius(points: Points) -> float:
    return 0.5 * math.hypot(*points.shape[:2])


def _offsets(
    height: int, width: int, center: Float[Array, "2"] | None
) -> Float[Array, "{height} {width} 2"]:
    """(u, v) of every pixel centre from the principal point."""
    middle = jnp.asarray([0.5 * width, 0.5 * height]) if center is None else center
    return pixel_centers(height, width) - middle[None, None]


def _votes(
    points: Points, mask: Mask, center: Float[Array, "2"] | None
) -> tuple[Float[Array, "H W 2"], Float[Array, "H W 2"], Mask]:
    """(u, v), a, and which points are before the camera and finite; the others' a is 0."""
    height, width = points.shape[:2]
    pixels = _offsets(height, width, center)
    valid = mask & jnp.all(jnp.isfinite(points), axis=-1) & (points[..., 2] > 0)
    safe = jnp.where(valid[..., None], points, 1.0)
    slopes = jnp.where(valid[..., None], safe[..., :2] / safe[..., 2:], 0.0)
    return pixels, slopes, valid


def _least_squares(
    pixels: Float[Array, "H W 2"], slopes: Float[Array, "H W 2"], weight: Float[Array, "H W"]
) -> Float[Array, ""]:
    """Equation (4), weighted."""
    weight = weight[..., None]
    return jnp.sum(weight * pixels * slopes) / jnp.sum(weight * slopes * slopes)
