"""The neck and head of DPT, which Depth Anything shares: states of a transformer -> disparity.

Symbols: t_k states after the tapped blocks, c_k their class token; m_k maps; r_k factor; F width of
the fusion; up2 bilinear doubling that keeps corners.
    (1) readout     z_k = GELU(W_k [t_k, c_k]) token by token ("project"), t_k + c_k ("add"), t_k
    (2) reassemble  m_k = conv3(resize_k(conv1(z_k as a map))), r_k > 1 by a transposed convolution
                    of side and stride r_k, r_k < 1 by conv3 of stride 1 / r_k
    (3) residual    R(y) = y + conv3(relu(conv3(relu y)))
    (4) fusion      f_k = conv1(up2(R(f_{k+1} + R(m_k)))), from the deepest, which has no f_{k+1}
    (5) head        relu(conv1(relu(conv3(up2(conv3 f_1)))))

Ranftl et al., "Vision Transformers for Dense Prediction" (2021), section 3.1 and supplement A.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from geojax.models.clip import ACTIVATIONS
from geojax.models.layers import Conv, Dtype
from geojax.models.resize import double, resize

READOUTS = ("ignore", "add", "project")
# Each output of a transposed convolution whose stride is its side sums over I inputs alone.
UPSCALE_INIT = nn.initializers.variance_scaling(
    1.0, "fan_in", "truncated_normal", in_axis=-1, out_axis=-2, batch_axis=(0, 1)
)
# Above the closing relu, whose gradient is zero where it is off.
ALIVE_INIT = nn.initializers.constant(0.5)


class Upscale(nn.Module):
    """A transposed convolution whose stride is its side: every pixel becomes a square of its own.

    The kernel is [h, w, O, I], what the file's [I, O, h, w] becomes under the rule for every
    convolution. Flax's ConvTranspose would want it mirrored; here nothing overlaps, nothing turns.
    """

    factor: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B H W C"]:
        """`factor` times as high and wide."""
        r, (b, h, w, c) = self.factor, x.shape
        kernel = self.param("kernel", UPSCALE_INIT, (r, r, c, c)).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (c,)).astype(self.dtype)
        y = jnp.einsum("bhwi,uvoi->bhuwvo", x, kernel).reshape(b, r * h, r * w, c)
        return y + bias[None, None, None]


class ReassembleLayer(nn.Module):
    """Equation (2) but for its last convolution."""

    features: int
    factor: float
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B h w D"]) -> Float[Array, "B H W features"]:
        """The map at its own scale."""
        d = self.dtype
        x = Conv(self.features, 1, dtype=d, name="projection")(x)
        if self.factor > 1:
            return Upscale(int(self.factor), d, name="resize")(x)
        if self.factor < 1:
            return Conv(self.features, 3, int(1 / self.factor), dtype=d, name="resize")(x)
        return x


class Readout(nn.Module):
    """Equation (1), "project"; `0` is its place in the file's list."""

    activation: str
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"], token: Float[Array, "B 1 D"]) -> Array:
        """z_k."""
        both = jnp.concatenate([x, jnp.broadcast_to(token, x.shape)], axis=-1)
        return ACTIVATIONS[self.activation](nn.Dense(x.shape[-1], dtype=self.dtype, name="0")(both))


class ReassembleStage(nn.Module):
    """Equations (1) and (2) of every map."""

    readout_type: str
    activation: str
    factors: tuple[float, ...]
    sizes: tuple[int, ...]
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, states: Sequence[Float[Array, "B ..."]], grid: tuple[int, int]
    ) -> list[Float[Array, "B _ _ _"]]:
        """From t_k, class token first, to maps; what is a map already passes."""
        maps = []
        for k, x in enumerate(states):
            if x.ndim == 4:
                maps.append(x)
                continue
            token, x = x[:, :1], x[:, 1:]
            if self.readout_type == "project":
                x = Readout(self.activation, self.dtype, name=f"readout_projects_{k}")(x, token)
            elif self.readout_type == "add":
                x = x + token
            layer = ReassembleLayer(self.sizes[k], self.factors[k], self.dtype, name=f"layers_{k}")
            maps.append(layer(x.reshape(x.shape[0], *grid, -1)))
        return maps


class Residual(nn.Module):
    """Equation (3)."""

    use_bias: bool = True
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B h w F"]) -> Float[Array, "B h w F"]:
        """R(x)."""
        y = x
        for name in ("convolution1", "convolution2"):
            conv = nn.Conv(
                x.shape[-1], (3, 3), padding=1, use_bias=self.use_bias, dtype=self.dtype, name=name
            )
            y = conv(nn.relu(y))
        return x + y


class FusionLayer(nn.Module):
    """Equation (4)."""

    use_bias: bool = True
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B h w F"],
        skip: Float[Array, "B s t F"] | None = None,
        size: tuple[int, int] | None = None,
    ) -> Float[Array, "B H W F"]:
        """f_k at `size`, or doubled.

        Args:
          x: f_{k+1}, or the deepest map.
          skip: m_k; a halved map that was rounded up makes it one row smaller than x.
          size: H, W.
        """
        d = self.dtype
        if skip is not None:
            skip = resize(skip, x.shape[1:3], align_corners=False)
            x = x + Residual(self.use_bias, d, name="residual_layer1")(skip)
        elif self.is_initializing():  # in every file, and read by nothing
            Residual(self.use_bias, d, name="residual_layer1")(x)
        x = Residual(self.use_bias, d, name="residual_layer2")(x)
        x = double(x) if size is None else resize(x, size, align_corners=True)
        return Conv(x.shape[-1], 1, dtype=d, name="projection")(x)


class FusionStage(nn.Module):
    """Equation (4) from the deepest map to the finest.

    Attributes:
      match_sizes: resize to the next map's size, as Depth Anything does, instead of doubling.
    """

    use_bias: bool = True
    match_sizes: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, maps: Sequence[Float[Array, "B _ _ F"]]) -> list[Float[Array, "B _ _ F"]]:
        """f_k, deepest first."""
        fused: list[Array] = []
        for j, m in enumerate(maps[::-1]):
            layer = FusionLayer(self.use_bias, self.dtype, name=f"layers_{j}")
            size = None
            if self.match_sizes and j + 1 < len(maps):
                size = maps[-2 - j].shape[1:3]
            fused.append(layer(fused[-1], m, size) if fused else layer(m, None, size))
        return fused


class Neck(nn.Module):
    """Equations (1), (2) and (4). The attributes are those of its two stages.

    Attributes:
      features: F.
    """

    readout_type: str
    activation: str
    factors: tuple[float, ...]
    sizes: tuple[int, ...]
    features: int
    use_bias: bool = True
    match_sizes: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, states: Sequence[Float[Array, "B ..."]], grid: tuple[int, int]
    ) -> list[Float[Array, "B _ _ F"]]:
        """f_k, deepest first."""
        d = self.dtype
        reassemble = ReassembleStage(
            self.readout_type,
            self.activation,
            self.factors,
            self.sizes,
            d,
            name="reassemble_stage",
        )
        maps = [
            nn.Conv(self.features, (3, 3), padding=1, use_bias=False, dtype=d, name=f"convs_{k}")(m)
            for k, m in enumerate(reassemble(states, grid))
        ]
        return FusionStage(self.use_bias, self.match_sizes, d, name="fusion_stage")(maps)


class Head(nn.Module):
    """Equation (5); the numbers are places in the file's list."""

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B h w F"]) -> Float[Array, "B H W"]:
        """Disparity, not negative."""
        d = self.dtype
        x = double(Conv(x.shape[-1] // 2, 3, dtype=d, name="head_0")(x))
        x = nn.relu(Conv(32, 3, dtype=d, name="head_2")(x))
        return nn.relu(nn.Conv(1, (1, 1), dtype=d, bias_init=ALIVE_INIT, name="head_4")(x))[..., 0]
