"""Tiny depth models, and weights and inputs that numpy makes alike for PyTorch and for geojax."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from geojax.models.dpt import DPT, DPTConfig
from geojax.weights.folder import abstract_params
from geojax.weights.key_tables import file_key, file_shape, from_file
from tests.golden import cases

DPT_TINY = {
    "hidden_size": 24,
    "num_hidden_layers": 5,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "image_size": 32,
    "patch_size": 8,
    "backbone_out_indices": [0, 1, 3, 4],
    "neck_hidden_sizes": [8, 12, 16, 20],
    "fusion_hidden_size": 16,
}
DPTS = {
    "as released": DPT_TINY,
    # The embedded family's factors, and everything else that a config may say.
    "variations": {
        **DPT_TINY,
        "reassemble_factors": [2, 1, 0.5, 0.25],
        "readout_type": "add",
        "qkv_bias": False,
        "hidden_act": "quick_gelu",
        "use_bias_in_fusion_residual": False,
        "layer_norm_eps": 1e-6,
        "head_in_index": -2,
    },
    "ignore": {**DPT_TINY, "readout_type": "ignore"},
}


def tensor(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """As `cases.tensor`, with tokens that count, and a disparity above the closing relu."""
    if key in ("head.head.4.bias", "head.conv3.bias"):
        return np.full(shape, 1.0, np.float32)
    tokens = key.endswith(("_token", "position_embeddings"))
    return cases.tensor(f"{key}.embedding.weight" if tokens else key, shape)


def pixels(height: int, width: int) -> np.ndarray:
    """Normalised images [2, H, W, 3]."""
    return cases.noise("depth image", 2, height, width, 3)


def parameters(module: Any) -> dict:
    """The module's parameters, filled by `tensor`."""

    def fill(path, leaf):
        names = tuple(entry.key for entry in path)
        value = tensor(file_key(names), file_shape(names, leaf.shape))
        return jnp.asarray(from_file(names, value))

    return jax.tree_util.tree_map_with_path(fill, abstract_params(module))


def dpt(name: str) -> DPT:
    """The Linen module."""
    return DPT(DPTConfig.from_dict(DPTS[name]))
