"""The networks against diffusers' and transformers', from folders that PyTorch wrote.

Every weight goes through the folder on disk, so that a wrong name or layout shows here too.
"""

import functools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

from geojax.models.attention import QUERY_CHUNK  # noqa: E402
from geojax.weights.folder import load_component  # noqa: E402
from tests.golden import cases  # noqa: E402
from tests.golden.make_golden import to_numpy, to_torch, torch_network  # noqa: E402
from tests.golden.networks import network  # noqa: E402

pytestmark = pytest.mark.parity

SINGLE = 1e-4
HALF = 2e-2
DEEP = {"layers_per_block": 2, "norm_num_groups": 8, "block_out_channels": [16, 32, 32, 64]}
UNETS = {
    "sd1": {**cases.UNET_1, **DEEP, "in_channels": 4},
    "sd1_inpaint": {**cases.UNET_1, "in_channels": 9},
    "sd2": {**cases.UNET_2, **DEEP, "attention_head_dim": [2, 4, 4, 8], "in_channels": 4},
    "sd2_depth": {**cases.UNET_2, "in_channels": 5},
    "sd2_inpaint": {**cases.UNET_2, "in_channels": 9},
    "embedded": {**cases.UNET_SMALL, "in_channels": 4},
}
VAES = {
    "released": {
        **cases.VAE,
        "block_out_channels": [8, 16, 16, 32],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
    },
    "embedded": {**cases.VAE, "layers_per_block": 1},
    "bare": {
        **cases.VAE,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "mid_block_add_attention": False,
    },
}


def pair(case, folder, **settings):
    """The PyTorch network, and the Linen module with its parameters by way of `folder`."""
    oracle = torch_network(case)
    oracle.save_pretrained(folder, safe_serialization=True)
    module = network(case, **settings)
    return oracle, module, {"params": load_component(folder, module)}


def check(name, found, expected, limit, record):
    error = cases.relative_error(found, expected)
    record(f"relative_error.{name}", error)
    print(f"\n{name}: {error:.1e}", end="")
    assert error < limit, name


@pytest.fixture
def compare(record_property):
    return functools.partial(check, record=record_property)


def unet_gradient(oracle, module, params, config, size=(16, 8)):
    """Output, and gradient of <output, cotangent> in the sample, from both."""
    sample, t, y = cases.unet_inputs(config, *size)
    cotangent = cases.noise("cotangent", *sample.shape[:3], 4)
    x = to_torch(sample).requires_grad_()
    expected = oracle(x, torch.from_numpy(t), torch.from_numpy(y)).sample
    (slope,) = torch.autograd.grad(expected, x, to_torch(cotangent))

    @jax.jit
    def both(params, sample):
        out, back = jax.vjp(
            lambda x: module.apply(params, x, jnp.asarray(t), jnp.asarray(y)), sample
        )
        return out, back(jnp.asarray(cotangent))[0]

    return both(params, jnp.asarray(sample)), (to_numpy(expected), to_numpy(slope))


@pytest.mark.parametrize("name", UNETS)
def test_unet(name, tmp_path, compare):
    case = cases.Case("UNet2DConditionModel", UNETS[name])
    found, expected = unet_gradient(*pair(case, tmp_path), case.config)
    compare(f"unet {name}", found[0], expected[0], SINGLE)
    compare(f"unet {name}, gradient", found[1], expected[1], SINGLE)


def test_unet_with_chunked_attention_and_odd_sides(tmp_path, compare):
    config = {**UNETS["embedded"], "down_block_types": ["CrossAttnDownBlock2D"] * 2}
    config["up_block_types"] = ["CrossAttnUpBlock2D"] * 2
    size = (33, 31)
    assert size[0] * size[1] > 512 > QUERY_CHUNK
    case = cases.Case("UNet2DConditionModel", config)
    found, expected = unet_gradient(*pair(case, tmp_path), config, size)
    compare("unet 33x31", found[0], expected[0], SINGLE)
    compare("unet 33x31, gradient", found[1], expected[1], SINGLE)


def check_half(name, found, run, record):
    """bfloat16 against PyTorch's single precision, and against how far its own bfloat16 is off.

    In root mean square: the largest of a thousand roundings says little about the network.
    """
    with torch.no_grad():
        expected = to_numpy(run())
        with torch.autocast("cpu", torch.bfloat16):
            half = to_numpy(run().float())

    def error(a):
        return float(np.sqrt(np.mean((np.asarray(a) - expected) ** 2) / np.mean(expected**2)))

    ours, theirs = error(found), error(half)
    largest = [cases.relative_error(a, expected) for a in (found, half)]
    record(f"relative_error.{name}", ours)
    print(f"\n{name}: {ours:.1e}, PyTorch's {theirs:.1e}; at most", *(f"{v:.1e}" for v in largest))
    assert ours < HALF
    assert ours < 1.5 * theirs


@pytest.mark.parametrize("name", ["sd2", "embedded"])
def test_unet_in_half_precision(name, tmp_path, record_property):
    case = cases.Case("UNet2DConditionModel", UNETS[name])
    oracle, module, params = pair(case, tmp_path, dtype=jnp.bfloat16)
    sample, t, y = cases.unet_inputs(case.config)
    inputs = to_torch(sample), torch.from_numpy(t), torch.from_numpy(y)
    found = jax.jit(module.apply)(params, *map(jnp.asarray, (sample, t, y)))
    check_half(f"unet {name}, bfloat16", found, lambda: oracle(*inputs).sample, record_property)


@pytest.mark.parametrize("name", VAES)
def test_autoencoder(name, tmp_path, compare):
    case = cases.Case("AutoencoderKL", VAES[name])
    oracle, module, params = pair(case, tmp_path)
    factor = 2 ** (len(case.config["block_out_channels"]) - 1)
    image = cases.noise("image", 2, 4 * factor, 6 * factor, 3)
    latent = cases.noise("latent", 2, 4, 6, 4)

    x = to_torch(image).requires_grad_()
    posterior = oracle.encode(x).latent_dist
    (slope,) = torch.autograd.grad(posterior.mean, x, to_torch(latent))
    z = to_torch(latent).requires_grad_()
    decoded = oracle.decode(z).sample
    (decoder_slope,) = torch.autograd.grad(decoded, z, to_torch(image))

    @jax.jit
    def encode(params, image):
        encoder = functools.partial(module.apply, params, method="encode")
        (mean, logvar), back = jax.vjp(encoder, image)
        return mean, logvar, back((jnp.asarray(latent), jnp.zeros_like(logvar)))[0]

    @jax.jit
    def decode(params, latent):
        out, back = jax.vjp(functools.partial(module.apply, params, method="decode"), latent)
        return out, back(jnp.asarray(image))[0]

    mean, logvar, gradient = encode(params, jnp.asarray(image))
    compare(f"vae {name}, mean", mean, to_numpy(posterior.mean), SINGLE)
    compare(f"vae {name}, log variance", logvar, to_numpy(posterior.logvar), SINGLE)
    compare(f"vae {name}, encoder's gradient", gradient, to_numpy(slope), SINGLE)
    out, gradient = decode(params, jnp.asarray(latent))
    compare(f"vae {name}, image", out, to_numpy(decoded), SINGLE)
    compare(f"vae {name}, decoder's gradient", gradient, to_numpy(decoder_slope), SINGLE)


def test_autoencoder_in_half_precision(tmp_path, record_property):
    case = cases.Case("AutoencoderKL", VAES["released"])
    oracle, module, params = pair(case, tmp_path, dtype=jnp.bfloat16)
    latent = cases.noise("latent", 2, 4, 6, 4)
    found = jax.jit(functools.partial(module.apply, method="decode"))(params, jnp.asarray(latent))
    run = functools.partial(oracle.decode, to_torch(latent))
    check_half("vae released, image, bfloat16", found, lambda: run().sample, record_property)


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_text_tower(act, dtype, tmp_path, compare):
    config = {**cases.CLIP, "hidden_act": act, "num_attention_heads": 4, "hidden_size": 32}
    case = cases.Case("CLIPTextModel", config)
    oracle, module, params = pair(case, tmp_path, dtype=dtype)
    ids = cases.token_ids()
    with torch.no_grad():
        expected = oracle(torch.from_numpy(ids).long()).last_hidden_state.numpy()
    found = np.asarray(jax.jit(module.apply)(params, jnp.asarray(ids)))
    limit = SINGLE if dtype == jnp.float32 else HALF
    compare(f"clip {act}, {dtype.__name__}", found, expected, limit)
