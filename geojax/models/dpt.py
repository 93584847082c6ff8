"""DPT: dense depth from the states of a vision transformer, from transformers' DPTConfig json.

Symbols: x image, normalised [B, H, W, C]; p side of a patch; t_k states after the tapped blocks.
    (1) t = blocks(tokens of x), the class token first      geojax.models.vit
        hybrid: tokens are conv1 of a convolutional network's third stage, whose first two stages
        take the place of the first two taps                geojax.models.bit
    (2) disparity = head(neck(t)), up to scale and shift    geojax.models.dpt_neck

Ranftl et al., "Vision Transformers for Dense Prediction" (2021), section 3 and supplement A. Any H
and W that are multiples of p will do. The result has 4 r_1 rows a patch, r_1 the finest factor: the
image's size with p = 16 and r_1 = 4. Where a map had to be rounded up to be halved (an odd number
of patches), it is larger than that, as in transformers.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from geojax.models.bit import BitBackbone, BitConfig
from geojax.models.clip import ACTIVATIONS
from geojax.models.dpt_neck import READOUTS, Head, Neck
from geojax.models.layers import Conv, Dtype, LayerNorm
from geojax.models.resize import resize
from geojax.models.vit import Patches, ViTBlock, add_positions


@dataclasses.dataclass(frozen=True)
class DPTConfig:
    """The fields of transformers' DPTConfig that the depth depends on.

    Attributes:
      backbone_out_indices: the tapped blocks, counted from 0; a hybrid's first two are not read.
      reassemble_factors: r_k; a hybrid's first two are not read.
      neck_hidden_sizes: channels of the maps in the neck.
      backbone_config: of the hybrid's convolutional network.
    """

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    image_size: int = 384
    patch_size: int = 16
    num_channels: int = 3
    qkv_bias: bool = True
    is_hybrid: bool = False
    backbone_out_indices: tuple[int, ...] = (2, 5, 8, 11)
    readout_type: str = "project"
    reassemble_factors: tuple[float, ...] = (4, 2, 1, 0.5)
    neck_hidden_sizes: tuple[int, ...] = (96, 192, 384, 768)
    fusion_hidden_size: int = 256
    head_in_index: int = -1
    use_batch_norm_in_fusion_residual: bool = False
    use_bias_in_fusion_residual: bool = True
    add_projection: bool = False
    backbone_config: BitConfig | None = None

    def __post_init__(self) -> None:
        if self.hidden_act not in ACTIVATIONS:
            raise ValueError(f"hidden_act={self.hidden_act!r} must be one of {list(ACTIVATIONS)}")
        if self.readout_type not in READOUTS:
            raise ValueError(f"readout_type={self.readout_type!r} must be one of {READOUTS}")
        for name in ("use_batch_norm_in_fusion_residual", "add_projection"):
            if getattr(self, name):
                raise ValueError(f"{name}=True is not supported")
        if self.is_hybrid != (self.backbone_config is not None):
            raise ValueError(f"is_hybrid={self.is_hybrid} does not go with {self.backbone_config=}")
        if self.backbone_config is not None:
            given, made = self.neck_hidden_sizes[:2], self.backbone_config.hidden_sizes[:2]
            if given != made or self.readout_type != "project" or self.patch_size != 16:
                raise ValueError(
                    f"a hybrid's first neck_hidden_sizes={given} must be its backbone's {made}, "
                    f"readout_type={self.readout_type!r} 'project', patch_size={self.patch_size} 16"
                )
        for name, divisor in (
            ("hidden_size", "num_attention_heads"),
            ("image_size", "patch_size"),
        ):
            value, by = getattr(self, name), getattr(self, divisor)
            if value % by:
                raise ValueError(f"{name}={value} is not a multiple of {divisor}={by}")
        names = ("backbone_out_indices", "reassemble_factors", "neck_hidden_sizes")
        lengths = {name: len(getattr(self, name)) for name in names}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"one entry a map is needed in each of {lengths}")
        indices = self.backbone_out_indices
        if list(indices) != sorted(set(indices)) or not 0 <= indices[0] <= indices[-1] < (
            self.num_hidden_layers
        ):
            raise ValueError(
                f"backbone_out_indices={indices} must rise within 0..{self.num_hidden_layers - 1}"
            )
        if not -lengths["neck_hidden_sizes"] <= self.head_in_index < lengths["neck_hidden_sizes"]:
            raise ValueError(f"head_in_index={self.head_in_index} is none of the {lengths} maps")

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> "DPTConfig":
        """From a config.json's fields; those of training, segmentation and bookkeeping are ignored.

        Raises:
          ValueError: a value that is not implemented, sides that do not divide, images or patches
            that are not square, or a backbone of another kind.
        """
        names = {f.name for f in dataclasses.fields(cls)}
        fields = {k: v for k, v in config.items() if k in names and v is not None}
        for name in ("image_size", "patch_size"):
            if not isinstance(fields.get(name, 0), int):
                raise ValueError(f"{name}={fields[name]} must be one integer")
        backbone = fields.pop("backbone_config", None)
        if config.get("is_hybrid"):
            fields["backbone_config"] = BitConfig.from_dict(backbone or {})
        elif backbone is not None or config.get("backbone") is not None:
            kind = (backbone or {}).get("model_type", config.get("backbone"))
            raise ValueError(f"a DPT on a backbone of its own ({kind!r}) is not supported")
        for name, value in fields.items():
            if isinstance(value, list):
                fields[name] = tuple(value)
        return cls(**fields)

    def to_dict(self) -> dict[str, Any]:
        """The fields of config.json, readable by transformers."""
        fields: dict[str, Any] = {"architectures": ["DPTForDepthEstimation"], "model_type": "dpt"}
        fields |= dataclasses.asdict(self)
        if self.backbone_config is None:
            del fields["backbone_config"]
        else:
            fields["backbone_config"] = self.backbone_config.to_dict()
            # transformers' head of the tokens must be told what it could have asked.
            channels, side = self.backbone_config.hidden_sizes[2], self.image_size // 16
            fields["backbone_featmap_shape"] = [1, channels, side, side]
            fields["neck_ignore_stages"] = [0, 1]
        return fields


class Embeddings(nn.Module):
    """The backbone's tokens: patches, class token and positions; and a hybrid's first two maps."""

    config: DPTConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, image: Float[Array, "B H W C"]
    ) -> tuple[Float[Array, "B N D"], list[Float[Array, "B _ _ _"]]]:
        """x_0, and maps."""
        cfg, d, maps = self.config, self.dtype, []
        if cfg.backbone_config is None:
            patches = Patches(cfg.hidden_size, cfg.patch_size, d, name="patch_embeddings")(image)
        else:
            *maps, last = BitBackbone(cfg.backbone_config, d, name="backbone")(image)
            patches = Conv(cfg.hidden_size, 1, dtype=d, name="projection")(last)
        side = cfg.image_size // cfg.patch_size

        def resample(x: Float[Array, "1 s t D"], size: tuple[int, int]) -> Float[Array, "1 h w D"]:
            return resize(x, size, align_corners=False)

        return add_positions(self, patches, (side, side), resample, d), maps


class Encoder(nn.Module):
    """The transformer's blocks."""

    config: DPTConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"]) -> list[Float[Array, "B N D"]]:
        """The state after every block."""
        cfg, states = self.config, []
        for i in range(cfg.num_hidden_layers):
            block = ViTBlock(
                cfg.num_attention_heads,
                cfg.intermediate_size,
                cfg.hidden_act,
                cfg.layer_norm_eps,
                cfg.num_hidden_layers,
                cfg.qkv_bias,
                self.dtype,
                name=f"layer_{i}",
            )
            x = block(x)
            states.append(x)
        return states


class Backbone(nn.Module):
    """The vision transformer and its taps."""

    config: DPTConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, image: Float[Array, "B H W C"]) -> list[Float[Array, "B ..."]]:
        """A hybrid's maps, then t_k, class token first; no norm follows the tapped blocks."""
        cfg, d = self.config, self.dtype
        tokens, maps = Embeddings(cfg, d, name="embeddings")(image)
        states = Encoder(cfg, d, name="encoder")(tokens)
        if self.is_initializing():  # in every file, and read by nothing here
            LayerNorm(cfg.layer_norm_eps, d, name="layernorm")(states[-1])
        return maps + [states[i] for i in cfg.backbone_out_indices[len(maps) :]]


class DPT(nn.Module):
    """Image -> disparity up to scale and shift, named as transformers' DPTForDepthEstimation.

    Attributes:
      config: the file's fields.
      dtype: of the computation; the result is float32.
    """

    config: DPTConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, pixel_values: Float[Array, "B H W C"]) -> Float[Array, "B h w"]:
        """Equation (2) of a normalised image.

        Raises:
          ValueError: sides that are not multiples of the patch, or another number of channels.
        """
        cfg, d, p = self.config, self.dtype, self.config.patch_size
        _, height, width, channels = pixel_values.shape
        if height % p or width % p or channels != cfg.num_channels:
            raise ValueError(
                f"images are {(height, width, channels)}, this model takes multiples of {p} and "
                f"{cfg.num_channels} channels"
            )
        states = Backbone(cfg, d, name="dpt")(pixel_values)
        neck = Neck(
            cfg.readout_type,
            cfg.hidden_act,
            cfg.reassemble_factors,
            cfg.neck_hidden_sizes,
            cfg.fusion_hidden_size,
            cfg.use_bias_in_fusion_residual,
            dtype=d,
            name="neck",
        )
        fused = neck(states, (height // p, width // p))
        return Head(d, name="head")(fused[cfg.head_in_index]).astype(jnp.float32)
