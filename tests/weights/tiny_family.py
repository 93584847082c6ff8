"""A Stable Diffusion small enough for a test: configs, random parameters, tokenizer, folder."""

import json
from pathlib import Path

import jax
import numpy as np

from geojax.models.clip import CLIPText, CLIPTextConfig
from geojax.models.unet import UNet, UNetConfig
from geojax.models.vae import VAE, VAEConfig
from geojax.weights.folder import abstract_params
from geojax.weights.pipeline_folder import STABLE_DIFFUSION_SCHEDULER, Component, save_pipeline

LIMIT = 12
WIDTH = 16
LETTERS = [chr(c) for c in range(ord("!"), ord("~") + 1)]
MERGES = ["r e", "re d</w>", "m u", "mu g</w>", "b l", "bl u", "blu e</w>"]
VOCABULARY = [
    *LETTERS,
    *(f"{letter}</w>" for letter in LETTERS),
    *(merge.replace(" ", "") for merge in MERGES),
    "<|startoftext|>",
    "<|endoftext|>",
]

UNET = UNetConfig(
    sample_size=8,
    block_out_channels=(8, 16),
    norm_num_groups=4,
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    attention_head_dim=2,
    cross_attention_dim=WIDTH,
    layers_per_block=1,
)
VAE_CONFIG = VAEConfig(
    block_out_channels=(8, 8),
    norm_num_groups=4,
    down_block_types=("DownEncoderBlock2D",) * 2,
    up_block_types=("UpDecoderBlock2D",) * 2,
    sample_size=16,
)
TEXT = CLIPTextConfig(
    vocab_size=len(VOCABULARY),
    hidden_size=WIDTH,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=LIMIT,
    bos_token_id=len(VOCABULARY) - 2,
    eos_token_id=len(VOCABULARY) - 1,
    pad_token_id=len(VOCABULARY) - 1,
)


def random_params(module, seed=0):
    """Parameters of the right scale, without compiling an `init`."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        kind = path[-1].key
        noise = rng.standard_normal(leaf.shape)
        if kind == "kernel":
            return (noise / np.sqrt(np.prod(leaf.shape[:-1]))).astype(np.float32)
        return ((kind == "scale") + 0.1 * noise).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, abstract_params(module))


def write_tokenizer(folder: Path, pad_token="<|endoftext|>") -> Path:
    """vocab.json, merges.txt and the settings of a CLIP tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(VOCABULARY)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES]) + "\n")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
    special |= {"unk_token": "<|endoftext|>", "pad_token": pad_token}
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": LIMIT, **special}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def write_family(
    folder: Path,
    unet=UNET,
    vae=VAE_CONFIG,
    text=TEXT,
    prediction="epsilon",
    pad_token="<|endoftext|>",
    **options,
):
    """Write the whole folder; returns the parameter trees by component."""
    modules = {"unet": UNet(unet), "text_encoder": CLIPText(text)}
    if vae is not None:
        modules["vae"] = VAE(vae)
    params = {name: random_params(m, seed) for seed, (name, m) in enumerate(modules.items())}
    save_pipeline(
        folder,
        {name: Component(params[name], m.config.to_dict()) for name, m in modules.items()},
        {**STABLE_DIFFUSION_SCHEDULER, "prediction_type": prediction},
        write_tokenizer(folder.parent / f"{folder.name}_tokenizer", pad_token),
        **options,
    )
    return params
