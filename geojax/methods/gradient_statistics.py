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


class Moments(NamedTuple):
    """What the statistics of any number of draws need: they are never all held.

    Attributes:
      mean: mu, [D].
      spread: sum of |g_m - mu|^2.
      unit: sum of g_m / |g_m| over the draws that are not zero, [D].
      alive: how many those are.
      norm: sum of |g_m|.
      number: M.
    """

    mean: Float[Array, "D"]
    spread: Float[Array, ""]
    unit: Float[Array, "D"]
    alive: Float[Array, ""]
    norm: Float[Array, ""]
    number: Float[Array, ""]


def moments(gradients: Float[Array, "M *d"]) -> Moments:
    """Moments of some draws, at least one; `merged` takes those of others in."""
    flat = gradients.reshape(gradients.shape[0], -1)
    mean = jnp.mean(flat, axis=0)
    norm = jnp.sqrt(jnp.sum(flat**2, axis=1))
    return Moments(
        mean=mean,
        spread=jnp.sum((flat - mean[None]) ** 2),
        unit=jnp.sum(flat / jnp.maximum(norm, jnp.finfo(flat.dtype).tiny)[:, None], axis=0),
        alive=jnp.sum(norm > 0.0, dtype=jnp.float32),
        norm=jnp.sum(norm),
        number=jnp.asarray(float(flat.shape[0])),
    )


def merged(a: Moments, b: Moments) -> Moments:
    """Moments of the draws of both; one of them may be of none, all zeros.

    |mu_a - mu_b|^2 takes the place of the squares of the means, whose difference rounding eats
    (Chan, Golub & LeVeque, "Updating formulae and a pairwise algorithm", 1979).
    """
    number = a.number + b.number
    apart = b.mean - a.mean
    return Moments(
        mean=a.mean + apart * (b.number / number),
        spread=a.spread + b.spread + jnp.sum(apart**2) * (a.number * b.number / number),
        unit=a.unit + b.unit,
        alive=a.alive + b.alive,
        norm=a.norm + b.norm,
        number=number,
    )


def statistics(s: Moments) -> GradientStatistics:
    """Equations (2)-(5).

    Args:
      s: moments of at least two draws.
    """
    variance = s.spread / (s.number - 1.0)
    signal = jnp.sum(s.mean**2) - variance / s.number
    # A draw that is zero points nowhere: it is in no pair of (5).
    pairs = jnp.maximum(s.alive * (s.alive - 1.0), 1.0)
    return GradientStatistics(
        signal=signal,
        variance=variance,
        snr=signal / jnp.maximum(variance, jnp.finfo(jnp.float32).tiny),
        cosine=(jnp.sum(s.unit**2) - s.alive) / pairs,
        norm=s.norm / s.number,
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

    total = _over_keys(lambda key: jax.tree.map(moments, draw(key)), merged, Moments, key, batches)
    return jax.tree.map(statistics, total, is_leaf=lambda leaf: isinstance(leaf, Moments))


class _Cameras(NamedTuple):
    """Moments of the cameras' means, and the sum of their variances of noise."""

    means: Moments
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
        own = moments(gradients)
        return _Cameras(moments(own.mean[None]), statistics(own).variance)

    def both(a: _Cameras, b: _Cameras) -> _Cameras:
        return _Cameras(merged(a.means, b.means), a.noise + b.noise)

    total = _over_keys(lambda key: jax.tree.map(at_camera, draw(key)), both, _Cameras, key, cameras)

    def of(found: _Cameras) -> NestedStatistics:
        means, noise = statistics(found.means), found.noise / cameras
        # The means of N draws vary by their noise too.
        camera = means.variance - noise / count
        spread = jnp.maximum(noise + camera, jnp.finfo(jnp.float32).tiny)
        return NestedStatistics(means.signal, noise, camera, means.signal / spread, means.cosine)

    return jax.tree.map(of, total, is_leaf=lambda leaf: isinstance(leaf, _Cameras))


def _over_keys(
    found: Callable[[Key[Array, ""]], Any],
    merge: Callable[[Any, Any], Any],
    record: type,
    key: Key[Array, ""],
    count: int,
) -> Any:
    """Trees of records found with `count` keys, merged record by record, one at a time."""

    def is_record(leaf: Any) -> bool:
        return isinstance(leaf, record)

    def add(total: Any, key: Key[Array, ""]) -> tuple[Any, None]:
        return jax.tree.map(merge, total, found(key), is_leaf=is_record), None

    shapes = jax.eval_shape(found, key)
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.scan(add, nothing, jax.random.split(key, count))[0]
