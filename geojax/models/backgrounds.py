"""A background that is learnt as a coarse picture of the sky, and a field together with one.

Symbols: d a unit view direction in world axes; u, v in [0, 1] its place on the texture.
    (1)  u = atan2(|d_xy|, d_z) / pi,   v = atan2(d_y, d_x) / 2 pi + 1/2

Source: H. Wang et al., "Score Jacobian Chaining" (2023), the authors' code: a texture of 4 x 4.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from geojax.models.fields import Field


class TextureBackground(nn.Module):
    """A texture of `size` x `size` around the scene, by equation (1), interpolated.

    It goes around without a seam in v; u is held at the poles. So coarse a picture cannot show the
    object. No activation: `channels` may be those of a latent.
    """

    channels: int = 4
    size: int = 4
    std: float = 1.0

    @nn.compact
    def __call__(self, directions: Float[Array, "N 3"]) -> Float[Array, "N C"]:
        """Unit directions [N, 3] to colour [N, channels]."""
        n = self.size
        normal = nn.initializers.normal(self.std)
        texture = self.param("texture", normal, (n, n, self.channels))
        x, y, z = directions.T
        u = jnp.arctan2(jnp.sqrt(x**2 + y**2), z) / jnp.pi
        v = jnp.arctan2(y, x) / (2.0 * jnp.pi) + 0.5
        row = jnp.clip(u * n - 0.5, 0.0, n - 1.0)
        column = v * n - 0.5
        top, left = jnp.floor(row), jnp.floor(column)
        down, right = (row - top)[:, None], (column - left)[:, None]
        i, j = top.astype(jnp.int32), left.astype(jnp.int32) % n
        below, beside = jnp.minimum(i + 1, n - 1), (j + 1) % n
        upper = (1.0 - right) * texture[i, j] + right * texture[i, beside]
        lower = (1.0 - right) * texture[below, j] + right * texture[below, beside]
        return (1.0 - down) * upper + down * lower


def with_background(
    field: Field, background: Field
) -> tuple[Field, Callable[[PyTree, Float[Array, "N 3"]], Float[Array, "N C"]]]:
    """A field whose parameters {"field", "background"} hold a background too.

    Returns:
      the field, and (params, directions [N, 3]) -> colour [N, C] of the same parameters.
    """

    def init(key):
        field_key, background_key = jax.random.split(key)
        return {"field": field.init(field_key), "background": background.init(background_key)}

    def apply(params, *points):
        return field.apply(params["field"], *points)

    def behind(params, directions):
        return background.apply(params["background"], directions)

    return Field(init, apply), behind
