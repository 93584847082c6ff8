"""CLIP as a judge: how well does an image agree with a prompt?

Symbols: x image in [0, 1] [B, H, W, 3]; S side of the image tower's input; mu, sigma mean and
deviation of its training images; f_v, f_t projections of image and text.
    (1) input      shorter side to S (bicubic, antialiased), centre S x S, clipped to [0, 1],
                   (x - mu) / sigma
    (2) embed      f / |f|
    (3) similarity <f_v, f_t>, in [-1, 1]; softmax(exp(logit_scale) (3)) over prompts is the
                   zero-shot probability

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (2021),
sections 2.3 and 3.1. (1) is transformers' CLIPImageProcessor, which rounds to 8 bits on the way.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from geojax.models.clip_vision import CLIP, CLIPConfig, unit
from geojax.priors.image_input import resample
from geojax.priors.prior import Image
from geojax.priors.text_condition import (
    check_vocabulary,
    load_tokenizer,
    tokenize,
    warn_where_cut,
)
from geojax.weights.folder import load_component, load_config
from geojax.weights.hub import resolve_folder
from geojax.weights.model_folder import ClipInput, read_clip_input


@dataclass(frozen=True)
class CLIPScore:
    """CLIP's parameters and pure functions of them.

    Attributes:
      params: a pytree, as in the file.
      embed_text: prompts -> [P, D], unit length. On the host; keeps the text tower to itself.
        Warns and refuses as `embed` of a prior does.
      embed_image: (params, image [B, H, W, 3] in [0, 1]) -> [B, D], unit length. Differentiable;
        any size, equation (1).
      image_size: S; images of this size are not resampled.
      logit_scale: exp(logit_scale), the inverse temperature of training.
    """

    params: Any
    embed_text: Callable[[Sequence[str]], Float[Array, "P D"]]
    embed_image: Callable[[Any, Image], Float[Array, "B D"]]
    image_size: int
    logit_scale: float

    def rank(self, images: Image, prompts: Sequence[str]) -> Float[Array, "B P"]:
        """Equation (3) of every image [B, H, W, 3] in [0, 1] with every prompt, in [-1, 1].

        Raises:
          ValueError: no prompts, or a blank one.
        """
        embedded = jax.jit(self.embed_image)(self.params, images)
        return similarity(embedded, self.embed_text(prompts))

    def probabilities(self, images: Image, prompts: Sequence[str]) -> Float[Array, "B P"]:
        """Zero-shot: of each image, the probability of every prompt, given that one is right.

        Raises:
          ValueError: as `rank`.
        """
        return jax.nn.softmax(self.logit_scale * self.rank(images, prompts), axis=-1)


def similarity(image: Float[Array, "B D"], text: Float[Array, "P D"]) -> Float[Array, "B P"]:
    """Equation (3) of unit embeddings."""
    return jnp.matmul(image, text.T, precision=jax.lax.Precision.HIGHEST)


def preprocess(image: Image, settings: ClipInput) -> Float[Array, "B S S 3"]:
    """Equation (1), with the gradient of `resample`."""
    _, height, width, _ = image.shape
    shorter, crop = settings.shorter, settings.crop
    # The longer side is rounded down.
    size = [shorter * side // min(height, width) for side in (height, width)]
    image = resample(image, size, settings.method)
    top, left = ((side - crop) // 2 for side in image.shape[1:3])
    image = image[:, top : top + crop, left : left + crop]
    mean, std = (jnp.asarray(v, image.dtype) for v in (settings.mean, settings.std))
    return (image - mean[None, None, None]) / std[None, None, None]


def load_clip(
    path: str | Path,
    *,
    tokenizer: str | Path | None = None,
    dtype: DTypeLike = jnp.float32,
    revision: str | None = None,
    variant: str | None = None,
    local_files_only: bool = False,
) -> CLIPScore:
    """CLIP from a folder with config.json, weights, tokenizer and preprocessor_config.json.

    Args:
      path: a folder, or a hub id such as "openai/clip-vit-large-patch14".
      tokenizer: its folder; None takes the files in the model's own.
      dtype: of parameters and computation; embeddings are float32.
      revision: of the hub's repository.
      variant: "fp16" to read `*.fp16.safetensors`.
      local_files_only: do not ask the network for a hub id.

    Raises:
      FileNotFoundError: the folder, its weights or a tokenizer is absent.
      ValueError: another kind of folder, an unsupported config, a tokenizer of another model, or
        damaged weights.
    """
    options: dict[str, Any] = {"variant": variant, "local_files_only": local_files_only}
    folder = resolve_folder(path, revision=revision, components=(".",), **options)
    config = CLIPConfig.from_dict(load_config(folder, "CLIPModel"))
    settings = read_clip_input(folder, config.vision_config.image_size)
    tokens = load_tokenizer(tokenizer or folder)
    text = config.text_config
    check_vocabulary(tokens, text.vocab_size)
    if text.eos_token_id not in (2, tokens.eos_token_id):
        # No token would be found, and the text's first state taken for its last.
        raise ValueError(
            f"{folder}: the tokenizer ends a text with token {tokens.eos_token_id}, the config's "
            f"eos_token_id is {text.eos_token_id}"
        )
    module = CLIP(config, dtype=dtype)
    params = load_component(folder, module, dtype=dtype, variant=variant)
    embed_image, text_apply = clip_functions(module, settings)
    encode = jax.jit(text_apply)
    # The image tower stays where the caller puts it.
    text_params = {k: params[k] for k in ("text_model", "text_projection", "logit_scale")}

    def embed_text(prompts: Sequence[str]) -> Float[Array, "P D"]:
        found = tokenize(tokens, prompts, text.max_position_embeddings)
        warn_where_cut(prompts, found)
        return encode(text_params, jnp.asarray(found.ids))

    scale = float(jnp.exp(params["logit_scale"].astype(jnp.float32)))
    return CLIPScore(params, embed_text, embed_image, settings.crop, scale)


def clip_functions(module: CLIP, settings: ClipInput) -> tuple[Callable, Callable]:
    """Equation (2): (params, image) -> [B, D] and (params, token ids [P, L]) -> [P, D], unit."""

    def embed_image(params: Any, image: Image) -> Float[Array, "B D"]:
        pixels = preprocess(image, settings)
        return unit(module.apply({"params": params}, pixels, method="embed_image"))

    def embed_tokens(params: Any, ids: Any) -> Float[Array, "P D"]:
        return unit(module.apply({"params": params}, ids, method="embed_text"))

    return embed_image, embed_tokens
