"""Low-rank adaptation that is learnt along: a second denoiser for the price of a few small arrays.

Symbols: W [I, O] the kernel of an attention projection; A [I, r], B [r, O] its adaptation; e [B, E]
the embedded time that every resnet adds; c [16] a camera_to_world matrix, row by row.
    (1)  W' = W + scale A B,   A ~ N(0, 1 / r^2),  B = 0 at the start
    (2)  e' = e + MLP(c),      the last layer 0 at the start

(1) Hu et al., "LoRA" (2021), section 4.1, with the start of the public implementations; (2) Wang et
al., "ProlificDreamer" (2023), section 3.3: the camera is added to the time embedding. Both zeros
make the adapted network start as the network itself. Adaptations in files, which are merged once
and not learnt, are `weights/lora.py`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, Key, PyTree

from geojax.models.layers import TimestepEmbedding

PROJECTIONS = ("to_q", "to_k", "to_v", "to_out_0")


def init_lora(key: Key[Array, ""], params: Mapping[str, Any], rank: int) -> dict[str, Any]:
    """A and B of equation (1) for all attention projections of a UNet.

    Args:
      key: consumed.
      params: of the UNet.
      rank: r.

    Returns:
      a tree with {"down": A, "up": B} where `params` has a projection's {"kernel": W}; float32.

    Raises:
      ValueError: for a rank below 1, or parameters without attention projections.
    """
    if rank < 1:
        raise ValueError(f"the rank of an adaptation must be at least 1, got {rank}")
    kernels = {
        path[:-1]: leaf
        for path, leaf in flatten_dict(params).items()
        if path[-1] == "kernel" and len(path) > 1 and path[-2] in PROJECTIONS
    }
    if not kernels:
        raise ValueError(f"no attention projections {', '.join(PROJECTIONS)} to adapt")
    adapted = {}
    for one, (path, kernel) in zip(
        jax.random.split(key, len(kernels)), sorted(kernels.items()), strict=True
    ):
        adapted[(*path, "down")] = jax.random.normal(one, (kernel.shape[0], rank)) / rank
        adapted[(*path, "up")] = jnp.zeros((rank, kernel.shape[1]))
    return unflatten_dict(adapted)


def apply_lora(
    params: Mapping[str, Any], lora: Mapping[str, Any], scale: float = 1.0
) -> dict[str, Any]:
    """Equation (1): the parameters of the adapted UNet, in their own types."""
    merged, pairs = flatten_dict(params), flatten_dict(lora)
    for path, down in pairs.items():
        if path[-1] == "down":
            kernel = (*path[:-1], "kernel")
            change = scale * (down @ pairs[(*path[:-1], "up")])
            merged[kernel] = merged[kernel] + change.astype(merged[kernel].dtype)
    return unflatten_dict(merged)


def time_width(params: Mapping[str, Any]) -> int:
    """E, the width of a UNet's embedded time."""
    return params["time_embedding"]["linear_2"]["bias"].shape[0]


class CameraEmbedding(nn.Module):
    """The network of equation (2): two layers of width `features`, SiLU between."""

    features: int

    @nn.compact
    def __call__(self, camera_to_world: Float[Array, "B 4 4"]) -> Float[Array, "B E"]:
        """What is added to the embedded time; 0 before training."""
        x = camera_to_world.reshape(-1, 16)
        x = nn.silu(nn.Dense(self.features, name="linear_1")(x))
        zeros = nn.initializers.zeros
        return nn.Dense(self.features, kernel_init=zeros, name="linear_2")(x)


def init_camera(key: Key[Array, ""], features: int) -> PyTree:
    """Parameters of a `CameraEmbedding`; the key is consumed."""
    return CameraEmbedding(features).init(key, jnp.zeros((1, 4, 4)))["params"]


def embed_camera(params: PyTree, camera_to_world: Float[Array, "B 4 4"]) -> Float[Array, "B E"]:
    """MLP(c) of equation (2)."""
    features = params["linear_2"]["bias"].shape[0]
    return CameraEmbedding(features).apply({"params": params}, camera_to_world)


def with_time_offset(
    network: Callable[..., Array], offset: Float[Array, "B E"]
) -> Callable[..., Array]:
    """`network`, with `offset` added to the embedded time of every UNet in it, equation (2).

    The batch of the call must be that of the offset. A function's own UNet is met from outside: no
    network needs an argument for what only this method adds.
    """

    def add(next_function, arguments, keywords, context):
        out = next_function(*arguments, **keywords)
        if isinstance(context.module, TimestepEmbedding) and context.method_name == "__call__":
            return out + offset.astype(out.dtype)
        return out

    def shifted(*arguments: Any) -> Array:
        with nn.intercept_methods(add):
            return network(*arguments)

    return shifted
