import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from geojax.diffusion.guidance import perp_neg, perp_neg_weights
from geojax.diffusion.parameterization import add_noise
from geojax.diffusion.schedule import Schedule, scaled_linear
from geojax.methods import score_distillation as distillation
from geojax.methods import timesteps
from geojax.methods.perp_neg import perp_neg_loss, wrong_views
from geojax.methods.surrogate import weighted
from geojax.priors.mixture import Mixture, mixture_eps, mixture_prior

SCHEDULE = scaled_linear()
SHAPE = (3, 2, 4, 2)


def network(z, t, cond):
    """Any nonlinear answer that depends on all three, item by item."""
    level = (t.astype(z.dtype) / 1000.0)[:, None, None, None]
    return jnp.sin(3.0 * z + level) + jnp.sum(cond, axis=(1, 2))[:, None, None, None] * z


@pytest.fixture(scope="module")
def inputs():
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(keys[0], SHAPE)
    cond, uncond = (jax.random.normal(key, (3, 2, 2)) for key in keys[1:3])
    return {"x": x, "t": jnp.array([20, 400, 980]), "cond": cond, "uncond": uncond}


@jax.jit
def slope(inputs, key, guidance):
    def loss(x):
        rest = {name: value for name, value in inputs.items() if name != "x"}
        return distillation.score_distillation_loss(
            key, network, SCHEDULE, x, guidance=guidance, **rest
        )

    (value, metrics), grad = jax.value_and_grad(loss, has_aux=True)(inputs["x"])
    return value, metrics, grad


def test_the_gradient_is_w_times_the_residual_over_b(inputs):
    """No derivative of the network, of z or of w: against numpy and one denoising at a time."""
    key, g = jax.random.key(1), 7.5
    value, metrics, grad = slope(inputs, key, g)
    noise = jax.random.normal(key, SHAPE)
    z = add_noise(SCHEDULE, inputs["x"], noise, inputs["t"])
    norms, squares = [], []
    for b in range(3):
        one = slice(b, b + 1)
        c, u = (
            np.asarray(network(z[one], inputs["t"][one], inputs[name][one]), np.float64)[0]
            for name in ("cond", "uncond")
        )
        residual = u + g * (c - u) - np.asarray(noise[b])
        w = 1.0 - float(SCHEDULE.abar(inputs["t"][b]))
        np.testing.assert_allclose(grad[b], w * residual / 3, rtol=1e-4, atol=1e-5)
        norms.append(np.linalg.norm(w * residual))
        squares.append(residual**2)
    np.testing.assert_allclose(metrics.grad_norm, np.mean(norms), rtol=1e-4)
    np.testing.assert_allclose(metrics.residual_rms, np.sqrt(np.mean(squares)), rtol=1e-4)
    np.testing.assert_allclose(metrics.mean_t, 1400 / 3, rtol=1e-6)
    np.testing.assert_allclose(value, 0.5 * np.sum(np.square(norms)) / 3, rtol=1e-4)
    assert bool(metrics.finite)


def test_the_residual_is_linear_in_guidance(inputs):
    """SDS(g) = SDS(0) + g delta: guidance of each view may differ."""
    key = jax.random.key(2)
    zero, one, two = (slope(inputs, key, g)[2] for g in (0.0, 1.0, 2.0))
    np.testing.assert_allclose(two - one, one - zero, atol=1e-5)
    per_view = slope(inputs, key, jnp.array([0.0, 1.0, 2.0]))[2]
    for b, same in enumerate((zero, one, two)):
        np.testing.assert_allclose(per_view[b], same[b], atol=1e-6)


def test_only_x_gets_a_gradient(inputs):
    def loss(scale, inputs):
        def denoise(z, t, cond):
            return scale * network(z, t, cond)

        return distillation.score_distillation_loss(
            jax.random.key(0), denoise, SCHEDULE, guidance=3.0, **inputs
        )[0]

    floats = {name: value for name, value in inputs.items() if name != "t"}
    by_scale, by_input = jax.jit(
        jax.grad(lambda s, f: loss(s, f | {"t": inputs["t"]}), argnums=(0, 1))
    )(1.0, floats)
    assert float(by_scale) == 0.0
    assert not np.any(by_input["cond"]) and not np.any(by_input["uncond"])
    assert np.all(by_input["x"])


def test_all_conditions_go_through_one_call(inputs):
    calls = []

    def denoise(z, t, cond):
        calls.append(z.shape)
        return network(z, t, cond)

    conds = jnp.stack([inputs["uncond"], inputs["cond"], -inputs["cond"]])
    got = distillation.predict(denoise, inputs["x"], inputs["t"], conds)
    assert calls == [(9, *SHAPE[1:])]
    for k in range(3):
        np.testing.assert_allclose(
            got[k], network(inputs["x"], inputs["t"], conds[k]), rtol=1e-5, atol=1e-6
        )


def test_perp_neg(inputs):
    """Without weight it is plain guidance; with weight it is the formula of `perp_neg`."""
    key, g = jax.random.key(5), 4.0
    negatives = jnp.stack([-inputs["cond"], 0.5 * inputs["uncond"]])

    @jax.jit
    def grad(weights):
        return jax.grad(
            lambda x: perp_neg_loss(
                key,
                network,
                SCHEDULE,
                negatives=negatives,
                weights=weights,
                guidance=g,
                loss=distillation.SJC,
                **(inputs | {"x": x}),
            )[0]
        )(inputs["x"])

    noise = jax.random.normal(key, SHAPE)
    z = add_noise(SCHEDULE, inputs["x"], noise, inputs["t"])
    u, c, *neg = (
        network(z, inputs["t"], cond) for cond in (inputs["uncond"], inputs["cond"], *negatives)
    )
    np.testing.assert_allclose(
        3 * grad(jnp.zeros((2, 3))), u + g * (c - u) - noise, rtol=1e-4, atol=1e-4
    )
    weights = jnp.array([[-1.0, -0.5, 0.0], [-2.0, -0.1, -0.3]])
    want = u + g * perp_neg(u, c, jnp.stack(neg), weights) - noise
    np.testing.assert_allclose(3 * grad(weights), want, rtol=1e-4, atol=1e-4)


def test_the_wrong_views_are_the_front_and_the_nearer_side():
    """In a table that holds the azimuth itself; from the front, nothing pushes to the front."""
    columns = jnp.arange(8.0) * 45.0
    table = jnp.broadcast_to(columns[None, :, None, None], (2, 8, 1, 1))
    azimuth = jnp.deg2rad(jnp.array([0.0, 30.0, -30.0, 100.0, -170.0, 350.0]))
    elevations, elevation = jnp.array([0.0, 1.0]), jnp.full(6, 0.4)
    negatives, weights = wrong_views(table, elevations, azimuth, elevation)
    np.testing.assert_allclose(negatives[0, :, 0, 0], 0.0, atol=1e-4)
    np.testing.assert_allclose(
        negatives[1, :, 0, 0], [90.0, 90.0, 270.0, 90.0, 270.0, 270.0], atol=1e-3
    )
    np.testing.assert_allclose(weights, perp_neg_weights(azimuth))
    assert float(weights[0, 0]) > -0.01 > -1.0 > float(weights[1, 0])


@functools.partial(jax.jit, static_argnums=0)
def residuals(count, mixture, schedule, weights, key, t):
    """eps_hat - noise at x = 0, `count` draws."""
    x = jnp.zeros((count, mixture.means.shape[1]))
    z, noise = distillation.diffuse(key, schedule, x, jnp.full((count,), t))
    many = jnp.broadcast_to(weights, (count, weights.shape[0]))
    eps = mixture_eps(mixture, schedule, z, jnp.full((count,), t), many)
    return weighted(eps - noise, jnp.ones(count))


def test_one_dimension_with_a_known_answer():
    """Prior N(2, .25), abar = .5, x = 0: mean -1.6, variance .04, so descent moves x up."""
    mixture = Mixture(jnp.array([[2.0]]), jnp.float32(0.25))
    g = np.asarray(
        residuals(
            100_000,
            mixture,
            Schedule(jnp.array([0.5])),
            jnp.ones(1),
            jax.random.key(0),
            jnp.array(0),
        )
    )
    np.testing.assert_allclose(g.mean(), -1.6, rtol=0.002)
    np.testing.assert_allclose(g.var(), 0.04, rtol=0.02)


@pytest.mark.parametrize(
    ("t", "mean", "variance", "unconditional"),
    [(0, 3.8095, 0.004535, 10.69), (1, 1.3260, 6.105e-5, 0.66)],
)
def test_a_ring_of_gaussians_with_a_known_answer(t, mean, variance, unconditional):
    """8 modes at radius 4, variance .05, x = 0: a prompt gives a gradient, no prompt only noise."""
    angle = jnp.arange(8.0) * (2 * jnp.pi / 8)
    mixture = Mixture(4.0 * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1), jnp.float32(0.05))
    schedule = Schedule(jnp.array([0.5, 0.1]))
    key, t = jax.random.key(1), jnp.array(t)
    g = np.asarray(residuals(200_000, mixture, schedule, jnp.eye(8)[0], key, t), np.float64)
    np.testing.assert_allclose(np.linalg.norm(g.mean(axis=0)), mean, rtol=0.01)
    np.testing.assert_allclose(g.var(axis=0).sum(), variance, rtol=0.01)
    g = np.asarray(residuals(200_000, mixture, schedule, jnp.ones(8), key, t), np.float64)
    assert np.linalg.norm(g.mean(axis=0)) < 4 * np.sqrt(unconditional / 200_000)
    np.testing.assert_allclose(g.var(axis=0).sum(), unconditional, rtol=0.02)


@functools.partial(jax.jit, static_argnums=0)
def distilled(denoise, params, x, key, cond, uncond, guidance):
    """x alone is optimised, by plain Adam; the greatest time step falls from 980 to 50."""
    steps = 1500
    optimizer = optax.adam(optax.linear_schedule(0.02, 0.0, steps))

    def loss(x, key, i):
        t_key, noise_key = jax.random.split(key)
        between = timesteps.linear_range(i, (0.02, 0.98), (0.02, 0.05), 500)
        t = timesteps.uniform(t_key, x.shape[0], between, SCHEDULE.num_steps)
        return distillation.score_distillation_loss(
            noise_key,
            functools.partial(denoise, params),
            SCHEDULE,
            x,
            t,
            cond,
            uncond,
            guidance,
        )

    def step(state, at):
        x, moments = state
        grad, metrics = jax.grad(loss, has_aux=True)(x, *at)
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an int
            updates, moments = optimizer.update(grad, moments)
        return (optax.apply_updates(x, updates), moments), metrics

    at = (jax.random.split(key, steps), jnp.arange(steps))
    (x, _), metrics = jax.lax.scan(step, (x, optimizer.init(x)), at)
    return x, metrics


MEANS = jax.random.uniform(jax.random.key(0), (3, 2, 2, 3))
PRIOR = mixture_prior(SCHEDULE, MEANS, 0.01, ["cat", "dog", "cow"])


@pytest.mark.parametrize(("prompt", "guidance"), [("dog", 1.0), ("cow", 10.0)])
def test_distillation_reaches_the_prompts_mode(prompt, guidance):
    """Where the noise hides which mode is which, guidance drives x past the mode, away from the
    others; as t is annealed, x comes back to it."""
    cond, uncond = (jnp.repeat(PRIOR.embed([p]), 2, axis=0) for p in (prompt, ""))
    start = jnp.full((2, 2, 2, 3), 0.5)
    x, metrics = distilled(
        PRIOR.denoise, PRIOR.params, start, jax.random.key(1), cond, uncond, guidance
    )
    assert np.asarray(metrics.finite).all()
    distance = np.abs(np.asarray(x)[:, None] - np.asarray(MEANS)).mean(axis=(2, 3, 4))
    # A pixel of the prior is .1 around its mode: x is much closer than a sample would be.
    assert distance[:, ["cat", "dog", "cow"].index(prompt)].max() < 0.02
    assert np.sort(distance, axis=1)[:, 1].min() > 0.1
