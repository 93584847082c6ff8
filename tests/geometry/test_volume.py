"""Volume rendering against known answers, slow references and awkward inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geojax.geometry import volume

composite_weights = jax.jit(volume.composite_weights)
linear_edges = jax.jit(volume.linear_edges, static_argnums=2)
sample_pdf = jax.jit(volume.sample_pdf, static_argnums=3)
sample_intervals = jax.jit(volume.sample_intervals, static_argnums=(3, 4))
distortion_loss = jax.jit(volume.distortion_loss)

EDGES = jnp.array([0.0, 0.5, 1.0])
DENSITY = jnp.array([1.0, 2.0])

weights_and_grad = jax.jit(
    jax.value_and_grad(
        lambda d, e: jnp.sum(composite_weights(d, e) * jnp.arange(1.0, d.shape[-1] + 1)),
        argnums=(0, 1),
    )
)


def test_known_answer_weights_and_distortion():
    w = composite_weights(DENSITY, EDGES)
    np.testing.assert_allclose(w, [0.393469, 0.383401], atol=1e-6)
    np.testing.assert_allclose(w.sum(), 0.776870, atol=1e-6)
    np.testing.assert_allclose(distortion_loss(w, EDGES), 0.201159, atol=1e-6)


def slow_weights(density, edges):
    transmittance, out = 1.0, []
    for sigma, start, end in zip(density, edges[:-1], edges[1:], strict=True):
        alpha = 1.0 - np.exp(-sigma * (end - start))
        out.append(transmittance * alpha)
        transmittance *= 1.0 - alpha
    return np.array(out)


@given(st.integers(0, 2**31), st.floats(0.1, 100.0))
def test_weights_match_the_recursion_and_sum_to_opacity(seed, scale):
    rng = np.random.default_rng(seed)
    density = rng.exponential(scale, 7)
    edges = np.sort(rng.uniform(0, 3, 8))
    w = composite_weights(jnp.float32(density), jnp.float32(edges))
    np.testing.assert_allclose(w, slow_weights(density, edges), atol=2e-5)
    np.testing.assert_allclose(w.sum(), 1 - np.exp(-(density * np.diff(edges)).sum()), atol=2e-5)


def test_splitting_an_interval_keeps_its_weight():
    fine = composite_weights(jnp.array([1.0, 1.0, 2.0]), jnp.array([0.0, 0.2, 0.5, 1.0]))
    coarse = composite_weights(DENSITY, EDGES)
    np.testing.assert_allclose([fine[0] + fine[1], fine[2]], coarse, atol=1e-6)


@pytest.mark.parametrize(
    "density", [[0.0, 0.0, 0.0], [1e30, 1e30, 1.0], [np.inf, 0.0, np.inf], [1e-9, 1e-9, 0.0]]
)
@pytest.mark.parametrize("edges", [[0.0, 0.5, 1.0, 2.0], [1.0, 1.0, 1.0, 1.0]])
def test_finite_at_the_awkward_points(density, edges):
    value, grads = weights_and_grad(jnp.array(density), jnp.array(edges))
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(g)) for g in grads)


def test_thin_samples_still_weigh():
    w = composite_weights(jnp.array([1e-9, 1e-9, 0.0]), jnp.array([0.0, 0.5, 1.0, 2.0]))
    np.testing.assert_allclose(w, [5e-10, 5e-10, 0.0], rtol=1e-5)


def test_empty_space_has_a_gradient():
    # Otherwise nothing can ever grow where nothing is.
    _, (grad, _) = weights_and_grad(jnp.zeros(3), jnp.array([0.0, 0.5, 1.0, 2.0]))
    np.testing.assert_allclose(grad, [0.5, 1.0, 3.0], rtol=1e-6)


def test_linear_edges_and_one_draw_in_each_bin(key):
    edges = linear_edges(jnp.array([1.0, 2.0]), jnp.array([3.0, 2.0]), 4)
    np.testing.assert_allclose(edges, [[1, 1.5, 2, 2.5, 3], [2, 2, 2, 2, 2]])
    many = jax.jit(jax.vmap(volume.stratified_distances, in_axes=(0, None)))
    draws, edges = np.asarray(many(jax.random.split(key, 500), edges)), np.asarray(edges)
    assert np.all(draws >= edges[:, :-1]) and np.all(draws <= edges[:, 1:])
    np.testing.assert_allclose(draws[:, 0].mean(0), [1.25, 1.75, 2.25, 2.75], atol=0.03)


def test_pdf_samples_follow_the_weights(key):
    edges = jnp.array([[0.0, 1.0, 3.0, 4.0]])
    weights = jnp.array([[0.1, 0.6, 0.3]])
    draws = sample_pdf(key, edges, weights, 2000)
    assert np.all(np.diff(draws) >= 0)
    share = np.histogram(draws[0], bins=np.asarray(edges[0]))[0] / 2000
    np.testing.assert_allclose(share, weights[0], atol=2e-3)
    # Inside an interval the draws are even.
    np.testing.assert_allclose(np.mean(draws[(draws > 1) & (draws < 3)]), 2.0, atol=0.02)


def slow_pdf(edges, weights, u):
    mass = (weights + 1e-5) / (weights + 1e-5).sum()
    cdf = np.concatenate([[0.0], np.cumsum(mass)])
    return np.interp(u, cdf, edges)


def test_pdf_samples_match_numpy_and_are_detached():
    rng = np.random.default_rng(1)
    edges, weights = np.sort(rng.uniform(0, 2, 9)), rng.exponential(1.0, 8) * (rng.random(8) > 0.4)
    args = jnp.float32(edges), jnp.float32(weights)
    draws = sample_pdf(None, *args, 16)
    np.testing.assert_allclose(
        draws, slow_pdf(edges, weights, (np.arange(16) + 0.5) / 16), atol=1e-4
    )
    grad = jax.grad(lambda e, w: volume.sample_intervals(None, e, w, 16).sum(), (0, 1))
    grads = jax.jit(grad)(*args)
    assert all(np.all(g == 0) for g in grads)


def test_pdf_samples_of_an_empty_ray_and_of_a_spike():
    edges = jnp.linspace(0.0, 1.0, 5)
    even = sample_pdf(None, edges, jnp.zeros(4), 4)
    np.testing.assert_allclose(even, [0.125, 0.375, 0.625, 0.875], atol=1e-6)
    spike = sample_pdf(None, edges, jnp.array([0.0, 1e6, 0.0, 0.0]), 8)
    assert np.all((spike >= 0.25) & (spike <= 0.5))


def test_intervals_reflect_the_ends_and_stay_inside():
    edges = jnp.linspace(0.0, 1.0, 5)
    out = sample_intervals(None, edges, jnp.array([0.0, 1.0, 0.0, 0.0]), 4, 0.0)
    # Centres .28125 + .0625 i: midpoints between them, the first and last reflected.
    np.testing.assert_allclose(out, 0.25 + 0.0625 * np.arange(5), atol=1e-5)
    wide = sample_intervals(None, edges, jnp.array([1.0, 0.0, 0.0, 1.0]), 2)
    assert wide[0] >= 0 and wide[-1] <= 1 and np.all(np.diff(wide) >= 0)
    with pytest.raises(ValueError, match="got 1"):
        volume.sample_intervals(None, edges, jnp.ones(4), 1)


def test_dilation_is_the_maximum_of_the_density_nearby():
    edges = jnp.array([0.0, 0.2, 0.5, 0.6, 1.0])
    weights = jnp.array([0.2, 0.1, 0.5, 0.2])
    new, dilated = jax.jit(volume.dilate_weights)(edges, weights, 0.05)
    edges = np.asarray(edges)
    density = np.asarray(weights) / np.diff(edges)
    for start, end, w in zip(new[:-1], new[1:], dilated, strict=True):
        if end - start > 1e-6:
            middle = (start + end) / 2
            near = (edges[:-1] - 0.05 <= middle) & (middle < edges[1:] + 0.05)
            # Normalised: proportions only.
            expected = density[np.asarray(near)].max() * (end - start)
            np.testing.assert_allclose(w * _dilated_total(edges, density), expected, rtol=1e-4)
    np.testing.assert_allclose(dilated.sum(), 1.0, atol=1e-6)


def _dilated_total(edges, density):
    """Integral of the dilated density, on a fine grid of midpoints."""
    x = (np.arange(200000) + 0.5) / 200000
    near = (edges[:-1, None] - 0.05 <= x) & (x < edges[1:, None] + 0.05)
    return np.where(near, density[:, None], 0.0).max(0).mean()


def test_distortion_equals_the_double_sum():
    rng = np.random.default_rng(2)
    edges = np.sort(rng.uniform(0, 1, (3, 10)), axis=-1)
    w = rng.dirichlet(np.ones(9), 3) * 0.9
    m = (edges[:, 1:] + edges[:, :-1]) / 2
    slow = (w[:, :, None] * w[:, None] * np.abs(m[:, :, None] - m[:, None])).sum((1, 2))
    slow += (w**2 * np.diff(edges)).sum(1) / 3
    fast = distortion_loss(jnp.float32(w), jnp.float32(edges))
    np.testing.assert_allclose(fast, slow, atol=1e-6)


def test_interlevel_is_zero_when_bounded_and_pushes_the_proposal_up():
    edges, weights = jnp.array([0.0, 0.25, 0.5, 1.0]), jnp.array([0.1, 0.6, 0.1])
    coarse = jnp.array([0.0, 0.5, 1.0])
    step = jax.jit(
        jax.value_and_grad(lambda w, p: volume.interlevel_loss(edges, w, coarse, p), (0, 1))
    )
    assert step(weights, jnp.array([0.7, 0.1]))[0] == 0
    loss, (d_weights, d_low) = step(weights, jnp.array([0.4, 0.1]))
    np.testing.assert_allclose(loss, (0.6 - 0.4) ** 2 / 0.6, rtol=1e-5)
    assert np.all(d_weights == 0)
    assert d_low[0] < 0 and d_low[1] == 0
