import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.models import lora
from geojax.models.unet import UNet
from tests.weights.tiny_family import UNET, random_params

INPUTS = (
    jax.random.normal(jax.random.key(0), (2, 8, 8, UNET.in_channels)),
    jnp.array([10, 900]),
    jax.random.normal(jax.random.key(1), (2, 3, UNET.cross_attention_dim)),
)
CAMERAS = jax.random.normal(jax.random.key(2), (2, 4, 4))


@functools.cache
def ready():
    unet = UNet(UNET)
    params = jax.tree.map(jnp.asarray, random_params(unet))

    @jax.jit
    def apply(params, adapted, camera):
        offset = lora.embed_camera(camera, CAMERAS)
        network = lora.with_time_offset(lambda p, *x: unet.apply({"params": p}, *x), offset)
        return network(lora.apply_lora(params, adapted), *INPUTS)

    adapted = lora.init_lora(jax.random.key(3), params, 2)
    camera = lora.init_camera(jax.random.key(4), lora.time_width(params))
    return unet, params, apply, adapted, camera


def test_it_starts_as_the_network_itself():
    unet, params, apply, adapted, camera = ready()
    plain = jax.jit(lambda p: unet.apply({"params": p}, *INPUTS))(params)
    np.testing.assert_allclose(apply(params, adapted, camera), plain, atol=1e-6)


def test_every_attention_projection_is_adapted_and_nothing_else():
    _, params, _, adapted, _ = ready()
    paths = {
        tuple(k.key for k in path[:-1]) for path, _ in jax.tree_util.tree_leaves_with_path(adapted)
    }
    kernels = {
        tuple(k.key for k in path[:-1])
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
        if path[-1].key == "kernel" and "attn" in str(path) and "to_" in str(path)
    }
    assert paths == kernels and len(paths) % 8 == 0  # q, k, v, out of two attentions a block
    grown = jax.tree.map(jnp.ones_like, adapted)
    merged = lora.apply_lora(params, grown, 0.5)
    for path, before in jax.tree_util.tree_leaves_with_path(params):
        after = functools.reduce(lambda tree, k: tree[k.key], path, merged)
        names = tuple(k.key for k in path)
        # W' = W + scale A B: with ones of rank 2, each entry grows by 2 scale.
        change = 1.0 if names[:-1] in paths and names[-1] == "kernel" else 0.0
        np.testing.assert_allclose(after - before, np.full(before.shape, change), atol=1e-6)


def test_adaptation_and_camera_change_the_answer():
    _, params, apply, adapted, camera = ready()
    plain = apply(params, adapted, camera)
    grown = jax.tree.map(lambda x: x + 0.1, adapted)
    assert float(jnp.abs(apply(params, grown, camera) - plain).max()) > 1e-3
    turned = jax.tree.map(lambda x: x + 0.1, camera)
    seen = apply(params, adapted, turned)
    assert float(jnp.abs(seen - plain).max(axis=(1, 2, 3)).min()) > 1e-3


def test_the_offset_is_added_to_the_time_of_its_item():
    """An offset of one item alone leaves the other as it was."""
    unet, params, *_ = ready()
    offset = jnp.zeros((2, lora.time_width(params))).at[0].set(1.0)
    network = jax.jit(lora.with_time_offset(lambda *x: unet.apply({"params": params}, *x), offset))
    plain = jax.jit(lambda *x: unet.apply({"params": params}, *x))(*INPUTS)
    change = np.abs(np.asarray(network(*INPUTS) - plain)).max(axis=(1, 2, 3))
    assert change[0] > 1e-3 and change[1] < 1e-6


def test_what_cannot_be_adapted_is_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        lora.init_lora(jax.random.key(0), ready()[1], 0)
    with pytest.raises(ValueError, match="no attention projections"):
        lora.init_lora(jax.random.key(0), {"conv_in": {"kernel": jnp.ones((3, 3, 4, 8))}}, 2)
