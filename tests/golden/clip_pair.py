"""Tiny CLIPs of both towers, and what PyTorch gives for them (clip_pair.npz).

python -m tests.golden.clip_pair     makes the file (needs the extra [torch])
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from geojax.models.clip_vision import CLIP, CLIPConfig
from geojax.weights.folder import abstract_params
from geojax.weights.key_tables import file_key, file_shape, from_file
from tests.golden import cases

GOLDEN = Path(__file__).parent / "clip_pair.npz"
TEXT = {**cases.CLIP, "num_hidden_layers": 2}
VISION = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 16,
    "patch_size": 4,
    "hidden_act": "quick_gelu",
}
PAIR = {"text_config": TEXT, "vision_config": VISION, "projection_dim": 10}
CONFIGS = {
    "quick_gelu": PAIR,
    # As H/14's: exact gelu, and the old wrong end token with padding by another id.
    "gelu": {
        **PAIR,
        "text_config": {**TEXT, "hidden_act": "gelu", "eos_token_id": 2, "pad_token_id": 0},
        "vision_config": {**VISION, "hidden_act": "gelu"},
    },
}


def tensor(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The tensor of a key, as `cases.tensor`, with a scale as after training."""
    if key == "logit_scale":
        return np.array(3.0, np.float32)
    # Not by `cases.tensor` alone: it leaves `text_model.` out of the name.
    return cases.tensor(key.replace("text_model.", "text."), shape)


def pixels() -> np.ndarray:
    """Normalised images [3, 16, 16, 3]."""
    return cases.noise("clip image", 3, 16, 16, 3)


def module(name: str) -> CLIP:
    """The Linen module."""
    return CLIP(CLIPConfig.from_dict(CONFIGS[name]))


def parameters(clip: CLIP) -> dict:
    """Its parameters, filled by `tensor`."""

    def fill(path, leaf):
        names = tuple(entry.key for entry in path)
        value = tensor(file_key(names), file_shape(names, leaf.shape))
        return jnp.asarray(from_file(names, value))

    return jax.tree_util.tree_map_with_path(fill, abstract_params(clip))


def golden(name: str) -> dict[str, np.ndarray]:
    """PyTorch's outputs: text, image, logits, and the gradient of their sum of squares."""
    with np.load(GOLDEN) as file:
        return {k.partition(".")[2]: file[k] for k in file if k.startswith(f"{name}.")}


def torch_clip(name: str):
    """transformers' CLIPModel with the same weights."""
    import torch
    import transformers

    model = transformers.CLIPModel(transformers.CLIPConfig(**CONFIGS[name])).eval()
    state = {k: torch.from_numpy(tensor(k, tuple(v.shape))) for k, v in model.state_dict().items()}
    model.load_state_dict(state)
    return model


def torch_outputs(model) -> dict[str, np.ndarray]:
    """Unit embeddings, logits [images, texts] and the gradient of sum of logits^2 in the image."""
    import torch

    image = torch.from_numpy(np.ascontiguousarray(pixels().transpose(0, 3, 1, 2)))
    image.requires_grad_()
    found = model(input_ids=torch.from_numpy(cases.token_ids()).long(), pixel_values=image)
    (slope,) = torch.autograd.grad((found.logits_per_image**2).sum(), image)
    return {
        "text": found.text_embeds.detach().numpy(),
        "image": found.image_embeds.detach().numpy(),
        "logits": found.logits_per_image.detach().numpy(),
        "slope": slope.numpy().transpose(0, 2, 3, 1),
    }


def main() -> None:
    """Write the file."""
    arrays = {}
    for name in CONFIGS:
        for part, value in torch_outputs(torch_clip(name)).items():
            arrays[f"{name}.{part}"] = np.ascontiguousarray(value)
            print(f"{name}.{part:8s} {value.shape!s:18s} std {value.std():.3f}")
    np.savez_compressed(GOLDEN, **arrays)


if __name__ == "__main__":
    main()
