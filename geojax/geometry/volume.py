"""Volume rendering along rays: compositing, sampling of distances, and the losses on weights.

Symbols: a ray is cut by edges t_0 <= ... <= t_S (distances) into S intervals of length
delta_i = t_{i+1} - t_i with density sigma_i >= 0 (1 / length).

    (1)  tau_i = sigma_i delta_i,   a_i = 1 - exp(-tau_i)
    (2)  T_i = exp(-sum_{j<i} tau_j),   w_i = T_i a_i,   sum_i w_i = 1 - exp(-sum_i tau_i)
    (3)  distortion = sum_ij w_i w_j |m_i - m_j| + 1/3 sum_i w_i^2 delta_i,  m_i = interval centre
    (4)  interlevel = sum_i max(0, w_i - W_i)^2 / (w_i + eps),
         W_i = sum of the proposal's weights whose intervals overlap interval i

Sources: (1, 2) Max 1995, NeRF eq. 3; (3) mip-NeRF 360 eq. 15; (4) mip-NeRF 360 eq. 13;
inverse transform sampling: NeRF section 5.2; interval sampling and dilation: mip-NeRF 360,
supplement. Every function works on the last axis and broadcasts over the leading ones.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

# Opaque in float32 over any length that matters; the bound keeps inf * 0 away.
MAX_DENSITY = 1e10


def exclusive_sum(values: Float[Array, "... S"]) -> Float[Array, "... S"]:
    """Sum of the entries before each one: out_i = sum_{j<i} values_j.

    A product with a triangular matrix of ones: on every backend several times faster than a scan
    for the tens to hundreds of samples of a ray, and as exact.
    """
    size = values.shape[-1]
    before = jnp.triu(jnp.ones((size, size), values.dtype), k=1)
    return jnp.matmul(values, before, precision=jax.lax.Precision.HIGHEST)


def optical_weights(tau: Float[Array, "... S"]) -> Float[Array, "... S"]:
    """Weights of the samples of a ray from their optical depths tau >= 0, eq. (1) and (2).

    Returns w in [0, 1], with sum 1 - exp(-sum tau) <= 1.
    """
    # expm1, not 1 - exp: thin samples (tau ~ 1e-8) would weigh exactly zero.
    return jnp.exp(-exclusive_sum(tau)) * -jnp.expm1(-tau)


def composite_weights(
    density: Float[Array, "... S"], edges: Float[Array, "... S1"]
) -> Float[Array, "... S"]:
    """Weights of the samples of a ray from density and edges, eq. (1) and (2).

    Args:
      density: sigma >= 0, 1 / length; infinity counts as opaque.
      edges: S + 1 ascending distances; an interval of length 0 weighs 0.

    Returns:
      w in [0, 1]; colour is sum w c, opacity sum w, distance sum w t. Gradients are finite.
    """
    delta = edges[..., 1:] - edges[..., :-1]
    return optical_weights(jnp.minimum(density, MAX_DENSITY) * delta)


def linear_edges(
    near: Float[Array, "..."], far: Float[Array, "..."], count: int
) -> Float[Array, "... S1"]:
    """``count`` equal intervals on [near, far]: their count + 1 edges."""
    fraction = jnp.linspace(0.0, 1.0, count + 1, dtype=near.dtype)
    fraction = fraction.reshape((1,) * near.ndim + (-1,))
    return near[..., None] * (1.0 - fraction) + far[..., None] * fraction


def stratified_distances(
    key: Key[Array, ""], edges: Float[Array, "... S1"]
) -> Float[Array, "... S"]:
    """One uniform draw in each interval (NeRF eq. 2)."""
    jitter = jax.random.uniform(key, (*edges.shape[:-1], edges.shape[-1] - 1), edges.dtype)
    return edges[..., :-1] + jitter * (edges[..., 1:] - edges[..., :-1])


def sample_pdf(
    key: Key[Array, ""] | None,
    edges: Float[Array, "... S1"],
    weights: Float[Array, "... S"],
    count: int,
    padding: float = 1e-5,
) -> Float[Array, "... N"]:
    """Distances drawn from the piecewise constant density of ``weights``, by inverse transform.

    The draws are stratified: one in each of ``count`` equal slices of probability (``key`` None:
    the middle of each slice). Sorted, inside [edges[0], edges[-1]], and detached: no gradient.

    Args:
      padding: added to each weight, so that an empty ray is sampled evenly (NeRF: 1e-5).
    """
    edges, weights = jax.lax.stop_gradient((edges, weights))
    mass = weights + padding
    below = exclusive_sum(mass)
    total = below[..., -1:] + mass[..., -1:]
    cdf = jnp.concatenate([below / total, jnp.ones_like(total)], axis=-1)
    shape = (*edges.shape[:-1], count)
    if key is None:
        jitter = jnp.full(shape, 0.5, edges.dtype)
    else:
        jitter = jax.random.uniform(key, shape, edges.dtype)
    slices = jnp.arange(count, dtype=edges.dtype).reshape((1,) * (edges.ndim - 1) + (-1,))
    u = (slices + jitter) / count
    # The interval of u is the last whose cdf is <= u: a count, which vectorises where a binary
    # search does not.
    index = jnp.sum(u[..., :, None] >= cdf[..., None, 1:-1], axis=-1)
    take = lambda values, i: jnp.take_along_axis(values, i, axis=-1)  # noqa: E731
    low, high = take(cdf, index), take(cdf, index + 1)
    start, end = take(edges, index), take(edges, index + 1)
    fraction = jnp.clip((u - low) / jnp.maximum(high - low, 1e-12), 0.0, 1.0)
    return start + fraction * (end - start)


def sample_intervals(
    key: Key[Array, ""] | None,
    edges: Float[Array, "... S1"],
    weights: Float[Array, "... S"],
    count: int,
    padding: float = 1e-5,
) -> Float[Array, "... N1"]:
    """Edges of ``count`` new intervals where the weights are (mip-NeRF 360, supplement).

    ``count`` centres are drawn by ``sample_pdf``; edges are the midpoints between them, the two
    outer ones reflected, all clamped to the old range. Detached: no gradient.
    """
    if count < 2:
        raise ValueError(f"sample_intervals needs count >= 2, got {count}")
    edges = jax.lax.stop_gradient(edges)
    centres = sample_pdf(key, edges, weights, count, padding)
    middle = (centres[..., 1:] + centres[..., :-1]) / 2
    first = 2 * centres[..., :1] - middle[..., :1]
    last = 2 * centres[..., -1:] - middle[..., -1:]
    new = jnp.concatenate([first, middle, last], axis=-1)
    return jnp.clip(new, edges[..., :1], edges[..., -1:])


def dilate_weights(
    edges: Float[Array, "... S1"],
    weights: Float[Array, "... S"],
    dilation: float | Float[Array, ""],
) -> tuple[Float[Array, "... M1"], Float[Array, "... M"]]:
    """Widen a histogram: its density becomes the maximum over +-dilation (mip-NeRF 360).

    Guards a proposal against rays that moved a little. Returns the finer edges (3 S - 1 of them,
    clamped to the old range) and weights, normalised.
    """
    start, end = edges[..., :-1], edges[..., 1:]
    density = weights / jnp.maximum(end - start, 1e-8)
    wide_start, wide_end = start - dilation, end + dilation
    new = jnp.sort(jnp.concatenate([edges, wide_start[..., 1:], wide_end[..., :-1]], -1), axis=-1)
    new = jnp.clip(new, edges[..., :1], edges[..., -1:])
    centre = (new[..., 1:] + new[..., :-1]) / 2
    inside = (wide_start[..., None, :] <= centre[..., None]) & (
        centre[..., None] < wide_end[..., None, :]
    )
    widest = jnp.max(jnp.where(inside, density[..., None, :], 0.0), axis=-1)
    dilated = widest * (new[..., 1:] - new[..., :-1])
    return new, dilated / jnp.maximum(jnp.sum(dilated, axis=-1, keepdims=True), 1e-8)


def distortion_loss(
    weights: Float[Array, "... S"], edges: Float[Array, "... S1"]
) -> Float[Array, "..."]:
    """Spread of the weights along the ray, eq. (3), for each ray, in O(S).

    ``edges`` are normalised distances s in [0, 1], sorted. mip-NeRF 360 scales it by 0.01.
    """
    centre = (edges[..., 1:] + edges[..., :-1]) / 2
    # The centres are sorted, so |m_i - m_j| opens into sums over the samples before i.
    between = weights * (centre * exclusive_sum(weights) - exclusive_sum(weights * centre))
    within = weights**2 * (edges[..., 1:] - edges[..., :-1])
    return 2 * jnp.sum(between, axis=-1) + jnp.sum(within, axis=-1) / 3


def interlevel_loss(
    edges: Float[Array, "... S1"],
    weights: Float[Array, "... S"],
    proposal_edges: Float[Array, "... P1"],
    proposal_weights: Float[Array, "... P"],
    eps: float = 1e-7,
) -> Float[Array, "..."]:
    """How far the proposal's histogram fails to bound the field's, eq. (4), for each ray.

    The field's weights are detached: only the proposal learns.
    """
    edges, weights = jax.lax.stop_gradient((edges, weights))
    overlap = (proposal_edges[..., None, :-1] < edges[..., 1:, None]) & (
        proposal_edges[..., None, 1:] > edges[..., :-1, None]
    )
    bound = jnp.sum(jnp.where(overlap, proposal_weights[..., None, :], 0.0), axis=-1)
    return jnp.sum(jnp.maximum(0.0, weights - bound) ** 2 / (weights + eps), axis=-1)
