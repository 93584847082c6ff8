"""Prompts -> the condition of Stable Diffusion's denoiser.

Symbols: L token limit (77); D width of the text encoder; y [B, L, D] the encoder's last hidden
state after its final norm.
    (1) tokens   [begin, BPE of the text ..., end, pad ...], cut to L with `end` kept

Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models" (2022), section 3.3.
Padding is not masked: none was in training. The pad token is the tokenizer's own ("end" in 1.x,
"!" in 2.x), so it is part of the condition.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Array, Float
from transformers import CLIPTokenizer

from geojax.models.clip import CLIPText
from geojax.weights.safetensors_io import listing

TOKENIZER_FILES = ("vocab.json", "merges.txt")


class Tokens(NamedTuple):
    """Token ids [B, L], and of each prompt what was cut off ("" if nothing was)."""

    ids: np.ndarray
    cut: list[str]


def load_tokenizer(folder: str | Path) -> CLIPTokenizer:
    """The tokenizer of vocab.json and merges.txt, or of tokenizer.json.

    Raises:
      FileNotFoundError: neither is there. (transformers would make one with no vocabulary.)
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no tokenizer: {folder} is not a folder")
    whole = all((folder / name).is_file() for name in TOKENIZER_FILES)
    if not whole and not (folder / "tokenizer.json").is_file():
        raise FileNotFoundError(
            f"no tokenizer in {folder}: looked for {' and '.join(TOKENIZER_FILES)}, or "
            f"tokenizer.json; found {listing(folder)}"
        )
    return CLIPTokenizer.from_pretrained(str(folder))


def tokenize(tokenizer: CLIPTokenizer, prompts: Sequence[str], limit: int) -> Tokens:
    """Equation (1), `limit` being L.

    Raises:
      ValueError: no prompts, a string in place of a list, or a prompt of blanks.
    """
    # A string is a sequence of strings too, and would become one prompt a letter.
    if isinstance(prompts, str):
        raise ValueError(f"prompts must be a list of strings, got the string {prompts!r}")
    if not prompts:
        raise ValueError("no prompts: give at least one, [''] for the unconditional one")
    blank = [prompt for prompt in prompts if prompt and not prompt.strip()]
    if blank:
        raise ValueError(f"a prompt is blank: {blank[0]!r}; the unconditional one is ''")
    cut = []
    for prompt in prompts:
        # `model_max_length` is 1e30 unless the file sets it, so the limit is always given.
        whole = tokenizer(prompt, return_offsets_mapping=True, verbose=False)
        start, text = limit - 1, ""
        if len(whole["input_ids"]) > limit:
            text = prompt[whole["offset_mapping"][start][0] :].strip()
        cut.append(text)
    ids = tokenizer(list(prompts), padding="max_length", max_length=limit, truncation=True)
    return Tokens(np.asarray(ids["input_ids"], np.int32), cut)


def check_vocabulary(tokenizer: CLIPTokenizer, vocab_size: int) -> None:
    """Raise ValueError where the tokenizer has more tokens than are embedded."""
    size = max(tokenizer.get_vocab().values()) + 1
    if size > vocab_size:
        # JAX would clamp the index and embed another word.
        raise ValueError(f"the tokenizer has {size} tokens, the text encoder embeds {vocab_size}")


def warn_where_cut(prompts: Sequence[str], tokens: Tokens) -> None:
    """Log the very text that did not fit."""
    for prompt, cut in zip(prompts, tokens.cut, strict=True):
        if cut:
            logging.warning(
                "prompt over the limit of %d tokens: %r was cut from %r",
                tokens.ids.shape[1],
                cut,
                prompt,
            )


class TextCondition:
    """`embed` of a prior: prompts -> y [B, L, D], float32.

    Compiles once for each number of prompts. The encoder's parameters are held here and handed to
    the compiled function as an argument.
    """

    def __init__(self, tokenizer: CLIPTokenizer, text_encoder: CLIPText, params: Any):
        check_vocabulary(tokenizer, text_encoder.config.vocab_size)
        self.tokenizer = tokenizer
        self.limit = text_encoder.config.max_position_embeddings
        self.params = params
        self._encode = jax.jit(lambda p, ids: text_encoder.apply({"params": p}, ids))

    def tokenize(self, prompts: Sequence[str]) -> Tokens:
        """The prompts' tokens, at this encoder's limit; see the function."""
        return tokenize(self.tokenizer, prompts, self.limit)

    def __call__(self, prompts: Sequence[str]) -> Float[Array, "B L D"]:
        """The condition of the prompts; warns where one is over the limit of tokens.

        Raises:
          ValueError: see `tokenize`.
        """
        tokens = self.tokenize(prompts)
        warn_where_cut(prompts, tokens)
        return self._encode(self.params, jnp.asarray(tokens.ids))
