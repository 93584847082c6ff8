"""Cameras that stand inside of what is optimised: anywhere, where it is free, or ever farther out.

Symbols
    x, d        position of a camera and the unit vector along its axis
    p, y        pitch and yaw of d, radians; yaw 0 looks along +x
    sigma       density, 1 / world unit;  T(t) transmittance along a ray
    B, N        cameras, and candidates for each

Equations
    (1)  x ~ U(box),  d = (cos p cos y, cos p sin y, sin p),  p ~ U(lo, hi),  focal = lambda W
    (2)  y_k = 2 pi ((k + u_k) / M + u_0),  u ~ U(0, 1)          one yaw an equal sector of M
    (3)  l = int_0^L T(t) dt,  T(t) = exp(-int_0^t sigma)        = E[min(first hit, L)]
    (4)  s = min(min_rays l / l_free, tau_free / (r max_k sigma(x + r u_k)))
    (5)  camera ~ U{candidates with s >= 1}, or that of the largest s where there are none
    (6)  box(g) = start + g (box - start),  g = g_0 + (1 - g_0) min(step / steps, 1)

A camera within density sees fog, and a gradient that would clear its picture takes the density
away: cameras that stand everywhere, rule (1), can empty a scene (measured: README, "Rooms from
inside"). Rule (5) asks the density itself where nothing is: the rays of (3) go through the camera's
picture, the points of (4) lie about it. Rule (6) lets the cameras set out from one place together;
with (2) they look all round from there.

T and the first hit: Mildenhall et al., "NeRF" (2020), equation 1; (3) is the mean of a positive
variable as the integral of its tail. That random cameras hit walls indoors, and that cameras and
scene have to be modelled jointly: Bautista et al., "GAUDI" (2022), of which (6) keeps the idea and
not the model. OpenCV axes, world z up, as `geometry/camera`.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from geojax.geometry.camera import camera_rays, look_at, pinhole
from geojax.geometry.camera_sampling import ViewSample, sphere_point
from geojax.geometry.volume import exclusive_sum

Density = Callable[[Float[Array, "N 3"]], Float[Array, "N"]]

_PICTURE = 3  # a side, of the rays that look for the first surface
_TINY = 1e-6

# Points of two spheres about a camera, radii 1/2 and 1: faces and corners of a cube; the middle.
_AROUND = np.asarray(
    [
        (0.0, 0.0, 0.0),
        *(
            radius * np.asarray(p) / np.linalg.norm(p)
            for radius in (0.5, 1.0)
            for p in itertools.product((-1, 0, 1), repeat=3)
            if sum(map(abs, p)) in (1, 3)
        ),
    ],
    np.float32,
)


class Box(NamedTuple):
    """What positions are drawn from, world units: low and high corner [3]."""

    low: Float[Array, "3"]
    high: Float[Array, "3"]


@dataclass(frozen=True)
class Gaze:
    """How cameras look, wherever they stand. Raises ValueError when a range is turned around."""

    pitch: tuple[float, float] = (-10.0, 5.0)  # degrees
    focal: tuple[float, float] = (0.9, 1.07)  # times the image width

    def __post_init__(self):
        low, high = self.pitch
        if not -90.0 < low <= high < 90.0:
            raise ValueError(f"pitch must be (low, high) within (-90, 90), got {self.pitch}")
        low, high = self.focal
        if not 0.0 < low <= high < float("inf"):
            raise ValueError(f"focal must be (low, high), positive, got {self.focal}")


@dataclass(frozen=True)
class FreeSpace:
    """What counts as free, equations (3) to (5); lengths in world units.

    Attributes:
      candidates: N.
      clearance: r.
      thickness: tau_free, the optical thickness over r that is still air.
      sight: l_free, the least distance that every ray sees ahead.
      reach: L, over `sight`.
      samples: of a ray.

    Raises ValueError for numbers that no camera could meet.
    """

    candidates: int = 64
    clearance: float = 0.1
    thickness: float = 0.2
    sight: float = 0.3
    reach: float = 1.0
    samples: int = 12

    def __post_init__(self):
        for name in ("candidates", "samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("clearance", "thickness", "sight"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not self.reach > self.sight:
            raise ValueError(f"reach={self.reach} must be over sight={self.sight}")


def box_of(half: tuple[float, float, float]) -> Box:
    """The box about the origin with these half sides.

    Raises:
      ValueError: not three, or one that is not positive.
    """
    if len(half) != 3 or not all(0.0 < h < float("inf") for h in half):
        raise ValueError(f"expected three positive half sides of a box, got {half}")
    high = jnp.asarray(half, jnp.float32)
    return Box(-high, high)


def grown(box: Box, start: Float[Array, "3"], share: Float[Array, ""]) -> Box:
    """Equation (6): the box drawn together about a point, to `share` in [0, 1] of its sides."""
    return Box(start + share * (box.low - start), start + share * (box.high - start))


def opening(step: Int[Array, "*b"], steps: int, first: float) -> Float[Array, "*b"]:
    """g of equation (6): from `first` at step 0, linearly, to 1 at `steps` and after."""
    done = jnp.minimum(step.astype(jnp.float32) / max(steps, 1), 1.0)
    return first + (1.0 - first) * done


def random_inside(
    key: Key[Array, ""], box: Box, gaze: Gaze, count: int, height: int, width: int
) -> ViewSample:
    """Cameras anywhere in a box, equations (1) and (2).

    Args:
      key: random key, consumed.
      box: of the positions.
      gaze: ranges of pitch and focal length.
      count: cameras; the yaw of camera k is in sector k of a randomly turned circle.
      height: of the image in pixels.
      width: of the image in pixels.

    Returns:
      the cameras; azimuth and elevation are those that each *looks* to, yaw in [-pi, pi), and
      distance is that from the origin.
    """
    keys = jax.random.split(key, 5)
    unit = jax.random.uniform(keys[0], (count, 3))
    position = box.low[None] + unit * (box.high - box.low)[None]
    sector = jnp.arange(count, dtype=jnp.float32) + jax.random.uniform(keys[1], (count,))
    turn = (sector / count + jax.random.uniform(keys[2])) % 1.0
    low, high = (jnp.deg2rad(jnp.float32(p)) for p in gaze.pitch)
    pitch = jax.random.uniform(keys[3], (count,), minval=low, maxval=high)
    focal = jax.random.uniform(keys[4], (count,), minval=gaze.focal[0], maxval=gaze.focal[1])
    return facing(position, 2.0 * jnp.pi * turn - jnp.pi, pitch, focal, height, width)


def free_inside(
    key: Key[Array, ""],
    box: Box,
    gaze: Gaze,
    free: FreeSpace,
    density: Density,
    count: int,
    height: int,
    width: int,
) -> ViewSample:
    """Cameras in the free space of a density, equations (3) to (5).

    Args:
      key: random key, consumed.
      box, gaze, count, height, width: as of `random_inside`, which draws the candidates: those of
        camera k look into sector k.
      free: what counts as free.
      density: points [n, 3] -> density [n] >= 0; asked without gradient.

    Returns:
      the cameras, as `random_inside`.
    """
    draw_key, choice_key = jax.random.split(key)
    drawn = random_inside(draw_key, box, gaze, count * free.candidates, height, width)
    score = jax.lax.stop_gradient(freedom(drawn, free, density))
    score = score.reshape(count, free.candidates)
    good = score >= 1.0
    # All candidates that are free have the same chance; among none, the freest has the only one.
    freest = score == jnp.max(score, axis=-1, keepdims=True)
    chance = jnp.where(jnp.any(good, axis=-1, keepdims=True), good, freest)
    chosen = jax.random.categorical(choice_key, jnp.where(chance, 0.0, -jnp.inf), axis=-1)
    picked = jnp.arange(count) * free.candidates + chosen
    return ViewSample(drawn.camera[picked], *(leaf[picked] for leaf in drawn[1:]))


def freedom(views: ViewSample, free: FreeSpace, density: Density) -> Float[Array, "b"]:
    """s of equation (4) of every camera [B]: 1 and over is free."""
    camera = views.camera
    count = camera.position.shape[0]
    about = camera.position[:, None] + free.clearance * jnp.asarray(_AROUND)[None]
    densest = jnp.max(density(about.reshape(-1, 3)).reshape(count, -1), axis=-1)
    air = free.thickness / jnp.maximum(free.clearance * densest, _TINY)

    # The same field of view in few pixels.
    focal = camera.fx / camera.width * _PICTURE
    rays = camera_rays(pinhole(camera.camera_to_world, focal, _PICTURE, _PICTURE))
    origins, directions = (x.reshape(-1, 3) for x in (rays.origins, rays.directions))
    seen = free_path(origins, directions, density, free.reach, free.samples)
    ahead = jnp.min(seen.reshape(count, -1), axis=-1) / free.sight
    return jnp.minimum(ahead, air)


def free_path(
    origins: Float[Array, "R 3"],
    directions: Float[Array, "R 3"],
    density: Density,
    reach: float,
    samples: int,
) -> Float[Array, "R"]:
    """Equation (3) by the midpoint rule: mean distance of the first hit, at most `reach`."""
    step = reach / samples
    middle = (jnp.arange(samples, dtype=jnp.float32) + 0.5) * step
    points = origins[:, None] + middle[None, :, None] * directions[:, None]
    thickness = step * density(points.reshape(-1, 3)).reshape(-1, samples)
    return step * jnp.sum(jnp.exp(-exclusive_sum(thickness) - 0.5 * thickness), axis=-1)


def facing(
    position: Float[Array, "b 3"],
    yaw: Float[Array, "b"],
    pitch: Float[Array, "b"],
    focal: float | Float[Array, "b"],
    height: int,
    width: int,
) -> ViewSample:
    """Upright cameras at positions that look to yaw and pitch (radians); focal in image widths."""
    direction = sphere_point(yaw, pitch, jnp.ones_like(yaw))
    up = jnp.broadcast_to(jnp.asarray([0.0, 0.0, 1.0]), position.shape)
    pose = look_at(position, position + direction, up)
    camera = pinhole(pose, focal * width, height, width)
    return ViewSample(camera, yaw, pitch, jnp.linalg.norm(position, axis=-1))
