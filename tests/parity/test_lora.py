"""A merged LoRA computes what PyTorch computes with the two matrices beside the weight.

The names go through diffusers' own converter, the arithmetic through hooks on its modules; with
peft installed, through diffusers' loader and its fusing as well.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import diffusers  # noqa: E402
from diffusers.loaders import lora_conversion_utils as oracle  # noqa: E402
from safetensors.numpy import save_file  # noqa: E402

from geojax.models.unet import UNet  # noqa: E402
from geojax.weights.folder import save_component  # noqa: E402
from geojax.weights.lora import merge_lora  # noqa: E402
from tests.golden import cases  # noqa: E402
from tests.golden.make_golden import to_numpy, to_torch  # noqa: E402
from tests.weights.tiny_family import UNET, random_params  # noqa: E402

pytestmark = pytest.mark.parity
torch.set_num_threads(1)

RANK, ALPHA, SCALE = 4, 2.0, 0.8


def lora_tensors(model, adapted):
    """kohya's tensors for the modules of `model` that `adapted` chooses by name and module."""
    rng = np.random.default_rng(0)
    tensors = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d) and adapted(name, module):
            outputs, *inputs = module.weight.shape
            size = np.sqrt(np.prod(inputs))
            down = rng.standard_normal((RANK, *inputs)).astype(np.float32) / np.float32(size)
            up = rng.standard_normal((outputs, RANK, *(1 for _ in inputs[1:]))).astype(np.float32)
            place = "lora_unet_" + name.replace(".", "_")
            tensors[f"{place}.lora_down.weight"] = down
            tensors[f"{place}.lora_up.weight"] = up
            tensors[f"{place}.alpha"] = np.array(ALPHA, np.float32)
    return tensors


def add_beside(model, tensors):
    """y = W x + s (alpha / r) B (A x), by hooks."""
    modules = {"lora_unet_" + name.replace(".", "_"): m for name, m in model.named_modules()}
    places = [key.removesuffix(".alpha") for key in tensors if key.endswith(".alpha")]
    for place in places:
        module = modules[place]
        down, up = (
            torch.from_numpy(tensors[f"{place}.lora_{end}.weight"]) for end in ("down", "up")
        )

        def hook(module, inputs, output, down=down, up=up):
            if isinstance(module, torch.nn.Linear):
                low = torch.nn.functional.linear(inputs[0], down)
                return output + SCALE * ALPHA / RANK * torch.nn.functional.linear(low, up)
            low = torch.nn.functional.conv2d(
                inputs[0], down, stride=module.stride, padding=module.padding
            )
            return output + SCALE * ALPHA / RANK * torch.nn.functional.conv2d(low, up)

        module.register_forward_hook(hook)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("lora") / "unet"
    save_component(path, random_params(UNet(UNET)), UNET.to_dict())
    return path


@pytest.fixture
def model(folder):
    return diffusers.UNet2DConditionModel.from_pretrained(folder).eval()


def outputs(model):
    sample, t, y = cases.unet_inputs({"in_channels": 4, "cross_attention_dim": 16})
    with torch.no_grad():
        return to_numpy(model(to_torch(sample), torch.from_numpy(t), torch.from_numpy(y)).sample)


def merged(file):
    params = merge_lora({"unet": random_params(UNet(UNET))}, file, SCALE)
    sample, t, y = map(
        jnp.asarray, cases.unet_inputs({"in_channels": 4, "cross_attention_dim": 16})
    )
    return jax.jit(UNet(UNET).apply)({"params": params["unet"]}, sample, t, y)


def test_every_layer_adapted_computes_as_with_the_matrices_beside(model, tmp_path):
    plain = outputs(model)
    tensors = lora_tensors(model, lambda name, module: True)
    save_file(tensors, tmp_path / "lora.safetensors")
    add_beside(model, tensors)
    expected = outputs(model)
    assert cases.relative_error(plain, expected) > 0.1
    error = cases.relative_error(merged(tmp_path / "lora.safetensors"), expected)
    print(f"\nlora on every layer: {error:.1e}")
    assert error < 1e-4


def test_diffusers_converter_reads_the_same_names(model, tmp_path):
    """kohya's file, and the one that diffusers makes of it, change the weights alike."""
    tensors = lora_tensors(model, lambda name, module: ".attn" in name)
    save_file(tensors, tmp_path / "kohya.safetensors")
    state = {k: torch.from_numpy(v) for k, v in tensors.items()}
    converted, alphas = oracle._convert_non_diffusers_lora_to_diffusers(state)
    assert set(alphas.values()) == {ALPHA}
    again = {key: value.numpy() for key, value in converted.items()}
    save_file(again, tmp_path / "diffusers.safetensors")  # alpha is not in it: r instead
    params = {"unet": random_params(UNet(UNET))}
    a = merge_lora(params, tmp_path / "kohya.safetensors", SCALE)
    b = merge_lora(params, tmp_path / "diffusers.safetensors", SCALE * ALPHA / RANK)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), a, b)
    changed = jax.tree.map(lambda x, y: not np.array_equal(x, y), a, params)
    assert sum(jax.tree.leaves(changed)) == len(alphas)


def test_fused_by_diffusers_it_computes_the_same(model, tmp_path):
    pytest.importorskip("peft")
    tensors = lora_tensors(model, lambda name, module: ".attn" in name or ".ff." in name)
    save_file(tensors, tmp_path / "lora.safetensors")
    state = {k: torch.from_numpy(v) for k, v in tensors.items()}
    mixin = diffusers.loaders.StableDiffusionLoraLoaderMixin
    state, alphas = mixin.lora_state_dict(state)
    mixin.load_lora_into_unet(state, network_alphas=alphas, unet=model)
    model.fuse_lora(lora_scale=SCALE)
    error = cases.relative_error(merged(tmp_path / "lora.safetensors"), outputs(model))
    print(f"\nlora fused by diffusers: {error:.1e}")
    assert error < 1e-4
