"""Pinhole cameras, their rays, and projection.

Symbols
    (u, v)      pixel coordinates; the centre of the pixel in row j, column i is (i + .5, j + .5)
    K           intrinsics fx, fy, cx, cy in pixels
    [R | p]     camera_to_world: rotation and camera position; columns of R are the image's
                right, down and forward directions in the world (OpenCV axes), det R = +1
    z           depth along the optical axis (`depth`); the length along a ray is `distance`

Equations (Hartley and Zisserman, Multiple View Geometry, ch. 6)
    (1)  x_cam = ((u - cx) / fx, (v - cy) / fy, 1)          the ray of a pixel, at z = 1
    (2)  direction = R x_cam / |x_cam|,   z = distance / |x_cam|
    (3)  x_cam = R^T (x_world - p),   u = fx x / z + cx,   v = fy y / z + cy
    (4)  focal = .5 size / tan(.5 fov)

The world is right-handed with z up. Images may be non-square, the principal point anywhere.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from geojax import pytree

# Camera algebra is tiny and its errors are seen as crooked seams: never in TF32 or bfloat16.
_EXACT = jax.lax.Precision.HIGHEST


@pytree.register
@dataclass(frozen=True)
class Camera:
    """A batch of pinhole cameras that share one image size; a pytree (the size is static)."""

    camera_to_world: Float[Array, "*b 4 4"]
    fx: Float[Array, "*b"]
    fy: Float[Array, "*b"]
    cx: Float[Array, "*b"]
    cy: Float[Array, "*b"]
    height: int = field(metadata={"static": True})
    width: int = field(metadata={"static": True})

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The leading shape `*b`; () for a single camera."""
        return self.camera_to_world.shape[:-2]

    @property
    def position(self) -> Float[Array, "*b 3"]:
        """The camera's centre in the world."""
        return self.camera_to_world[..., :3, 3]

    @property
    def rotation(self) -> Float[Array, "*b 3 3"]:
        """R: camera axes (right, down, forward) as columns, in the world."""
        return self.camera_to_world[..., :3, :3]

    def __getitem__(self, index) -> "Camera":
        """Pick cameras out of the batch: `camera[0]`, `camera[2:4]`."""
        return jax.tree.map(lambda leaf: leaf[index], self)


class Rays(NamedTuple):
    """One ray a pixel, in the world. z-depth = distance * z_scale."""

    origins: Float[Array, "*b h w 3"]
    directions: Float[Array, "*b h w 3"]  # unit length
    z_scale: Float[Array, "*b h w"]  # cosine of the angle to the optical axis, in (0, 1]


def pinhole(
    camera_to_world: Float[Array, "*b 4 4"],
    focal: float | Float[Array, "..."],
    height: int,
    width: int,
) -> Camera:
    """A camera with square pixels and a centred principal point.

    Args:
        camera_to_world: [*b, 4, 4], OpenCV axes.
        focal: focal length in pixels, one for all or [*b].
        height: image height in pixels.
        width: image width in pixels.
    """
    batch = camera_to_world.shape[:-2]
    focal = jnp.broadcast_to(jnp.asarray(focal, jnp.float32), batch)
    return Camera(
        camera_to_world,
        fx=focal,
        fy=focal,
        cx=jnp.full(batch, 0.5 * width, jnp.float32),
        cy=jnp.full(batch, 0.5 * height, jnp.float32),
        height=height,
        width=width,
    )


def pixel_centers(height: int, width: int) -> Float[Array, "{height} {width} 2"]:
    """The (u, v) of every pixel centre: [H, W, 2], from (.5, .5) to (W - .5, H - .5)."""
    u = jnp.arange(width, dtype=jnp.float32) + 0.5
    v = jnp.arange(height, dtype=jnp.float32) + 0.5
    return jnp.stack(jnp.meshgrid(u, v, indexing="xy"), axis=-1)


def camera_rays(camera: Camera) -> Rays:
    """The rays through all pixel centres, equations (1) and (2).

    Returns:
        origins and unit directions [*b, H, W, 3] in the world, z_scale [*b, H, W].
    """
    size = (camera.height, camera.width)
    pixels = jnp.broadcast_to(pixel_centers(*size), (*camera.batch_shape, *size, 2))
    x, y = _normalized(camera, pixels, trailing=2)
    at_unit_depth = jnp.stack([x, y, jnp.ones_like(x)], axis=-1)
    z_scale = 1.0 / jnp.sqrt(x**2 + y**2 + 1.0)
    directions = jnp.einsum(
        "...rc,...hwc->...hwr",
        camera.rotation,
        at_unit_depth * z_scale[..., None],
        precision=_EXACT,
    )
    origins = jnp.broadcast_to(camera.position[..., None, None, :], directions.shape)
    return Rays(origins, directions, z_scale)


def project(
    camera: Camera, points: Float[Array, "*b n 3"]
) -> tuple[Float[Array, "*b n 2"], Float[Array, "*b n"]]:
    """World points to pixels, equation (3).

    Args:
        camera: cameras of batch shape *b.
        points: [*b, N, 3] in the world.

    Returns:
        pixels [*b, N, 2] and z-depth [*b, N]. Where depth <= 0 the point is behind the camera
        and its pixel means nothing: mask by depth. Values and gradients stay finite at depth 0.
    """
    offset = points - camera.position[..., None, :]
    local = jnp.einsum("...rc,...nr->...nc", camera.rotation, offset, precision=_EXACT)
    depth = local[..., 2]
    z = jnp.where(jnp.abs(depth) < 1e-8, 1e-8, depth)
    u = camera.fx[..., None] * local[..., 0] / z + camera.cx[..., None]
    v = camera.fy[..., None] * local[..., 1] / z + camera.cy[..., None]
    return jnp.stack([u, v], axis=-1), depth


def unproject(
    camera: Camera, pixels: Float[Array, "*b n 2"], depth: Float[Array, "*b n"]
) -> Float[Array, "*b n 3"]:
    """Pixels with z-depth to world points: the inverse of `project`."""
    x, y = _normalized(camera, pixels, trailing=1)
    local = jnp.stack([x, y, jnp.ones_like(x)], axis=-1) * depth[..., None]
    world = jnp.einsum("...rc,...nc->...nr", camera.rotation, local, precision=_EXACT)
    return world + camera.position[..., None, :]


def look_at(
    position: Float[Array, "*b 3"], target: Float[Array, "*b 3"], up: Float[Array, "*b 3"]
) -> Float[Array, "*b 4 4"]:
    """camera_to_world of a camera at `position` that looks at `target`.

    `up` needs neither unit length nor a right angle with the view. When it is parallel to the
    view (straight down with up = z), the world axis least along the view takes its place.
    `position` and `target` must differ.
    """
    forward = _unit(target - position)
    least = jax.nn.one_hot(jnp.argmin(jnp.abs(forward), axis=-1), 3, dtype=forward.dtype)
    up = _unit(up)
    side = jnp.cross(forward, up)
    parallel = jnp.sum(side**2, axis=-1, keepdims=True) < 1e-10
    right = _unit(jnp.where(parallel, jnp.cross(forward, least), side))
    down = jnp.cross(forward, right)
    top = jnp.stack([right, down, forward, position], axis=-1)
    bottom = jnp.broadcast_to(jnp.asarray([0, 0, 0, 1], top.dtype), (*top.shape[:-2], 1, 4))
    return jnp.concatenate([top, bottom], axis=-2)


def to_opengl(camera_to_world: Float[Array, "*b 4 4"]) -> Float[Array, "*b 4 4"]:
    """OpenCV axes (right, down, forward) to OpenGL's (right, up, backward)."""
    flip = jnp.asarray([1.0, -1.0, -1.0, 1.0], camera_to_world.dtype)
    return camera_to_world * jnp.broadcast_to(flip, camera_to_world.shape)


def from_opengl(camera_to_world: Float[Array, "*b 4 4"]) -> Float[Array, "*b 4 4"]:
    """OpenGL axes to OpenCV's: the same two flips."""
    return to_opengl(camera_to_world)


def focal_from_fov(fov: float | Float[Array, "*b"], size: int) -> Float[Array, "*b"]:
    """Focal length in pixels from a field of view in radians across `size` pixels, (4)."""
    return 0.5 * size / jnp.tan(0.5 * jnp.asarray(fov, jnp.float32))


def fov_from_focal(focal: float | Float[Array, "*b"], size: int) -> Float[Array, "*b"]:
    """Field of view in radians across `size` pixels, from a focal length in pixels, (4)."""
    return 2.0 * jnp.arctan(0.5 * size / jnp.asarray(focal, jnp.float32))


def check_camera(camera: Camera) -> None:
    """Check concrete cameras on the host, before work starts; not for traced code.

    Raises:
        ValueError: naming the value, for a non-positive size or focal length, a non-finite entry,
            a last row other than (0, 0, 0, 1), or a rotation that is not one (scaled, sheared, or
            mirrored with determinant -1).
    """
    for name in ("height", "width"):
        if getattr(camera, name) <= 0:
            raise ValueError(f"camera {name} must be positive, got {getattr(camera, name)}")
    for name in ("camera_to_world", "fx", "fy", "cx", "cy"):
        value = np.asarray(getattr(camera, name))
        bad = np.argwhere(~np.isfinite(value))
        if len(bad):
            at = tuple(int(i) for i in bad[0])
            raise ValueError(f"camera {name} is not finite: {value[at]} at {at}")
        if name in ("fx", "fy") and np.any(value <= 0):
            raise ValueError(f"camera {name} must be positive (pixels), got {value.min()}")
    for matrix in np.asarray(camera.camera_to_world, np.float64).reshape(-1, 4, 4):
        if not np.allclose(matrix[3], [0, 0, 0, 1], atol=1e-6):
            raise ValueError(f"camera_to_world must end in the row 0 0 0 1, got {matrix[3]}")
        rotation = matrix[:3, :3]
        if not np.allclose(rotation.T @ rotation, np.eye(3), atol=1e-3):
            raise ValueError(f"camera_to_world does not start with a rotation:\n{rotation}")
        if np.linalg.det(rotation) < 0:
            raise ValueError(f"camera_to_world is mirrored (determinant -1):\n{rotation}")


def _normalized(
    camera: Camera, pixels: Float[Array, "*b 2"], trailing: int
) -> tuple[Float[Array, "*b"], Float[Array, "*b"]]:
    """Equation (1) for pixels with `trailing` axes between the batch and the coordinates."""
    expand = (..., *(None,) * trailing)
    x = (pixels[..., 0] - camera.cx[expand]) / camera.fx[expand]
    y = (pixels[..., 1] - camera.cy[expand]) / camera.fy[expand]
    return x, y


def _unit(vector: Float[Array, "*b 3"]) -> Float[Array, "*b 3"]:
    return vector / jnp.linalg.norm(vector, axis=-1, keepdims=True)
