"""DINOv2's vision transformer as a backbone, from transformers' Dinov2Config json.

Symbols: x image, normalised [B, H, W, C]; p side of a patch; g_1, g_2 learned gains by channel.
    (1) tokens   [c, patches of x, embedded] + P, P resampled to (H / p, W / p) by cubics
    (2) block    x' = x + g_1 SA(LN x);  x'' = x' + g_2 MLP(LN x')
    (3) taps     LN x'' after the chosen blocks, one norm for all

Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision" (2024), appendix B; (2)
Touvron et al., "Going Deeper with Image Transformers" (2021), eq. 4. transformers resamples P to a
size; the original code by a factor with an offset of 0.1, which is not quite the same.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from geojax.models.clip import ACTIVATIONS, MLP
from geojax.models.layers import Dtype, LayerNorm
from geojax.models.resize import resize
from geojax.models.vit import Patches, ViTAttention, add_positions, residual_init

REQUIRED = {"model_type": "dinov2", "use_swiglu_ffn": False, "apply_layernorm": True}


@dataclasses.dataclass(frozen=True)
class Dinov2Config:
    """The fields of transformers' Dinov2Config that the features depend on.

    Attributes:
      out_indices: the taps, as transformers counts: k is after k blocks.
    """

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    mlp_ratio: int = 4
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    image_size: int = 224
    patch_size: int = 14
    num_channels: int = 3
    qkv_bias: bool = True
    layerscale_value: float = 1.0
    use_mask_token: bool = True
    out_indices: tuple[int, ...] = (3, 6, 9, 12)

    def __post_init__(self) -> None:
        if self.hidden_act not in ACTIVATIONS:
            raise ValueError(f"hidden_act={self.hidden_act!r} must be one of {list(ACTIVATIONS)}")
        for name, divisor in (
            ("hidden_size", "num_attention_heads"),
            ("image_size", "patch_size"),
        ):
            value, by = getattr(self, name), getattr(self, divisor)
            if value % by:
                raise ValueError(f"{name}={value} is not a multiple of {divisor}={by}")
        out, last = self.out_indices, self.num_hidden_layers
        if not out or list(out) != sorted(set(out)) or not 1 <= out[0] <= out[-1] <= last:
            raise ValueError(f"out_indices={out} must rise within 1..{last}")

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> "Dinov2Config":
        """From a config.json's `backbone_config`; those of training and bookkeeping are ignored.

        Raises:
          ValueError: another kind of network, a value that is not implemented, sides that do not
            divide, or images or patches that are not square.
        """
        for name, expected in REQUIRED.items():
            if config.get(name, expected) != expected:
                raise ValueError(f"{name}={config[name]!r} of the backbone must be {expected!r}")
        names = {f.name for f in dataclasses.fields(cls)}
        fields = {k: v for k, v in config.items() if k in names and v is not None}
        for name in ("image_size", "patch_size"):
            if not isinstance(fields.get(name, 0), int):
                raise ValueError(f"{name}={fields[name]} must be one integer")
        stages = config.get("out_features")
        if stages is not None and "out_indices" not in fields:
            fields["out_indices"] = [int(str(name).removeprefix("stage")) for name in stages]
        if "out_indices" not in fields:
            raise ValueError("the backbone's config names no out_indices")
        fields["out_indices"] = tuple(fields["out_indices"])
        return cls(**fields)

    def to_dict(self) -> dict[str, Any]:
        """The fields of `backbone_config`, readable by transformers."""
        fields = {**REQUIRED, "reshape_hidden_states": False, **dataclasses.asdict(self)}
        fields["out_features"] = [f"stage{i}" for i in self.out_indices]
        return fields


class LayerScale(nn.Module):
    """g of equation (2)."""

    start: float
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        """g x."""
        gain = self.param("lambda1", nn.initializers.constant(self.start), x.shape[-1:])
        return x * gain.astype(self.dtype)[None, None]


class Dinov2Block(nn.Module):
    """Equation (2)."""

    config: Dinov2Config
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        """x''."""
        cfg, d, init = self.config, self.dtype, residual_init(self.config.num_hidden_layers)
        y = LayerNorm(cfg.layer_norm_eps, d, name="norm1")(x)
        y = ViTAttention(cfg.num_attention_heads, cfg.qkv_bias, init, d, name="attention")(y)
        x = x + LayerScale(cfg.layerscale_value, d, name="layer_scale1")(y)
        y = LayerNorm(cfg.layer_norm_eps, d, name="norm2")(x)
        y = MLP(int(cfg.hidden_size * cfg.mlp_ratio), cfg.hidden_act, init, d, name="mlp")(y)
        return x + LayerScale(cfg.layerscale_value, d, name="layer_scale2")(y)


class Dinov2Embeddings(nn.Module):
    """Equation (1)."""

    config: Dinov2Config
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, image: Float[Array, "B H W C"]) -> Float[Array, "B N D"]:
        """x_0."""
        cfg, d = self.config, self.dtype
        if cfg.use_mask_token:  # in the files, for training alone
            self.param("mask_token", nn.initializers.zeros, (1, cfg.hidden_size))
        patches = Patches(cfg.hidden_size, cfg.patch_size, d, name="patch_embeddings")(image)
        side = cfg.image_size // cfg.patch_size

        def resample(x: Float[Array, "1 s t D"], size: tuple[int, int]) -> Float[Array, "1 h w D"]:
            return resize(x, size, "cubic", align_corners=False)

        return add_positions(self, patches, (side, side), resample, d)


class Dinov2Encoder(nn.Module):
    """The blocks."""

    config: Dinov2Config
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"]) -> list[Float[Array, "B N D"]]:
        """The state after every block."""
        states = []
        for i in range(self.config.num_hidden_layers):
            x = Dinov2Block(self.config, self.dtype, name=f"layer_{i}")(x)
            states.append(x)
        return states


class Dinov2Backbone(nn.Module):
    """Equations (1) to (3), with the names of transformers' Dinov2Backbone as released."""

    config: Dinov2Config
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, image: Float[Array, "B H W C"]) -> list[Float[Array, "B N D"]]:
        """The taps, class token first."""
        cfg, d = self.config, self.dtype
        tokens = Dinov2Embeddings(cfg, d, name="embeddings")(image)
        states = Dinov2Encoder(cfg, d, name="encoder")(tokens)
        norm = LayerNorm(cfg.layer_norm_eps, d, name="layernorm")
        return [norm(states[i - 1]) for i in cfg.out_indices]
