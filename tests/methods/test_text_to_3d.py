import dataclasses
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from geojax.diffusion.schedule import scaled_linear
from geojax.geometry.camera_sampling import CameraDistribution, orbit, sample_views
from geojax.geometry.occupancy import full_grid
from geojax.methods import text_to_3d, timesteps
from geojax.methods.denoiser_critic import denoiser_critic
from geojax.methods.radiance import render
from geojax.models.fields import VoxelField, as_field, linear_blob
from geojax.priors.mixture import mixture_prior

SIZE, RADIUS, VIEWS, GRID_EVERY = 8, 0.6, 4, 4
FRONT, BACK = (0.9, 0.2, 0.1), (0.1, 0.3, 0.8)
# A long lens on the middle of the ball: all that is seen is object, so a plain picture can be met.
FOCAL, DISTANCE = 4.0, 1.3
CAMERAS = CameraDistribution(
    elevation=(0.0, 10.0),
    distance=(DISTANCE, DISTANCE),
    focal=(FOCAL, FOCAL),
    position_jitter=0.0,
    target_std=0.0,
    up_std=0.0,
)


def two_sided_prior():
    """Pictures that are plain FRONT or plain BACK, with a little variance."""
    plain = [jnp.broadcast_to(jnp.asarray(c), (SIZE, SIZE, 3)) for c in (FRONT, BACK)]
    return mixture_prior(scaled_linear(), jnp.stack(plain), 1e-3, ["ball, front", "ball, back"])


def voxel_field():
    return as_field(
        VoxelField(
            radius=RADIUS,
            ball=RADIUS,
            size=10,
            feature_std=0.1,
            blob=lambda points: linear_blob(points, 12.0, 0.6),
            feature_activation=jax.nn.sigmoid,
        )
    )


def relaxed(optimiser):
    """The optimiser without strict promotion: optax raises a float to an integer power."""

    def update(*arguments):
        with jax.numpy_dtype_promotion("standard"):
            return optimiser.update(*arguments)

    return optax.GradientTransformation(optimiser.init, update)


def mesh_of(devices):
    return jax.make_mesh(
        (len(devices),), ("views",), axis_types=(jax.sharding.AxisType.Auto,), devices=devices
    )


def annealed(key, step, count):
    between = timesteps.linear_range(step, (0.02, 0.98), (0.02, 0.5), 100)
    return timesteps.stratified(key, count, between, 1000)


def around(distribution):
    return lambda key, count, size, state: sample_views(key, distribution, count, size, size)


def make_step(prior, field, optimiser, devices, **changes):
    options = dict(
        views=VIEWS,
        size=SIZE,
        cameras=around(CAMERAS),
        radius=RADIUS,
        samples=24,
        capacity=None,
        shaded=False,
        ambient=(0.3, 0.7),
        textureless=0.5,
        steps=100,
        weights=text_to_3d.Weights(),
        grid_every=GRID_EVERY,
    )
    critic = {"guidance": 1.0, "times": annealed}
    for name in ("guidance", "times", "loss", "latent", "own"):
        if name in changes:
            critic[name] = changes.pop(name)
    return text_to_3d.distillation_step(
        denoiser_critic(prior, **critic), field, optimiser, mesh_of(devices), **(options | changes)
    )


def start(field, optimiser, seed=0):
    return text_to_3d.init_state(jax.random.key(seed), field, optimiser, full_grid(6, RADIUS))


def prompt_views(prior):
    return text_to_3d.embed_views(prior, "ball", [[", front", ", back"]], np.zeros(1))


@pytest.fixture(scope="module")
def setup():
    prior, field, optimiser = two_sided_prior(), voxel_field(), relaxed(optax.adam(0.1))
    step = make_step(prior, field, optimiser, jax.devices()[:1])
    return prior, field, optimiser, step, prompt_views(prior)


def test_an_exact_prior_is_answered_exactly(setup):
    """Distillation from a closed-form mixture ends at the mode that the view's prompt names."""
    prior, field, optimiser, step, views = setup
    state = start(field, optimiser)
    residuals = []
    for _ in range(100):
        state, metrics = step(state, prior.params, views)
        residuals.append(float(metrics["residual"]))
    seen = orbit(2, 0.05, DISTANCE, FOCAL, SIZE, SIZE)
    picture = render(
        field.apply, state.params, seen.camera, None, samples=48, radius=RADIUS, background=0.5
    )
    assert float(picture.opacity.min()) > 0.97
    expected = np.broadcast_to(np.asarray([FRONT, BACK])[:, None, None], (2, SIZE, SIZE, 3))
    np.testing.assert_allclose(picture.rgb, expected, atol=0.05)
    assert np.mean(residuals[-10:]) < 0.2 * np.mean(residuals[:10])
    assert text_to_3d.non_finite_cause({k: float(v) for k, v in metrics.items()}) is None


def test_the_step_is_a_function_of_the_state_and_donates_it(setup):
    prior, field, optimiser, step, views = setup

    def run(seed):
        state = start(field, optimiser, seed)
        first = state
        for _ in range(2):
            state, metrics = step(state, prior.params, views)
        return first, state, metrics

    first, state, metrics = run(0)
    assert int(state.step) == 2
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(first.params))
    _, again, metrics_again = run(0)
    _, other, _ = run(1)
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(again.params), strict=True):
        np.testing.assert_array_equal(a, b)
    assert {k: float(v) for k, v in metrics.items()} == {
        k: float(v) for k, v in metrics_again.items()
    }
    assert jax.random.key_data(state.key).tolist() == jax.random.key_data(again.key).tolist()
    assert not np.array_equal(state.params["feature"], other.params["feature"])


def test_the_grid_is_refreshed_every_few_steps(setup):
    prior, field, optimiser, step, views = setup
    state, filled = start(field, optimiser), []
    for _ in range(2 * GRID_EVERY):
        state, _ = step(state, prior.params, views)
        filled.append(float(jnp.sum(state.grid.density)))
    assert filled[: GRID_EVERY - 1] == [0.0] * (GRID_EVERY - 1)
    assert filled[GRID_EVERY - 1] > 0.0
    assert len(set(filled[GRID_EVERY - 1 : -1])) == 1
    assert filled[-1] != filled[-2]


def test_what_is_not_finite_is_named(setup):
    prior, field, optimiser, step, views = setup

    def figures(state, params):
        return {k: float(v) for k, v in step(state, params, views)[1].items()}

    state = start(field, optimiser)
    broken = state.params | {"feature": state.params["feature"].at[0].set(jnp.nan)}
    assert "rendering" in text_to_3d.non_finite_cause(
        figures(state._replace(params=broken), prior.params)
    )
    bad_prior = prior.params._replace(means=prior.params.means.at[0].set(jnp.nan))
    found = figures(start(field, optimiser), bad_prior)
    assert "prior" in text_to_3d.non_finite_cause(found)
    # What a broken prior says does not reach the field.
    assert found["finite_gradient"] == 1.0
    sound = {"finite_rendering": 1.0, "finite_residual": 1.0, "finite_gradient": 0.0}
    assert "gradient" in text_to_3d.non_finite_cause(sound)


def test_collapse_is_told_from_a_sane_object():
    assert text_to_3d.collapse(0.001).startswith("empty")
    assert text_to_3d.collapse(0.99).startswith("solid")
    assert text_to_3d.collapse(0.3) is None
    assert text_to_3d.collapse(0.99, inside=True) is None
    assert text_to_3d.collapse(0.001, inside=True).startswith("empty")


def test_cameras_may_follow_the_step_and_the_field(setup):
    """Away from the ball after the first step, and where the field says so."""
    prior, field, optimiser, _, views = setup

    def turning_away(key, count, size, state):
        seen = sample_views(key, CAMERAS, count, size, size)
        away = (state.step > 0) | (jnp.max(state.params["density"]) > 0.5)
        pose = seen.camera.camera_to_world.at[:, :3, 3].add(jnp.where(away, 10.0, 0.0))
        camera = dataclasses.replace(seen.camera, camera_to_world=pose)
        return seen._replace(camera=camera)

    step = make_step(prior, field, optimiser, jax.devices()[:1], cameras=turning_away)
    state, first = step(start(field, optimiser), prior.params, views)
    assert first["opacity"] > 0.5 and first["depth"] > DISTANCE - RADIUS
    _, second = step(state, prior.params, views)
    assert second["opacity"] == 0.0
    state = start(field, optimiser)
    solid = state.params | {"density": state.params["density"] + 1.0}
    assert step(state._replace(params=solid), prior.params, views)[1]["opacity"] == 0.0


def test_views_are_embedded_in_the_order_of_the_table():
    asked = []

    def embed(prompts):
        asked.append(list(prompts))
        return jnp.arange(len(prompts), dtype=jnp.float32)[:, None, None]

    prior = dataclasses.replace(two_sided_prior(), embed=embed)
    suffixes = [[", a", ", b", ", c"], [", d", ", e", ", f"]]
    views = text_to_3d.embed_views(prior, "x", suffixes, np.radians([0.0, 45.0]))
    assert asked == [["x, a", "x, b", "x, c", "x, d", "x, e", "x, f"], [""]]
    np.testing.assert_array_equal(views.embeddings[..., 0, 0], [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])
    assert views.unconditional.shape == (1, 1)


@pytest.mark.parametrize(
    ("prompt", "suffixes", "elevations", "message"),
    [
        ("  ", [[", a"]], [0.0], "empty"),
        ("x", [[", a", ", b"], [", c"]], [0.0, 1.0], r"\[2, 1\]"),
        ("x", [[", a", ", b"]], [0.0, 1.0], "expected 2 equal rows"),
    ],
)
def test_wrong_view_tables_are_refused(prompt, suffixes, elevations, message):
    with pytest.raises(ValueError, match=message):
        text_to_3d.embed_views(two_sided_prior(), prompt, suffixes, np.asarray(elevations))


def updates_on_meshes():
    """Print how far the updates of one step on one and on four devices are apart."""
    # Plain gradient descent: its update is the gradient, where Adam's is little more than a sign.
    prior, field, optimiser = two_sided_prior(), voxel_field(), optax.sgd(1.0)
    weights = text_to_3d.Weights(opacity=0.1, entropy=1.0, orientation=1.0)
    # Of seed 0 a sample lies within rounding of the border of the ball.
    results, before = [], start(field, optimiser, seed=1).params
    for count in (1, 4):
        step = make_step(
            prior,
            field,
            optimiser,
            jax.devices()[:count],
            shaded=True,
            # Enough for all: which ones are dropped depends on how many come before, and one
            # device may round a sample into the ball that another rounds out of it.
            capacity=4500,
            weights=weights,
            cameras=around(CameraDistribution()),
        )
        state = start(field, optimiser, seed=1)._replace(step=jnp.asarray(50, jnp.int32))
        state, metrics = step(state, prior.params, prompt_views(prior))
        update = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), state.params, before)
        devices = len(state.params["feature"].sharding.device_set)
        results.append((update, {k: float(v) for k, v in metrics.items()}, devices))
    (one, metrics, _), (four, metrics_four, devices) = results
    apart = {
        name: float(np.max(np.abs(one[name] - four[name])) / np.max(np.abs(one[name])))
        for name in one
    }
    print(json.dumps({"apart": apart, "metrics": [metrics, metrics_four], "devices": devices}))


def test_the_update_does_not_depend_on_the_number_of_devices():
    command = "from tests.methods.test_text_to_3d import updates_on_meshes; updates_on_meshes()"
    # As users compile: unoptimised, the two programs round apart where a sample is on the border of
    # occupied space.
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", command],
        env=os.environ | flags,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["devices"] == 4
    assert max(found["apart"].values()) < 1e-5, found["apart"]
    one, four = found["metrics"]
    for name, value in one.items():
        assert four[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
