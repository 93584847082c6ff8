"""What is known, carried a little way into what is not: the error at a hole's edge, spread inwards.

Symbols: e error of a painting where the truth is known; m hole; G a Gaussian blur.
    (1) spread   G((1 - m) e) / max(G(1 - m), 1/2)

At the edge it is the mean error of what is known, within nothing. After normalised convolution,
Knutsson and Westin (1993); the 1/2 makes it fade.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float


def spread(
    error: Float[Array, "B H W c"], hole: Bool[Array, "B H W"], sigma: float
) -> Float[Array, "B H W c"]:
    """Equation (1).

    Args:
      error: e; read outside the hole.
      hole: m.
      sigma: of G in pixels, above 0; how far into the hole it reaches.

    Raises:
      ValueError: a sigma that is not positive.
    """
    if not sigma > 0.0:
        raise ValueError(f"sigma={sigma} must be above 0 pixels")
    blurs = []
    for size in hole.shape[1:]:
        at = np.arange(size)
        weights = np.exp(-0.5 * ((at[:, None] - at[None]) / sigma) ** 2)
        # What lies beyond the picture has no say.
        weights /= weights.sum(axis=1, keepdims=True)
        blurs.append(jnp.asarray(weights, error.dtype))
    known = (~hole)[..., None]
    precise = jax.lax.Precision.HIGHEST
    total, share = (
        jnp.einsum("yh,bhwc,xw->byxc", blurs[0], x, blurs[1], precision=precise)
        for x in (jnp.where(known, error, 0.0), known.astype(error.dtype))
    )
    return total / jnp.maximum(share, 0.5)
