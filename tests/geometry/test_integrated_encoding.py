"""Conical frustums, the integrated encoding and the contraction."""

import jax
import jax.numpy as jnp
import numpy as np

from geojax.geometry import integrated_encoding as ipe

contract = jax.jit(ipe.contract)
integrated_encoding = jax.jit(ipe.integrated_encoding, static_argnums=(2, 3))


def test_known_answer_frustum():
    t_mean, t_var, r_var = ipe.conical_frustum(jnp.float32(1.0), jnp.float32(2.0), jnp.float32(0.1))
    np.testing.assert_allclose(t_mean, 1.607143, atol=1e-6)
    np.testing.assert_allclose(t_var, 0.0742347, atol=1e-7)
    np.testing.assert_allclose(r_var, 0.00664286, atol=1e-8)


def test_frustum_gaussian_matches_points_drawn_in_the_frustum():
    rng = np.random.default_rng(0)
    direction = np.array([2.0, 1.0, 2.0]) / 3.0
    origin = np.array([0.3, -1.0, 0.2])
    # Uniform in the frustum: t with density t^2, a disc of radius r t across.
    t = (1.0 + rng.random(400_000) * (2.0**3 - 1.0)) ** (1 / 3)
    across = np.linalg.svd(direction[None])[2][1:]
    radius, angle = 0.4 * t * np.sqrt(rng.random(t.size)), 2 * np.pi * rng.random(t.size)
    disc = radius[:, None] * (
        np.cos(angle)[:, None] * across[0] + np.sin(angle)[:, None] * across[1]
    )
    points = origin + t[:, None] * direction + disc
    mean, variance = jax.jit(ipe.frustum_gaussian)(
        jnp.float32(origin), jnp.float32(direction),
        jnp.float32(1.0), jnp.float32(2.0), jnp.float32(0.4),
    )  # fmt: skip
    np.testing.assert_allclose(mean, points.mean(0), atol=2e-3)
    np.testing.assert_allclose(variance, points.var(0), rtol=2e-2)


def test_encoding_is_the_expectation_over_the_gaussian():
    rng = np.random.default_rng(1)
    mean, std = np.array([0.3, -0.7, 1.1]), np.array([0.2, 0.05, 0.4])
    x = mean + std * rng.standard_normal((400_000, 3))
    phase = (x[:, None] * 2.0 ** np.arange(3)[:, None]).reshape(len(x), -1)
    expected = np.concatenate([np.sin(phase), np.cos(phase)], axis=-1).mean(0)
    out = integrated_encoding(jnp.float32(mean), jnp.float32(std**2), 0, 3)
    np.testing.assert_allclose(out, expected, atol=4e-3)


def test_frustum_is_finite_at_the_apex():
    zero = jnp.zeros(())
    grads = jax.jit(jax.grad(lambda *a: sum(ipe.conical_frustum(*a)), (0, 1, 2)))(
        zero, zero, zero + 0.1
    )
    assert all(np.isfinite(g) for g in grads)


def test_contraction_known_answers_and_derivative():
    points = jnp.array([[0.5, 0.0, 0.0], [2.0, 0.0, 0.0], [0.0, 1e6, 0.0], [0.0, 0.0, 0.0]])
    out = contract(points)
    np.testing.assert_allclose(out[:2], [[0.5, 0, 0], [1.5, 0, 0]], atol=1e-6)
    assert np.all(jnp.linalg.norm(out, axis=-1) <= 2.0)
    assert np.all(np.isfinite(jax.jit(jax.grad(lambda p: jnp.sum(ipe.contract(p))))(points)))


def test_contracted_gaussian_matches_samples():
    rng = np.random.default_rng(2)
    root = 0.02 * rng.standard_normal((3, 3))
    mean = np.array([2.0, -1.0, 0.5])
    x = mean + rng.standard_normal((100_000, 3)) @ root.T
    out = np.asarray(contract(jnp.float32(x)), np.float64)
    new_mean, cov = jax.jit(ipe.contract_gaussian)(
        jnp.float32(mean)[None], jnp.float32(root @ root.T)[None]
    )
    np.testing.assert_allclose(new_mean[0], out.mean(0), atol=1e-3)
    np.testing.assert_allclose(cov[0], np.cov(out.T), atol=2e-2 * np.abs(np.cov(out.T)).max())
