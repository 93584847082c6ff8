"""The levels of a UNet: residual blocks, with or without attention, and changes of resolution.

Symbols: x features [B, H, W, C]; tau embedded time [B, T]; y condition [B, L, D].
    (1) resnet   h = conv1(silu(norm1 x)) + W silu(tau);  x' = S x + conv2(silu(norm2 h)),
                 S a 1x1 convolution where the widths differ, else the identity
    (2) down     each level hands every one of its outputs up; up levels concatenate them

(1) Ho et al., "Denoising Diffusion Probabilistic Models" (2020), appendix B; (2) Ronneberger et
al., "U-Net" (2015). Names are those of diffusers' files.
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from geojax.models.attention import SpatialTransformer
from geojax.models.layers import LECUN_INIT, SMALL_INIT, Conv, Dtype, GroupNorm, UpsampleConv

Features = Float[Array, "B H W C"]
Output = Float[Array, "B h w O"]
Skips = list[Float[Array, "B _ _ _"]]
Time = Float[Array, "B T"]
Condition = Float[Array, "B L D"]


class ResnetBlock(nn.Module):
    """Equation (1).

    Attributes:
      features: output width.
      num_groups: groups of the norms.
      epsilon: of the norms.
      small_init: start the branch near zero.
    """

    features: int
    num_groups: int
    epsilon: float
    small_init: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Features, time: Time | None = None) -> Output:
        """x' of equation (1); without `time` (the autoencoder) the projection is absent."""
        f, d = self.features, self.dtype
        init = SMALL_INIT if self.small_init else LECUN_INIT
        h = GroupNorm(self.num_groups, self.epsilon, d, silu=True, name="norm1")(x)
        h = Conv(f, dtype=d, name="conv1")(h)
        if time is not None:
            h = h + nn.Dense(f, dtype=d, name="time_emb_proj")(nn.silu(time))[:, None, None, :]
        h = GroupNorm(self.num_groups, self.epsilon, d, silu=True, name="norm2")(h)
        h = Conv(f, dtype=d, kernel_init=init, name="conv2")(h)
        if x.shape[-1] != f:
            x = Conv(f, kernel_size=1, dtype=d, name="conv_shortcut")(x)
        return x + h


class Downsample(nn.Module):
    """Convolution of stride 2; the UNet pads (1, 1), the autoencoder (0, 1)."""

    padding: tuple[int, int]
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Features) -> Output:
        """Half the resolution."""
        return Conv(x.shape[-1], strides=2, padding=self.padding, dtype=self.dtype, name="conv")(x)


class Upsample(nn.Module):
    """Nearest-neighbour doubling, then a convolution."""

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Features, size: tuple[int, int]) -> Output:
        """Resolution `size`, one of 2h - 1 and 2h."""
        return UpsampleConv(x.shape[-1], dtype=self.dtype, name="conv")(x, size)


@dataclasses.dataclass(frozen=True)
class LevelSpec:
    """What a level of the UNet needs to know.

    Attributes:
      features: width.
      layers: residual blocks.
      heads: attention heads; 0 means no attention.
      depth: transformer blocks an attention.
      num_groups: groups of every norm.
      epsilon: of the resnets' norms.
      use_linear_projection: see SpatialTransformer.
      implementation: see attention.
    """

    features: int
    layers: int
    heads: int
    depth: int
    num_groups: int
    epsilon: float
    use_linear_projection: bool
    implementation: str | None

    def resnet(self, name: str, dtype: Dtype) -> ResnetBlock:
        """A residual block of this level."""
        return ResnetBlock(
            self.features, self.num_groups, self.epsilon, small_init=True, dtype=dtype, name=name
        )

    def transformer(self, name: str, dtype: Dtype) -> SpatialTransformer:
        """An attention of this level."""
        return SpatialTransformer(
            self.heads,
            self.depth,
            self.num_groups,
            self.use_linear_projection,
            dtype=dtype,
            implementation=self.implementation,
            name=name,
        )


class DownBlock(nn.Module):
    """CrossAttnDownBlock2D, or DownBlock2D where heads is 0."""

    spec: LevelSpec
    downsample: bool
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Features, time: Time, y: Condition) -> tuple[Output, Skips]:
        """The level's output and, in order, all it hands up."""
        skips = []
        for i in range(self.spec.layers):
            x = self.spec.resnet(f"resnets_{i}", self.dtype)(x, time)
            if self.spec.heads:
                x = self.spec.transformer(f"attentions_{i}", self.dtype)(x, y)
            skips.append(x)
        if self.downsample:
            x = Downsample((1, 1), self.dtype, name="downsamplers_0")(x)
            skips.append(x)
        return x, skips


class MidBlock(nn.Module):
    """UNetMidBlock2DCrossAttn: resnet, attention, resnet."""

    spec: LevelSpec
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Features, time: Time, y: Condition) -> Output:
        """The bottom of the U."""
        x = self.spec.resnet("resnets_0", self.dtype)(x, time)
        x = self.spec.transformer("attentions_0", self.dtype)(x, y)
        return self.spec.resnet("resnets_1", self.dtype)(x, time)


class UpBlock(nn.Module):
    """CrossAttnUpBlock2D, or UpBlock2D where heads is 0."""

    spec: LevelSpec
    upsample: bool
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Features,
        skips: Skips,
        time: Time,
        y: Condition,
        size: tuple[int, int] | None,
    ) -> Output:
        """The level's output; `skips` are taken from the end, `size` is the next level's."""
        for i in range(self.spec.layers):
            x = jnp.concatenate([x, skips[-1 - i]], axis=-1)
            x = self.spec.resnet(f"resnets_{i}", self.dtype)(x, time)
            if self.spec.heads:
                x = self.spec.transformer(f"attentions_{i}", self.dtype)(x, y)
        if self.upsample and size is not None:
            x = Upsample(self.dtype, name="upsamplers_0")(x, size)
        return x
