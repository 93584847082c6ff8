"""Layers shared by the networks: convolution, normalisation, time embedding.

Symbols: x features [B, H, W, C]; G groups; gamma, beta scale and bias; t timestep.
    (1) group norm   y = gamma (x - mean_G) / sqrt(var_G + eps) + beta, moments over H, W, C/G
    (2) layer norm   the same, moments over C alone
    (3) time         w_k = exp(-ln(10^4) k / (d/2 - shift)), e(t) = [sin(w t), cos(w t)]
    (4) upsampling   conv3(up x) at (2i + a, 2j + b) = conv2_ab(x) at (i, j): nearest-neighbour
                     doubling repeats rows, so each of four phases (a, b) needs 2x2 summed taps

(1) Wu & He, "Group Normalization" (2018), eq. 1-6. (2) Ba et al., "Layer Normalization" (2016).
(3) Vaswani et al., "Attention Is All You Need" (2017), section 3.5.

Every layer computes in its `dtype` and keeps parameters in whatever type they were given; moments
and softmax are taken in float32. Parameter names are Flax's: kernel, bias, scale, embedding.
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from geojax.models.convolution import DIMENSIONS, correlate

Dtype = Any

# The last layer of a residual branch starts small, so that a deep sum starts near the identity
# (Dhariwal & Nichol (2021) start it at zero; a tenth keeps every gradient alive from step one).
SMALL_INIT = nn.initializers.variance_scaling(0.01, "fan_in", "truncated_normal")
LECUN_INIT = nn.initializers.lecun_normal()


class Conv(nn.Module):
    """Two-dimensional convolution of [B, H, W, I] to [B, H', W', O], kernel HWIO.

    Attributes:
      features: O.
      kernel_size: side of the kernel.
      strides: step in both directions.
      padding: rows added (before, after) in both directions; None keeps the size at stride 1.
    """

    features: int
    kernel_size: int = 3
    strides: int = 1
    padding: tuple[int, int] | None = None
    dtype: Dtype = jnp.float32
    kernel_init: nn.initializers.Initializer = LECUN_INIT

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"]) -> Float[Array, "B h w O"]:
        """The convolution plus bias."""
        k = self.kernel_size
        kernel = self.param("kernel", self.kernel_init, (k, k, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        # Torch pads symmetrically; "SAME" at stride 2 would pad (0, 1) instead.
        pad = (k // 2, k // 2) if self.padding is None else self.padding
        y = conv(x.astype(self.dtype), kernel.astype(self.dtype), self.strides, pad)
        return y + bias.astype(self.dtype)[None, None, None, :]


def conv(
    x: Float[Array, "B H W I"],
    kernel: Float[Array, "k k I O"],
    strides: int,
    padding: tuple[int, int],
) -> Float[Array, "B h w O"]:
    """Cross-correlation of x with a square kernel, no bias.

    XLA's own convolution: on two CPU cores, forward and backward together, sums of 9 shifted
    products take 2.3 to 7.5 times as long, products with 9 (or 3) concatenated shifts 1.8 to 4.6,
    and its forward pass with either as the kernel's gradient 1.2 to 3 times (3x3, batch 32,
    16x16x96 to 64x64x32).
    """
    if kernel.shape[:2] == (1, 1) and strides == 1 and padding == (0, 0):
        return jnp.einsum("bhwi,io->bhwo", x, kernel[0, 0])
    if strides == 1 and jax.default_backend() == "cpu":
        return correlate(x, kernel, (padding, padding))
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(strides, strides),
        padding=(padding, padding),
        dimension_numbers=DIMENSIONS,
    )


def gelu(x: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """x Phi(x), Phi the normal distribution's cumulative function; exact, not the tanh form.

    `nn.gelu` takes erfc, which on the CPU is three times as slow as erf. erf loses the relative
    precision of the left tail, where the value is under 1e-6 and is added to larger ones; half
    precision would lose more, so that 1 + erf is taken in float32.
    """
    wide = x.astype(jnp.float32)
    return (0.5 * wide * (1.0 + jax.lax.erf(wide * 2.0**-0.5))).astype(x.dtype)


class GroupNorm(nn.Module):
    """Equation (1) over [B, ..., C]; float32 inside, `dtype` outside.

    Attributes:
      num_groups: G, a divisor of C.
      epsilon: added to the variance; Stable Diffusion uses 1e-5 in resnets, 1e-6 elsewhere.
      silu: follow it by x sigmoid(x), before the rounding to `dtype`: one rounding instead of two
        takes a sixth off a bfloat16 UNet's error.
    """

    num_groups: int
    epsilon: float
    dtype: Dtype = jnp.float32
    silu: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "B *s C"]) -> Float[Array, "B *s C"]:
        """Normalised x.

        Raises:
          ValueError: C is not a multiple of the number of groups.
        """
        batch, channels = x.shape[0], x.shape[-1]
        if channels % self.num_groups:
            raise ValueError(f"{channels} channels do not split into {self.num_groups} groups")
        scale = self.param("scale", nn.initializers.ones, (channels,)).astype(jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,)).astype(jnp.float32)

        def norm(
            x: Float[Array, "B *s C"], scale: Float[Array, "C"], bias: Float[Array, "C"]
        ) -> Float[Array, "B *s C"]:
            flat = x.astype(jnp.float32).reshape(batch, -1, channels)
            # Two passes: E[x^2] - E[x]^2 cancels where the mean is large.
            centred = flat - group_mean(flat)
            gain = jax.lax.rsqrt(group_mean(jnp.square(centred)) + self.epsilon)
            y = centred * (gain * scale[None, None, :]) + bias[None, None, :]
            y = nn.silu(y) if self.silu else y
            return y.reshape(x.shape).astype(self.dtype)

        def group_mean(y: Float[Array, "B N C"]) -> Float[Array, "B 1 C"]:
            # Over pixels first, over the group's channels after: reducing a [B, N, G, C/G] view at
            # once is 2 to 2.5 times slower on the CPU, forward and backward.
            mean = jnp.mean(y, axis=1).reshape(batch, self.num_groups, -1)
            mean = jnp.mean(mean, axis=-1, keepdims=True)
            mean = jnp.broadcast_to(mean, (batch, self.num_groups, channels // self.num_groups))
            return mean.reshape(batch, 1, channels)

        # What lies between x and y is made again for the gradient: a third less memory for that of
        # an autoencoder's encoder at 512 px, in the same time.
        return jax.checkpoint(norm)(x, scale, bias)


class LayerNorm(nn.Module):
    """Equation (2) over the last axis; float32 inside, `dtype` outside. Torch's default eps."""

    epsilon: float = 1e-5
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b C"]) -> Float[Array, "*b C"]:
        """Normalised x."""
        shape = (1,) * (x.ndim - 1) + (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape[-1:]).astype(jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape[-1:]).astype(jnp.float32)
        x = x.astype(jnp.float32)
        centred = x - jnp.mean(x, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
        y = centred * jax.lax.rsqrt(variance + self.epsilon) * scale.reshape(shape)
        return (y + bias.reshape(shape)).astype(self.dtype)


def timestep_embedding(
    t: Shaped[Array, "B"], dim: int, flip_sin_to_cos: bool = True, freq_shift: float = 0.0
) -> Float[Array, "B dim"]:
    """Equation (3); Stable Diffusion puts the cosines first (`flip_sin_to_cos`) and shift 0.

    Raises:
      ValueError: `dim` is odd.
    """
    if dim % 2:
        raise ValueError(f"the time embedding needs an even width, got {dim}")
    half = dim // 2
    exponent = -jnp.log(10000.0) * jnp.arange(half, dtype=jnp.float32) / (half - freq_shift)
    angle = t.astype(jnp.float32)[:, None] * jnp.exp(exponent)[None, :]
    waves = (
        (jnp.cos(angle), jnp.sin(angle)) if flip_sin_to_cos else (jnp.sin(angle), jnp.cos(angle))
    )
    return jnp.concatenate(waves, axis=-1)


class TimestepEmbedding(nn.Module):
    """Two dense layers on equation (3): [B, d] -> [B, features]."""

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B d"]) -> Float[Array, "B features"]:
        """The embedded time that every resnet adds."""
        x = nn.Dense(self.features, dtype=self.dtype, name="linear_1")(x.astype(self.dtype))
        return nn.Dense(self.features, dtype=self.dtype, name="linear_2")(nn.silu(x))


def upsample_nearest(x: Float[Array, "B h w C"], size: Sequence[int]) -> Float[Array, "B H W C"]:
    """Nearest-neighbour doubling, cropped to `size` (H, W): what torch gives for 2h-1 or 2h."""
    b, h, w, c = x.shape
    doubled = jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, 2, w, 2, c))
    return doubled.reshape(b, 2 * h, 2 * w, c)[:, : size[0], : size[1], :]


def upsample_conv(
    x: Float[Array, "B h w I"], kernel: Float[Array, "3 3 I O"]
) -> Float[Array, "B 2*h 2*w O"]:
    """Equation (4): `conv(upsample_nearest(x), kernel)` for a 3x3 kernel, without the doubling.

    The kernel's taps are summed in its own precision, then rounded to that of x, once.

    16 products a pixel of x instead of 36: on two CPU cores 1.6 to 2.2 times faster, forward and
    backward (batch 32, 8x8x96 to 32x32x64).
    """

    # An even output row sees source rows (i-1, i, i), an odd one (i, i, i+1): taps that meet.
    meet = (((0,), (1, 2)), ((0, 1), (2,)))
    # Not before x is there: kernels folded at the start of a network would all wait in memory. XLA
    # drops an optimization_barrier before it orders the steps; a product with x it cannot.
    one = 1.0 + 0.0 * jax.lax.stop_gradient(x[0, 0, 0, 0]).astype(kernel.dtype)
    taps = jax.lax.split(kernel.reshape(9, *kernel.shape[2:]), (1,) * 9)

    # One convolution a phase: all four in one of 4 O features, cut apart after, has a kernel
    # gradient ten times slower.
    def phase(a: int, b: int) -> Float[Array, "B h w O"]:
        folded = [
            one * functools.reduce(jnp.add, [taps[3 * i + j] for i in rows for j in columns])
            for rows in meet[a]
            for columns in meet[b]
        ]
        taps_of = jnp.concatenate(folded).reshape(2, 2, *kernel.shape[2:]).astype(x.dtype)
        return correlate(x, taps_of, ((1 - a, a), (1 - b, b)))

    rows = [jnp.stack([phase(a, b) for b in (0, 1)], axis=3) for a in (0, 1)]
    batch, h, w, _ = x.shape
    return jnp.stack(rows, axis=2).reshape(batch, 2 * h, 2 * w, kernel.shape[-1])


class UpsampleConv(nn.Module):
    """Nearest-neighbour doubling, then a 3x3 convolution.

    Attributes:
      features: O.
    """

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B h w I"], size: tuple[int, int]
    ) -> Float[Array, "B H W O"]:
        """Resolution `size`, each side one of 2n - 1 and 2n."""
        kernel = self.param("kernel", LECUN_INIT, (3, 3, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x = x.astype(self.dtype)
        # Measured on the CPU alone, so chosen there alone; a cropped edge needs the plain form.
        if jax.default_backend() == "cpu" and size == (2 * x.shape[1], 2 * x.shape[2]):
            y = upsample_conv(x, kernel)
        else:
            y = conv(upsample_nearest(x, size), kernel.astype(self.dtype), 1, (1, 1))
        return y + bias.astype(self.dtype)[None, None, None, :]
