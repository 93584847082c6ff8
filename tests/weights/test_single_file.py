"""One-file checkpoints: known names, sizes read off shapes, every tensor placed, or all named."""

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from geojax.models.clip import CLIPText, CLIPTextConfig
from geojax.models.unet import UNet, UNetConfig
from geojax.models.vae import VAE, VAEConfig
from geojax.weights import ldm_keys, single_file
from geojax.weights.folder import abstract_params, named_leaves
from geojax.weights.key_tables import file_key, file_shape
from geojax.weights.safetensors_io import Entry
from geojax.weights.single_file import load_single_file, single_file_configs
from tests.weights.ldm_file import IMAGE_SIZE, UNETS, modules, write_ldm_file

FULL = {"layers_per_block": 2, "up_block_types": UNetConfig().up_block_types}
CLASSES = {"unet": UNetConfig, "vae": VAEConfig, "text_encoder": CLIPTextConfig}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Case -> file and parameters."""
    folder = tmp_path_factory.mktemp("ldm")
    names = {name: folder / f"{name}.safetensors" for name in UNETS}
    return {name: (file, write_ldm_file(file, name)) for name, file in names.items()}


@pytest.fixture(scope="module")
def trees():
    return {
        name: {part: abstract_params(module) for part, module in modules(name).items()}
        for name in ("sd1", "sd2")
    }


@pytest.mark.parametrize(
    ("key", "original"),
    [
        ("conv_in.weight", "input_blocks.0.0.weight"),
        ("time_embedding.linear_2.bias", "time_embed.2.bias"),
        ("down_blocks.0.resnets.0.conv1.weight", "input_blocks.1.0.in_layers.2.weight"),
        ("down_blocks.0.downsamplers.0.conv.bias", "input_blocks.3.0.op.bias"),
        ("down_blocks.1.resnets.0.conv_shortcut.weight", "input_blocks.4.0.skip_connection.weight"),
        (
            "down_blocks.1.attentions.1.transformer_blocks.0.attn2.to_out.0.bias",
            "input_blocks.5.1.transformer_blocks.0.attn2.to_out.0.bias",
        ),
        ("down_blocks.3.resnets.1.time_emb_proj.bias", "input_blocks.11.0.emb_layers.1.bias"),
        ("mid_block.resnets.1.norm2.weight", "middle_block.2.out_layers.0.weight"),
        ("mid_block.attentions.0.proj_in.weight", "middle_block.1.proj_in.weight"),
        ("up_blocks.0.upsamplers.0.conv.weight", "output_blocks.2.1.conv.weight"),
        ("up_blocks.1.upsamplers.0.conv.weight", "output_blocks.5.2.conv.weight"),
        ("up_blocks.3.resnets.2.conv2.weight", "output_blocks.11.0.out_layers.3.weight"),
        ("up_blocks.3.attentions.2.norm.bias", "output_blocks.11.1.norm.bias"),
        ("conv_norm_out.weight", "out.0.weight"),
        ("conv_out.bias", "out.2.bias"),
    ],
)
def test_names_of_the_released_unet(key, original):
    assert ldm_keys.unet_source(key, FULL) == (f"model.diffusion_model.{original}", None)


@pytest.mark.parametrize(
    ("key", "original"),
    [
        (
            "encoder.down_blocks.2.downsamplers.0.conv.weight",
            "encoder.down.2.downsample.conv.weight",
        ),
        (
            "encoder.down_blocks.1.resnets.0.conv_shortcut.bias",
            "encoder.down.1.block.0.nin_shortcut.bias",
        ),
        ("decoder.up_blocks.0.upsamplers.0.conv.bias", "decoder.up.3.upsample.conv.bias"),
        ("decoder.up_blocks.3.resnets.2.norm1.weight", "decoder.up.0.block.2.norm1.weight"),
        ("encoder.mid_block.resnets.1.conv2.bias", "encoder.mid.block_2.conv2.bias"),
        ("decoder.mid_block.attentions.0.to_out.0.weight", "decoder.mid.attn_1.proj_out.weight"),
        ("decoder.mid_block.attentions.0.group_norm.bias", "decoder.mid.attn_1.norm.bias"),
        ("decoder.mid_block.attentions.0.to_q.bias", "decoder.mid.attn_1.q.bias"),
        ("encoder.conv_norm_out.weight", "encoder.norm_out.weight"),
        ("decoder.conv_in.weight", "decoder.conv_in.weight"),
        ("quant_conv.weight", "quant_conv.weight"),
    ],
)
def test_names_of_the_released_autoencoder(key, original):
    config = {"block_out_channels": (128, 256, 512, 512)}
    assert ldm_keys.vae_source(key, config) == (f"first_stage_model.{original}", None)


@pytest.mark.parametrize(
    ("key", "original", "third"),
    [
        ("embeddings.token_embedding.weight", "token_embedding.weight", None),
        ("embeddings.position_embedding.weight", "positional_embedding", None),
        ("final_layer_norm.bias", "ln_final.bias", None),
        ("encoder.layers.3.layer_norm1.weight", "transformer.resblocks.3.ln_1.weight", None),
        ("encoder.layers.3.mlp.fc2.bias", "transformer.resblocks.3.mlp.c_proj.bias", None),
        (
            "encoder.layers.22.self_attn.k_proj.weight",
            "transformer.resblocks.22.attn.in_proj_weight",
            1,
        ),
        ("encoder.layers.0.self_attn.v_proj.bias", "transformer.resblocks.0.attn.in_proj_bias", 2),
        (
            "encoder.layers.0.self_attn.out_proj.bias",
            "transformer.resblocks.0.attn.out_proj.bias",
            None,
        ),
    ],
)
def test_names_of_openclip(key, original, third):
    found = ldm_keys.open_clip_source(f"text_model.{key}", {})
    assert found == (f"cond_stage_model.model.{original}", third)
    plain = ldm_keys.clip_text_source(f"text_model.{key}", {})
    assert plain == (f"cond_stage_model.transformer.text_model.{key}", None)


def test_every_parameter_of_the_full_unet_has_a_name_of_its_own():
    paths = named_leaves(abstract_params(UNet(UNetConfig(cross_attention_dim=768))))
    found = {ldm_keys.unet_source(file_key(path), FULL) for path in paths}
    assert len(found) == 686


@pytest.mark.parametrize("name", UNETS)
def test_sizes_are_read_off_the_shapes(files, name):
    configs = single_file_configs(files[name][0], IMAGE_SIZE)
    for part, module in modules(name).items():
        assert CLASSES[part].from_dict(configs[part]) == module.config, part


@pytest.mark.parametrize("name", ["sd1", "sd2"])
def test_every_tensor_finds_its_place(files, trees, name):
    file, params = files[name]
    found = load_single_file(file, trees[name])
    assert jax.tree.structure(found) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, found, params)


def test_networks_serve_as_well_and_types_are_by_component(files):
    found = load_single_file(files["sd1"][0], modules("sd1"), {"unet": np.float16})
    assert {x.dtype.name for x in jax.tree.leaves(found["unet"])} == {"float16"}
    assert {x.dtype.name for x in jax.tree.leaves(found["vae"])} == {"float32"}
    with pytest.raises(ValueError, match=r"expected must have .*it has \('unet',\)"):
        load_single_file(files["sd1"][0], {"unet": None})


def test_a_tower_of_23_layers_has_been_cut_before(files, tmp_path):
    """Converters of diffusers write no 24th layer, and then none is to be left out."""
    tensors = load_file(files["sd2"][0])
    place = ldm_keys.OPEN_CLIP + "transformer.resblocks."
    first = {
        k.removeprefix(place + "0."): v for k, v in tensors.items() if k.startswith(place + "0.")
    }
    for layers, kept in ((23, 23), (24, 23), (5, 4)):
        whole = {k: v for k, v in tensors.items() if not k.startswith(place)}
        whole |= {f"{place}{i}.{k}": v for i in range(layers) for k, v in first.items()}
        save_file(whole, tmp_path / "m.safetensors")
        config = single_file_configs(tmp_path / "m.safetensors")["text_encoder"]
        assert config["num_hidden_layers"] == kept


def test_all_that_does_not_fit_is_named_at_once(files, trees, tmp_path):
    tensors = load_file(files["sd2"][0])
    lost = "model.diffusion_model.middle_block.1.proj_out.bias"
    fused = "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight"
    norm = "first_stage_model.encoder.norm_out.weight"
    del tensors[lost]
    tensors[fused] = tensors[fused][:64].copy()
    tensors[norm] = np.ones(3, np.float32)
    tensors["first_stage_model.extra"] = np.ones(2, np.float32)
    tensors["control_model.input"] = np.ones(2, np.float32)
    save_file(tensors, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="does not fit Stable Diffusion") as error:
        load_single_file(tmp_path / "m.safetensors", trees["sd2"])
    for line in (
        f"missing (1):\n  {lost}: found nothing, expected (64,)",
        "unused (2):\n  control_model.input: found (2,)",
        "mis-shaped (2):",
        f"{fused}: found (64, 64), expected (192, 64)",
        f"{norm}: found (3,), expected (64,)",
    ):
        assert line in str(error.value), line


def test_files_of_another_kind_are_refused(tmp_path):
    file = tmp_path / "m.safetensors"
    with pytest.raises(FileNotFoundError, match="is not a file"):
        single_file_configs(file)
    save_file({"conditioner.embedders.0.x": np.ones(1)}, file)
    with pytest.raises(ValueError, match="Stable Diffusion XL, which is unsupported"):
        single_file_configs(file)
    names = ("conv_in.weight", "down_blocks.0.resnets.0.conv1.weight")
    save_file({name: np.ones(1) for name in names}, file)
    with pytest.raises(ValueError, match="the UNet alone, in diffusers' names"):
        single_file_configs(file)
    save_file({"lora_unet_x.alpha": np.ones(1)}, file)
    with pytest.raises(ValueError, match=r"has no first_stage_model.*it has lora_unet_x\.alpha"):
        single_file_configs(file)
    file.write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match="truncated or damaged"):
        single_file_configs(file)
    with pytest.raises(ValueError, match="pickles can run any code"):
        single_file_configs(tmp_path / "v1-5-pruned.ckpt")


def test_released_sizes_come_out_of_the_released_shapes(tmp_path, monkeypatch):
    """SD 2.1's file, by its names and shapes alone."""
    full = {
        "unet": UNet(
            UNetConfig(
                sample_size=96,
                cross_attention_dim=1024,
                attention_head_dim=(5, 10, 20, 20),
                use_linear_projection=True,
            )
        ),
        "vae": VAE(
            VAEConfig(
                block_out_channels=(128, 256, 512, 512),
                layers_per_block=2,
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                sample_size=768,
            )
        ),
        "text_encoder": CLIPText(
            CLIPTextConfig(
                hidden_size=1024,
                intermediate_size=4096,
                num_hidden_layers=23,
                num_attention_heads=16,
                hidden_act="gelu",
                pad_token_id=0,
            )
        ),
    }
    entries = {}
    functions = (ldm_keys.unet_source, ldm_keys.vae_source, ldm_keys.open_clip_source)
    for source, module in zip(functions, full.values(), strict=True):
        config = module.config.to_dict()
        for path, leaf in named_leaves(abstract_params(module)).items():
            key, third = source(file_key(path), config)
            rows, *rest = file_shape(path, leaf.shape)
            shape = (rows if third is None else 3 * rows, *rest)
            entries[key] = Entry(tmp_path, shape, "F16")
    file = tmp_path / "v2-1.safetensors"
    file.touch()
    monkeypatch.setattr(single_file, "read_entries", lambda _: entries)
    configs = single_file_configs(file, 768)
    for part, module in full.items():
        assert CLASSES[part].from_dict(configs[part]) == module.config, part
