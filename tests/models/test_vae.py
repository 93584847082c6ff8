"""The autoencoder: released size, PyTorch's outputs, its resolution and range."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.models.vae import VAE, VAEConfig
from geojax.weights.folder import abstract_params
from tests.golden import cases
from tests.golden.networks import golden, network, parameter_count, parameters


@functools.cache
def ready():
    module = network(cases.CASES["vae"])
    encode = jax.jit(functools.partial(module.apply, method="encode"))
    decode = jax.jit(functools.partial(module.apply, method="decode"))
    return module, parameters(module), encode, decode


def test_released_model_has_as_many_parameters():
    config = VAEConfig(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
    )
    assert parameter_count(abstract_params(VAE(config))) == 83_653_863


def test_encoding_is_pytorchs():
    _, params, encode, _ = ready()
    mean, logvar = encode(params, jnp.asarray(cases.noise("image", 1, 16, 24, 3)))
    expected = golden("vae")
    assert cases.relative_error(mean, expected["mean"]) < 1e-4
    assert cases.relative_error(logvar, expected["logvar"]) < 1e-4


def test_decoding_is_pytorchs():
    _, params, _, decode = ready()
    image = decode(params, jnp.asarray(cases.noise("latent", 1, 4, 6, 4)))
    assert cases.relative_error(image, golden("vae")["image"]) < 1e-4


def test_log_variance_is_clipped():
    _, params, encode, _ = ready()
    bias = params["params"]["quant_conv"]["bias"]
    for offset, limit in ((1e3, 20.0), (-1e3, -30.0)):
        quant = {**params["params"]["quant_conv"], "bias": bias.at[4:].set(offset)}
        changed = {"params": {**params["params"], "quant_conv": quant}}
        _, logvar = encode(changed, jnp.asarray(cases.noise("image", 1, 16, 24, 3)))
        np.testing.assert_array_equal(logvar, jnp.full_like(logvar, limit))


@pytest.mark.parametrize("field", ["use_quant_conv", "use_post_quant_conv"])
def test_without_the_closing_convolutions_their_parameters_are_absent(field):
    without = abstract_params(VAE(VAEConfig.from_dict({**cases.VAE, field: False})))
    name = field.removeprefix("use_")
    assert set(abstract_params(ready()[0])) - set(without) == {name}


def test_a_side_that_does_not_divide_is_named():
    module, params, _, _ = ready()
    with pytest.raises(ValueError, match="divisible by 4"):
        module.apply(params, jnp.zeros((1, 16, 18, 3)), method="encode")


def test_config_goes_through_its_file_and_back():
    config = VAEConfig.from_dict({**cases.VAE, "_class_name": "AutoencoderKL"})
    assert VAEConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("shift_factor", 0.1),
        ("act_fn", "relu"),
        ("down_block_types", ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"]),
        ("codebook", 12),
    ],
)
def test_a_value_that_is_not_implemented_is_named(field, value):
    with pytest.raises(ValueError, match=field):
        VAEConfig.from_dict({**cases.VAE, field: value})
