"""Scorers of images: their equations by hand, their captions, and the committed models."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.geometry.camera_sampling import orbit
from geojax.models.discriminator import Discriminator, DiscriminatorConfig
from geojax.models.judge import Judge, JudgeConfig
from geojax.priors import image_scorer
from geojax.worlds import captions, solids
from geojax.worlds.render import colourise, render_layers
from tests.weights.tiny_family import random_params

FAMILY = Path(__file__).parents[2] / "geojax" / "assets" / "worlds-64"
SIZE = 64


@pytest.fixture(scope="module")
def picture():
    """A red chair from the front and from the back, exact: [2, S, S, 3]."""
    views = orbit(2, math.radians(30.0), 1.45, 1.26, SIZE, SIZE)
    light = views.camera.camera_to_world[:, :3, 3]
    layers = render_layers("chair", views.camera, light, jnp.full(2, 0.5))
    red = jnp.broadcast_to(jnp.asarray(solids.COLOURS["red"]), (2, 3))
    return colourise(layers, red, jnp.full((2, 3), 0.8))


def noise_of(picture):
    return jax.random.uniform(jax.random.key(1), picture.shape)


def slope(scorer, image, condition):
    """The gradient of the sum of scores in the image."""
    total = jax.jit(jax.grad(lambda x, p: jnp.sum(scorer.score(p, x, condition))))
    return total(image, scorer.params)


def test_a_code_says_what_a_caption_holds():
    phrases = ("mug", "red", "blue", "front view", "front right view", "from above")
    code = image_scorer.caption_code("A photo of a Red mug, front right view, from above", phrases)
    assert code.tolist() == [1.0, 1.0, 0.0, 0.0, 1.0, 1.0]
    # Words of a view are no phrase by themselves, and a phrase of a view is none before the comma.
    assert (
        image_scorer.caption_code("a front view of a redder mug", phrases).tolist() == [1] + [0] * 5
    )
    embed = image_scorer.code_captions(phrases)
    coded = np.asarray(embed(["a red mug", ""]))
    assert coded.shape == (2, 1, 6) and coded[0, 0].sum() == 2.0 and not coded[1].any()
    for caption in ("a squirrel", "a mug", "a red blue mug", "a red mug chair"):
        with pytest.raises(ValueError, match=f"'{caption}' does not name one kind and one colour"):
            embed([caption])


def test_a_classifiers_score_is_the_probability_of_the_captions_pair():
    kind = jnp.log(jnp.asarray([[0.7, 0.2, 0.1]])) + 3.0
    colour = jnp.log(jnp.asarray([[0.25, 0.75]])) - 1.0
    code = jnp.asarray([[[0.0, 1.0, 0.0, 0.0, 1.0]]])
    score = image_scorer.classifier_score(kind, colour, code)
    np.testing.assert_allclose(score, [math.log(0.2 * 0.75)], rtol=1e-6)
    np.testing.assert_array_equal(image_scorer.classifier_score(kind, colour, 0.0 * code), [0.0])


def test_a_classifier_scores_its_own_labels(picture):
    """As the network says itself, whatever the order of kinds and colours in its config."""
    config = JudgeConfig((8, 8), ("mug", "chair"), ("blue", "red", "pink"), SIZE)
    judge = Judge(config)
    scorer = image_scorer.classifier_scorer(judge, random_params(judge))
    condition = jnp.broadcast_to(scorer.embed(["a pink chair, back view"]), (2, 1, 5))
    kind, colour = jax.jit(judge.apply)({"params": scorer.params}, picture)
    expected = jax.nn.log_softmax(kind)[:, 1] + jax.nn.log_softmax(colour)[:, 2]
    score = jax.jit(scorer.score)(scorer.params, picture, condition)
    np.testing.assert_allclose(score, expected, rtol=1e-5)
    found = np.asarray(slope(scorer, picture, condition))
    assert np.isfinite(found).all() and found.any()


def test_the_committed_classifier_prefers_the_right_pair(picture):
    scorer = image_scorer.load_classifier_scorer(FAMILY / "scorers" / "classifier")
    score = jax.jit(scorer.score)

    def of(image, caption):
        return np.asarray(score(scorer.params, image, scorer.embed([caption, caption])))

    right = of(picture, "a red chair")
    for wrong in ("a blue chair", "a red mug", "a green tree"):
        assert (right > of(picture, wrong) + 1.0).all()
    assert (right > of(noise_of(picture), "a red chair")).all()


def test_the_committed_discriminator_prefers_the_right_caption(picture):
    """To most others, after its 600 steps; and to an empty picture."""
    scorer = image_scorer.load_discriminator_scorer(FAMILY / "scorers" / "discriminator")
    score = jax.jit(scorer.score)

    def of(image, subject):
        sides = [f"{subject}, {side} view, from above" for side in ("front", "back")]
        return np.asarray(score(scorer.params, image, scorer.embed(sides)))

    right = of(picture, "a red chair").sum()
    wrong = [of(picture, f"a red {kind}").sum() for kind in solids.KINDS if kind != "chair"]
    wrong += [of(picture, f"a {c} chair").sum() for c in solids.COLOURS if c != "red"]
    assert np.mean(right > np.asarray(wrong)) > 0.8
    assert (of(picture, "a red chair") > of(jnp.full_like(picture, 0.8), "a red chair")).all()


def test_the_bound_of_a_gaussian_by_hand():
    x, rebuilt = jnp.full((1, 2, 2, 3), 0.5), jnp.full((1, 2, 2, 3), 0.3)
    mean, log_variance = jnp.full((1, 1, 1, 2), 2.0), jnp.full((1, 1, 1, 2), math.log(0.5))
    kl = 2 * 0.5 * (4.0 + 0.5 - 1.0 - math.log(0.5))
    found = image_scorer.elbo(x, rebuilt, mean, log_variance, 0.1)
    np.testing.assert_allclose(found, [-12 * 0.04 / 0.02 - kl], rtol=1e-5)
    zero = jnp.zeros_like(mean)
    np.testing.assert_array_equal(image_scorer.elbo(x, x, zero, zero, 0.1), [0.0])


def test_the_committed_autoencoder_prefers_pictures_to_noise(picture):
    scorer = image_scorer.load_elbo_scorer(FAMILY / "vae")
    condition = jnp.broadcast_to(scorer.embed(["anything at all"]), (2, 1, 1))
    score = jax.jit(scorer.score)
    good = np.asarray(score(scorer.params, picture, condition))
    slightly = np.asarray(score(scorer.params, picture + 0.1 * noise_of(picture), condition))
    noise = np.asarray(score(scorer.params, noise_of(picture), condition))
    assert (good > slightly).all() and (slightly > noise).all()
    assert np.isfinite(slope(scorer, noise_of(picture), condition)).all()


def test_the_committed_pair_prefers_the_right_caption(picture):
    """To other kinds, other colours and an empty picture; of sides it knows little."""
    scorer = image_scorer.load_clip_scorer(FAMILY / "clip")
    score = jax.jit(scorer.score)

    def of(front, back):
        condition = scorer.embed([front, back])
        return np.asarray(score(scorer.params, picture, condition))

    front, back = ", front view, from above", ", back view, from above"
    right = of("a red chair" + front, "a red chair" + back)
    for wrong in ("a red mug", "a red tree", "a blue chair", "a green chair"):
        assert (right > of(wrong + front, wrong + back) + 1.0).all(), wrong
    blank = jnp.full_like(picture, 0.8)
    condition = scorer.embed(["a red chair" + front] * 2)
    assert (right > np.asarray(score(scorer.params, blank, condition))).all()
    assert np.isfinite(slope(scorer, blank, condition)).all()
    # Between two views a caption's length does not count.
    half = 0.3 * condition
    np.testing.assert_allclose(
        score(scorer.params, picture, half), score(scorer.params, picture, condition), rtol=1e-5
    )


@pytest.fixture(scope="module")
def discriminator():
    names = [*captions.AZIMUTHS, *(name for _, name in captions.ELEVATIONS)]
    phrases = (*solids.KINDS, *solids.COLOURS, *names)
    network = Discriminator(DiscriminatorConfig((8, 8), phrases, 16))
    return image_scorer.discriminator_scorer(network, random_params(network))


def test_a_discriminator_hears_every_part_of_a_caption(discriminator):
    image = jax.random.uniform(jax.random.key(0), (1, 16, 16, 3))
    score = jax.jit(discriminator.score)

    def of(text):
        return float(
            discriminator.score(discriminator.params, image, discriminator.embed([text]))[0]
        )

    said = [
        "",
        "a red mug",
        "a blue mug",
        "a red chair",
        "a red mug, front view, from above",
        "a red mug, back view, from above",
        "a red mug, back view, at eye level",
    ]
    assert len({round(of(text), 5) for text in said}) == len(said)
    # The caption comes in linearly, so that between two views it is between their scores.
    front, back = (discriminator.embed([text]) for text in said[4:6])
    between = score(discriminator.params, image, 0.5 * (front + back))
    np.testing.assert_allclose(between, [0.5 * (of(said[4]) + of(said[5]))], rtol=1e-4)
    found = np.asarray(slope(discriminator, image, front))
    assert np.isfinite(found).all() and found.any()


def test_what_a_config_lacks_is_named():
    with pytest.raises(ValueError, match=r"lacks \['phrases'\]"):
        DiscriminatorConfig.from_dict({"channels": (8,), "image_size": 16})
