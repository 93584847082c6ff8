"""Stable Diffusion in one file, as it was first released: `v1-5-pruned-emaonly.safetensors`.

One file holds the denoiser, the autoencoder and the text encoder under the names of the original
code (`geojax.weights.ldm_keys`) and no config. The networks' sizes are read off the shapes:
SD 1.x and 2.x, with 4 input channels, 9 (inpainting) or 5 (depth).

What shapes do not say, and is fixed as in the released models: 8 heads a level where projections
are convolutions (1.x), heads of 64 where they are dense (2.x) and in the text encoders; norms over
32 groups; the gelu of the text encoder, quick in 1.x; the scaling factor 0.18215. What nothing in
the file says: whether the network predicts eps or v. `geojax.priors` asks for it.

A full OpenCLIP tower has one layer more than 2.x uses, and it is left out; one of 23 layers, as the
converters of diffusers write it, has been cut before. The moving average of the UNet in files of
training (`model_ema.`) is left aside, as diffusers does.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from geojax.weights import key_tables, ldm_keys
from geojax.weights.folder import (
    Params,
    abstract_params,
    cast_checked,
    keys_of,
    named_leaves,
    refuse_misfits,
)
from geojax.weights.ldm_keys import CLIP_TEXT, OPEN_CLIP, UNET, VAE
from geojax.weights.safetensors_io import FLOATS, Entry, read_entries, read_tensors, refuse_pickle

COMPONENTS = ("unet", "vae", "text_encoder")
HEAD_WIDTH = 64
CUT_LAYERS = 23

Configs = dict[str, dict[str, Any]]


class _Shapes:
    """Shapes in a file by key, and what they say."""

    def __init__(self, file: Path, entries: Mapping[str, Entry]):
        self.file, self.entries = file, entries

    def __call__(self, key: str) -> tuple[int, ...]:
        if key not in self.entries:
            raise ValueError(
                f"{self.file} has no {key}: expected an original checkpoint of Stable Diffusion "
                f"1.x or 2.x; it has {', '.join(sorted(self.entries)[:3])}, ..."
            )
        return self.entries[key].shape

    def has(self, key: str) -> bool:
        return key in self.entries

    def count(self, template: str, start: int = 0) -> int:
        """How many consecutive keys `template.format(start), ...` there are."""
        number = start
        while template.format(number) in self.entries:
            number += 1
        return number - start


def _unet_config(shape: _Shapes, sample_size: int) -> dict[str, Any]:
    # Up to the first downsampler, which has no norm.
    layers = shape.count(UNET + "input_blocks.{}.0.in_layers.0.weight", start=1)
    ends = re.compile(re.escape(UNET) + r"input_blocks\.\d+\.0\.op\.weight")
    levels = 1 + sum(ends.fullmatch(key) is not None for key in shape.entries)
    starts = [1 + i * (layers + 1) for i in range(levels)]
    widths = [shape(f"{UNET}input_blocks.{i}.0.out_layers.3.weight")[0] for i in starts]
    crossed = [shape.has(f"{UNET}input_blocks.{i}.1.proj_in.weight") for i in starts]
    up = [shape.has(f"{UNET}output_blocks.{i - 1}.1.proj_in.weight") for i in starts]
    depths = [
        max(1, shape.count(f"{UNET}input_blocks.{i}.1.transformer_blocks.{{}}.norm1.weight"))
        for i in starts
    ]
    middle = f"{UNET}middle_block.1."
    dense = len(shape(f"{middle}proj_in.weight")) == 2
    return {
        "sample_size": sample_size,
        "in_channels": shape(f"{UNET}input_blocks.0.0.weight")[1],
        "out_channels": shape(f"{UNET}out.2.weight")[0],
        "block_out_channels": tuple(widths),
        "layers_per_block": layers,
        "down_block_types": tuple("CrossAttnDownBlock2D" if x else "DownBlock2D" for x in crossed),
        "up_block_types": tuple("CrossAttnUpBlock2D" if x else "UpBlock2D" for x in up),
        "cross_attention_dim": shape(f"{middle}transformer_blocks.0.attn2.to_k.weight")[1],
        "transformer_layers_per_block": depths[0] if len(set(depths)) == 1 else tuple(depths),
        "use_linear_projection": dense,
        # The number of heads, whatever diffusers calls it.
        "attention_head_dim": tuple(max(1, w // HEAD_WIDTH) for w in widths) if dense else 8,
    }


def _vae_config(shape: _Shapes, image_size: int) -> dict[str, Any]:
    levels = max(1, shape.count(VAE + "encoder.down.{}.block.0.norm1.weight"))
    widths = tuple(shape(f"{VAE}encoder.down.{i}.block.0.conv2.weight")[0] for i in range(levels))
    return {
        "in_channels": shape(VAE + "encoder.conv_in.weight")[1],
        "out_channels": shape(VAE + "decoder.conv_out.weight")[0],
        "latent_channels": shape(VAE + "decoder.conv_in.weight")[1],
        "block_out_channels": widths,
        "layers_per_block": shape.count(VAE + "encoder.down.0.block.{}.norm1.weight"),
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "sample_size": image_size,
    }


def _text_config(shape: _Shapes) -> dict[str, Any]:
    open_clip = shape.has(OPEN_CLIP + "token_embedding.weight")
    if open_clip:
        layer, feed = OPEN_CLIP + "transformer.resblocks.{}.", "mlp.c_fc.weight"
        token, position = "token_embedding.weight", "positional_embedding"
        token, position = OPEN_CLIP + token, OPEN_CLIP + position
        layers = shape.count(layer + "ln_1.weight")
        layers -= layers != CUT_LAYERS
    else:
        model = CLIP_TEXT + "text_model."
        layer, feed = model + "encoder.layers.{}.", "mlp.fc1.weight"
        token = model + "embeddings.token_embedding.weight"
        position = model + "embeddings.position_embedding.weight"
        layers = shape.count(layer + "layer_norm1.weight")
    vocabulary, width = shape(token)
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": shape(layer.format(0) + feed)[0],
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // HEAD_WIDTH),
        "max_position_embeddings": shape(position)[0],
        "hidden_act": "gelu" if open_clip else "quick_gelu",
        "pad_token_id": 0 if open_clip else vocabulary - 1,
    }


def single_file_configs(path: str | Path, image_size: int = 512) -> Configs:
    """The configs of the three networks in a file: fields of their config.json, by component.

    Args:
      path: the `.safetensors` file.
      image_size: of the pictures it was trained on; 768 for the models of 2.x that predict v.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a pickle, a damaged file, or not such a checkpoint, and what it seems to be.
    """
    file = Path(path)
    refuse_pickle(file)
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not a file")
    entries = read_entries(file)
    if any(key.startswith("conditioner.embedders.") for key in entries):
        raise ValueError(f"{file} is a checkpoint of Stable Diffusion XL, which is unsupported")
    if "conv_in.weight" in entries and "down_blocks.0.resnets.0.conv1.weight" in entries:
        raise ValueError(
            f"{file} is the UNet alone, in diffusers' names: give the folder of the whole pipeline"
        )
    shape = _Shapes(file, entries)
    vae = _vae_config(shape, image_size)
    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    return {
        "unet": _unet_config(shape, image_size // factor),
        "vae": vae,
        "text_encoder": _text_config(shape),
    }


class _Place(NamedTuple):
    """Where a tensor, or a third of it, goes: component, path in its tree, shape in the file."""

    component: str
    path: tuple[str, ...]
    shape: tuple[int, ...]
    third: int | None


def _fit(
    file: Path, entries: Mapping[str, Entry], configs: Configs, trees: Mapping[str, Any]
) -> dict[str, list[_Place]]:
    """Key in the file -> the parameters it holds; ValueError naming every key that does not fit."""
    open_clip = OPEN_CLIP + "token_embedding.weight" in entries
    sources = {
        "unet": ldm_keys.unet_source,
        "vae": ldm_keys.vae_source,
        "text_encoder": ldm_keys.open_clip_source if open_clip else ldm_keys.clip_text_source,
    }
    places: dict[str, list[_Place]] = {}
    missing, wrong = set(), set()
    for name, tree in trees.items():
        leaves = named_leaves(tree)
        for key, path in keys_of(list(leaves)).items():
            found, third = sources[name](key, configs[name])
            shape = key_tables.file_shape(path, leaves[path].shape)
            places.setdefault(found, []).append(_Place(name, path, shape, third))
            wanted = shape if third is None else (3 * shape[0], *shape[1:])
            if found not in entries:
                missing.add(f"{found}: found nothing, expected {wanted}")
                continue
            entry = entries[found]
            kind = "AutoencoderKL" if name == "vae" else ""
            if key_tables.current_shape(kind, key, entry.shape) != wanted:
                wrong.add(f"{found}: found {entry.shape}, expected {wanted}")
            elif entry.dtype not in FLOATS:
                wrong.add(f"{found}: found type {entry.dtype}, expected one of {FLOATS}")
    layers = configs["text_encoder"]["num_hidden_layers"]
    last = f"{OPEN_CLIP}transformer.resblocks.{layers}."
    unused = [
        f"{key}: found {entry.shape}, expected no such key"
        for key, entry in sorted(entries.items())
        if key not in places and not ldm_keys.IGNORED.fullmatch(key) and not key.startswith(last)
    ]
    title = f"{file} does not fit Stable Diffusion"
    refuse_misfits(title, sorted(missing), unused, sorted(wrong))
    return places


def load_single_file(
    path: str | Path, expected: Mapping[str, Any], dtypes: Mapping[str, DTypeLike] | None = None
) -> dict[str, Params]:
    """The parameters of the three networks in a file, strict: every tensor must find its place.

    Args:
      path: the `.safetensors` file.
      expected: the Linen modules made from `single_file_configs`, or the trees of shapes that their
        `init` makes, of "unet", "vae" and "text_encoder".
      dtypes: of the parameters in memory, by component; float32 where none is given.

    Returns:
      Trees as `expected`, of jax arrays, read one tensor at a time.

    Raises:
      FileNotFoundError: no such file.
      ValueError: as `single_file_configs`; or tensors that are missing, unused or mis-shaped, all
        of them named; or a number that overflows its type.
    """
    if set(expected) != set(COMPONENTS):
        raise ValueError(f"expected must have {COMPONENTS}, it has {tuple(expected)}")
    configs, file = single_file_configs(path), Path(path)
    entries = read_entries(file)
    trees = {k: abstract_params(m) if hasattr(m, "init") else m for k, m in expected.items()}
    places = _fit(file, entries, configs, trees)
    values: dict[tuple[str, tuple[str, ...]], jax.Array] = {}
    for key, tensor in read_tensors(entries, places):
        for name, where, shape, third in places[key]:
            part = tensor if third is None else np.split(tensor, 3)[third]
            dtype = (dtypes or {}).get(name, jnp.float32)
            part = cast_checked(f"{file}: {key}", part.reshape(shape), dtype)
            values[name, where] = jnp.asarray(key_tables.from_file(where, part))
    return {
        name: jax.tree_util.tree_unflatten(
            jax.tree_util.tree_structure(tree), [values[name, p] for p in named_leaves(tree)]
        )
        for name, tree in trees.items()
    }
