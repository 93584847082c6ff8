"""Resampling of feature maps exactly as PyTorch's `interpolate` does it.

Symbols: n, m sides before and after; i an output row; s(i) its place among the input rows.
    (1) corners   s(i) = i (n - 1) / (m - 1)            align_corners=True: first and last row kept
    (2) centres   s(i) = (i + 1/2) n / m - 1/2          align_corners=False
    (3) linear    y_i = (1 - f) x_j + f x_{j+1},  j = floor s(i), f = s(i) - j
    (4) cubic     y_i = sum over k = -1..2 of c(f - k) x_{j+k}, c Keys' kernel with a = -3/4:
                  c(t) = (a+2)|t|^3 - (a+3)t^2 + 1 for |t| <= 1,
                         a|t|^3 - 5a t^2 + 8a|t| - 4a for 1 < |t| < 2
    (5) doubling  (1) and (3) with m = 2n:  y_2k = x_k + k/(2n-1) (x_{k-1} - x_k),
                  y_2k+1 = x_k + (n-1-k)/(2n-1) (x_{k+1} - x_k)

Rows outside count as the nearest one. There is no antialiasing: `jax.image.resize`, which has it on
the way down, which has no (1), and whose cubic kernel has a = -1/2, gives other numbers everywhere.

(4) Keys, "Cubic Convolution Interpolation for Digital Image Processing" (1981), eq. 15.
"""

import operator
from collections.abc import Sequence
from functools import reduce

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

KEYS_A = -0.75


def positions(size: int, new_size: int, align_corners: bool) -> Float[np.ndarray, "m"]:
    """s of equation (1) or (2)."""
    i = np.arange(new_size, dtype=np.float64)
    if align_corners:
        return i * ((size - 1) / max(new_size - 1, 1))
    return (i + 0.5) * (size / new_size) - 0.5


def taps(
    size: int, new_size: int, method: str, align_corners: bool
) -> tuple[Int[np.ndarray, "m k"], Float32[np.ndarray, "m k"]]:
    """Which input rows make an output row, and their weights: equation (3) or (4).

    Raises:
      ValueError: the method is neither "linear" nor "cubic".
    """
    place = positions(size, new_size, align_corners)
    first = np.floor(place)
    fraction = place - first
    if method == "linear":
        offsets = np.arange(2)
        weights = np.stack([1.0 - fraction, fraction], axis=-1)
    elif method == "cubic":
        offsets, a = np.arange(-1, 3), KEYS_A
        t = np.abs(fraction[:, None] - offsets[None])
        near = (a + 2) * t**3 - (a + 3) * t**2 + 1
        far = a * (t**3 - 5 * t**2 + 8 * t - 4)
        weights = np.where(t <= 1, near, far)
    else:
        raise ValueError(f"method={method!r} must be 'linear' or 'cubic'")
    rows = np.clip(first[:, None].astype(int) + offsets[None], 0, size - 1)
    return rows, weights.astype(np.float32)


def resize(
    x: Float[Array, "B h w C"],
    size: Sequence[int],
    method: str = "linear",
    *,
    align_corners: bool,
) -> Float[Array, "B H W C"]:
    """x at another size, one axis after the other; in the type of x.

    Args:
      x: feature maps or images.
      size: H, W.
      method: "linear" (equation 3) or "cubic" (4); torch's "bilinear" and "bicubic".
      align_corners: equation (1) rather than (2).

    Raises:
      ValueError: another method.
    """
    for axis in (1, 2):
        n, m = x.shape[axis], size[axis - 1]
        if m == n:
            continue  # both (1) and (2) are then the identity
        if m == 2 * n and method == "linear" and align_corners:
            x = _double(x, axis)
            continue
        rows, weights = taps(n, m, method, align_corners)
        shape = [1, 1, 1, 1]
        shape[axis] = m
        x = reduce(
            operator.add,
            (
                jnp.take(x, row, axis=axis) * jnp.asarray(weight.reshape(shape), x.dtype)
                for row, weight in zip(rows.T, weights.T, strict=True)
            ),
        )
    return x


def double(x: Float[Array, "B h w C"]) -> Float[Array, "B 2*h 2*w C"]:
    """Equation (5) along both sides."""
    return _double(_double(x, 1), 2)


def _double(x: Float[Array, "B h w C"], axis: int) -> Float[Array, "B H W C"]:
    # By shifts: the gradient of a gather is a scatter, many times slower.
    n = x.shape[axis]
    shape = [1, 1, 1, 1]
    shape[axis] = n
    fraction = (np.arange(n, dtype=np.float32) / (2 * n - 1)).reshape(shape)

    def rows(start: int, stop: int) -> Float[Array, "B h w C"]:
        index = [slice(None)] * 4
        index[axis] = slice(start, stop)
        return x[tuple(index)]

    before = jnp.concatenate([rows(0, 1), rows(0, n - 1)], axis=axis)
    after = jnp.concatenate([rows(1, n), rows(n - 1, n)], axis=axis)
    even = x + jnp.asarray(fraction, x.dtype) * (before - x)
    odd = x + jnp.asarray(np.flip(fraction, axis), x.dtype) * (after - x)
    doubled = list(x.shape)
    doubled[axis] = 2 * n
    return jnp.stack([even, odd], axis=axis + 1).reshape(doubled)
