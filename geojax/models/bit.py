"""BiT, the convolutional network below the hybrid DPT, from transformers' BitConfig json.

Symbols: W kernel [h, w, I, O]; GN group norm of G groups; s_k stages.
    (1) standardised   W' = (W - mean W) / sqrt(var W + 1e-8), moments over h, w, I of every output
    (2) stem           maxpool_3,2(relu(GN(conv7_2 x))), a quarter of the sides
    (3) bottleneck     relu(x + GN(conv1(relu GN(conv3(relu GN(conv1 x)))))); the first of a stage
                       strides in its conv3 and has GN(conv1 x) in place of x

Kolesnikov et al., "Big Transfer (BiT)" (2020), section 2.1, in the form without pre-activation that
Dosovitskiy et al., "An Image is Worth 16x16 Words" (2021), use in their hybrids; (1) Qiao et al.,
"Micro-Batch Training with Batch-Channel Normalization and Weight Standardization" (2019), eq. 7.
Padding is TensorFlow's "SAME", whose surplus row comes last.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from geojax.models.layers import LECUN_INIT, Dtype, GroupNorm

GROUP_NORM_EPSILON = 1e-5
STANDARDISE_EPSILON = 1e-8
BOTTLENECK = 4  # the widths inside and outside of equation (3)
REQUIRED = {
    "layer_type": "bottleneck",
    "global_padding": "SAME",
    "hidden_act": "relu",
    "embedding_dynamic_padding": True,
    "output_stride": 32,
    "width_factor": 1,
}


@dataclasses.dataclass(frozen=True)
class BitConfig:
    """The fields of transformers' BitConfig that the features depend on; defaults of DPT-Hybrid."""

    num_channels: int = 3
    embedding_size: int = 64
    hidden_sizes: tuple[int, ...] = (256, 512, 1024, 2048)
    depths: tuple[int, ...] = (3, 4, 9)
    num_groups: int = 32

    def __post_init__(self) -> None:
        if len(self.depths) != 3 or len(self.hidden_sizes) < 3:
            raise ValueError(
                f"depths={self.depths} and hidden_sizes={self.hidden_sizes} must be of three stages"
            )
        # transformers rounds the inner width to a multiple of 8, which these leave as it is.
        if any(size % (8 * BOTTLENECK) for size in self.hidden_sizes):
            raise ValueError(
                f"hidden_sizes={self.hidden_sizes} must be multiples of {8 * BOTTLENECK}"
            )

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> "BitConfig":
        """From a config.json's `backbone_config`; those of training and bookkeeping are ignored.

        Raises:
          ValueError: another kind of network, a value that is not implemented, or not the features
            of all three stages.
        """
        if config.get("model_type", "bit") != "bit":
            raise ValueError(f"a hybrid's backbone must be 'bit', not {config['model_type']!r}")
        for name, expected in REQUIRED.items():
            value = config.get(name, expected)
            if (value.upper() if name == "global_padding" and value else value) != expected:
                raise ValueError(f"{name}={value!r} of the backbone must be {expected!r}")
        names = {f.name for f in dataclasses.fields(cls)}
        fields: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v
            for k, v in config.items()
            if k in names and v is not None
        }
        stages = config.get("out_features")
        if stages not in (None, ["stage1", "stage2", "stage3"]):
            raise ValueError(f"out_features={stages} of the backbone must be its three stages")
        return cls(**fields)

    def to_dict(self) -> dict[str, Any]:
        """The fields of `backbone_config`, readable by transformers."""
        features = {"out_features": ["stage1", "stage2", "stage3"]}
        return {"model_type": "bit", **REQUIRED, **features, **dataclasses.asdict(self)}


def standardise(kernel: Float[Array, "h w I O"]) -> Float[Array, "h w I O"]:
    """Equation (1), float32."""
    kernel = kernel.astype(jnp.float32)
    centred = kernel - jnp.mean(kernel, axis=(0, 1, 2), keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=(0, 1, 2), keepdims=True)
    return centred * jax.lax.rsqrt(variance + STANDARDISE_EPSILON)


class StandardConv(nn.Module):
    """A convolution without bias by the standardised kernel of equation (1)."""

    features: int
    kernel_size: int
    strides: int = 1
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"]) -> Float[Array, "B h w features"]:
        """The convolution; h = H / strides, rounded up."""
        k, s = self.kernel_size, self.strides
        kernel = self.param("kernel", LECUN_INIT, (k, k, x.shape[-1], self.features))
        return jax.lax.conv_general_dilated(
            x.astype(self.dtype),
            standardise(kernel).astype(self.dtype),
            window_strides=(s, s),
            padding="SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


class Shortcut(nn.Module):
    """GN(conv1 x) of equation (3)."""

    features: int
    strides: int
    num_groups: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"]) -> Float[Array, "B h w features"]:
        """x at the stage's width and stride."""
        d = self.dtype
        y = StandardConv(self.features, 1, self.strides, d, name="conv")(x)
        return GroupNorm(self.num_groups, GROUP_NORM_EPSILON, d, name="norm")(y)


class Bottleneck(nn.Module):
    """Equation (3).

    Attributes:
      first: of its stage.
    """

    features: int
    strides: int
    num_groups: int
    first: bool
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"]) -> Float[Array, "B h w features"]:
        """The block's output."""
        groups, d, inner = self.num_groups, self.dtype, self.features // BOTTLENECK

        def norm(y: Array, name: str) -> Array:
            return GroupNorm(groups, GROUP_NORM_EPSILON, d, name=name)(y)

        y = nn.relu(norm(StandardConv(inner, 1, 1, d, name="conv1")(x), "norm1"))
        y = nn.relu(norm(StandardConv(inner, 3, self.strides, d, name="conv2")(y), "norm2"))
        y = norm(StandardConv(self.features, 1, 1, d, name="conv3")(y), "norm3")
        if self.first:
            x = Shortcut(self.features, self.strides, groups, d, name="downsample")(x)
        return nn.relu(x + y)


class Stem(nn.Module):
    """Equation (2)."""

    config: BitConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, image: Float[Array, "B H W C"]) -> Float[Array, "B h w F"]:
        """A quarter of the sides, rounded up."""
        cfg, d = self.config, self.dtype
        x = StandardConv(cfg.embedding_size, 7, 2, d, name="convolution")(image)
        x = nn.relu(GroupNorm(cfg.num_groups, GROUP_NORM_EPSILON, d, name="norm")(x))
        return nn.max_pool(x, (3, 3), (2, 2), "SAME")  # nothing here is below the zeros torch pads


class Stage(nn.Module):
    """The blocks of one width."""

    features: int
    depth: int
    strides: int
    num_groups: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"]) -> Float[Array, "B h w features"]:
        """s_k."""
        for i in range(self.depth):
            strides = self.strides if i == 0 else 1
            block = Bottleneck(
                self.features, strides, self.num_groups, i == 0, self.dtype, name=f"layers_{i}"
            )
            x = block(x)
        return x


class BitEncoder(nn.Module):
    """The stages."""

    config: BitConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W F"]) -> list[Float[Array, "B _ _ _"]]:
        """s_1, s_2, s_3."""
        cfg, states = self.config, []
        for k, (depth, width) in enumerate(zip(cfg.depths, cfg.hidden_sizes, strict=False)):
            stage = Stage(
                width, depth, 1 if k == 0 else 2, cfg.num_groups, self.dtype, name=f"stages_{k}"
            )
            x = stage(x)
            states.append(x)
        return states


class Bit(nn.Module):
    """The network without its classifier."""

    config: BitConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, image: Float[Array, "B H W C"]) -> list[Float[Array, "B _ _ _"]]:
        """s_1, s_2, s_3: a quarter, an eighth and a sixteenth of the sides, rounded up."""
        x = Stem(self.config, self.dtype, name="embedder")(image)
        return BitEncoder(self.config, self.dtype, name="encoder")(x)


class BitBackbone(nn.Module):
    """The network under the name `bit`, as in a DPT's file."""

    config: BitConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, image: Float[Array, "B H W C"]) -> list[Float[Array, "B _ _ _"]]:
        """s_1, s_2, s_3."""
        return Bit(self.config, self.dtype, name="bit")(image)
