"""CLIP's text tower, built from transformers' `text_encoder/config.json`.

Symbols: s token ids [B, L]; E token embedding; P position embedding.
    (1) x_0 = E[s] + P;  x' = x + SA(LN x);  x'' = x' + MLP(LN x'), SA causal;  y = LN x_n
    (2) quick gelu   x sigmoid(1.702 x)

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (2021),
section 2.4; (2) Hendrycks & Gimpel, "GELUs" (2016), section 2. Stable Diffusion 1.x reads y of
CLIP-L (quick gelu); 2.x reads y of OpenCLIP-H cut to 23 of 24 layers (exact gelu).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from geojax.models.attention import attention
from geojax.models.layers import Dtype, LayerNorm, gelu

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "gelu": gelu,
}


@dataclasses.dataclass(frozen=True)
class CLIPTextConfig:
    """The fields of transformers' CLIPTextConfig that the last hidden state depends on."""

    vocab_size: int = 49408
    hidden_size: int = 512
    intermediate_size: int = 2048
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    projection_dim: int = 512
    bos_token_id: int = 49406
    eos_token_id: int = 49407
    pad_token_id: int = 1

    def __post_init__(self) -> None:
        if self.hidden_act not in ACTIVATIONS:
            raise ValueError(f"hidden_act={self.hidden_act!r} must be one of {list(ACTIVATIONS)}")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size={self.hidden_size} is not a multiple of "
                f"num_attention_heads={self.num_attention_heads}"
            )

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> "CLIPTextConfig":
        """From a config.json's fields; those of training and bookkeeping are ignored.

        Raises:
          ValueError: an activation is not implemented, or the heads do not divide the width.
        """
        names = {f.name for f in dataclasses.fields(cls)}
        return cls(**{k: v for k, v in config.items() if k in names and v is not None})

    def to_dict(self) -> dict[str, Any]:
        """The fields of config.json, readable by transformers."""
        head = {"architectures": ["CLIPTextModel"], "model_type": "clip_text_model"}
        return {**head, **dataclasses.asdict(self)}


class SelfAttention(nn.Module):
    """CLIP's self-attention; the projections have biases."""

    heads: int
    is_causal: bool
    out_init: nn.initializers.Initializer
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        """Attended x, projected."""
        b, n, width = x.shape
        q, k, v = (
            nn.Dense(width, dtype=self.dtype, name=name)(x).reshape(b, n, self.heads, -1)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        y = attention(q, k, v, is_causal=self.is_causal).reshape(x.shape)
        return nn.Dense(width, dtype=self.dtype, kernel_init=self.out_init, name="out_proj")(y)


class MLP(nn.Module):
    """Two dense layers around an activation."""

    features: int
    activation: str
    out_init: nn.initializers.Initializer
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        """The two layers."""
        y = ACTIVATIONS[self.activation](nn.Dense(self.features, dtype=self.dtype, name="fc1")(x))
        out = nn.Dense(x.shape[-1], dtype=self.dtype, kernel_init=self.out_init, name="fc2")
        return out(y)


class EncoderLayer(nn.Module):
    """One step of equation (1); the same in both towers of CLIP."""

    config: Any
    is_causal: bool
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        """x''."""
        cfg, d = self.config, self.dtype
        # 2n branches are summed: each starts with 1/2n of the variance (Radford et al., GPT-2).
        init = nn.initializers.variance_scaling(
            1.0 / (2 * cfg.num_hidden_layers), "fan_in", "truncated_normal"
        )
        y = LayerNorm(cfg.layer_norm_eps, d, name="layer_norm1")(x)
        heads = cfg.num_attention_heads
        x = x + SelfAttention(heads, self.is_causal, init, d, name="self_attn")(y)
        y = LayerNorm(cfg.layer_norm_eps, d, name="layer_norm2")(x)
        return x + MLP(cfg.intermediate_size, cfg.hidden_act, init, d, name="mlp")(y)


class Encoder(nn.Module):
    """The layers of a tower."""

    config: Any
    is_causal: bool
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        """x_n of equation (1)."""
        for i in range(self.config.num_hidden_layers):
            x = EncoderLayer(self.config, self.is_causal, self.dtype, name=f"layers_{i}")(x)
        return x


class TextEmbeddings(nn.Module):
    """E[s] + P of equation (1)."""

    config: CLIPTextConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, input_ids: Int[Array, "B L"]) -> Float[Array, "B L D"]:
        """x_0."""
        cfg = self.config
        init = nn.initializers.normal(0.02)
        token = nn.Embed(
            cfg.vocab_size, cfg.hidden_size, self.dtype, embedding_init=init, name="token_embedding"
        )
        position = nn.Embed(
            cfg.max_position_embeddings,
            cfg.hidden_size,
            self.dtype,
            embedding_init=init,
            name="position_embedding",
        )
        return token(input_ids) + position(jnp.arange(input_ids.shape[1]))[None]


class TextTransformer(nn.Module):
    """Equation (1)."""

    config: CLIPTextConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, input_ids: Int[Array, "B L"]) -> Float[Array, "B L D"]:
        """y."""
        cfg, d = self.config, self.dtype
        x = TextEmbeddings(cfg, d, name="embeddings")(input_ids)
        x = Encoder(cfg, is_causal=True, dtype=d, name="encoder")(x)
        return LayerNorm(cfg.layer_norm_eps, d, name="final_layer_norm")(x)


class CLIPText(nn.Module):
    """The text encoder of Stable Diffusion: token ids [B, L] -> last hidden state [B, L, D].

    Parameters sit under `text_model`, as in the released files and in a full CLIP.

    Attributes:
      config: the file's fields.
      dtype: of the computation; parameters keep theirs.
    """

    config: CLIPTextConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, input_ids: Int[Array, "B L"]) -> Float[Array, "B L D"]:
        """y of equation (1), float32. There is no padding mask: none was used in training.

        Raises:
          ValueError: more tokens than positions.
        """
        if input_ids.shape[1] > self.config.max_position_embeddings:
            most = self.config.max_position_embeddings
            raise ValueError(f"{input_ids.shape[1]} tokens exceed the {most} positions")
        y = TextTransformer(self.config, self.dtype, name="text_model")(input_ids)
        return y.astype(jnp.float32)
