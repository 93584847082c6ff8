"""LoRA files of every spelling change the weights they name by s (alpha / r) B A, and no other."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from geojax.models.clip import CLIPText
from geojax.models.unet import UNet
from geojax.weights.lora import merge_lora
from tests.weights.tiny_family import TEXT, UNET, random_params

RANK, ALPHA, SCALE = 3, 2.0, 0.7
BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
# Module in today's spelling -> path of its kernel.
ATTENTION = "unet", f"{BLOCK}.attn1.to_q"
OUT = "unet", f"{BLOCK}.attn2.to_out.0"
FEED = "unet", f"{BLOCK}.ff.net.0.proj"
POINT = "unet", "down_blocks.0.attentions.0.proj_in"  # 1x1
CONV = "unet", "mid_block.resnets.1.conv1"  # 3x3
TIME = "unet", "time_embedding.linear_1"
TEXT_Q = "text_encoder", "text_model.encoder.layers.1.self_attn.q_proj"
TEXT_OUT = "text_encoder", "text_model.encoder.layers.0.self_attn.out_proj"
TEXT_FEED = "text_encoder", "text_model.encoder.layers.0.mlp.fc2"
MODULES = (ATTENTION, OUT, FEED, POINT, CONV, TIME, TEXT_Q, TEXT_OUT, TEXT_FEED)
OLD = (ATTENTION, OUT, TEXT_Q, TEXT_OUT)


def kohya(component, name):
    prefix = {"unet": "lora_unet_", "text_encoder": "lora_te_"}[component]
    return prefix + name.replace(".", "_"), ".lora_down.weight", ".lora_up.weight"


def peft(component, name):
    return f"{component}.{name}", ".lora_A.weight", ".lora_B.weight"


def peft_5(component, name):
    """As transformers 5 names the text tower."""
    return peft(component, name.removeprefix("text_model."))


def diffusers(component, name):
    layer = ".lora_linear_layer" if component == "text_encoder" else ".lora"
    return f"{component}.{name}", f"{layer}.down.weight", f"{layer}.up.weight"


def processor(component, name):
    """Before peft: attention alone."""
    if component == "unet":
        name = name.removesuffix(".0").replace(".to_", ".processor.to_")
    else:
        name = name.replace("_proj", "").replace("self_attn.", "self_attn.to_")
    return f"{component}.{name}", "_lora.down.weight", "_lora.up.weight"


def oldest(component, name):
    key, *ends = processor(component, name)
    return key.removeprefix("unet."), *ends


SPELLINGS = {
    kohya: MODULES,
    peft: MODULES,
    peft_5: MODULES,
    diffusers: MODULES,
    processor: OLD,
    oldest: OLD,
}


def find(params, component, name):
    """A kernel by its module's name, and a function of the tree that replaces it."""
    names = name.replace(".", "_").split("_")
    tree, at = params[component], ""
    for part in names:
        at = f"{at}_{part}" if at else part
        if at in tree:
            tree, at = tree[at], ""
    assert not at, (name, at)
    return tree["kernel"]


def matrices(kernel, rng):
    """A and B in torch's layout, and B A in the kernel's, by explicit sums."""
    *sides, inputs, outputs = kernel.shape
    down = rng.standard_normal((RANK, inputs, *sides)).astype(np.float32)
    up = rng.standard_normal((outputs, RANK, *(1 for _ in sides))).astype(np.float32)
    product = np.zeros(kernel.shape, np.float64)
    for r in range(RANK):
        for o in range(outputs):
            product[..., o] += np.moveaxis(down[r].astype(np.float64), 0, -1) * float(
                up[o, r].item()
            )
    return down, up, product


@pytest.fixture(scope="module")
def params():
    return {
        "unet": random_params(UNet(UNET), 0),
        "text_encoder": random_params(CLIPText(TEXT), 1),
    }


def make(params, spelling, modules, alpha=True):
    """Tensors of a file, and the expected change by module."""
    rng = np.random.default_rng(0)
    tensors, changes = {}, {}
    for module in modules:
        down, up, changes[module] = matrices(find(params, *module), rng)
        name, down_end, up_end = spelling(*module)
        tensors |= {name + down_end: down, name + up_end: up}
        if alpha:
            tensors[f"{name}.alpha"] = np.array(ALPHA, np.float32)
    return tensors, changes


def check(found, params, changes, factor):
    for module, change in changes.items():
        kernel = find(params, *module)
        np.testing.assert_allclose(
            find(found, *module), kernel + factor * change, rtol=1e-5, atol=1e-5
        )
    same = jax.tree.map(np.array_equal, found, params)
    assert sum(not equal for equal in jax.tree.leaves(same)) == len(changes)


@pytest.mark.parametrize("spelling", SPELLINGS, ids=lambda f: f.__name__)
def test_every_spelling_changes_the_weights_it_names_and_no_other(spelling, params, tmp_path):
    tensors, changes = make(params, spelling, SPELLINGS[spelling])
    save_file(tensors, tmp_path / "lora.safetensors")
    found = merge_lora(params, tmp_path / "lora.safetensors", SCALE)
    assert jax.tree.structure(found) == jax.tree.structure(params)
    check(found, params, changes, SCALE * ALPHA / RANK)


def test_without_alpha_the_factor_is_the_scale(params, tmp_path):
    tensors, changes = make(params, kohya, MODULES, alpha=False)
    save_file(tensors, tmp_path / "pytorch_lora_weights.safetensors")
    check(merge_lora(params, tmp_path, SCALE), params, changes, SCALE)


def test_alpha_of_peft_is_in_the_metadata(params, tmp_path):
    tensors, changes = make(params, peft, (ATTENTION, CONV), alpha=False)
    fields = {"unet.lora_alpha": 12, "unet.r": RANK, "unet.alpha_pattern": {"conv1": 6}}

    def save(**more):
        metadata = {"format": "pt", "lora_adapter_metadata": json.dumps({**fields, **more})}
        save_file(tensors, tmp_path / "lora.safetensors", metadata=metadata)

    save()
    found = merge_lora(params, tmp_path / "lora.safetensors")
    for module, alpha in ((ATTENTION, 12), (CONV, 6)):
        change = find(found, *module) - find(params, *module)
        np.testing.assert_allclose(change, alpha / RANK * changes[module], rtol=1e-4, atol=1e-4)
    save(**{"unet.use_rslora": True})
    with pytest.raises(ValueError, match=r"unet\.use_rslora=True is unsupported"):
        merge_lora(params, tmp_path / "lora.safetensors")


def test_zero_changes_nothing_the_opposite_undoes_and_two_add_up(params, tmp_path):
    file = tmp_path / "lora.safetensors"
    tensors, changes = make(params, peft, (ATTENTION, TEXT_FEED))
    save_file(tensors, file)
    jax.tree.map(np.testing.assert_array_equal, merge_lora(params, file, 0.0), params)
    twice = merge_lora(merge_lora(params, file, 1.0), file, 0.5)
    check(twice, params, changes, 1.5 * ALPHA / RANK)
    undone = merge_lora(merge_lora(params, file, 1.0), file, -1.0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), undone, params)


def test_half_precision_stays_and_is_rounded_once(params, tmp_path):
    file = tmp_path / "lora.safetensors"
    tensors, changes = make(params, kohya, (ATTENTION,))
    save_file({k: v.astype(np.float16) for k, v in tensors.items()}, file)
    half = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), params)
    found = find(merge_lora(half, file, SCALE), *ATTENTION)
    assert found.dtype == jnp.bfloat16
    exact = find(params, *ATTENTION) + SCALE * ALPHA / RANK * changes[ATTENTION]
    assert np.max(np.abs(np.asarray(found, np.float32) - exact)) < 2 * 2**-8 * np.max(np.abs(exact))


def test_all_that_does_not_fit_is_named_at_once(params, tmp_path):
    tensors, _ = make(params, kohya, (ATTENTION, FEED))
    names = {module: kohya(*module)[0] for module in (ATTENTION, FEED)}
    del tensors[f"{names[ATTENTION]}.lora_up.weight"]
    tensors[f"{names[FEED]}.lora_up.weight"] = np.zeros((5, RANK), np.float32)
    tensors["lora_unet_no_such_module.lora_down.weight"] = np.zeros((3, 4), np.float32)
    tensors[f"{names[FEED]}.hada_w1_a"] = np.zeros((3, 4), np.float32)
    tensors[f"{names[FEED]}.dora_scale"] = np.zeros((1, 4), np.float32)
    save_file(tensors, tmp_path / "lora.safetensors")
    with pytest.raises(ValueError, match="does not fit") as error:
        merge_lora(params, tmp_path / "lora.safetensors")
    for line in (
        f"{names[ATTENTION]}: found no up matrix",
        "unused (3)",
        "lora_unet_no_such_module.lora_down.weight",
        "hada_w1_a",
        "dora_scale",
        f"{names[FEED]}: found (5, 3) times",
    ):
        assert line in str(error.value), line
    # A file for the text encoder too, where only the denoiser is there.
    tensors, _ = make(params, peft, (TEXT_Q,))
    save_file(tensors, tmp_path / "text.safetensors")
    with pytest.raises(ValueError, match=r"unused \(3\)"):
        merge_lora({"unet": params["unet"]}, tmp_path / "text.safetensors")


def test_bad_files_and_scales_are_refused(params, tmp_path):
    with pytest.raises(FileNotFoundError, match="no LoRA file"):
        merge_lora(params, tmp_path / "none.safetensors")
    with pytest.raises(FileNotFoundError, match=r"pytorch_lora_weights\.safetensors"):
        merge_lora(params, tmp_path)
    with pytest.raises(ValueError, match="pickles can run any code"):
        merge_lora(params, tmp_path / "lora.pt")
    tensors, _ = make(params, peft, (TEXT_Q,))
    save_file(tensors, tmp_path / "lora.safetensors")
    with pytest.raises(ValueError, match="scale=nan"):
        merge_lora(params, tmp_path / "lora.safetensors", float("nan"))
