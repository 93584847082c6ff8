"""A prior from one original file, with its tokenizer, its prediction and adaptations; bad input."""

import logging
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from geojax.priors.inpainting import load_depth_conditioned, load_inpainting
from geojax.priors.model_files import open_model
from geojax.priors.stable_diffusion import load_stable_diffusion
from geojax.weights.pipeline_folder import Component, save_pipeline
from tests.weights.ldm_file import modules, write_ldm_file
from tests.weights.tiny_family import write_family, write_tokenizer

PROMPTS = ["a red mug", "blue"]
ADAPTED = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
TEXT = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Files of 1.x and 2.x with a tokenizer beside them, whose padding is the one of 1.x."""
    folder = tmp_path_factory.mktemp("files")
    write_tokenizer(folder / "tokenizer")
    for name in ("sd1", "sd2", "sd1_inpaint", "sd2_depth"):
        write_ldm_file(folder / f"{name}.safetensors", name)
    return folder


@pytest.fixture(scope="module")
def prior(root):
    return load_stable_diffusion(root / "sd1.safetensors")


@pytest.fixture(scope="module")
def lora(tmp_path_factory):
    rng = np.random.default_rng(0)
    tensors = {}
    for name in (ADAPTED, TEXT):
        tensors[f"{name}.lora_down.weight"] = rng.standard_normal((2, 64)).astype(np.float32)
        tensors[f"{name}.lora_up.weight"] = rng.standard_normal((64, 2)).astype(np.float32)
    file = tmp_path_factory.mktemp("lora") / "lora.safetensors"
    save_file(tensors, file)
    return file


def as_folder(folder, name, params):
    """The same model in the folder layout."""
    parts = {part: Component(params[part], m.config.to_dict()) for part, m in modules(name).items()}
    tokenizer = write_tokenizer(folder.parent / "t", "!" if name == "sd2" else "<|endoftext|>")
    save_pipeline(folder, parts, tokenizer=tokenizer)
    return folder


def test_one_file_is_the_prior_that_its_folder_is(root, prior, tmp_path):
    params = write_ldm_file(tmp_path / "again.safetensors", "sd1")
    folder = load_stable_diffusion(as_folder(tmp_path / "folder", "sd1", params))
    jax.tree.map(np.testing.assert_array_equal, prior.params, folder.params)
    np.testing.assert_array_equal(prior.embed(PROMPTS), folder.embed(PROMPTS))
    np.testing.assert_array_equal(prior.schedule.alphas_cumprod, folder.schedule.alphas_cumprod)
    assert (prior.image_size, prior.latent_size) == (512, 128)  # three levels, not four


def test_padding_is_the_models_and_not_the_tokenizers(root, tmp_path):
    params = write_ldm_file(tmp_path / "again.safetensors", "sd2")
    folder = open_model(as_folder(tmp_path / "folder", "sd2", params))
    file = open_model(root / "sd2.safetensors", prediction_type="epsilon")
    for prompts in (PROMPTS, [""]):
        ids = [
            m.tokenizer(prompts, padding="max_length", max_length=12)["input_ids"]
            for m in (folder, file)
        ]
        assert ids[0] == ids[1]
        assert ids[0][0][-1] == 0


def test_what_a_file_of_2_predicts_must_be_said(root, caplog):
    with caplog.at_level(logging.WARNING, logger="absl"):
        base = open_model(root / "sd2.safetensors")
    assert "nothing in it says what it predicts" in caplog.text
    assert base.scheduler["prediction_type"] == "epsilon"
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="absl"):
        large = open_model(root / "sd2.safetensors", prediction_type="v_prediction")
        for name in ("sd1", "sd1_inpaint", "sd2_depth"):
            assert (
                open_model(root / f"{name}.safetensors").scheduler["prediction_type"] == "epsilon"
            )
    assert not caplog.text
    assert large.scheduler["prediction_type"] == "v_prediction"
    assert large.configs["vae"]["sample_size"] == 768
    with pytest.raises(ValueError, match="prediction_type='flow' is not one of"):
        load_stable_diffusion(root / "sd1.safetensors", prediction_type="flow")


def test_files_with_more_channels_are_the_conditioned_priors(root):
    inpainting = load_inpainting(root / "sd1_inpaint.safetensors")
    depth = load_depth_conditioned(root / "sd2_depth.safetensors", dtype=jnp.bfloat16)
    assert (inpainting.extra_channels, depth.extra_channels) == (5, 1)
    with pytest.raises(ValueError, match="9 channels: an inpainting model"):
        load_stable_diffusion(root / "sd1_inpaint.safetensors")


def test_adaptations_are_merged_into_the_denoiser_and_the_text_encoder(root, prior, lora):
    adapted = load_stable_diffusion(root / "sd1.safetensors", lora=[(lora, 0.5), (lora, -0.25)])
    changed = jax.tree.map(lambda a, b: not np.array_equal(a, b), adapted.params, prior.params)
    assert sum(jax.tree.leaves(changed)) == 1
    assert np.max(np.abs(adapted.embed(PROMPTS) - prior.embed(PROMPTS))) > 1e-3
    once = load_stable_diffusion(root / "sd1.safetensors", lora=[(lora, 0.25)])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), adapted.params, once.params
    )
    with pytest.raises(FileNotFoundError, match="no LoRA file"):
        load_stable_diffusion(root / "sd1.safetensors", lora=[("none.safetensors", 1.0)])


def test_a_tokenizer_is_asked_for_where_there_is_none(root, tmp_path):
    alone = shutil.copy(root / "sd1.safetensors", tmp_path / "model.safetensors")
    with pytest.raises(FileNotFoundError, match=r"holds no tokenizer.*Pass tokenizer=FOLDER"):
        open_model(alone)
    assert open_model(alone, tokenizer=root / "tokenizer").tokenizer.pad_token == "<|endoftext|>"
    write_tokenizer(tmp_path)  # in the file's own folder
    open_model(alone)


def test_a_folder_says_itself_what_it_predicts(tmp_path):
    write_family(tmp_path / "tiny", prediction="v_prediction")
    assert open_model(tmp_path / "tiny").scheduler["prediction_type"] == "v_prediction"
    with pytest.raises(ValueError, match="is for a single file"):
        open_model(tmp_path / "tiny", prediction_type="epsilon")


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("models/v1.safetensors", FileNotFoundError, "is not a file"),
        ("sd-v1-4.ckpt", ValueError, "pickles can run any code"),
    ],
)
def test_a_name_that_is_a_file_asks_no_network(name, kind, message):
    with pytest.raises(kind, match=message):
        open_model(name)
