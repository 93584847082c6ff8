"""The step with other losses: latents of voxels before a learnt background, and VSD's network."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from geojax.geometry.camera_sampling import orbit
from geojax.geometry.occupancy import full_grid
from geojax.io.checkpoint import Checkpointer
from geojax.methods import score_distillation as family
from geojax.methods import sjc, text_to_3d
from geojax.methods.radiance import render
from geojax.methods.variational import OwnTraining, init_own_score
from geojax.models.backgrounds import TextureBackground, with_background
from geojax.models.fields import VoxelField, as_field
from tests.methods.test_text_to_3d import (
    BACK,
    CAMERAS,
    DISTANCE,
    FOCAL,
    FRONT,
    RADIUS,
    SIZE,
    around,
    make_step,
    prompt_views,
    relaxed,
    start,
    two_sided_prior,
)
from tests.methods.test_variational import prior as unet_prior

ONE = jax.devices()[:1]


def test_voxels_of_latents_reach_the_modes_of_an_exact_prior():
    """SJC: the rendering itself is the latent, before a background that is learnt along."""
    prior, optimiser = two_sided_prior(), relaxed(optax.adam(0.1))
    voxels = VoxelField(channels=3, radius=RADIUS, ball=RADIUS, size=10, feature_std=0.1, bias=2.0)
    field, background = with_background(as_field(voxels), as_field(TextureBackground(channels=3)))
    step = make_step(
        prior,
        field,
        optimiser,
        ONE,
        loss=family.SJC,
        latent=True,
        background=background,
        weights=text_to_3d.Weights(emptiness=1e-3, centre_depth=1e-3),
    )
    state = start(field, optimiser)
    texture = np.asarray(state.params["background"]["texture"])
    for _ in range(100):
        state, metrics = step(state, prior.params, prompt_views(prior))
    assert np.any(np.asarray(state.params["background"]["texture"]) != texture)
    seen = orbit(2, 0.05, DISTANCE, FOCAL, SIZE, SIZE)
    picture = render(
        field.apply,
        state.params,
        seen.camera,
        None,
        samples=48,
        radius=RADIUS,
        background=lambda directions: background(state.params, directions),
    )
    # Latents have no activation that would hold each pixel: the picture is right in the mean.
    np.testing.assert_allclose(jnp.mean(picture.rgb, axis=(1, 2)), [FRONT, BACK], atol=0.06)
    assert float(jnp.std(picture.rgb, axis=(1, 2)).max()) < 0.15
    assert text_to_3d.non_finite_cause({k: float(v) for k, v in metrics.items()}) is None


def test_emptiness_empties():
    prior, optimiser = two_sided_prior(), relaxed(optax.adam(0.1))
    # A fog of softplus(-1) everywhere, as SJC starts.
    field = as_field(VoxelField(channels=3, radius=RADIUS, ball=RADIUS, size=6))
    weights = text_to_3d.Weights(emptiness=1e6)
    step = make_step(prior, field, optimiser, ONE, loss=family.SJC, weights=weights)
    state, opacities = start(field, optimiser), []
    for _ in range(12):
        state, metrics = step(state, prior.params, prompt_views(prior))
        opacities.append(float(metrics["opacity"]))
    assert opacities[0] > 0.25 and opacities[-1] < 0.5 * opacities[0]


def fog():
    """softplus(-1) everywhere, as SJC starts."""
    return as_field(VoxelField(channels=3, radius=RADIUS, ball=RADIUS, size=6))


def after_steps(field, count, **changes):
    prior, optimiser = two_sided_prior(), relaxed(optax.adam(0.1))
    step = make_step(prior, field, optimiser, ONE, loss=family.SJC, **changes)
    state = start(field, optimiser)
    for _ in range(count):
        state, _ = step(state, prior.params, prompt_views(prior))
    return state


def test_air_clears_where_cameras_stand():
    field, within = fog(), dataclasses.replace(CAMERAS, distance=(0.3, 0.3))
    weights = text_to_3d.Weights(air=1e6, air_radius=0.05)
    state = after_steps(field, 8, cameras=around(within), weights=weights)
    turn = np.linspace(0.0, 2.0 * np.pi, 24, endpoint=False)
    ring = np.stack([np.cos(turn), np.sin(turn), 0.1 + 0.0 * turn], axis=1).astype(np.float32)

    def density(of, points):
        return float(field.apply(of.params, jnp.asarray(points))[0].mean())

    before = start(field, relaxed(optax.adam(0.1)))
    assert density(state, 0.3 * ring) < 0.7 * density(before, 0.3 * ring)
    # Two voxels away nothing but the pictures has a say.
    assert density(state, 0.5 * ring) > density(state, 0.3 * ring)


def test_centre_depth_brings_the_middle_forward():
    field = fog()
    seen = orbit(4, 0.05, DISTANCE, 1.2, SIZE, SIZE)

    def ahead(weight):
        weights = text_to_3d.Weights(centre_depth=weight)
        wide = dataclasses.replace(CAMERAS, focal=(1.2, 1.2))
        state = after_steps(field, 8, cameras=around(wide), weights=weights)
        picture = render(
            field.apply, state.params, seen.camera, None, samples=32, radius=RADIUS, background=0.5
        )
        depth = sjc.filled_depth(picture.depth, picture.opacity, seen.distance + RADIUS)
        middle = float(depth[:, 1:-1, 1:-1].mean())
        return float(depth.mean()) - middle

    assert ahead(1e6) > ahead(0.0) + 0.02


@pytest.fixture(scope="module")
def vsd():
    prior, optimiser = unet_prior(), relaxed(optax.adam(0.1))
    voxels = VoxelField(channels=4, radius=RADIUS, ball=RADIUS, size=6, bias=2.0)
    field, background = with_background(as_field(voxels), as_field(TextureBackground()))
    training = OwnTraining(2, relaxed(optax.adam(1e-2)), velocity=True)
    step = make_step(
        prior,
        field,
        optimiser,
        ONE,
        loss=family.VSD,
        own=training,
        guidance=3.0,
        latent=True,
        background=background,
    )
    own = init_own_score(jax.random.key(9), prior, training)
    views = text_to_3d.PromptViews(
        jnp.ones((1, 1, 3, 16)), jnp.zeros(1), jnp.zeros((3, 16)), negative=None
    )

    def begin():
        # A copy, because the state is donated.
        return text_to_3d.init_state(
            jax.random.key(0), field, optimiser, full_grid(6, RADIUS), jax.tree.map(jnp.copy, own)
        )

    return prior, step, begin, views


def test_vsds_network_learns_along_in_the_state(vsd):
    prior, step, begin, views = vsd
    state = begin()
    before = jax.tree.map(np.asarray, state.own.params)
    losses = []
    for _ in range(3):
        state, metrics = step(state, prior.params, views)
        losses.append(float(metrics["own_loss"]))
    assert np.isfinite(losses).all() and min(losses) > 0.0
    changed = jax.tree.map(lambda a, b: np.any(a != np.asarray(b)), before, state.own.params)
    assert all(jax.tree.leaves(changed))
    # The whole is a function of the state: its copy goes the same way.
    again = begin()
    for _ in range(3):
        again, _ = step(again, prior.params, views)
    for a, b in zip(
        jax.tree.leaves((state.params, state.own)),
        jax.tree.leaves((again.params, again.own)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_what_a_checkpoint_holds_of_vsd_goes_on_bit_for_bit(vsd, tmp_path):
    prior, step, begin, views = vsd
    state, _ = step(begin(), prior.params, views)
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(1, state)
    restored = checkpointer.restore(begin())
    checkpointer.close()
    after = [step(s, prior.params, views)[0] for s in (state, restored)]
    one, other = (jax.tree.leaves((s.params, s.optimiser, s.own)) for s in after)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_vsd_without_its_network_is_refused(vsd):
    prior, step, begin, views = vsd
    with pytest.raises(ValueError, match="'own', which was not given"):
        step(begin()._replace(own=None), prior.params, views)
