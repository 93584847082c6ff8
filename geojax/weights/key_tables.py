"""Which entry of a weight file is which parameter, and in which layout.

Symbols: path, the names that lead to a parameter in the Linen tree; key, its name in the file;
O, I output and input channels; h, w the kernel's sides.
    (1) key     path joined by ".", a closing "_3" of a name as ".3" (torch's lists), the leaves
                kernel, scale and embedding as "weight"
    (2) layout  convolution [h, w, I, O] <-> [O, I, h, w], dense [I, O] <-> [O, I], the rest as is

The names are those of the networks in `geojax.models`, chosen so that (1) and (2) are the whole
table; what follows them here are the spellings of older files.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Path = tuple[str, ...]
Shape = tuple[int, ...]

LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
NUMBERED = re.compile(r"(.+)_(\d+)$")
# `time_embedding.linear_1` is one name in the file, not the second entry of a list.
NOT_LISTS = frozenset({"linear"})

TO_FILE = {2: (1, 0), 4: (3, 2, 0, 1)}
FROM_FILE = {2: (1, 0), 4: (2, 3, 1, 0)}


def file_key(path: Path) -> str:
    """Equation (1): ("resnets_0", "conv1", "kernel") -> "resnets.0.conv1.weight"."""
    names: list[str] = []
    for name in path[:-1]:
        match = NUMBERED.match(name)
        listed = match is not None and match[1] not in NOT_LISTS
        names += [match[1], match[2]] if match is not None and listed else [name]
    return ".".join([*names, LEAVES.get(path[-1], path[-1])])


def _axes(path: Path, ndim: int, table: dict[int, tuple[int, ...]]) -> tuple[int, ...]:
    if path[-1] != "kernel":
        return tuple(range(ndim))
    if ndim not in table:
        raise ValueError(f"{'/'.join(path)}: a kernel has 2 or 4 axes, this one has {ndim}")
    return table[ndim]


def file_shape(path: Path, shape: Shape) -> Shape:
    """The parameter's shape in the file, equation (2)."""
    return tuple(shape[i] for i in _axes(path, len(shape), TO_FILE))


def to_file(path: Path, value: np.ndarray) -> np.ndarray:
    """A parameter in the file's layout, equation (2); a view, not contiguous."""
    return value.transpose(_axes(path, value.ndim, TO_FILE))


def from_file(path: Path, value: np.ndarray) -> np.ndarray:
    """A file's tensor in the parameter's layout, equation (2); a view, not contiguous."""
    return value.transpose(_axes(path, value.ndim, FROM_FILE))


VAE_LEGACY = re.compile(
    r"((?:en|de)coder\.mid_block\.attentions\.0)\.(query|key|value|proj_attn)\.(weight|bias)"
)
VAE_MODERN = re.compile(
    r"(?:en|de)coder\.mid_block\.attentions\.0\.(?:to_q|to_k|to_v|to_out\.0)\.weight"
)
VAE_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
DINOV2_MODERN = re.compile(r"(backbone\..+\.attention)\.([qkvo])_proj\.(weight|bias)")
DINOV2_NAMES = {
    "q": "attention.query",
    "k": "attention.key",
    "v": "attention.value",
    "o": "output.dense",
}
POSITION_IDS = re.compile(r"(?:(?:text|vision)_model\.)?embeddings\.position_ids")


def current_key(class_name: str, key: str) -> str | None:
    """A key of any age as equation (1) spells it; None for a buffer that holds no parameter.

    Older autoencoders call the attention query, key, value and proj_attn. CLIP's text tower is
    written with `text_model.` by transformers 4 and without by 5. transformers 5 calls the parts
    of DINOv2's attention anew, though its files keep the old names.
    """
    if class_name == "AutoencoderKL" and (match := VAE_LEGACY.fullmatch(key)):
        return f"{match[1]}.{VAE_NAMES[match[2]]}.{match[3]}"
    if class_name == "DepthAnythingForDepthEstimation" and (match := DINOV2_MODERN.fullmatch(key)):
        return f"{match[1]}.{DINOV2_NAMES[match[2]]}.{match[3]}"
    if class_name in ("CLIPModel", "CLIPTextModel") and POSITION_IDS.fullmatch(key):
        return None
    if class_name == "CLIPTextModel":
        return key if key.startswith("text_model.") else f"text_model.{key}"
    return key


def current_shape(class_name: str, key: str, shape: Shape) -> Shape:
    """The shape under the current key: the oldest autoencoders attend by 1x1 convolution."""
    old = class_name == "AutoencoderKL" and VAE_MODERN.fullmatch(key) and shape[2:] == (1, 1)
    return shape[:2] if old else shape


class Kind(NamedTuple):
    """A network that the loader can lay out by itself.

    Attributes:
      class_name: of diffusers or transformers, as in config.json.
      inputs: from the module's config to shapes small enough to trace `init` with.
    """

    class_name: str
    inputs: Callable[[Any], tuple[jax.ShapeDtypeStruct, ...]]


def _float(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _int(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def _unet_inputs(config: Any) -> tuple[jax.ShapeDtypeStruct, ...]:
    side = 2 ** len(config.block_out_channels)
    sample = _float(1, side, side, config.in_channels)
    return sample, _int(1), _float(1, 1, config.cross_attention_dim)


def _vae_inputs(config: Any) -> tuple[jax.ShapeDtypeStruct, ...]:
    side = 2 ** len(config.block_out_channels)
    return (_float(1, side, side, config.in_channels),)


def _clip_inputs(config: Any) -> tuple[jax.ShapeDtypeStruct, ...]:
    vision = config.vision_config
    return _int(1, 1), _float(1, vision.image_size, vision.image_size, vision.num_channels)


def _dpt_inputs(config: Any) -> tuple[jax.ShapeDtypeStruct, ...]:
    return (_float(1, config.image_size, config.image_size, config.num_channels),)


def _depth_anything_inputs(config: Any) -> tuple[jax.ShapeDtypeStruct, ...]:
    return _dpt_inputs(config.backbone_config)


def _discriminator_inputs(config: Any) -> tuple[jax.ShapeDtypeStruct, ...]:
    return _float(1, config.image_size, config.image_size, 3), _float(1, len(config.phrases))


# By the name of the Linen class: this floor does not import the networks.
KINDS = {
    "UNet": Kind("UNet2DConditionModel", _unet_inputs),
    "VAE": Kind("AutoencoderKL", _vae_inputs),
    "CLIPText": Kind("CLIPTextModel", lambda config: (_int(1, 1),)),
    "CLIP": Kind("CLIPModel", _clip_inputs),
    "DPT": Kind("DPTForDepthEstimation", _dpt_inputs),
    "DepthAnything": Kind("DepthAnythingForDepthEstimation", _depth_anything_inputs),
    "Judge": Kind("Judge", lambda config: (_float(1, config.image_size, config.image_size, 3),)),
    "Discriminator": Kind("Discriminator", _discriminator_inputs),
}
