"""How much the gradients of score distillation agree: why a condition matters.

Symbols: g_m one draw of the gradient of x, flattened, M draws over noise (and time, and cameras).
    (1) mean       mu = 1/M sum g_m
    (2) variance   V = sum |g_m - mu|^2 / (M - 1), the trace of the covariance
    (3) signal     |mu|^2 - V / M, an unbiased estimate of |E g|^2
    (4) SNR        (3) / V, that of one draw
    (5) cosine     mean over pairs of <g_m, g_n> / |g_m| |g_n|
    (6) nested     V = V_noise + V_camera, of g_kn with N draws of noise n at each of K cameras k:
                   V_noise = E_k Var_n g_kn, V_camera = Var_k E_n g_kn, both without bias

A draw points where an image model wants a rendering to go. Where the model knows what it should
see, draws agree and (4) is large; where it does not, each draw goes to another picture, and the sum
over a training is a random walk towards nothing in particular.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


class GradientStatistics(NamedTuple):
    """Equations (2)-(5) of M draws; all scalars.

    Attributes:
      signal: (3); slightly negative when there is none.
      variance: V.
      snr: (4).
      cosine: (5), in [-1, 1].
      norm: mean of |g_m|.
    """

    signal: Float[Array, ""]
    variance: Float[Array, ""]
    snr: Float[Array, ""]
    cosine: Float[Array, ""]
    norm: Float[Array, ""]


class NestedStatistics(NamedTuple):
    """Equation (6), and what follows from it; all scalars.

    Attributes:
      signal: |E g|^2, unbiased.
      noise: V_noise.
      camera: V_camera; slightly negative when there is none.
      snr: signal / (V_noise + V_camera), that of one draw at one camera.
      cosine: mean over pairs of cameras of the cosine of their means.
    """

    signal: Float[Array, ""]
    noise: Float[Array, ""]
    camera: Float[Array, ""]
    snr: Float[Array, ""]
    cosine: Float[Array, ""]


class Sums(NamedTuple):
    """What the statistics of any number of draws need: they are never all held.

    Attributes:
      gradient: sum of g_m, [D].
      unit: sum of g_m / |g_m|, [D].
      square: sum of |g_m|^2.
      norm: sum of |g_m|.
      number: M.
    """

    gradient: Float[Array, "D"]
    unit: Float[Array, "D"]
    square: Float[Array, ""]
    norm: Float[Array, ""]
    number: Float[Array, ""]


def sums(gradients: Float[Array, "M *d"]) -> Sums:
    """Sums over some draws; those of others can be added, leaf by leaf."""
    flat = gradients.reshape(gradients.shape[0], -1)
    square = jnp.sum(flat**2, axis=1)
    norm = jnp.sqrt(square)
    unit = flat / jnp.maximum(norm, jnp.finfo(flat.dtype).tiny)[:, None]
    return Sums(
        jnp.sum(flat, axis=0),
        jnp.sum(unit, axis=0),
        jnp.sum(square),
        jnp.sum(norm),
        jnp.asarray(float(flat.shape[0])),
    )


def statistics(s: Sums) -> GradientStatistics:
    """Equations (2)-(5).

    Args:
      s: sums of at least two draws.
    """
    m = s.number
    mean_square = jnp.sum((s.gradient / m) ** 2)
    # One pass: sum |g - mu|^2 = sum |g|^2 - M |mu|^2, which rounding can take below 0.
    variance = jnp.maximum(s.square - m * mean_square, 0.0) / (m - 1.0)
    signal = mean_square - variance / m
    tiny = jnp.finfo(jnp.float32).tiny
    return GradientStatistics(
        signal=signal,
        variance=variance,
        snr=signal / jnp.maximum(variance, tiny),
        cosine=(jnp.sum(s.unit**2) - m) / (m * (m - 1.0)),
        norm=s.norm / m,
    )


def gradient_statistics(
    key: Key[Array, ""], draw: Callable[[Key[Array, ""]], Any], batches: int
) -> Any:
    """Statistics of `batches` calls of `draw`; to be jitted by the caller.

    `draw` may give several gradients of the same noise, as a dict: models, prompts and guidance
    scales are then compared on common random numbers.

    Args:
      key: consumed.
      draw: key -> B gradients [B, *d], or a tree of such.
      batches: how many times it is called, at least 1 (2 if B is 1).

    Returns:
      `GradientStatistics`, or the same tree of them.

    Raises:
      ValueError: fewer than two draws.
    """
    shapes = jax.eval_shape(draw, key)
    count = jax.tree.leaves(shapes)[0].shape[0]
    if batches < 1 or batches * count < 2:
        raise ValueError(f"{batches} batches of {count} draws: statistics need two draws or more")

    def add(total: Any, key: Key[Array, ""]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, jax.tree.map(sums, draw(key))), None

    empty = jax.eval_shape(lambda key: jax.tree.map(sums, draw(key)), key)
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), empty)
    total, _ = jax.lax.scan(add, nothing, jax.random.split(key, batches))
    return jax.tree.map(statistics, total, is_leaf=lambda leaf: isinstance(leaf, Sums))


class _Cameras(NamedTuple):
    """Sums of the cameras' means, and of their variances of noise."""

    means: Sums
    noise: Float[Array, ""]


def nested_statistics(
    key: Key[Array, ""], draw: Callable[[Key[Array, ""]], Any], cameras: int
) -> Any:
    """Statistics of draws of noise within cameras, equation (6); to be jitted by the caller.

    Args:
      key: consumed.
      draw: key -> N >= 2 gradients [N, *d] at one random camera, or a tree of such.
      cameras: K >= 2, how many times it is called.

    Returns:
      `NestedStatistics`, or the same tree of them.

    Raises:
      ValueError: fewer than two cameras, or fewer than two draws at each.
    """
    count = jax.tree.leaves(jax.eval_shape(draw, key))[0].shape[0]
    if cameras < 2 or count < 2:
        raise ValueError(f"{cameras} cameras of {count} draws: there must be two or more of both")

    def at_camera(gradients: Float[Array, "N *d"]) -> _Cameras:
        mean = jnp.mean(gradients, axis=0, keepdims=True)
        return _Cameras(sums(mean), statistics(sums(gradients)).variance)

    def add(total: Any, key: Key[Array, ""]) -> tuple[Any, None]:
        found = jax.tree.map(at_camera, draw(key))
        return jax.tree.map(jnp.add, total, found), None

    empty = jax.eval_shape(lambda key: jax.tree.map(at_camera, draw(key)), key)
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), empty)
    total, _ = jax.lax.scan(add, nothing, jax.random.split(key, cameras))

    def of(found: _Cameras) -> NestedStatistics:
        means, noise = statistics(found.means), found.noise / cameras
        # The means of N draws vary by their noise too.
        camera = means.variance - noise / count
        spread = jnp.maximum(noise + camera, jnp.finfo(jnp.float32).tiny)
        return NestedStatistics(means.signal, noise, camera, means.signal / spread, means.cosine)

    return jax.tree.map(of, total, is_leaf=lambda leaf: isinstance(leaf, _Cameras))
