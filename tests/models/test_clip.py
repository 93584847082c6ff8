"""The text tower: released sizes, PyTorch's outputs with both activations, causality."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.models.clip import CLIPText, CLIPTextConfig
from geojax.weights.folder import abstract_params
from tests.golden import cases
from tests.golden.networks import golden, network, parameter_count, parameters


@functools.cache
def ready(name):
    module = network(cases.CASES[name])
    return module, parameters(module), jax.jit(module.apply)


@pytest.mark.parametrize(
    ("width", "heads", "layers", "count"),
    [(768, 12, 12, 123_060_480), (1024, 16, 23, 340_387_840)],
)
def test_released_models_have_as_many_parameters(width, heads, layers, count):
    config = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_attention_heads=heads,
        num_hidden_layers=layers,
    )
    assert parameter_count(abstract_params(CLIPText(config))) == count


@pytest.mark.parametrize("name", ["clip_quick_gelu", "clip_gelu"])
def test_output_is_pytorchs(name):
    _, params, apply = ready(name)
    found = apply(params, jnp.asarray(cases.token_ids()))
    assert cases.relative_error(found, golden(name)["state"]) < 1e-4


def test_the_two_activations_differ_by_more_than_the_tolerance():
    a, b = golden("clip_quick_gelu")["state"], golden("clip_gelu")["state"]
    assert cases.relative_error(a, b) > 1e-3


def test_a_token_changes_nothing_before_it():
    _, params, apply = ready("clip_quick_gelu")
    ids = cases.token_ids()
    changed = ids.copy()
    changed[:, 5] = 20
    before, after = (np.asarray(apply(params, jnp.asarray(i))) for i in (ids, changed))
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert np.all(np.max(np.abs(before[:, 5:] - after[:, 5:]), axis=-1) > 1e-4)


def test_more_tokens_than_positions_are_refused():
    module, params, _ = ready("clip_quick_gelu")
    with pytest.raises(ValueError, match="10 tokens exceed the 9 positions"):
        module.apply(params, jnp.zeros((1, 10), jnp.int32))


def test_config_ignores_bookkeeping_and_refuses_other_activations():
    config = CLIPTextConfig.from_dict(
        {**cases.CLIP, "torch_dtype": "float32", "dropout": 0.0, "projection_dim": None}
    )
    assert config.hidden_size == 16
    assert CLIPTextConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="hidden_act='relu'"):
        CLIPTextConfig.from_dict({**cases.CLIP, "hidden_act": "relu"})
    with pytest.raises(ValueError, match="num_attention_heads=3"):
        CLIPTextConfig.from_dict({**cases.CLIP, "num_attention_heads": 3})
