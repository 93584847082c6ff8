"""What is known, carried into what is not: the error at a hole's edge, spread inwards.

Symbols: e error of a painting where the truth is known; m hole; h the correction within it.
    (1) membrane   h / r^2 - laplace h = 0 in m,  h = e on the known pixels beside it,
                   no flow across the border of the picture

h passes smoothly from the error on one side to that on the other, so that no step is left at the
edge. With r infinite it is the harmonic extension, which makes (painting + h) the solution of
Poisson image editing: Perez et al., "Poisson image editing" (2003), equations 3 and 4. A finite r
fades to nothing within about r pixels.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

_TOLERANCE = 1e-4
"""Of the residual, relative to what the edge says."""


def spread(
    error: Float[Array, "B H W c"], hole: Bool[Array, "B H W"], reach: float = math.inf
) -> Float[Array, "B H W c"]:
    """Equation (1), solved by conjugate gradients; differentiable in the error.

    Args:
      error: e; read outside the hole, and of that the pixels beside it count.
      hole: m.
      reach: r in pixels, above 0; infinity for the harmonic extension.

    Returns:
      h in the hole, e elsewhere; 0 where nothing is known.

    Raises:
      ValueError: a reach that is not positive.
    """
    if not reach > 0.0:
        raise ValueError(f"reach={reach} must be above 0 pixels")
    stiffness = 1.0 / reach**2  # 0 for infinity
    return jax.vmap(lambda e, m: _membrane(e, m[..., None], stiffness))(error, hole)


def _membrane(
    error: Float[Array, "H W c"], hole: Bool[Array, "H W 1"], stiffness: float
) -> Float[Array, "H W c"]:
    height, width, _ = error.shape
    known = jnp.where(hole, 0.0, error)
    neighbours = _around(jnp.ones((height, width, 1), error.dtype))

    def operator(h: Float[Array, "H W c"]) -> Float[Array, "H W c"]:
        # The identity outside of the hole keeps the matrix symmetric and positive.
        inside = jnp.where(hole, h, 0.0)
        return jnp.where(hole, (neighbours + stiffness) * inside - _around(inside), h)

    # A picture that is a hole throughout has nothing at its edge, and a right side of zero.
    right = jnp.where(hole, _around(known), known)
    h, _ = jax.scipy.sparse.linalg.cg(
        operator,
        right,
        x0=known,
        tol=_TOLERANCE,
        maxiter=4 * (height + width),
        M=lambda v: v / jnp.where(hole, neighbours + stiffness, 1.0),
    )
    return jnp.where(hole, h, error)


def _around(x: Float[Array, "H W c"]) -> Float[Array, "H W c"]:
    """The sum of the four neighbours that lie in the picture."""
    p = jnp.pad(x, ((1, 1), (1, 1), (0, 0)))
    return p[:-2, 1:-1] + p[2:, 1:-1] + p[1:-1, :-2] + p[1:-1, 2:]
