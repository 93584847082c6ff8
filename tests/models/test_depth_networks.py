import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.models.bit import BitConfig, standardise
from geojax.models.depth_anything import DepthAnythingConfig
from geojax.models.dinov2 import Dinov2Config
from geojax.models.dpt import DPT, DPTConfig
from geojax.models.dpt_neck import Upscale
from geojax.weights.folder import abstract_params
from tests.golden import cases, depth_models

TINY = depth_models.DPT_TINY
HYBRID = depth_models.DPTS["hybrid"]
ANYTHING = depth_models.ANYTHING_TINY


@pytest.mark.parametrize(("kind", "name"), depth_models.SIZES)
def test_outputs_are_pytorchs(kind, name):
    module, size = depth_models.module(kind, name), depth_models.SIZES[kind, name]
    params = {"params": depth_models.parameters(module)}
    found = jax.jit(module.apply)(params, jnp.asarray(depth_models.pixels(*size)))
    assert found.dtype == jnp.float32
    assert cases.relative_error(found, depth_models.golden(kind, name)) < 1e-4


def test_a_fresh_network_is_alive_everywhere():
    """The closing relu is on, so the first step of training has a gradient in every weight used."""
    two_maps = {"backbone_out_indices": [0, 1], "neck_hidden_sizes": [8, 12]}
    two_maps |= {"reassemble_factors": [2, 0.5], "num_hidden_layers": 2}
    module = DPT(DPTConfig.from_dict({**TINY, **two_maps}))
    image = jnp.asarray(depth_models.pixels(32, 32)[:1])

    @jax.jit
    def run(key, image):
        params = module.init(key, image)["params"]

        def loss(params):
            disparity = module.apply({"params": params}, image)
            return jnp.mean(disparity), disparity

        return jax.grad(loss, has_aux=True)(params)

    slopes, disparity = run(jax.random.key(0), image)
    assert np.mean(disparity > 0) > 0.5
    dead = {
        "/".join(entry.key for entry in path)
        for path, slope in jax.tree_util.tree_leaves_with_path(slopes)
        if not np.any(slope)
    }
    unused = ("dpt/layernorm/", "neck/fusion_stage/layers_0/residual_layer1/")
    assert {name for name in dead if not name.startswith(unused)} == set()
    assert len(dead) == 2 + 4  # both exist in every file


def test_upscaling_is_a_transposed_convolution_unturned():
    """A single one in the map becomes the file's kernel [I, O, h, w] as it is."""
    kernel = np.arange(2 * 2 * 9, dtype=np.float32).reshape(2, 2, 3, 3)
    ours = kernel.transpose(2, 3, 1, 0)
    x = np.zeros((1, 2, 2, 2), np.float32)
    x[0, 0, 1, 1] = 1.0
    params = {"params": {"kernel": ours, "bias": np.zeros(2, np.float32)}}
    found = Upscale(3).apply(params, jnp.asarray(x))
    assert found.shape == (1, 6, 6, 2)
    np.testing.assert_array_equal(found[0, :3, 3:].transpose(2, 0, 1), kernel[1])
    assert float(jnp.sum(found)) == kernel[1].sum()


def test_standardised_kernels_have_no_mean_and_unit_variance(rng):
    kernel = standardise(jnp.asarray(3 + rng.standard_normal((3, 3, 4, 5)), jnp.float32))
    np.testing.assert_allclose(np.mean(kernel, axis=(0, 1, 2)), 0.0, atol=1e-6)
    np.testing.assert_allclose(np.var(kernel, axis=(0, 1, 2)), 1.0, atol=1e-5)


@pytest.mark.parametrize("name", depth_models.DPTS)
def test_a_config_survives_the_file(name):
    config = depth_models.dpt(name).config
    assert DPTConfig.from_dict(config.to_dict()) == config
    hash(config)


@pytest.mark.parametrize("name", depth_models.ANYTHINGS)
def test_a_config_of_depth_anything_survives_the_file(name):
    config = depth_models.depth_anything(name).config
    assert DepthAnythingConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_act": "silu"}, "hidden_act='silu'"),
        ({"readout_type": "mean"}, "readout_type='mean'"),
        ({"use_batch_norm_in_fusion_residual": True}, "use_batch_norm_in_fusion_residual=True"),
        ({"hidden_size": 25}, "hidden_size=25 is not a multiple of num_attention_heads=3"),
        ({"image_size": [32, 64]}, r"image_size=\[32, 64\] must be one integer"),
        ({"backbone_out_indices": [0, 1, 4, 5]}, r"must rise within 0\.\.4"),
        ({"neck_hidden_sizes": [8, 8]}, "one entry a map"),
        ({"backbone_config": {"model_type": "swinv2"}}, "'swinv2'"),
        ({"is_hybrid": True}, r"neck_hidden_sizes=\(8, 12\)"),
    ],
)
def test_configs_that_are_not_supported_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        DPTConfig.from_dict({**TINY, **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layer_type": "preactivation"}, "layer_type='preactivation'"),
        ({"global_padding": None}, "global_padding=None"),
        ({"model_type": "resnet"}, "'resnet'"),
        ({"out_features": ["stage3"]}, r"\['stage3'\]"),
        ({"hidden_sizes": [24, 64, 96]}, "multiples of 32"),
    ],
)
def test_hybrids_that_are_not_supported_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        BitConfig.from_dict({**HYBRID["backbone_config"], **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"depth_estimation_type": "absolute"}, "'absolute'"),
        ({"patch_size": 8}, "patch_size=8 differs from the backbone's 4"),
        ({"reassemble_hidden_size": 16}, "differs from the backbone's 24"),
        ({"backbone_config": None}, "no backbone_config"),
        ({"backbone_config": {**ANYTHING["backbone_config"], "use_swiglu_ffn": True}}, "swiglu"),
        ({"backbone_config": {**ANYTHING["backbone_config"], "out_indices": [0, 9]}}, "1..5"),
        ({"neck_hidden_sizes": [8, 8, 8]}, "one entry a map"),
    ],
)
def test_depth_anythings_that_are_not_supported_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        DepthAnythingConfig.from_dict({**ANYTHING, **fields})


def test_taps_by_name_are_those_by_number():
    backbone = {k: v for k, v in ANYTHING["backbone_config"].items() if k != "out_indices"}
    named = Dinov2Config.from_dict({**backbone, "out_features": ["stage1", "stage4"]})
    assert named == dataclasses.replace(
        Dinov2Config.from_dict(ANYTHING["backbone_config"]), out_indices=(1, 4)
    )


@pytest.mark.parametrize("kind", ["dpt", "anything"])
def test_images_that_do_not_divide_into_patches_are_refused(kind):
    module = depth_models.module(kind, "as released")
    with pytest.raises(ValueError, match=r"\(30, 32, 3\), this model takes multiples of"):
        jax.eval_shape(module.apply, {"params": abstract_params(module)}, jnp.zeros((1, 30, 32, 3)))


def test_the_embedded_form_keeps_the_images_size():
    fields = {**TINY, "image_size": 64, "reassemble_factors": [2, 1, 0.5, 0.25]}
    module = DPT(DPTConfig.from_dict(fields))
    image = jax.ShapeDtypeStruct((2, 64, 128, 3), jnp.float32)
    found = jax.eval_shape(module.apply, {"params": abstract_params(module)}, image)
    assert found.shape == (2, 64, 128)
