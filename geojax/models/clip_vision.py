"""CLIP: an image tower beside the text tower, built from transformers' CLIPConfig json.

Symbols: x image, normalised [B, S, S, 3]; p side of a patch, n = (S / p)^2; s token ids [B, L];
D_v, D_t widths of the towers, D of the space they share; e the place of the end token.
    (1) patches   x_0 = [c, W_p x patch by patch] + P, a learned token c first, P learned
    (2) image     f_v = W_v LN (encoder(LN x_0))_0, the state of c; no mask
    (3) text      f_t = W_t (LN encoder(E[s] + P))_e, geojax.models.clip's equation (1)
    (4) logits    exp(logit_scale) <f_v / |f_v|, f_t / |f_t|>

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (2021),
sections 2.3 and 2.4; the image tower is that of Dosovitskiy et al., "An Image is Worth 16x16 Words"
(2021), eq. 1-4, with one more norm before the encoder.
"""

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from geojax.models.clip import ACTIVATIONS, CLIPTextConfig, Encoder, TextTransformer
from geojax.models.layers import LECUN_INIT, Dtype, LayerNorm


@dataclasses.dataclass(frozen=True)
class CLIPVisionConfig:
    """The fields of transformers' CLIPVisionConfig that the embedding depends on."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_channels: int = 3
    image_size: int = 224
    patch_size: int = 32
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    projection_dim: int = 512

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

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> "CLIPVisionConfig":
        """From a config.json's fields; those of training and bookkeeping are ignored.

        Raises:
          ValueError: an activation that is not implemented, sides that do not divide, or images or
            patches that are not square.
        """
        names = {f.name for f in dataclasses.fields(cls)}
        fields = {k: v for k, v in config.items() if k in names and v is not None}
        for name in ("image_size", "patch_size"):
            if not isinstance(fields.get(name, 0), int):
                raise ValueError(f"{name}={fields[name]} must be one integer")
        return cls(**fields)

    def to_dict(self) -> dict[str, Any]:
        """The fields of config.json, readable by transformers."""
        return {"model_type": "clip_vision_model", **dataclasses.asdict(self)}


@dataclasses.dataclass(frozen=True)
class CLIPConfig:
    """The fields of transformers' CLIPConfig.

    Attributes:
      projection_dim: D; the field of the same name in a tower's own part is not read.
      logit_scale_init_value: where the logarithm of the scale starts in training.
    """

    text_config: CLIPTextConfig = dataclasses.field(default_factory=CLIPTextConfig)
    vision_config: CLIPVisionConfig = dataclasses.field(default_factory=CLIPVisionConfig)
    projection_dim: int = 512
    logit_scale_init_value: float = 2.6592

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> "CLIPConfig":
        """From a config.json's fields.

        The released files say the towers twice; where there is a `text_config_dict`, it and the
        defaults win over `text_config`, as in transformers.

        Raises:
          ValueError: a tower's config is not supported.
        """

        def tower(kind: Any, name: str) -> Any:
            fields = dict(config.get(name) or {})
            if (older := config.get(f"{name}_dict")) is not None:
                fields |= dataclasses.asdict(kind.from_dict(older))
            return kind.from_dict(fields)

        names = ("projection_dim", "logit_scale_init_value")
        return cls(
            text_config=tower(CLIPTextConfig, "text_config"),
            vision_config=tower(CLIPVisionConfig, "vision_config"),
            **{k: config[k] for k in names if config.get(k) is not None},
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields of config.json, readable by transformers."""
        text = {"model_type": "clip_text_model", **dataclasses.asdict(self.text_config)}
        return {
            "architectures": ["CLIPModel"],
            "model_type": "clip",
            "projection_dim": self.projection_dim,
            "logit_scale_init_value": self.logit_scale_init_value,
            "text_config": text,
            "vision_config": self.vision_config.to_dict(),
        }


class PatchEmbedding(nn.Module):
    """W_p of equation (1): a convolution without bias whose stride is its side p."""

    features: int
    patch_size: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B n features"]:
        """The patches in rows, embedded; as one product, the patches do not overlap."""
        p, (b, h, w, c) = self.patch_size, x.shape
        kernel = self.param("kernel", LECUN_INIT, (p, p, c, self.features)).astype(self.dtype)
        rows = x.astype(self.dtype).reshape(b, h // p, p, w // p, p, c).swapaxes(2, 3)
        return rows.reshape(b, -1, p * p * c) @ kernel.reshape(1, p * p * c, self.features)


class VisionEmbeddings(nn.Module):
    """Equation (1)."""

    config: CLIPVisionConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, image: Float[Array, "B S S C"]) -> Float[Array, "B N D_v"]:
        """x_0."""
        cfg, d = self.config, self.dtype
        width, init = cfg.hidden_size, nn.initializers.normal(0.02)
        patches = PatchEmbedding(width, cfg.patch_size, d, name="patch_embedding")(image)
        token = self.param("class_embedding", init, (width,)).astype(d)
        first = jnp.broadcast_to(token[None, None], (image.shape[0], 1, width))
        x = jnp.concatenate([first, patches], axis=1)
        count = (cfg.image_size // cfg.patch_size) ** 2 + 1
        position = nn.Embed(count, width, d, embedding_init=init, name="position_embedding")
        return x + position(jnp.arange(count))[None]


class VisionTransformer(nn.Module):
    """Equation (2) without W_v."""

    config: CLIPVisionConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, image: Float[Array, "B H W C"]) -> Float[Array, "B D_v"]:
        """LN of the learned token's last state.

        Raises:
          ValueError: an image of another size than the config's.
        """
        cfg, d = self.config, self.dtype
        expected = (cfg.image_size, cfg.image_size, cfg.num_channels)
        if image.shape[1:] != expected:
            raise ValueError(f"images are {image.shape[1:]}, this tower takes {expected}")
        x = VisionEmbeddings(cfg, d, name="embeddings")(image)
        x = LayerNorm(cfg.layer_norm_eps, d, name="pre_layrnorm")(x)  # so spelt in every file
        x = Encoder(cfg, is_causal=False, dtype=d, name="encoder")(x)
        return LayerNorm(cfg.layer_norm_eps, d, name="post_layernorm")(x[:, 0])


class Match(NamedTuple):
    """Unit embeddings of texts [P, D] and images [I, D], and exp(logit_scale)."""

    text: Float[Array, "P D"]
    image: Float[Array, "I D"]
    scale: Float[Array, ""]


def end_position(ids: Int[Array, "B L"], eos_token_id: int) -> Int[Array, "B"]:
    """e of equation (3): the first end token of each row.

    Older files say eos_token_id=2, which is wrong; there the largest id of the row is the end, as
    in OpenAI's code.
    """
    return jnp.argmax(ids if eos_token_id == 2 else ids == eos_token_id, axis=-1)


def unit(x: Float[Array, "*b D"]) -> Float[Array, "*b D"]:
    """x / |x|."""
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


class CLIP(nn.Module):
    """Both towers. Parameter names are those of transformers' CLIPModel.

    Attributes:
      config: the file's fields.
      dtype: of the computation; embeddings are float32.
    """

    config: CLIPConfig
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        """Make the parts; their names are the attributes'."""
        cfg, d = self.config, self.dtype
        self.text_model = TextTransformer(cfg.text_config, d)
        self.vision_model = VisionTransformer(cfg.vision_config, d)
        self.text_projection = nn.Dense(cfg.projection_dim, use_bias=False, dtype=d)
        self.visual_projection = nn.Dense(cfg.projection_dim, use_bias=False, dtype=d)
        start = nn.initializers.constant(cfg.logit_scale_init_value)
        self.logit_scale = self.param("logit_scale", start, ())

    def embed_image(self, image: Float[Array, "B H W C"]) -> Float[Array, "B D"]:
        """f_v of equation (2), not of unit length, float32; `image` is normalised."""
        return self.visual_projection(self.vision_model(image)).astype(jnp.float32)

    def embed_text(self, input_ids: Int[Array, "B L"]) -> Float[Array, "B D"]:
        """f_t of equation (3), not of unit length, float32.

        Raises:
          ValueError: more tokens than positions.
        """
        cfg = self.config.text_config
        if input_ids.shape[1] > cfg.max_position_embeddings:
            most = cfg.max_position_embeddings
            raise ValueError(f"{input_ids.shape[1]} tokens exceed the {most} positions")
        state = self.text_model(input_ids)
        end = end_position(input_ids, cfg.eos_token_id)
        pooled = jnp.take_along_axis(state, end[:, None, None], axis=1)[:, 0]
        return self.text_projection(pooled).astype(jnp.float32)

    def __call__(self, input_ids: Int[Array, "P L"], image: Float[Array, "I H W C"]) -> Match:
        """What equation (4) multiplies: logits = scale * image @ text.T."""
        text, pictures = unit(self.embed_text(input_ids)), unit(self.embed_image(image))
        return Match(text, pictures, jnp.exp(jnp.asarray(self.logit_scale, jnp.float32)))


def logits(match: Match) -> Float[Array, "I P"]:
    """Equation (4) of every image with every text."""
    return match.scale * jnp.matmul(match.image, match.text.T, precision=jax.lax.Precision.HIGHEST)
