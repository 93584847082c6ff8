"""Both towers of CLIP: released sizes, PyTorch's outputs and gradients, where a text ends."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.models.clip_vision import CLIP, CLIPConfig, CLIPVisionConfig, end_position, logits
from geojax.weights.folder import abstract_params, named_leaves
from geojax.weights.key_tables import current_key, file_key
from tests.golden import cases, clip_pair
from tests.golden.networks import parameter_count

LARGE_14 = {
    "projection_dim": 768,
    "text_config_dict": None,
    "text_config": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "eos_token_id": 2,
    },
    "vision_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "patch_size": 14,
    },
}
HUGE_14 = {
    "projection_dim": 1024,
    "text_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "hidden_act": "gelu",
    },
    "vision_config": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "patch_size": 14,
        "hidden_act": "gelu",
    },
}


@functools.cache
def outputs(name):
    """Unit embeddings, logits and the gradient in the image, compiled once."""
    module = clip_pair.module(name)

    @jax.jit
    def run(params, image):
        def loss(image):
            match = module.apply({"params": params}, jnp.asarray(cases.token_ids()), image)
            found = logits(match)
            return jnp.sum(found**2), (match, found)

        slope, (match, found) = jax.grad(loss, has_aux=True)(image)
        return {"text": match.text, "image": match.image, "logits": found, "slope": slope}

    return run(clip_pair.parameters(module), jnp.asarray(clip_pair.pixels()))


@pytest.mark.parametrize(("config", "count"), [(LARGE_14, 427_616_513), (HUGE_14, 986_109_441)])
def test_released_models_have_as_many_parameters(config, count):
    assert parameter_count(abstract_params(CLIP(CLIPConfig.from_dict(config)))) == count


@pytest.mark.parametrize("part", ["text", "image", "logits", "slope"])
@pytest.mark.parametrize("name", clip_pair.CONFIGS)
def test_outputs_and_gradient_are_pytorchs(name, part):
    assert cases.relative_error(outputs(name)[part], clip_pair.golden(name)[part]) < 1e-4


def test_the_cases_differ_by_more_than_the_tolerance():
    a, b = clip_pair.golden("quick_gelu"), clip_pair.golden("gelu")
    for part in ("text", "image"):
        assert cases.relative_error(a[part], b[part]) > 1e-3


def test_a_text_ends_at_its_first_end_token():
    ids = jnp.asarray([[38, 1, 39, 39, 39], [38, 1, 2, 3, 39]])
    np.testing.assert_array_equal(end_position(ids, 39), [2, 4])
    # Older files say 2, which may be a word; the largest id is meant.
    np.testing.assert_array_equal(end_position(ids, 2), [2, 4])
    padded = jnp.asarray([[38, 2, 39, 0, 0]])
    np.testing.assert_array_equal(end_position(padded, 2), [2])


def test_names_are_those_of_the_released_files():
    keys = {file_key(path) for path in named_leaves(abstract_params(clip_pair.module("gelu")))}
    for key in (
        "logit_scale",
        "text_projection.weight",
        "visual_projection.weight",
        "vision_model.embeddings.class_embedding",
        "vision_model.embeddings.patch_embedding.weight",
        "vision_model.embeddings.position_embedding.weight",
        "vision_model.pre_layrnorm.weight",
        "vision_model.post_layernorm.bias",
        "vision_model.encoder.layers.1.self_attn.out_proj.bias",
        "text_model.final_layer_norm.bias",
    ):
        assert key in keys, key
    assert not any("patch_embedding.bias" in key or "projection.bias" in key for key in keys)
    assert current_key("CLIPModel", "vision_model.embeddings.position_ids") is None
    assert current_key("CLIPModel", "text_model.embeddings.position_ids") is None


def test_config_reads_old_files_as_transformers_does():
    config = CLIPConfig.from_dict(clip_pair.CONFIGS["gelu"])
    assert CLIPConfig.from_dict(config.to_dict()) == config
    assert config.vision_config.patch_size == 4
    # text_config_dict and the defaults beside it win: the end token is right again.
    old = CLIPConfig.from_dict({**LARGE_14, "text_config_dict": {"hidden_size": 768}})
    assert CLIPConfig.from_dict(LARGE_14).text_config.eos_token_id == 2
    assert (old.text_config.eos_token_id, old.text_config.num_attention_heads) == (49407, 8)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_act": "relu"}, "hidden_act='relu'"),
        ({"num_attention_heads": 5}, "hidden_size=24 is not a multiple of num_attention_heads=5"),
        ({"patch_size": 5}, "image_size=16 is not a multiple of patch_size=5"),
        ({"image_size": [16, 24]}, r"image_size=\[16, 24\] must be one integer"),
    ],
)
def test_configs_that_cannot_be_built_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        CLIPVisionConfig.from_dict({**clip_pair.VISION, **fields})


def test_images_and_texts_of_another_size_are_refused():
    module = clip_pair.module("gelu")
    params = {"params": abstract_params(module)}
    image = jax.ShapeDtypeStruct((1, 16, 24, 3), jnp.float32)
    with pytest.raises(ValueError, match=r"\(16, 24, 3\), this tower takes \(16, 16, 3\)"):
        jax.eval_shape(functools.partial(module.apply, method="embed_image"), params, image)
    ids = jax.ShapeDtypeStruct((1, 10), jnp.int32)
    with pytest.raises(ValueError, match="10 tokens exceed the 9 positions"):
        jax.eval_shape(functools.partial(module.apply, method="embed_text"), params, ids)
