"""CLIP's scores: what is fed to it, unit embeddings, ranking, gradients, bad folders."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from geojax.models.clip_vision import CLIP, CLIPConfig, CLIPVisionConfig, unit
from geojax.priors.clip_score import load_clip, preprocess
from geojax.weights.model_folder import ClipInput, read_clip_input, save_model
from tests.weights.tiny_family import TEXT, random_params, write_tokenizer

SIZE = 16
CONFIG = CLIPConfig(
    text_config=TEXT,
    vision_config=CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=SIZE,
        patch_size=8,
    ),
    projection_dim=8,
)
PROMPTS = ["a red mug", "blue", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("clip")
    write_tokenizer(root / "tokenizer")
    params = random_params(CLIP(CONFIG))
    params["logit_scale"] = np.float32(2.0)
    save_model(
        root / "clip",
        params,
        CONFIG.to_dict(),
        tokenizer=root / "tokenizer",
        preprocessor=ClipInput(SIZE, SIZE).to_dict(),
    )
    return root / "clip"


@pytest.fixture(scope="module")
def clip(folder):
    return load_clip(folder)


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def change(file, **fields):
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


@pytest.mark.parametrize(("height", "width"), [(16, 16), (40, 61), (33, 20), (9, 12), (16, 30)])
@pytest.mark.parametrize("resample", [2, 3])
def test_the_input_is_transformers_up_to_its_rounding(height, width, resample, rng):
    # Smooth and saturated: overshoot matters, rounding to 8 bits is all that differs.
    noise = rng.uniform(-0.3, 1.3, size=(6, 6, 3))
    large = jax.image.resize(jnp.asarray(noise, jnp.float32), (height, width, 3), "linear")
    image = np.array(jnp.clip(large, 0.0, 1.0))
    image[: height // 2, : width // 2] = 1.0
    image = np.round(255.0 * image) / 255.0
    settings = ClipInput(14, SIZE, {2: "linear", 3: "cubic"}[resample])
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": SIZE}, crop_size={"height": 14, "width": 14}, resample=resample
    )
    pil = Image.fromarray(np.round(255.0 * image).astype(np.uint8))
    expected = processor(pil, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    found = preprocess(jnp.asarray(image, jnp.float32)[None], settings)[0]
    # Two roundings of half a step (one a direction), times the filter's gain, over sigma.
    assert np.max(np.abs(found - expected)) < 2.0 / 255.0 / 0.26


def test_a_flat_white_image_keeps_its_gradient():
    settings = ClipInput(SIZE, SIZE)
    white = jnp.ones((1, 40, 40, 3))
    total = jax.grad(
        lambda x: jnp.sum(preprocess(x, settings) * jnp.asarray(settings.std)[None, None, None])
    )
    slope = total(white)
    np.testing.assert_allclose(jnp.sum(slope), 3 * SIZE**2, rtol=1e-4)


def test_embeddings_are_the_towers_at_unit_length(clip, rng):
    image = jnp.asarray(rng.uniform(size=(2, SIZE, SIZE, 3)), jnp.float32)
    pixels = preprocess(image, ClipInput(SIZE, SIZE))
    module = CLIP(CONFIG)
    expected = jax.jit(lambda p, x: unit(module.apply({"params": p}, x, method="embed_image")))
    found = jax.jit(clip.embed_image)(clip.params, image)
    np.testing.assert_allclose(found, expected(clip.params, pixels), atol=1e-5)
    text = clip.embed_text(PROMPTS)
    assert found.shape == (2, 8)
    assert text.shape == (3, 8)
    np.testing.assert_allclose(
        np.linalg.norm(np.concatenate([found, text]), axis=-1), 1.0, atol=1e-5
    )


def test_a_text_is_read_to_its_end_and_no_further(clip):
    """The prompts have other lengths: the padding after the end must not count."""
    both, alone = clip.embed_text(PROMPTS), clip.embed_text(PROMPTS[1:2])
    np.testing.assert_allclose(both[1:2], alone, atol=1e-5)
    assert np.max(np.abs(both[0] - both[1])) > 1e-2
    assert np.max(np.abs(both[1] - both[2])) > 1e-2


def test_rank_and_probabilities_are_products_and_softmax(clip, rng):
    image = jnp.asarray(rng.uniform(size=(2, 40, 24, 3)), jnp.float32)
    found = clip.rank(image, PROMPTS)
    pictures = jax.jit(clip.embed_image)(clip.params, image)
    np.testing.assert_allclose(found, pictures @ clip.embed_text(PROMPTS).T, atol=1e-5)
    assert clip.logit_scale == pytest.approx(np.exp(2.0), rel=1e-5)
    expected = np.exp(clip.logit_scale * np.asarray(found))
    expected /= expected.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(clip.probabilities(image, PROMPTS), expected, atol=1e-5)


def test_gradient_is_the_slope_of_the_similarity(clip, rng):
    image = jnp.asarray(rng.uniform(0.2, 0.8, size=(1, 20, 20, 3)), jnp.float32)
    text = clip.embed_text(["a red mug"])
    score = jax.jit(lambda p, x: jnp.sum(clip.embed_image(p, x) @ text.T))
    slope = jax.jit(jax.grad(score, argnums=1))(clip.params, image)
    assert float(jnp.mean(slope != 0.0)) > 0.99
    step = slope / jnp.linalg.norm(slope)
    ahead, behind = (score(clip.params, image + jnp.float32(h) * step) for h in (0.02, -0.02))
    np.testing.assert_allclose((ahead - behind) / 0.04, jnp.linalg.norm(slope), rtol=0.02)


def test_parameters_are_arguments_and_not_constants(clip):
    image = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
    traced = jax.make_jaxpr(clip.embed_image)(clip.params, image)
    assert sum(np.size(c) for c in traced.consts) < 20


def test_half_precision_is_near(folder, clip, rng):
    half = load_clip(folder, dtype=jnp.bfloat16)
    image = jnp.asarray(rng.uniform(size=(2, SIZE, SIZE, 3)), jnp.float32)
    np.testing.assert_allclose(half.rank(image, PROMPTS), clip.rank(image, PROMPTS), atol=0.05)


def test_settings_are_the_files_or_clips_own(copy):
    assert read_clip_input(copy, SIZE) == ClipInput(SIZE, SIZE)
    file = copy / "preprocessor_config.json"
    change(file, size=20, crop_size=SIZE, image_mean=[0.5] * 3, image_std=[0.25] * 3, resample=2)
    expected = ClipInput(SIZE, 20, "linear", (0.5,) * 3, (0.25,) * 3)
    assert read_clip_input(copy, SIZE) == expected
    file.unlink()
    assert read_clip_input(copy, SIZE) == ClipInput(SIZE, SIZE)


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        ("preprocessor_config.json", {"do_center_crop": False}, r"leaves out \['do_center_crop'\]"),
        ("preprocessor_config.json", {"crop_size": 20}, "crop_size=20 of size=16"),
        ("preprocessor_config.json", {"size": {"height": 16, "width": 20}}, "must be one side"),
        ("preprocessor_config.json", {"resample": 0}, "resample=0"),
        ("config.json", {"architectures": ["CLIPTextModel"]}, "holds a CLIPTextModel, expected"),
        ("config.json", {"projection_dim": 9}, "does not fit CLIPModel"),
    ],
)
def test_folders_of_another_kind_are_refused(copy, file, fields, message):
    change(copy / file, **fields)
    with pytest.raises(ValueError, match=message):
        load_clip(copy)


def test_a_tokenizer_of_another_model_is_refused(copy):
    config = json.loads((copy / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 5
    change(copy / "config.json", text_config=config["text_config"])
    with pytest.raises(ValueError, match=r"ends a text with token 196.*eos_token_id is 5"):
        load_clip(copy)


def test_a_tokenizer_may_lie_elsewhere(copy, clip, tmp_path):
    for name in ("vocab.json", "merges.txt"):
        (copy / name).unlink()
    with pytest.raises(FileNotFoundError, match="no tokenizer in"):
        load_clip(copy)
    elsewhere = load_clip(copy, tokenizer=write_tokenizer(tmp_path / "elsewhere"))
    np.testing.assert_allclose(elsewhere.embed_text(PROMPTS), clip.embed_text(PROMPTS), atol=1e-6)


def test_prompts_that_say_nothing_are_refused(clip):
    with pytest.raises(ValueError, match="no prompts"):
        clip.embed_text([])


def test_without_a_network_an_unknown_hub_id_is_a_clear_message():
    with pytest.raises(FileNotFoundError, match=r"no folder nobody/nothing here.*local cache"):
        load_clip("nobody/nothing", local_files_only=True)
