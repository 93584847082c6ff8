"""What is infinitely far: a picture of all directions, behind everything else.

Symbols: omega unit direction in the world (z up); (theta, phi) its polar angle from the zenith and
its azimuth; N rows, 2 N columns of the dome, texel centres at +1/2.
    (1) texel    row = N theta / pi - 1/2,  column = 2 N (phi / 2 pi mod 1) - 1/2
    (2) paint    a texel whose direction falls on a far pixel of a view takes its colour there
    (3) look     a pixel takes the colour of the dome in the direction of its ray

The equirectangular map of Debevec's light probes. A camera that moves sees the same dome: what is
infinitely far has no parallax. A texel that is known stays as it is, so the sky does not drift.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from geojax import pytree
from geojax.geometry.camera import Camera, camera_rays, project


@pytree.register
@dataclass(frozen=True)
class Dome:
    """Colours by direction.

    Attributes:
      colors: [N, 2 N, 3] in [0, 1]; 0 where not known.
      known: [N, 2 N].
    """

    colors: Float[Array, "N M 3"]
    known: Bool[Array, "N M"]


def empty_dome(rows: int) -> Dome:
    """A dome of which nothing is known.

    Args:
      rows: N; a row is pi / N radians high, about a pixel's angle is enough.

    Raises:
      ValueError: fewer than 2 rows.
    """
    if rows < 2:
        raise ValueError(f"a dome needs at least 2 rows, got {rows}")
    return Dome(jnp.zeros((rows, 2 * rows, 3)), jnp.zeros((rows, 2 * rows), bool))


def directions(rows: int) -> Float[Array, "N M 3"]:
    """Unit directions of the texels, the inverse of equation (1)."""
    theta = (jnp.arange(rows, dtype=jnp.float32) + 0.5) * (jnp.pi / rows)
    phi = (jnp.arange(2 * rows, dtype=jnp.float32) + 0.5) * (jnp.pi / rows)
    flat, up = jnp.sin(theta)[:, None], jnp.cos(theta)[:, None]
    x, y = flat * jnp.cos(phi)[None], flat * jnp.sin(phi)[None]
    return jnp.stack([x, y, jnp.broadcast_to(up, x.shape)], axis=-1)


def paint(
    dome: Dome, camera: Camera, image: Float[Array, "H W 3"], far: Bool[Array, "H W"]
) -> Dome:
    """Equation (2): the dome with what a view sees of it.

    Args:
      dome: so far; texels that are known stay as they are.
      camera: one, of H x W pixels.
      image: [H, W, 3].
      far: [H, W], pixels that show what is infinitely far.
    """
    rows = dome.known.shape[0]
    height, width = far.shape
    omega = directions(rows).reshape(-1, 3)
    pixels, depth = project(camera, camera.position[None] + omega)
    ahead = depth > 1e-3
    pixels = jnp.where(ahead[:, None], pixels, -1.0)
    limit = jnp.asarray([[width, height]], jnp.float32)
    inside = ahead & jnp.all((pixels >= 0.0) & (pixels < limit), axis=1)
    at = jnp.clip(jnp.floor(jnp.where(inside[:, None], pixels, 0.0)).astype(jnp.int32), 0)
    new = inside & far[at[:, 1], at[:, 0]]
    # Only far pixels may mix: a window's frame is not in the sky.
    weight = far.astype(image.dtype)[..., None]
    values = jnp.concatenate([image * weight, weight], axis=-1)
    mixed = _bilinear(values, pixels[:, 1] - 0.5, pixels[:, 0] - 0.5)
    colour = mixed[:, :3] / jnp.maximum(mixed[:, 3:], 1e-6)
    new = new.reshape(dome.known.shape) & ~dome.known
    colour = colour.reshape(dome.colors.shape)
    return Dome(jnp.where(new[..., None], colour, dome.colors), dome.known | new)


def look(dome: Dome, camera: Camera) -> tuple[Float[Array, "H W 3"], Bool[Array, "H W"]]:
    """Equation (3).

    Args:
      dome: as it is known.
      camera: one.

    Returns:
      colours [H, W, 3], 0 where not known; known [H, W]: whether the nearest texel is.
    """
    rows, columns = dome.known.shape
    omega = camera_rays(camera).directions.reshape(-1, 3)
    theta = jnp.arccos(jnp.clip(omega[:, 2], -1.0, 1.0))
    turn = jnp.arctan2(omega[:, 1], omega[:, 0]) / (2.0 * jnp.pi)
    row = rows * theta / jnp.pi - 0.5
    column = columns * (turn - jnp.floor(turn)) - 0.5
    nearest_row = jnp.clip(jnp.round(row).astype(jnp.int32), 0, rows - 1)
    known = dome.known[nearest_row, jnp.round(column).astype(jnp.int32) % columns]
    weight = dome.known.astype(jnp.float32)[..., None]
    values = jnp.concatenate([dome.colors * weight, weight], axis=-1)
    # The columns go round.
    wrapped = jnp.concatenate([values[:, -1:], values, values[:, :1]], axis=1)
    mixed = _bilinear(wrapped, row, column + 1.0)
    colour = jnp.where(known[:, None], mixed[:, :3] / jnp.maximum(mixed[:, 3:], 1e-6), 0.0)
    size = (camera.height, camera.width)
    return colour.reshape(*size, 3), known.reshape(size)


def _bilinear(
    values: Float[Array, "H W c"], row: Float[Array, "n"], column: Float[Array, "n"]
) -> Float[Array, "n c"]:
    """Values at real-valued places; beyond the border, those of the border."""
    place = jnp.stack([row, column])
    return jax.vmap(
        lambda channel: jax.scipy.ndimage.map_coordinates(
            channel, list(place), order=1, mode="nearest"
        ),
        in_axes=-1,
        out_axes=-1,
    )(values)
