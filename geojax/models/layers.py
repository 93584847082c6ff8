"""Layers shared by the networks: convolution, normalisation, time embedding.

Symbols: x features [B, H, W, C]; G groups; gamma, beta scale and bias; t timestep.
    (1) group norm   y = gamma (x - mean_G) / sqrt(var_G + eps) + beta, moments over H, W, C/G
    (2) layer norm   the same, moments over C alone
    (3) time         w_k = exp(-ln(10^4) k / (d/2 - shift)), e(t) = [sin(w t), cos(w t)]

(1) Wu & He, "Group Normalization" (2018), eq. 1-6. (2) Ba et al., "Layer Normalization" (2016).
(3) Vaswani et al., "Attention Is All You Need" (2017), section 3.5.

Every layer computes in its `dtype` and keeps parameters in whatever type they were given; moments
and softmax are taken in float32. Parameter names are Flax's: kernel, bias, scale, embedding.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

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
    """Cross-correlation of x with a square kernel, no bias."""
    if kernel.shape[:2] == (1, 1) and strides == 1 and padding == (0, 0):
        return jnp.einsum("bhwi,io->bhwo", x, kernel[0, 0])
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(strides, strides),
        padding=(padding, padding),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


class GroupNorm(nn.Module):
    """Equation (1) over [B, ..., C]; float32 inside, `dtype` outside.

    Attributes:
      num_groups: G, a divisor of C.
      epsilon: added to the variance; Stable Diffusion uses 1e-5 in resnets, 1e-6 elsewhere.
    """

    num_groups: int
    epsilon: float
    dtype: Dtype = jnp.float32

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
        grouped = x.astype(jnp.float32).reshape(
            batch, -1, self.num_groups, channels // self.num_groups
        )
        mean = jnp.mean(grouped, axis=(1, 3), keepdims=True)
        centred = grouped - mean
        variance = jnp.mean(jnp.square(centred), axis=(1, 3), keepdims=True)
        shape = (1, 1, self.num_groups, -1)
        gain = jax.lax.rsqrt(variance + self.epsilon) * scale.reshape(shape)
        y = centred * gain + bias.reshape(shape)
        return y.reshape(x.shape).astype(self.dtype)


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
