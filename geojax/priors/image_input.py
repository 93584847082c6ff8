"""What an image model is fed: resampling as Pillow does it, in JAX and differentiable."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from geojax.priors.prior import Image


def resample(image: Image, size: Sequence[int], method: str) -> Float[Array, "B h w 3"]:
    """An image [B, H, W, 3] in [0, 1] at another size, antialiased.

    Width first and clipped to [0, 1] after each direction, as in Pillow, whose filters JAX's are
    (the cubic one with a = -1/2). A cubic overshoots at an edge, and the overshoot is clipped; the
    gradient passes as if it were not, or a white background would get none.

    Args:
      image: of any size.
      size: H, W.
      method: "linear" or "cubic".
    """
    for axis in (2, 1):
        if image.shape[axis] == size[axis - 1]:
            continue
        shape = list(image.shape)
        shape[axis] = size[axis - 1]
        resized = jax.image.resize(image, shape, method, antialias=True)
        image = resized + jax.lax.stop_gradient(jnp.clip(resized, 0.0, 1.0) - resized)
    return image
