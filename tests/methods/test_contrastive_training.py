"""Equations of geojax.methods.contrastive_training, by hand and by a short training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from geojax.methods.contrastive_training import contrastive_loss, contrastive_step
from geojax.methods.train_state import init_state
from geojax.models.clip import CLIPTextConfig
from geojax.models.clip_vision import CLIP, CLIPConfig, CLIPVisionConfig, Match

IDS = jnp.asarray([[0, 1], [0, 2], [0, 3]])


def match(image, text, scale=1.0):
    return Match(jnp.asarray(text), jnp.asarray(image), jnp.asarray(scale))


def test_loss_of_hand_written_embeddings():
    image = np.eye(3, dtype=np.float32)
    text = np.asarray([[0, 1, 0], [1, 0, 0], [0, 0, 1]], np.float32)
    loss, metrics = contrastive_loss(match(image, text, 2.0), IDS)
    # Rows and columns of logits: two with the 2 in the wrong place, one with it in the right one.
    total = np.log(np.exp(2.0) + 2.0)
    np.testing.assert_allclose(float(loss), (2 * total + (total - 2.0)) / 3, rtol=1e-6)
    assert float(metrics["right"]) == pytest.approx(1 / 3)


def test_equal_texts_share_the_target():
    image = np.asarray([[1, 0], [1, 0], [0, 1]], np.float32)
    ids = jnp.asarray([[5, 6], [5, 6], [7, 8]])
    loss, metrics = contrastive_loss(match(image, image, 50.0), ids)
    # Each twin is found with probability 1/2: the entropy of the target is what is left.
    np.testing.assert_allclose(float(loss), 2 / 3 * np.log(2.0), rtol=1e-5)
    assert float(metrics["right"]) == 1.0


def test_temperature_has_a_limit():
    image = np.asarray([[1, 0], [0.8, 0.6], [0, 1]], np.float32)
    losses = [float(contrastive_loss(match(image, image, s), IDS)[0]) for s in (100.0, 1e6)]
    assert losses[0] == losses[1]


def test_a_pair_learns_which_text_belongs_to_which_image():
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    text = CLIPTextConfig(
        vocab_size=10, num_hidden_layers=1, max_position_embeddings=3, eos_token_id=9, **tower
    )
    vision = CLIPVisionConfig(num_hidden_layers=1, image_size=8, patch_size=4, **tower)
    clip = CLIP(CLIPConfig(text, vision, projection_dim=8))
    image = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
    ids = jnp.asarray([[8, k, 9] for k in range(4)])
    params = clip.init(jax.random.key(1), ids, image)["params"]
    optimiser = optax.adam(3e-3)
    step = contrastive_step(clip, optimiser, decay=0.9)
    state, losses = init_state(jax.random.key(2), params, optimiser), []
    for _ in range(40):
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an int
            state, metrics = step(state, image, ids)
        losses.append(float(metrics["loss"]))
    assert losses[0] > 1.0 and losses[-1] < 0.1 and float(metrics["right"]) == 1.0
