"""Tiny networks, and weights and inputs that numpy makes alike for PyTorch and for geojax.

A tensor depends on its name in the file, its shape and the seed alone, so the golden file holds
nothing but outputs, and both sides can make the same network without exchanging a weight.
"""

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

GOLDEN = Path(__file__).parent / "models.npz"
SEED = 0

LEVELS = {
    "block_out_channels": [8, 16, 16, 24],
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": 12,
    "sample_size": 16,
}
# SD 1.x's form: projections by convolution, one number of heads.
UNET_1 = {**LEVELS, "attention_head_dim": 2}
# SD 2.x's: dense projections, heads a level.
UNET_2 = {**LEVELS, "attention_head_dim": [1, 2, 4, 3], "use_linear_projection": True}
# The embedded family's: no attention at the top, and here the plain order of sine and cosine.
UNET_SMALL = {
    "block_out_channels": [8, 16],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 2,
    "norm_num_groups": 4,
    "cross_attention_dim": 12,
    "attention_head_dim": 2,
    "sample_size": 8,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-3,
}
VAE = {
    "block_out_channels": [8, 16, 16],
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "sample_size": 16,
}
CLIP = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "max_position_embeddings": 9,
    "hidden_act": "quick_gelu",
    "bos_token_id": 38,
    "eos_token_id": 39,
    "pad_token_id": 39,
}


class Case(NamedTuple):
    """A network: its class in diffusers or transformers, and its config.json."""

    class_name: str
    config: Mapping[str, Any]


CASES = {
    "unet_1": Case("UNet2DConditionModel", {**UNET_1, "in_channels": 4}),
    "unet_2": Case("UNet2DConditionModel", {**UNET_2, "in_channels": 5}),
    "unet_small": Case("UNet2DConditionModel", {**UNET_SMALL, "in_channels": 9}),
    "vae": Case("AutoencoderKL", VAE),
    "clip_quick_gelu": Case("CLIPTextModel", CLIP),
    "clip_gelu": Case("CLIPTextModel", {**CLIP, "hidden_act": "gelu"}),
}


def tensor(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """A float32 tensor in PyTorch's layout: of unit gain for a kernel, near 1 for a norm's scale.

    `text_model.`, which only some versions of transformers write, does not count.
    """
    name = key.removeprefix("text_model.")
    rng = np.random.default_rng([SEED, zlib.crc32(name.encode())])
    draw = rng.standard_normal(shape)
    if name.endswith("embedding.weight"):
        value = draw
    elif name.endswith("bias"):
        value = 0.1 * draw
    elif len(shape) == 1:
        value = 1.0 + 0.1 * draw
    else:
        value = draw / np.sqrt(np.prod(shape[1:]))
    return value.astype(np.float32)


def noise(name: str, *shape: int) -> np.ndarray:
    """A float32 normal draw that belongs to a name; images and latents are [B, H, W, C]."""
    rng = np.random.default_rng([SEED, zlib.crc32(name.encode())])
    return rng.standard_normal(shape).astype(np.float32)


def unet_inputs(
    config: Mapping[str, Any], height: int = 16, width: int = 8
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sample [2, H, W, c], timesteps [2], condition [2, 5, D]."""
    sample = noise("sample", 2, height, width, config["in_channels"])
    return sample, np.array([3, 900], np.int32), noise("y", 2, 5, config["cross_attention_dim"])


def token_ids() -> np.ndarray:
    """Token ids [2, 9] of the tiny vocabulary, padded with the end token."""
    return np.array([[38, 1, 2, 3, 39, 39, 39, 39, 39], [38, 9, 8, 7, 6, 5, 4, 3, 39]], np.int32)


def relative_error(found: Any, expected: Any) -> float:
    """max |found - expected| / max |expected|."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float(np.max(np.abs(found - expected)) / np.max(np.abs(expected)))
