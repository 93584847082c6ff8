"""Scorers as critics: a score with a known answer is climbed to it, and what a step reports."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from geojax.geometry.camera_sampling import orbit
from geojax.methods import text_to_3d
from geojax.methods.radiance import render
from geojax.methods.scorer_critic import (
    Transmittance,
    score_loss,
    scorer_critic,
    transmittance_loss,
)
from geojax.priors.image_scorer import ImageScorer
from tests.methods.test_text_to_3d import (
    BACK,
    CAMERAS,
    DISTANCE,
    FOCAL,
    FRONT,
    GRID_EVERY,
    RADIUS,
    SIZE,
    VIEWS,
    around,
    mesh_of,
    relaxed,
    start,
    voxel_field,
)

STEPS = 100


def two_sided_scorer():
    """-|x - y|^2 / 2 of a plain picture, the prompt's: red in front, blue behind."""

    def embed(texts):
        colours = [FRONT if "front" in text else BACK for text in texts]
        return jnp.asarray(colours)[:, None]

    def score(params, image, condition):
        target = condition[:, :, None, :] * params["one"]
        return -0.5 * jnp.sum((image - target) ** 2, axis=(1, 2, 3))

    return ImageScorer({"one": jnp.float32(1.0)}, score, embed, SIZE)


@pytest.fixture(scope="module")
def setup():
    scorer, field, optimiser = two_sided_scorer(), voxel_field(), relaxed(optax.adam(0.1))
    step = text_to_3d.distillation_step(
        scorer_critic(scorer, weight=2.0, transmittance=Transmittance(1e-3, over=STEPS)),
        field,
        optimiser,
        mesh_of(jax.devices()[:1]),
        views=VIEWS,
        size=SIZE,
        cameras=around(CAMERAS),
        radius=RADIUS,
        samples=24,
        capacity=None,
        shaded=False,
        ambient=(0.3, 0.7),
        textureless=0.5,
        steps=STEPS,
        weights=text_to_3d.Weights(),
        grid_every=GRID_EVERY,
    )
    views = text_to_3d.embed_views(scorer, "ball", [[", front", ", back"]], np.zeros(1))
    return scorer, field, optimiser, step, views


def test_a_gaussian_energy_is_answered_with_its_picture(setup):
    scorer, field, optimiser, step, views = setup
    state, scores = start(field, optimiser), []
    for _ in range(STEPS):
        state, metrics = step(state, scorer.params, views)
        scores.append(float(metrics["score"]))
    assert scores[-1] > -1.0 > scores[0]
    assert float(metrics["t"]) == 0.0
    assert text_to_3d.non_finite_cause({k: float(v) for k, v in metrics.items()}) is None
    seen = orbit(2, 0.05, DISTANCE, FOCAL, SIZE, SIZE)
    picture = render(
        field.apply, state.params, seen.camera, None, samples=48, radius=RADIUS, background=0.5
    )
    expected = np.broadcast_to(np.asarray([FRONT, BACK])[:, None, None], (2, SIZE, SIZE, 3))
    np.testing.assert_allclose(picture.rgb, expected, atol=0.08)


def test_a_score_that_is_not_finite_does_not_reach_the_field(setup):
    _, field, optimiser, step, views = setup
    _, metrics = step(start(field, optimiser), {"one": jnp.float32(jnp.nan)}, views)
    found = {k: float(v) for k, v in metrics.items()}
    assert "prior" in text_to_3d.non_finite_cause(found)
    assert found["finite_gradient"] == 1.0


def test_the_losses_gradient_is_that_of_the_mean_score():
    def score(x):
        return jnp.sum(jnp.sin(3.0 * x), axis=(1, 2, 3))

    x = jax.random.uniform(jax.random.key(0), (3, 4, 4, 3))
    gradient = jax.grad(lambda x: score_loss(score, x, 0.5)[0])(x)
    expected = jax.grad(lambda x: -0.5 * jnp.mean(score(x)))(x)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-7)
    _, metrics, mean = score_loss(score, x, 0.5)
    np.testing.assert_allclose(mean, jnp.mean(score(x)), rtol=1e-6)
    np.testing.assert_allclose(
        metrics.residual_rms, jnp.sqrt(jnp.mean((3.0 * jnp.cos(3.0 * x)) ** 2)), rtol=1e-5
    )
    assert bool(metrics.finite)


def test_transmittance_by_hand():
    settings = Transmittance(weight=2.0, first=0.4, last=0.8, over=10)
    opacity = jnp.stack([jnp.full((4, 4), 0.9), jnp.full((4, 4), 0.3)])  # T = .1 and .7

    def at(step):
        return float(transmittance_loss(opacity, jnp.asarray(step), settings))

    np.testing.assert_allclose(at(0), -2.0 * (0.1 + 0.4) / 2, rtol=1e-6)
    np.testing.assert_allclose(at(5), -2.0 * (0.1 + 0.6) / 2, rtol=1e-6)
    np.testing.assert_allclose([at(10), at(99)], -2.0 * (0.1 + 0.7) / 2, rtol=1e-6)
    # What is clear enough is left alone; what is not is thinned, everywhere alike.
    slope = jax.grad(transmittance_loss)(opacity, jnp.asarray(0), settings)
    np.testing.assert_allclose(slope[0], 2.0 / 16 / 2, rtol=1e-6)
    np.testing.assert_array_equal(slope[1], 0.0)
