import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from geojax.models.clip import CLIPText
from geojax.models.unet import UNet
from geojax.models.vae import VAE
from geojax.weights.digests import write_digests
from geojax.weights.folder import abstract_params, load_component, load_config, save_component
from tests.weights.tiny_family import TEXT, UNET, VAE_CONFIG, random_params

MODULES = {"unet": UNet(UNET), "vae": VAE(VAE_CONFIG), "text_encoder": CLIPText(TEXT)}
FILES = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}
CLASSES = {
    "unet": "UNet2DConditionModel",
    "vae": "AutoencoderKL",
    "text_encoder": "CLIPTextModel",
}


@pytest.fixture(scope="module")
def shapes():
    """Traced once: most tests load with the tree and the class, not with the module."""
    return {name: abstract_params(module) for name, module in MODULES.items()}


@pytest.fixture(scope="module")
def params():
    return {name: random_params(module) for name, module in MODULES.items()}


@pytest.fixture
def save(params, tmp_path):
    def write(name, **options):
        save_component(tmp_path / name, params[name], MODULES[name].config.to_dict(), **options)
        return tmp_path / name

    return write


@pytest.fixture
def load(shapes):
    def read(folder, name, **options):
        return load_component(folder, shapes[name], class_name=CLASSES[name], **options)

    return read


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def edit(folder, name, change):
    """Change the tensors of a component's file in place, on purpose."""
    tensors = load_file(folder / FILES[name])
    change(tensors)
    save_file(tensors, folder / FILES[name], metadata={"format": "pt"})
    (folder / "digests.json").unlink()


@pytest.mark.parametrize("name", MODULES)
def test_what_is_saved_loads_bit_for_bit(name, save, params):
    folder = save(name)
    assert_same(params[name], load_component(folder, MODULES[name]))
    assert load_config(folder)  # readable JSON
    assert type(MODULES[name].config).from_dict(load_config(folder)) == MODULES[name].config


def test_the_file_holds_torchs_layout_in_c_order(save, params):
    """safetensors writes the raw buffer: a transposed view would come out scrambled."""
    tensors = load_file(save("unet") / FILES["unet"])
    kernel = params["unet"]["conv_in"]["kernel"]
    np.testing.assert_array_equal(tensors["conv_in.weight"], kernel.transpose(3, 2, 0, 1))
    dense = params["unet"]["time_embedding"]["linear_1"]["kernel"]
    np.testing.assert_array_equal(tensors["time_embedding.linear_1.weight"], dense.T)


def test_a_scalar_stays_a_scalar(tmp_path):
    tree = {"logit_scale": np.float32(2.5)}
    save_component(tmp_path / "clip", tree, {"_class_name": "Scale"})
    shape = {"logit_scale": jax.ShapeDtypeStruct((), jnp.float32)}
    assert load_component(tmp_path / "clip", shape)["logit_scale"] == 2.5


@pytest.mark.parametrize("disk", [ml_dtypes.bfloat16, np.float16, np.float32])
@pytest.mark.parametrize("memory", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_types_on_disk_and_in_memory_are_independent(disk, memory, tmp_path, params):
    tree = {"fc1": {"kernel": params["unet"]["time_embedding"]["linear_1"]["kernel"]}}
    save_component(tmp_path / "c", tree, {}, "Dense", disk)
    loaded = load_component(tmp_path / "c", jax.eval_shape(lambda: tree), dtype=memory)
    expected = tree["fc1"]["kernel"].astype(disk).astype(memory)
    assert loaded["fc1"]["kernel"].dtype == memory
    np.testing.assert_array_equal(loaded["fc1"]["kernel"], expected)


def test_a_number_that_overflows_half_precision_is_named(tmp_path):
    tree = {"fc1": {"kernel": np.full((2, 2), -1e5, np.float32)}}
    with pytest.raises(ValueError, match=r"fc1\.weight: 100000 overflows float16"):
        save_component(tmp_path / "c", tree, {}, "Dense", np.float16)
    assert not (tmp_path / "c").exists()
    save_component(tmp_path / "c", tree, {}, "Dense")
    with pytest.raises(ValueError, match=r"fc1\.weight: 100000 overflows float16"):
        load_component(tmp_path / "c", jax.eval_shape(lambda: tree), dtype=jnp.float16)


def test_shards_are_read_through_their_index(save, load, params):
    folder = save("unet", max_shard_bytes=50_000)
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 3
    assert all(f.stat().st_size < 60_000 for f in shards)
    assert_same(params["unet"], load(folder, "unet"))


def test_faults_of_an_index_are_named(save, load):
    folder = save("unet", max_shard_bytes=50_000)
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    good = index.read_text()
    content = json.loads(good)
    content["weight_map"].pop("conv_in.bias")
    index.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"only in the shard \['conv_in\.bias'\]"):
        load(folder, "unet")
    content["weight_map"]["conv_in.bias"] = "../../secret.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="outside its folder"):
        load(folder, "unet")
    index.write_text("{}")
    with pytest.raises(ValueError, match="no weight_map"):
        load(folder, "unet")
    index.write_text(good)
    min(folder.glob("*-00002-of-*")).unlink()
    with pytest.raises(FileNotFoundError, match="-00002-of-"):
        load(folder, "unet")


def test_half_precision_variants(save, load, params):
    folder = save("vae", dtype=np.float16)
    plain = folder / FILES["vae"]
    plain.rename(folder / "diffusion_pytorch_model.fp16.safetensors")
    rounded = jax.tree.map(lambda x: x.astype(np.float16).astype(np.float32), params["vae"])
    assert_same(rounded, load(folder, "vae"))  # the only one there
    shapes_file = load_file(folder / "diffusion_pytorch_model.fp16.safetensors")
    save_file({k: np.zeros_like(v) for k, v in shapes_file.items()}, plain)
    write_digests(folder)
    assert_same(jax.tree.map(np.zeros_like, rounded), load(folder, "vae"))
    assert_same(rounded, load(folder, "vae", variant="fp16"))
    with pytest.raises(FileNotFoundError, match=r"bf16\.safetensors"):
        load(folder, "vae", variant="bf16")


def test_names_and_shapes_of_the_oldest_autoencoders(save, load, params):
    folder = save("vae")

    def age(tensors):
        for new, old in (("q", "query"), ("k", "key"), ("v", "value"), ("out.0", "proj_attn")):
            for side in ("encoder", "decoder"):
                for leaf in ("weight", "bias"):
                    at = f"{side}.mid_block.attentions.0."
                    value = tensors.pop(f"{at}to_{new}.{leaf}")
                    value = value[:, :, None, None] if leaf == "weight" else value
                    tensors[f"{at}{old}.{leaf}"] = value

    edit(folder, "vae", age)
    assert_same(params["vae"], load(folder, "vae"))


def test_a_key_in_both_spellings_is_an_error(save, load):
    folder = save("vae")
    old, new = (f"encoder.mid_block.attentions.0.{x}.bias" for x in ("query", "to_q"))
    edit(folder, "vae", lambda t: t.update({old: t[new]}))
    with pytest.raises(ValueError, match="second spelling"):
        load(folder, "vae")


@pytest.mark.parametrize("prefix", ["", "text_model."])
def test_text_keys_with_and_without_prefix_and_the_buffer(prefix, save, load, params):
    folder = save("text_encoder")

    def age(tensors):
        for key in list(tensors):
            assert key.startswith("text_model.")
            tensors[prefix + key.removeprefix("text_model.")] = tensors.pop(key)
        tensors[prefix + "embeddings.position_ids"] = np.arange(12)[None]

    edit(folder, "text_encoder", age)
    assert_same(params["text_encoder"], load(folder, "text_encoder"))


def test_every_key_that_does_not_fit_is_named_at_once(save, load):
    folder = save("unet")

    def spoil(tensors):
        del tensors["conv_in.bias"], tensors["conv_out.weight"]
        tensors["lora.up.weight"] = np.zeros((2, 3), np.float32)
        tensors["conv_norm_out.weight"] = np.zeros((5,), np.float32)
        tensors["conv_norm_out.bias"] = np.zeros((8,), np.int32)

    edit(folder, "unet", spoil)
    with pytest.raises(ValueError, match="does not fit UNet2DConditionModel") as error:
        load(folder, "unet")
    lines = str(error.value).splitlines()
    assert "  conv_in.bias: found nothing, expected (8,)" in lines
    assert "  conv_out.weight: found nothing, expected (4, 8, 3, 3)" in lines
    assert "  lora.up.weight: found (2, 3), expected no such key" in lines
    assert "  conv_norm_out.weight: found (5,), expected (8,)" in lines
    assert any("conv_norm_out.bias: found type I32" in line for line in lines)
    assert [line for line in lines if line.endswith(":")] == [
        "missing (2):",
        "unused (1):",
        "mis-shaped (2):",
    ]


def test_a_network_the_loader_does_not_know_is_refused(save):
    class Unknown:
        init = None

    with pytest.raises(ValueError, match=r"no example inputs for Unknown.*eval_shape"):
        load_component(save("vae"), Unknown())


def test_two_parameters_of_one_key_are_refused(tmp_path):
    tree = {"norm": {"scale": np.ones(2), "kernel": np.ones((2, 2))}}
    with pytest.raises(ValueError, match=r"norm/.* and norm/.* share the key norm\.weight"):
        save_component(tmp_path / "c", tree, {}, "Norm")


def test_a_single_file_needs_no_config(save, load, params):
    assert_same(params["vae"], load(save("vae") / FILES["vae"], "vae"))
