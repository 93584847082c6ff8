"""CLIP of both towers against transformers', through folders either has written."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import transformers  # noqa: E402

from geojax.models.clip_vision import CLIP, CLIPConfig, logits  # noqa: E402
from geojax.priors.clip_score import load_clip  # noqa: E402
from geojax.weights.folder import load_component, load_config, named_leaves  # noqa: E402
from geojax.weights.key_tables import file_key, to_file  # noqa: E402
from geojax.weights.model_folder import ClipInput, save_model  # noqa: E402
from tests.golden import cases, clip_pair  # noqa: E402
from tests.weights.tiny_family import TEXT, random_params, write_tokenizer  # noqa: E402

pytestmark = pytest.mark.parity
torch.set_num_threads(1)

SINGLE = 1e-4
HALF = 2e-2


@pytest.mark.parametrize("name", clip_pair.CONFIGS)
def test_live_outputs_and_gradients_from_pytorchs_folder(name, tmp_path, record_property):
    oracle = clip_pair.torch_clip(name)
    oracle.save_pretrained(tmp_path)
    module = CLIP(CLIPConfig.from_dict(load_config(tmp_path, "CLIPModel")))
    params = load_component(tmp_path, module)

    @jax.jit
    def run(params, image):
        def loss(image):
            match = module.apply({"params": params}, jnp.asarray(cases.token_ids()), image)
            return jnp.sum(logits(match) ** 2), (match.text, match.image, logits(match))

        slope, found = jax.grad(loss, has_aux=True)(image)
        return (*found, slope)

    expected = clip_pair.torch_outputs(oracle)
    found = run(params, jnp.asarray(clip_pair.pixels()))
    for part, value in zip(("text", "image", "logits", "slope"), found, strict=True):
        error = cases.relative_error(value, expected[part])
        record_property(f"relative_error.clip {name}, {part}", error)
        print(f"\nclip {name}, {part}: {error:.1e}", end="")
        assert error < SINGLE, part


def test_half_precision(tmp_path):
    clip_pair.torch_clip("gelu").save_pretrained(tmp_path)
    module = CLIP(clip_pair.module("gelu").config, dtype=jnp.bfloat16)
    params = {"params": load_component(tmp_path, module, dtype=jnp.bfloat16)}
    match = jax.jit(module.apply)(
        params, jnp.asarray(cases.token_ids()), jnp.asarray(clip_pair.pixels())
    )
    golden = clip_pair.golden("gelu")
    for part in ("text", "image"):
        difference = np.linalg.norm(getattr(match, part) - golden[part], axis=-1)
        assert np.max(difference) < HALF, part


def test_pytorch_reads_what_geojax_writes_and_agrees_from_prompt_to_probability(tmp_path, rng):
    """The whole way: tokenizer, towers, end token, scale; only the resampling is not compared."""
    config = CLIPConfig(
        text_config=dataclasses.replace(TEXT, num_hidden_layers=1),
        vision_config=clip_pair.module("gelu").config.vision_config,
        projection_dim=12,
    )
    params = random_params(CLIP(config))
    params["logit_scale"] = np.float32(2.5)
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    settings = ClipInput(16, 16)
    save_model(
        tmp_path / "clip",
        params,
        config.to_dict(),
        tokenizer=tokenizer,
        preprocessor=settings.to_dict(),
    )
    oracle, report = transformers.CLIPModel.from_pretrained(
        tmp_path / "clip", output_loading_info=True
    )
    for name in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not report.get(name), (name, report[name])
    state = oracle.state_dict()
    leaves = named_leaves(params)
    assert set(state) == {file_key(path) for path in leaves}
    for path, value in leaves.items():
        difference = state[file_key(path)].numpy() - to_file(path, np.asarray(value))
        assert np.max(np.abs(difference)) == 0.0, path

    prompts = ["a red mug", "blue", "x"]
    images = (rng.integers(0, 256, size=(2, 16, 16, 3)) / 255.0).astype(np.float32)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "clip")
    pixels = processor(list((255 * images).round().astype(np.uint8)), return_tensors="pt")
    tokens = transformers.CLIPTokenizer.from_pretrained(tmp_path / "clip")(
        prompts, padding="max_length", max_length=TEXT.max_position_embeddings, return_tensors="pt"
    )
    with torch.no_grad():
        found = oracle(input_ids=tokens["input_ids"], pixel_values=pixels["pixel_values"])
        expected = found.logits_per_image.softmax(dim=-1).numpy()
    clip = load_clip(tmp_path / "clip")
    np.testing.assert_allclose(
        clip.probabilities(jnp.asarray(images), prompts), expected, atol=1e-5
    )
