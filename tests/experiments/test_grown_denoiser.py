"""A denoiser that grows says at first what the small one said."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.training.inpainting import grown
from geojax.models.unet import UNet
from tests.weights.tiny_family import UNET, WIDTH


def attentive(count):
    """`count` of the blocks with attention, from the lowest up."""
    there = [i >= len(UNET.block_out_channels) - count for i in range(len(UNET.block_out_channels))]
    down = tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in there)
    up = tuple(name.replace("Down", "Up") for name in reversed(down))
    return dataclasses.replace(UNET, down_block_types=down, up_block_types=up)


@pytest.mark.parametrize("more", [0, 1])
def test_new_channels_and_new_attention_add_nothing(rng, more):
    levels = len(UNET.block_out_channels)
    small = UNet(attentive(levels - 1))
    large = UNet(dataclasses.replace(attentive(levels - 1 + more), in_channels=9))
    z, extra = (jnp.asarray(rng.standard_normal((2, 8, 8, n)), jnp.float32) for n in (4, 5))
    t, y = jnp.asarray([10, 700]), jnp.asarray(rng.standard_normal((2, 3, WIDTH)), jnp.float32)
    params = small.init(jax.random.key(0), z, t, y)["params"]
    both = jnp.concatenate([z, extra], axis=-1)
    fresh = large.init(jax.random.key(1), both, t, y)["params"]
    found = grown(fresh, params)
    assert jax.tree.structure(found) == jax.tree.structure(fresh)
    jax.tree.map(lambda a, b: np.testing.assert_equal(a.shape, b.shape), found, fresh)
    expected = small.apply({"params": params}, z, t, y)
    np.testing.assert_allclose(large.apply({"params": found}, both, t, y), expected, atol=1e-5)
    if more:  # it can learn: only its last layer is silent
        new = set(fresh["down_blocks_0"]) - set(params["down_blocks_0"])
        assert new == {"attentions_0"}
        attention = found["down_blocks_0"]["attentions_0"]
        assert not np.any(attention["proj_out"]["kernel"])
        assert np.any(attention["proj_in"]["kernel"])
