"""The cases as geojax's networks, with the weights that PyTorch had."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from geojax.models.clip import CLIPText, CLIPTextConfig
from geojax.models.unet import UNet, UNetConfig
from geojax.models.vae import VAE, VAEConfig
from geojax.weights import key_tables
from geojax.weights.folder import abstract_params
from tests.golden import cases

CLASSES = {
    "UNet2DConditionModel": (UNet, UNetConfig),
    "AutoencoderKL": (VAE, VAEConfig),
    "CLIPTextModel": (CLIPText, CLIPTextConfig),
}


def network(case: cases.Case, **settings: Any) -> nn.Module:
    """The Linen module of a case."""
    module, config = CLASSES[case.class_name]
    return module(config.from_dict(dict(case.config)), **settings)


def parameters(module: nn.Module) -> dict[str, Any]:
    """Variables of the module, filled by `cases.tensor`."""

    def fill(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        names = tuple(entry.key for entry in path)
        value = cases.tensor(key_tables.file_key(names), key_tables.file_shape(names, leaf.shape))
        return jnp.asarray(key_tables.from_file(names, value))

    return {"params": jax.tree_util.tree_map_with_path(fill, abstract_params(module))}


def golden(name: str) -> dict[str, np.ndarray]:
    """PyTorch's outputs of a case."""
    with np.load(cases.GOLDEN) as file:
        return {
            key.removeprefix(f"{name}."): file[key] for key in file if key.startswith(f"{name}.")
        }


def parameter_count(tree: Any) -> int:
    """Numbers in a tree of arrays or shapes."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))
