"""What a denoiser says of renderings, through the face that a text-to-3D step sees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.diffusion.schedule import scaled_linear
from geojax.geometry.camera_sampling import orbit
from geojax.geometry.occupancy import full_grid
from geojax.methods import score_distillation as family
from geojax.methods.denoiser_critic import denoiser_critic
from geojax.methods.perp_neg import perp_neg_loss, wrong_views
from geojax.methods.radiance import Rendering
from geojax.methods.text_to_3d import PromptViews, Shown, State
from geojax.methods.variational import OwnTraining
from geojax.methods.view_prompts import interpolate_view_embeddings
from geojax.priors.mixture import mixture_prior

VIEWS = ["front", "left", "back", "right"]


def times(key, step, count):
    del key, step
    return jnp.full((count,), 400)


def shown_to(prior, x):
    """Renderings [B, 4, 4, 3] from B sides, of a prompt that has four names of views."""
    count = len(x)
    seen = orbit(count, 0.3, 1.5, 1.2, 4, 4)
    prompt = PromptViews(prior.embed(VIEWS)[None], jnp.zeros(1), prior.embed([""])[0])
    nothing = jnp.zeros(())
    flat = jnp.zeros(x.shape[:-1])
    rendering = Rendering(x, flat, flat, None, None, flat, flat, nothing, jnp.asarray(0))
    step = jnp.asarray(3)
    state = State({}, (), full_grid(2, 1.0), step, jax.random.key(0))
    condition = interpolate_view_embeddings(
        prompt.embeddings, prompt.elevations, seen.azimuth, seen.elevation
    )
    return Shown(rendering, seen, condition, prompt, state)


@pytest.mark.parametrize("loss", [family.SDS, family.CSD])
def test_perp_neg_of_a_step_is_that_of_its_file(loss):
    means = jax.random.normal(jax.random.key(1), (4, 4, 4, 3))
    prior = mixture_prior(scaled_linear(), means, 0.3, VIEWS)
    x = jax.random.uniform(jax.random.key(2), (3, 4, 4, 3))
    keys = jax.random.split(jax.random.key(3), 2)

    def gradient(**options):
        critic = denoiser_critic(prior, guidance=4.0, times=times, loss=loss, **options)

        def value(x):
            return critic.opinion(keys, prior.params, shown_to(prior, x)).loss

        return jax.jit(jax.grad(value))(x)

    shown = shown_to(prior, x)
    prompt, seen = shown.prompt, shown.views
    wrong = wrong_views(prompt.embeddings, prompt.elevations, seen.azimuth, seen.elevation)
    empty = jnp.broadcast_to(prompt.unconditional, shown.condition.shape)

    def by_hand(x):
        z = prior.encode(prior.params, x)
        return perp_neg_loss(
            keys[1],
            lambda *args: prior.denoise(prior.params, *args),
            prior.schedule,
            z,
            jnp.full((3,), 400),
            shown.condition,
            empty,
            *wrong,
            4.0,
            loss,
        )[0]

    found = gradient(perp_neg=True)
    np.testing.assert_allclose(found, jax.grad(by_hand)(x), rtol=1e-3, atol=1e-5)
    assert float(jnp.max(jnp.abs(found - gradient()))) > 1e-2


def test_perp_neg_is_not_of_a_loss_with_predictions_of_its_own():
    prior = mixture_prior(scaled_linear(), jnp.zeros((1, 4, 4, 3)), 0.3, ["front"])
    for options in ({"loss": family.ISM}, {"own": OwnTraining(2, None, velocity=True)}):
        with pytest.raises(ValueError, match="Perp-Neg is of losses without"):
            denoiser_critic(prior, guidance=4.0, times=times, perp_neg=True, **options)
