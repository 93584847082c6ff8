"""Where the camera stands: DreamFusion's random views and lights, and the turntable.

Symbols
    a, e, r     azimuth, elevation (radians), distance of the camera before jitter
    lambda      focal length over image width

Equations (Poole et al. 2022, DreamFusion, appendix A.2; ranges as in the paper)
    (1)  position = r (cos e cos a, cos e sin a, sin e)        world z up, azimuth 0 on +x
    (2)  e ~ U(lo, hi)  with probability 1/2, else  sin e ~ U(sin lo, sin hi)   (uniform in area)
    (3)  a_i = 2 pi ((i + u_i) / B + u_0),  u ~ U(0, 1)        one draw an equal sector of the batch
    (4)  position += U(-j, j)^3,  target ~ N(0, t^2),  up = z + N(0, s^2)
    (5)  focal = lambda W
    (6)  light = U(lo, hi) unit(camera + N(0, 1))

Equation (3) is a change to the paper, where every azimuth is drawn alone: each a_i is still uniform
on the circle, but a batch of views always goes around the object, so its mean gradient is steadier.
An object's front faces +x, so azimuth 0 sees the front.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from geojax.geometry.camera import Camera, look_at, pinhole


@dataclass(frozen=True)
class CameraDistribution:
    """Ranges of the random views; the defaults are DreamFusion's. Hashable, so it can be static.

    Raises ValueError when a range is turned around, or holds no camera.
    """

    elevation: tuple[float, float] = (-10.0, 90.0)  # degrees
    distance: tuple[float, float] = (1.0, 1.5)  # world units
    focal: tuple[float, float] = (0.7, 1.35)  # times the image width
    position_jitter: float = 0.1  # half width of the uniform cube, world units
    target_std: float = 0.2  # world units
    up_std: float = 0.02

    def __post_init__(self):
        for name, least, most in (
            ("elevation", -90.0, 90.0),
            ("distance", 0.0, float("inf")),
            ("focal", 0.0, float("inf")),
        ):
            if len(getattr(self, name)) != 2:
                raise ValueError(f"{name} must be (low, high), got {getattr(self, name)}")
            low, high = getattr(self, name)
            if not (least <= low <= high <= most):
                raise ValueError(
                    f"{name} must be (low, high) within [{least}, {most}], got {(low, high)}"
                )
            if name != "elevation" and low <= 0.0:
                raise ValueError(f"{name} must be positive, got {(low, high)}")
        for name in ("position_jitter", "target_std", "up_std"):
            if not getattr(self, name) >= 0.0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")


class ViewSample(NamedTuple):
    """Cameras and the point of the sphere that each was put on, before jitter."""

    camera: Camera
    azimuth: Float[Array, "b"]  # radians, in [-pi, pi)
    elevation: Float[Array, "b"]  # radians
    distance: Float[Array, "b"]  # world units


def sphere_point(
    azimuth: Float[Array, "*b"], elevation: Float[Array, "*b"], distance: Float[Array, "*b"]
) -> Float[Array, "*b 3"]:
    """Equation (1): the point at azimuth and elevation (radians) and distance. [*b, 3]."""
    horizontal = jnp.cos(elevation)
    direction = jnp.stack(
        [horizontal * jnp.cos(azimuth), horizontal * jnp.sin(azimuth), jnp.sin(elevation)], axis=-1
    )
    return distance[..., None] * direction


def sample_views(
    key: Key[Array, ""], distribution: CameraDistribution, count: int, height: int, width: int
) -> ViewSample:
    """Random views of the origin, equations (1)-(5).

    Args:
        key: random key, consumed.
        distribution: ranges.
        count: number of views B; their azimuths are stratified, view i in sector i of a randomly
            turned circle.
        height: image height in pixels.
        width: image width in pixels.

    Returns:
        B cameras, with azimuth in [-pi, pi), elevation and distance before the jitter.
    """
    keys = jax.random.split(key, 8)
    low, high = (jnp.deg2rad(jnp.float32(e)) for e in distribution.elevation)
    by_angle = jax.random.uniform(keys[0], (count,), minval=low, maxval=high)
    sine = jax.random.uniform(keys[1], (count,), minval=jnp.sin(low), maxval=jnp.sin(high))
    by_area = jnp.arcsin(jnp.clip(sine, -1.0, 1.0))
    elevation = jnp.where(jax.random.bernoulli(keys[2], 0.5, (count,)), by_angle, by_area)

    sector = jnp.arange(count, dtype=jnp.float32) + jax.random.uniform(keys[3], (count,))
    turn = (sector / count + jax.random.uniform(keys[4])) % 1.0
    azimuth = 2.0 * jnp.pi * turn - jnp.pi

    distance = _uniform(keys[5], (count,), distribution.distance)
    focal = width * _uniform(keys[6], (count,), distribution.focal)

    jitter_key, target_key, up_key = jax.random.split(keys[7], 3)
    jitter = distribution.position_jitter
    position = sphere_point(azimuth, elevation, distance)
    position += _uniform(jitter_key, (count, 3), (-jitter, jitter))
    target = distribution.target_std * jax.random.normal(target_key, (count, 3))
    up = distribution.up_std * jax.random.normal(up_key, (count, 3))
    up = up.at[:, 2].add(1.0)
    camera = pinhole(look_at(position, target, up), focal, height, width)
    return ViewSample(camera, azimuth, elevation, distance)


def orbit(
    count: int,
    elevation: float | Float[Array, ""],
    distance: float | Float[Array, ""],
    focal: float | Float[Array, ""],
    height: int,
    width: int,
    azimuth0: float | Float[Array, ""] = 0.0,
) -> ViewSample:
    """A turntable: `count` cameras at equal steps of azimuth, all looking at the origin.

    Args:
        count: number of views; view i stands at azimuth0 + 2 pi i / count.
        elevation: radians; straight up (pi / 2) is allowed and keeps turning.
        distance: from the origin, world units.
        focal: focal length over image width.
        height: image height in pixels.
        width: image width in pixels.
        azimuth0: azimuth of the first view, radians.
    """
    azimuth = azimuth0 + 2.0 * jnp.pi * jnp.arange(count, dtype=jnp.float32) / count
    azimuth = (azimuth + jnp.pi) % (2.0 * jnp.pi) - jnp.pi
    elevation = jnp.full((count,), elevation, jnp.float32)
    distance = jnp.full((count,), distance, jnp.float32)
    # d(1)/de: the same image as up = z, and defined straight above the object too.
    up = sphere_point(azimuth, elevation + 0.5 * jnp.pi, jnp.ones_like(distance))
    position = sphere_point(azimuth, elevation, distance)
    camera_to_world = look_at(position, jnp.zeros_like(position), up)
    camera = pinhole(camera_to_world, focal * width, height, width)
    return ViewSample(camera, azimuth, elevation, distance)


def sample_light(
    key: Key[Array, ""],
    camera_positions: Float[Array, "b 3"],
    distance: tuple[float, float] = (0.8, 1.5),
) -> Float[Array, "b 3"]:
    """One point light a view, around its camera, equation (6).

    Args:
        key: random key, consumed.
        camera_positions: [B, 3] in the world.
        distance: range of the light's distance from the origin, world units.

    Returns:
        light positions [B, 3] in the world.
    """
    direction_key, distance_key = jax.random.split(key)
    direction = camera_positions + jax.random.normal(direction_key, camera_positions.shape)
    direction /= jnp.linalg.norm(direction, axis=-1, keepdims=True)
    return direction * _uniform(distance_key, (camera_positions.shape[0], 1), distance)


def _uniform(
    key: Key[Array, ""], shape: tuple[int, ...], bounds: tuple[float, float]
) -> Float[Array, "..."]:
    return jax.random.uniform(key, shape, minval=bounds[0], maxval=bounds[1])
