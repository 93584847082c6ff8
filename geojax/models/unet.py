"""The denoiser of Stable Diffusion 1.x and 2.x, built from diffusers' `unet/config.json`.

Symbols: z noisy latent (with mask and masked latent, or depth, in further channels) [B, h, w, c];
t timestep [B]; y condition [B, L, D].
    (1) net(z, t, y) -> what the schedule's prediction type names: eps, v or x0

Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models" (2022), section 3.3;
sizes and names: algorithms of the files of diffusers' UNet2DConditionModel.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from geojax.models.layers import (
    SMALL_INIT,
    Conv,
    Dtype,
    GroupNorm,
    TimestepEmbedding,
    timestep_embedding,
)
from geojax.models.unet_blocks import DownBlock, LevelSpec, MidBlock, UpBlock

# Fields of config.json that change the function, with the only values implemented here.
FIXED_FIELDS: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),
    "addition_embed_type": (None,),
    "addition_embed_type_num_heads": (64,),
    "addition_time_embed_dim": (None,),
    "attention_type": ("default",),
    "center_input_sample": (False,),
    "class_embed_type": (None,),
    "class_embeddings_concat": (False,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "cross_attention_norm": (None,),
    "downsample_padding": (1,),
    "dropout": (0.0,),
    "dual_cross_attention": (False,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "mid_block_only_cross_attention": (None, False),
    "mid_block_scale_factor": (1,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "num_attention_heads": (None,),
    "num_class_embeds": (None,),
    "only_cross_attention": (False,),
    "projection_class_embeddings_input_dim": (None,),
    "resnet_out_scale_factor": (1.0,),
    "resnet_skip_time_act": (False,),
    "resnet_time_scale_shift": ("default",),
    "reverse_transformer_layers_per_block": (None,),
    "time_cond_proj_dim": (None,),
    "time_embedding_act_fn": (None,),
    "time_embedding_dim": (None,),
    "time_embedding_type": ("positional",),
    "timestep_post_act": (None,),
}
DOWN_TYPES = ("CrossAttnDownBlock2D", "DownBlock2D")
UP_TYPES = ("CrossAttnUpBlock2D", "UpBlock2D")


def _tuple(value: Any) -> Any:
    return tuple(_tuple(v) for v in value) if isinstance(value, list | tuple) else value


def config_fields(cls: type, config: dict[str, Any], fixed: dict[str, tuple[Any, ...]]) -> dict:
    """The fields of `cls` that a config.json sets, lists as tuples; `_` keys are ignored.

    Raises:
      ValueError: a field outside `cls` has a value outside `fixed`, or is known to neither, or is
        null where the default is not.
    """
    names = {f.name: f.default for f in dataclasses.fields(cls)}
    for name, value in config.items():
        if name.startswith("_"):
            continue
        if name in names:
            if value is None and names[name] is not None:
                raise ValueError(f"{cls.__name__}: {name}=None is unsupported")
            continue
        if name not in fixed:
            raise ValueError(f"{cls.__name__} does not know the field {name}={value!r}")
        if value not in fixed[name]:
            raise ValueError(f"{cls.__name__}: {name}={value!r} is unsupported, {fixed[name]} is")
    return {name: _tuple(config[name]) for name in names if name in config}


@dataclasses.dataclass(frozen=True)
class UNetConfig:
    """The fields of diffusers' `unet/config.json` that Stable Diffusion varies.

    Attributes:
      in_channels: 4; 9 for inpainting (latent, mask, masked latent); 5 for depth.
      attention_head_dim: the number of heads, whatever the name says; one for all or one a level.
      sample_size: side of the latents it was trained on.
    """

    sample_size: int | None = None
    in_channels: int = 4
    out_channels: int = 4
    flip_sin_to_cos: bool = True
    freq_shift: int = 0
    down_block_types: tuple[str, ...] = (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D")
    up_block_types: tuple[str, ...] = ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3)
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int | tuple[int, ...] = 2
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    cross_attention_dim: int = 1280
    transformer_layers_per_block: int | tuple[int, ...] = 1
    attention_head_dim: int | tuple[int, ...] = 8
    use_linear_projection: bool = False
    upcast_attention: bool = False  # The softmax is in float32 either way.

    def __post_init__(self) -> None:
        levels = len(self.block_out_channels)
        for name, allowed in (("down_block_types", DOWN_TYPES), ("up_block_types", UP_TYPES)):
            types = getattr(self, name)
            bad = [t for t in types if t not in allowed]
            if bad or len(types) != levels:
                raise ValueError(f"{name}={types} must be {levels} of {allowed}")
        for name in ("layers_per_block", "attention_head_dim", "transformer_layers_per_block"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != levels:
                raise ValueError(f"{name}={value} must have {levels} entries")

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> "UNetConfig":
        """From the fields of config.json.

        Raises:
          ValueError: naming the field with a value that is not implemented.
        """
        fields = config_fields(cls, config, FIXED_FIELDS)
        if not isinstance(fields.get("cross_attention_dim", 0), int):
            width = fields["cross_attention_dim"]
            raise ValueError(f"cross_attention_dim={width} is unsupported, one integer is")
        return cls(**fields)

    def to_dict(self) -> dict[str, Any]:
        """The fields of config.json, readable by diffusers."""
        return {"_class_name": "UNet2DConditionModel", **dataclasses.asdict(self)}

    def level(self, i: int, implementation: str | None = None) -> LevelSpec:
        """Level i of the down path, with attention."""

        def of(value: int | tuple[int, ...]) -> int:
            return value[i] if isinstance(value, tuple) else value

        return LevelSpec(
            features=self.block_out_channels[i],
            layers=of(self.layers_per_block),
            heads=of(self.attention_head_dim),
            depth=of(self.transformer_layers_per_block),
            num_groups=self.norm_num_groups,
            epsilon=self.norm_eps,
            use_linear_projection=self.use_linear_projection,
            implementation=implementation,
        )


class UNet(nn.Module):
    """The network of equation (1).

    Attributes:
      config: the file's fields.
      dtype: of the computation; parameters keep theirs.
      implementation: of the attention, "cudnn" on a GPU in half precision; None chooses.
    """

    config: UNetConfig
    dtype: Dtype = jnp.float32
    implementation: str | None = None

    @nn.compact
    def __call__(
        self,
        sample: Float[Array, "B h w c"],
        timesteps: Shaped[Array, "B"],
        encoder_hidden_states: Float[Array, "B L D"],
    ) -> Float[Array, "B h w out"]:
        """The prediction, in the sample's dtype.

        Raises:
          ValueError: the sample's or the condition's channels differ from the config's.
        """
        cfg, dtype = self.config, self.dtype
        if sample.shape[-1] != cfg.in_channels:
            raise ValueError(f"sample {sample.shape} must have {cfg.in_channels} channels")
        if encoder_hidden_states.shape[-1] != cfg.cross_attention_dim:
            raise ValueError(
                f"condition {encoder_hidden_states.shape} must be {cfg.cross_attention_dim} wide"
            )
        levels = len(cfg.block_out_channels)
        base = cfg.block_out_channels[0]
        waves = timestep_embedding(timesteps, base, cfg.flip_sin_to_cos, cfg.freq_shift)
        time = TimestepEmbedding(4 * base, dtype, name="time_embedding")(waves)
        y = encoder_hidden_states.astype(dtype)

        x = Conv(base, dtype=dtype, name="conv_in")(sample)
        skips = [x]
        for i, kind in enumerate(cfg.down_block_types):
            spec = cfg.level(i, self.implementation)
            if kind == "DownBlock2D":
                spec = dataclasses.replace(spec, heads=0)
            block = DownBlock(spec, i < levels - 1, dtype, name=f"down_blocks_{i}")
            x, new = block(x, time, y)
            skips += new
        mid = cfg.level(levels - 1, self.implementation)
        x = MidBlock(mid, dtype, name="mid_block")(x, time, y)
        for i, kind in enumerate(cfg.up_block_types):
            spec = cfg.level(levels - 1 - i, self.implementation)
            spec = dataclasses.replace(
                spec, layers=spec.layers + 1, heads=0 if kind == "UpBlock2D" else spec.heads
            )
            here, skips = skips[-spec.layers :], skips[: -spec.layers]
            size = skips[-1].shape[1:3] if skips else None
            block = UpBlock(spec, i < levels - 1, dtype, name=f"up_blocks_{i}")
            x = block(x, here, time, y, size)
        x = GroupNorm(cfg.norm_num_groups, cfg.norm_eps, dtype, True, name="conv_norm_out")(x)
        x = Conv(cfg.out_channels, dtype=dtype, kernel_init=SMALL_INIT, name="conv_out")(x)
        return x.astype(sample.dtype)
