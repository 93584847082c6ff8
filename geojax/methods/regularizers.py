"""Losses on a rendering that keep a distilled field sane.

Symbols
    w_i         weight of sample i along a ray; stopped where written sg(w_i)
    n_i, d      unit outward normal at the sample; unit direction camera -> scene
    o           opacity of a ray, sum_i w_i, in [0, 1]
    sigma, r    density, 1 / world unit; radius of the ball of air about a camera, world units

Equations
    (1)  orientation   sum_i sg(w_i) max(0, n_i . d)^2                Verbin et al. 2022, eq. 11
    (2)  opacity       mean sqrt(o^2 + .01)                           Poole et al. 2022, app. A.2
    (3)  entropy       mean -o log2 o - (1 - o) log2 (1 - o)          binary: 0 at o = 0 and o = 1
    (4)  air           mean log(1 + r sigma(x + r u)), u uniform in the unit ball, x cameras

All take arrays, return scalars, and have finite gradients everywhere. Weights between codebases are
not comparable: these are means, where others sum. Ramp them with `optax.linear_schedule`. (4) says
that where a camera stands nothing else does; it is ours, for scenes that are seen from inside.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


def orientation_penalty(
    weights: Float[Array, "*b s"],
    normals: Float[Array, "*b s 3"],
    directions: Float[Array, "*b 3"],
) -> Float[Array, "*b"]:
    """Equation (1) of each ray: density whose normal points away from the camera is penalised.

    Args:
        weights: [*b, S], stopped here: the loss turns normals, it does not remove density.
        normals: [*b, S, 3], unit, outward, world.
        directions: [*b, 3], unit, camera -> scene, world.
    """
    facing_away = jnp.sum(normals * directions[..., None, :], axis=-1)
    penalty = jnp.maximum(facing_away, 0.0) ** 2
    return jnp.sum(jax.lax.stop_gradient(weights) * penalty, axis=-1)


def orientation_loss(
    orientation: Float[Array, "*b"], opacity: Float[Array, "*b"]
) -> Float[Array, ""]:
    """Mean of (1) over the rays that meet anything (opacity > 0); 0 when none does.

    Args:
        orientation: [B, H, W], (1) per ray, as a Rendering has it.
        opacity: [B, H, W].
    """
    hit = jnp.sum((opacity > 0.0).astype(orientation.dtype))
    return jnp.sum(orientation) / jnp.maximum(hit, 1.0)


def opacity_loss(opacity: Float[Array, "*b"]) -> Float[Array, ""]:
    """Equation (2): pulls empty space empty. Its least value is .1, not 0."""
    return jnp.mean(jnp.sqrt(opacity**2 + 0.01))


def binary_entropy(p: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """-p log2 p - (1 - p) log2 (1 - p), in bits; p is clipped to [1e-5, 1 - 1e-5].

    The clip also stops the gradient outside, where it would be infinite.
    """
    p = jnp.clip(p, 1e-5, 1.0 - 1e-5)
    return -p * jnp.log2(p) - (1.0 - p) * jnp.log2(1.0 - p)


def entropy_loss(opacity: Float[Array, "*b"]) -> Float[Array, ""]:
    """Equation (3): every ray should either hit or miss. Works on opacities or on weights."""
    return jnp.mean(binary_entropy(opacity))


def around(
    key: Key[Array, ""], positions: Float[Array, "B 3"], radius: float, count: int = 64
) -> Float[Array, "N 3"]:
    """x + r u of (4), `count` points about each position in turn; the key is consumed."""
    u = jax.random.ball(key, 3, shape=(positions.shape[0], count))
    return (positions[:, None] + radius * u).reshape(-1, 3)


def air_loss(density: Float[Array, "N"], radius: float) -> Float[Array, ""]:
    """Equation (4) of the densities at `around` the cameras.

    The logarithm still pulls, if weakly, where the density is large; 1 - exp(-r sigma) would not.
    """
    return jnp.mean(jnp.log1p(radius * density))
