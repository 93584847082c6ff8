"""The autoencoder of Stable Diffusion, built from diffusers' `vae/config.json`.

Symbols: x image in [-1, 1] [B, H, W, 3]; z latent [B, H/f, W/f, c], f = 2^(levels - 1).
    (1) encode   x -> mean, log var of N(z; mean, var), log var clipped to [-30, 20]
    (2) decode   z -> x
The scaling factor (0.18215) that gives z unit variance belongs to the prior, not to this network.

Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models" (2022), section 3.1
and appendix G; Esser et al., "Taming Transformers" (2021) for the network.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from geojax.models.attention import attention
from geojax.models.layers import Conv, Dtype, GroupNorm
from geojax.models.unet import config_fields
from geojax.models.unet_blocks import Downsample, ResnetBlock, Upsample

EPSILON = 1e-6
LOGVAR_RANGE = (-30.0, 20.0)
FIXED_FIELDS: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),
    "shift_factor": (None,),
    "latents_mean": (None,),
    "latents_std": (None,),
}


@dataclasses.dataclass(frozen=True)
class VAEConfig:
    """The fields of diffusers' `vae/config.json`; any number of levels.

    Attributes:
      block_out_channels: width of each level.
      layers_per_block: residual blocks a level going down; one more going up.
      scaling_factor: latents are multiplied by it before they are diffused.
      sample_size: side of the pictures it was trained on.
      force_upcast: read and written, not used: it guards against the overflow of float16.
    """

    in_channels: int = 3
    out_channels: int = 3
    down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",)
    up_block_types: tuple[str, ...] = ("UpDecoderBlock2D",)
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    latent_channels: int = 4
    norm_num_groups: int = 32
    sample_size: int = 32
    scaling_factor: float = 0.18215
    force_upcast: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True

    def __post_init__(self) -> None:
        levels = len(self.block_out_channels)
        for name, kind in (
            ("down_block_types", "DownEncoderBlock2D"),
            ("up_block_types", "UpDecoderBlock2D"),
        ):
            types = getattr(self, name)
            if types != (kind,) * levels:
                raise ValueError(f"{name}={types} must be {levels} times {kind!r}")

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> "VAEConfig":
        """From the fields of config.json.

        Raises:
          ValueError: naming the field with a value that is not implemented.
        """
        return cls(**config_fields(cls, config, FIXED_FIELDS))

    def to_dict(self) -> dict[str, Any]:
        """The fields of config.json, readable by diffusers."""
        return {"_class_name": "AutoencoderKL", **dataclasses.asdict(self)}


class VAEAttention(nn.Module):
    """Attention of one head over the pixels, added to its input."""

    num_groups: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        """x plus its attention to itself; unlike the UNet's, q, k and v have biases."""
        b, h, w, c = x.shape
        y = GroupNorm(self.num_groups, EPSILON, self.dtype, name="group_norm")(x)
        y = y.reshape(b, h * w, 1, c)
        q, k, v = (nn.Dense(c, dtype=self.dtype, name=name)(y) for name in ("to_q", "to_k", "to_v"))
        y = attention(q, k, v).reshape(x.shape)
        return x + nn.Dense(c, dtype=self.dtype, name="to_out_0")(y)


class VAEMidBlock(nn.Module):
    """Resnet, attention, resnet."""

    config: VAEConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        """The middle of encoder and decoder."""
        groups = self.config.norm_num_groups
        x = ResnetBlock(x.shape[-1], groups, EPSILON, dtype=self.dtype, name="resnets_0")(x)
        if self.config.mid_block_add_attention:
            x = VAEAttention(groups, self.dtype, name="attentions_0")(x)
        return ResnetBlock(x.shape[-1], groups, EPSILON, dtype=self.dtype, name="resnets_1")(x)


class VAELevel(nn.Module):
    """Residual blocks, then a change of resolution: -1 halves, +1 doubles, 0 neither."""

    features: int
    layers: int
    direction: int
    num_groups: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w O"]:
        """The level's output."""
        for i in range(self.layers):
            x = ResnetBlock(
                self.features, self.num_groups, EPSILON, dtype=self.dtype, name=f"resnets_{i}"
            )(x)
        if self.direction < 0:
            # Right and bottom only: torch's F.pad(0, 1, 0, 1), unlike the UNet's.
            x = Downsample((0, 1), self.dtype, name="downsamplers_0")(x)
        elif self.direction > 0:
            size = (2 * x.shape[1], 2 * x.shape[2])
            x = Upsample(self.dtype, name="upsamplers_0")(x, size)
        return x


class Encoder(nn.Module):
    """Image -> mean and log variance, side by side, before quant_conv."""

    config: VAEConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W rgb"]) -> Float[Array, "B h w m"]:
        """The encoder."""
        cfg, d = self.config, self.dtype
        widths = cfg.block_out_channels
        x = Conv(widths[0], dtype=d, name="conv_in")(x)
        for i, width in enumerate(widths):
            direction = -1 if i < len(widths) - 1 else 0
            x = VAELevel(
                width,
                cfg.layers_per_block,
                direction,
                cfg.norm_num_groups,
                d,
                name=f"down_blocks_{i}",
            )(x)
        x = VAEMidBlock(cfg, d, name="mid_block")(x)
        x = GroupNorm(cfg.norm_num_groups, EPSILON, d, silu=True, name="conv_norm_out")(x)
        return Conv(2 * cfg.latent_channels, dtype=d, name="conv_out")(x)


class Decoder(nn.Module):
    """Latent after post_quant_conv -> image."""

    config: VAEConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, z: Float[Array, "B h w c"]) -> Float[Array, "B H W rgb"]:
        """The decoder."""
        cfg, d = self.config, self.dtype
        widths = cfg.block_out_channels[::-1]
        x = Conv(widths[0], dtype=d, name="conv_in")(z)
        x = VAEMidBlock(cfg, d, name="mid_block")(x)
        for i, width in enumerate(widths):
            direction = 1 if i < len(widths) - 1 else 0
            x = VAELevel(
                width,
                cfg.layers_per_block + 1,
                direction,
                cfg.norm_num_groups,
                d,
                name=f"up_blocks_{i}",
            )(x)
        x = GroupNorm(cfg.norm_num_groups, EPSILON, d, silu=True, name="conv_norm_out")(x)
        return Conv(cfg.out_channels, dtype=d, name="conv_out")(x)


class VAE(nn.Module):
    """Encoder and decoder; `apply(..., method="encode")` and `method="decode"`.

    Attributes:
      config: the file's fields.
      dtype: of the computation; parameters keep theirs, results are in the input's.
    """

    config: VAEConfig
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        """Submodules named as in the file."""
        cfg, d = self.config, self.dtype
        self.encoder = Encoder(cfg, d)
        self.decoder = Decoder(cfg, d)
        if cfg.use_quant_conv:
            self.quant_conv = Conv(2 * cfg.latent_channels, kernel_size=1, dtype=d)
        if cfg.use_post_quant_conv:
            self.post_quant_conv = Conv(cfg.latent_channels, kernel_size=1, dtype=d)

    def encode(
        self, image: Float[Array, "B H W rgb"]
    ) -> tuple[Float[Array, "B h w c"], Float[Array, "B h w c"]]:
        """Equation (1): mean and clipped log variance of the latent of an image in [-1, 1].

        Raises:
          ValueError: a side of the image is not a multiple of the factor 2^(levels - 1).
        """
        factor = 2 ** (len(self.config.block_out_channels) - 1)
        if image.shape[1] % factor or image.shape[2] % factor:
            raise ValueError(f"image {image.shape} must have sides divisible by {factor}")
        moments = self.encoder(image)
        if self.config.use_quant_conv:
            moments = self.quant_conv(moments)
        mean, logvar = jnp.split(moments.astype(image.dtype), 2, axis=-1)
        return mean, jnp.clip(logvar, *LOGVAR_RANGE)

    def decode(self, latent: Float[Array, "B h w c"]) -> Float[Array, "B H W rgb"]:
        """Equation (2): the image, nominally in [-1, 1] and not clipped, of an unscaled latent."""
        z = self.post_quant_conv(latent) if self.config.use_post_quant_conv else latent
        return self.decoder(z).astype(latent.dtype)

    def __call__(self, image: Float[Array, "B H W rgb"]) -> Float[Array, "B H W rgb"]:
        """Decoded mean of the encoding; touches every parameter, so `init` makes all of them."""
        return self.decode(self.encode(image)[0])
