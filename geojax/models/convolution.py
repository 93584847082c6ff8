"""Convolution at stride 1 whose gradients are fast in a loop on the CPU too.

Symbols: x input [B, H, W, I], w kernel [a, b, I, O], p padding (before, after) of rows and columns;
y = x * w cross-correlation, dy its cotangent.
    (1) input    dx = dy * flip(w)^T,   padded by a - 1 - p
    (2) kernel   dw = x^T * dy^T: x with channels for its batch, dy for the kernel

(1) and (2) are what differentiation gives, written with the axes in the order of `DIMENSIONS`. XLA
puts the axes of a CPU convolution in that order only outside of loops; in the body of a scan it
leaves them, and a gradient takes ten to twenty times as long. Elsewhere nothing changes.
"""

from functools import partial

import jax
from jaxtyping import Array, Float

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
Padding = tuple[tuple[int, int], tuple[int, int]]


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def correlate(
    x: Float[Array, "B H W I"], kernel: Float[Array, "a b I O"], padding: Padding
) -> Float[Array, "B h w O"]:
    """y = x * w; differentiable once, in reverse.

    Args:
      x: input.
      kernel: w.
      padding: p of rows and of columns.
    """
    return _correlate(x, kernel, padding)


def _correlate(x: Array, kernel: Array, padding: Padding) -> Array:
    return jax.lax.conv_general_dilated(
        x, kernel, window_strides=(1, 1), padding=padding, dimension_numbers=DIMENSIONS
    )


def _forward(x: Array, kernel: Array, padding: Padding) -> tuple[Array, tuple[Array, Array]]:
    return _correlate(x, kernel, padding), (x, kernel)


def _backward(padding: Padding, saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = saved
    (top, bottom), (left, right) = padding
    rows, columns = kernel.shape[0] - 1, kernel.shape[1] - 1
    around = ((rows - top, rows - bottom), (columns - left, columns - right))
    dx = _correlate(dy, kernel[::-1, ::-1].swapaxes(2, 3), around)
    of_channels = _correlate(x.transpose(3, 1, 2, 0), dy.transpose(1, 2, 0, 3), padding)
    return dx, of_channels.transpose(1, 2, 0, 3)


correlate.defvjp(_forward, _backward)
