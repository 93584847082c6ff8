"""The UNet: released sizes, PyTorch's outputs, what a condition and a further channel do."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.models.unet import UNet, UNetConfig
from geojax.weights.folder import abstract_params
from tests.golden import cases
from tests.golden.networks import golden, network, parameter_count, parameters

SD1 = {"cross_attention_dim": 768}
SD2 = {
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
}

ONE_LEVEL = {
    **cases.UNET_SMALL,
    "block_out_channels": [8],
    "down_block_types": ["CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D"],
    "layers_per_block": 1,
    "in_channels": 9,
}


@functools.cache
def ready(name):
    module = network(cases.CASES[name])
    return module, parameters(module), jax.jit(module.apply)


@pytest.mark.parametrize(
    ("fields", "counts"),
    [
        (SD1, {4: 859_520_964, 9: 859_535_364}),
        (SD2, {4: 865_910_724, 9: 865_925_124, 5: 865_913_604}),
    ],
)
def test_released_models_have_as_many_parameters(fields, counts):
    tree = abstract_params(UNet(UNetConfig(**fields)))
    rest = parameter_count(tree) - parameter_count(tree["conv_in"])
    for channels, count in counts.items():
        # The first convolution of a network of one level: tracing a whole one takes seconds.
        shallow = {**ONE_LEVEL, "block_out_channels": [320], "in_channels": channels}
        conv_in = abstract_params(UNet(UNetConfig.from_dict(shallow)))["conv_in"]
        assert rest + parameter_count(conv_in) == count


@pytest.mark.parametrize("name", ["unet_1", "unet_2", "unet_small"])
def test_output_is_pytorchs(name):
    _, params, apply = ready(name)
    found = apply(params, *map(jnp.asarray, cases.unet_inputs(cases.CASES[name].config)))
    assert cases.relative_error(found, golden(name)["sample"]) < 1e-4


def test_each_row_of_a_batch_has_its_own_time_and_condition():
    _, params, apply = ready("unet_small")
    sample, t, y = map(jnp.asarray, cases.unet_inputs(cases.CASES["unet_small"].config))
    both = apply(params, sample, t, y)
    swapped = apply(params, sample[::-1], t[::-1], y[::-1])
    np.testing.assert_allclose(both, swapped[::-1], atol=1e-5)
    assert float(jnp.max(jnp.abs(apply(params, sample, t, y[::-1]) - both))) > 1e-3
    assert float(jnp.max(jnp.abs(apply(params, sample, t[::-1], y) - both))) > 1e-3


def test_further_input_channels_with_zero_weights_change_nothing():
    sample, t, y = map(jnp.asarray, cases.unet_inputs(ONE_LEVEL))
    wide, narrow = (
        UNet(UNetConfig.from_dict({**ONE_LEVEL, "in_channels": channels})) for channels in (9, 4)
    )
    params = parameters(wide)["params"]
    kernel = params["conv_in"]["kernel"]

    def with_kernel(value):
        return {"params": {**params, "conv_in": {**params["conv_in"], "kernel": value}}}

    found = jax.jit(wide.apply)(with_kernel(kernel.at[:, :, 4:].set(0.0)), sample, t, y)
    expected = jax.jit(narrow.apply)(with_kernel(kernel[:, :, :4]), sample[..., :4], t, y)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_every_parameter_has_a_finite_gradient():
    module = UNet(UNetConfig.from_dict(ONE_LEVEL))
    inputs = tuple(map(jnp.asarray, cases.unet_inputs(ONE_LEVEL)))
    gradient = jax.jit(jax.grad(lambda p: jnp.mean(module.apply(p, *inputs) ** 2)))
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient(parameters(module))):
        assert bool(jnp.all(jnp.isfinite(leaf))), path
        assert float(jnp.max(jnp.abs(leaf))) > 0.0, path


def test_config_goes_through_its_file_and_back():
    config = UNetConfig.from_dict({"_class_name": "UNet2DConditionModel", **cases.UNET_2})
    assert config.attention_head_dim == (1, 2, 4, 3)
    assert UNetConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("class_embed_type", "timestep"),
        ("addition_embed_type", "text_time"),
        ("dual_cross_attention", True),
        ("only_cross_attention", True),
        ("num_class_embeds", 1000),
        ("act_fn", "mish"),
        ("resnet_time_scale_shift", "scale_shift"),
        ("mid_block_type", None),
        ("down_block_types", ["DownBlock2D", "AttnDownBlock2D"]),
        ("up_block_types", ["UpBlock2D"]),
        ("attention_head_dim", [1, 2, 3]),
        ("cross_attention_dim", [12, 12]),
        ("norm_num_groups", None),
        ("wavelets", 3),
    ],
)
def test_a_value_that_is_not_implemented_is_named(field, value):
    with pytest.raises(ValueError, match=field):
        UNetConfig.from_dict({**cases.UNET_SMALL, field: value})


def test_inputs_of_another_width_are_named():
    module, params, _ = ready("unet_small")
    sample, t, y = map(jnp.asarray, cases.unet_inputs(cases.CASES["unet_small"].config))
    with pytest.raises(ValueError, match="must have 9 channels"):
        module.apply(params, sample[..., :4], t, y)
    with pytest.raises(ValueError, match="must be 12 wide"):
        module.apply(params, sample, t, y[..., :7])
