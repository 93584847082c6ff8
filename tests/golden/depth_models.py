"""Tiny depth models, and what PyTorch gives for them (depth_models.npz).

python -m tests.golden.depth_models     makes the file (needs the extra [torch])
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from geojax.models.depth_anything import DepthAnything, DepthAnythingConfig
from geojax.models.dpt import DPT, DPTConfig
from geojax.weights.folder import abstract_params
from geojax.weights.key_tables import current_key, file_key, file_shape, from_file
from tests.golden import cases

GOLDEN = Path(__file__).parent / "depth_models.npz"
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
    "hybrid": {
        **DPT_TINY,
        "is_hybrid": True,
        "image_size": 64,
        "patch_size": 16,
        "neck_hidden_sizes": [32, 64, 16, 20],
        "reassemble_factors": [1, 1, 1, 0.5],
        "backbone_featmap_shape": [1, 96, 4, 4],
        "neck_ignore_stages": [0, 1],
        "backbone_config": {
            "model_type": "bit",
            "layer_type": "bottleneck",
            "global_padding": "same",
            "embedding_dynamic_padding": True,
            "embedding_size": 8,
            "hidden_sizes": [32, 64, 96],
            "depths": [1, 2, 2],
            "num_groups": 4,
            "out_features": ["stage1", "stage2", "stage3"],
        },
    },
}
ANYTHING_TINY = {
    "patch_size": 4,
    "reassemble_hidden_size": 24,
    "neck_hidden_sizes": [8, 12, 16, 20],
    "fusion_hidden_size": 16,
    "head_hidden_size": 8,
    "backbone_config": {
        "model_type": "dinov2",
        "hidden_size": 24,
        "num_hidden_layers": 5,
        "num_attention_heads": 3,
        "mlp_ratio": 2,
        "image_size": 16,
        "patch_size": 4,
        "layerscale_value": 0.5,
        "reshape_hidden_states": False,
        "out_indices": [1, 2, 4, 5],
    },
}
ANYTHINGS = {
    "as released": ANYTHING_TINY,
    "metric": {
        **ANYTHING_TINY,
        "depth_estimation_type": "metric",
        "max_depth": 20,
        "backbone_config": {
            **ANYTHING_TINY["backbone_config"],
            "use_mask_token": False,
            "qkv_bias": False,
        },
    },
}


def tensor(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """As `cases.tensor`, with tokens that count, and a disparity above the closing relu."""
    if key in ("head.head.4.bias", "head.conv3.bias"):
        return np.full(shape, 1.0, np.float32)
    tokens = key.endswith(("_token", "position_embeddings"))
    return cases.tensor(f"{key}.embedding.weight" if tokens else key, shape)


def pixels(height: int, width: int) -> np.ndarray:
    """Normalised images [2, H, W, 3].

    Of several draws one where no activation of the hybrid lies within rounding of a relu's kink: a
    single one on the other side moved some gradients by a twentieth.
    """
    return cases.noise("depth image 1", 2, height, width, 3)


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


def depth_anything(name: str) -> DepthAnything:
    """The Linen module."""
    return DepthAnything(DepthAnythingConfig.from_dict(ANYTHINGS[name]))


def module(kind: str, name: str) -> DPT | DepthAnything:
    """The Linen module of "dpt" or "anything"."""
    return dpt(name) if kind == "dpt" else depth_anything(name)


# kind, name -> size of the image: of which the golden file has the outputs.
SIZES = {
    ("dpt", "variations"): (48, 48),
    ("dpt", "hybrid"): (64, 64),
    ("anything", "as released"): (24, 20),
}


def golden(kind: str, name: str) -> np.ndarray:
    """PyTorch's output for `pixels` of that size."""
    with np.load(GOLDEN) as file:
        return file[f"{kind}.{name}"]


def torch_model(kind: str, name: str):
    """transformers' network with the same weights."""
    import torch
    import transformers

    if kind == "dpt":
        model = transformers.DPTForDepthEstimation(transformers.DPTConfig(**DPTS[name]))
    else:
        config = transformers.DepthAnythingConfig(**ANYTHINGS[name])
        model = transformers.DepthAnythingForDepthEstimation(config)
    class_name, state = type(model).__name__, model.state_dict()
    values = {k: tensor(current_key(class_name, k) or k, tuple(v.shape)) for k, v in state.items()}
    model.load_state_dict({k: torch.from_numpy(v) for k, v in values.items()})
    return model.eval()


def main() -> None:
    """Write the file."""
    import torch

    from tests.golden.make_golden import to_torch

    found = {}
    for (kind, name), size in SIZES.items():
        with torch.no_grad():
            result = torch_model(kind, name)(to_torch(pixels(*size))).predicted_depth
        found[f"{kind}.{name}"] = result.numpy()
    np.savez_compressed(GOLDEN, **found)


if __name__ == "__main__":
    main()
