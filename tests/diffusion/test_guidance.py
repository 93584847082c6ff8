import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.diffusion.guidance import guided, guided_denoise, perp_neg, perp_neg_weights

SHAPE = (3, 2, 2, 2)
direction = jax.jit(perp_neg)
weights_at = jax.jit(perp_neg_weights)


@pytest.fixture(scope="module")
def eps():
    return [jax.random.normal(key, SHAPE) for key in jax.random.split(jax.random.key(0), 4)]


def test_the_convention(eps):
    """g = 0 ignores the prompt, g = 1 is the conditional model, DreamFusion's omega is g - 1."""
    u, c = eps[:2]
    np.testing.assert_array_equal(guided(u, c, 0.0), u)
    np.testing.assert_allclose(guided(u, c, 1.0), c, atol=1e-6)
    omega = 99.0
    np.testing.assert_allclose(guided(u, c, 1.0 + omega), (1 + omega) * c - omega * u, atol=1e-4)


def test_guidance_of_each_item(eps):
    u, c = eps[:2]
    scales = jnp.array([0.0, 2.0, 7.5])
    each = guided(u, c, scales)
    for i in range(3):
        np.testing.assert_allclose(each[i], guided(u, c, float(scales[i]))[i], atol=1e-5)


def test_parallel_negatives_change_nothing(eps):
    u, pos = eps[:2]
    parallel = jnp.stack([u + 3.0 * (pos - u), u - 0.5 * (pos - u)])
    got = direction(u, pos, parallel, jnp.full((2, 3), -2.0))
    np.testing.assert_allclose(got, pos - u, atol=2e-5)


def test_negatives_act_at_a_right_angle_by_a_loop(eps):
    u, pos, *neg = (np.asarray(e, np.float64) for e in eps)
    weights = np.array([[-1.0, -0.5, 0.0], [-2.0, 0.3, 0.0]])
    got = direction(*eps[:2], jnp.stack(eps[2:]), jnp.asarray(weights, jnp.float32))
    for b in range(3):
        p = pos[b] - u[b]
        want = p.copy()
        for i in range(2):
            d = neg[i][b] - u[b]
            want += weights[i, b] * (d - (d * p).sum() / (p * p).sum() * p)
        np.testing.assert_allclose(got[b], want, atol=1e-5)
        np.testing.assert_allclose(((got[b] - p) * p).sum(), 0.0, atol=1e-4)


def test_perp_neg_is_finite_where_the_prompt_says_nothing(eps):
    u, neg = eps[0], eps[2][None]
    got = direction(u, u, neg, jnp.full((1, 3), -1.0))
    np.testing.assert_allclose(got, -(neg[0] - u), atol=1e-6)
    weights = jnp.full((1, 3), -1.0)
    slope = jax.jit(jax.grad(lambda pos: jnp.sum(perp_neg(u, pos, neg, weights))))(u)
    assert np.isfinite(slope).all()


def test_weights_at_the_four_sides():
    """Rows front, side; a view is not pushed away from itself."""
    degrees = jnp.array([0.0, 90.0, 180.0, -90.0, 450.0])
    front, side = np.asarray(weights_at(jnp.radians(degrees)))
    half = np.exp(-0.5)
    np.testing.assert_allclose(front[0], -(4 * half - 2.426), atol=1e-5)  # about 0
    np.testing.assert_allclose(side[0], -(4 - 2.426), atol=1e-5)
    np.testing.assert_allclose(front[2], -(1 + 0.967), atol=1e-5)
    np.testing.assert_allclose(side[2], -(1 - 0.606), atol=1e-5)
    # at the side, from the front half: away from the front, hardly from the side
    np.testing.assert_allclose(front[1], -(4 - 2.426), atol=2e-5)
    np.testing.assert_allclose(side[1], -(4 * half - 2.426), atol=2e-5)
    np.testing.assert_allclose(front[3:], front[1], atol=1e-4)
    just_behind = np.asarray(weights_at(jnp.radians(jnp.array([90.1] * 5))))[:, 0]
    np.testing.assert_allclose(just_behind, [-(half + 0.967), -(half - 0.606)], atol=2e-3)


def test_guided_denoise_asks_once_for_both():
    """A network that is linear in its condition: guidance goes g times as far."""
    z = jax.random.normal(jax.random.key(3), (2, 3))
    condition, nothing = jnp.full((2, 1, 1), 5.0), jnp.full((2, 1, 1), 1.0)
    calls = []

    def denoise(z, t, y):
        calls.append((z.shape, t.tolist()))
        return z + y[:, 0]

    eps = guided_denoise(denoise, condition, nothing, 3.0)(z, jnp.array([7, 9]))
    np.testing.assert_allclose(eps, z + 1.0 + 3.0 * 4.0, rtol=1e-6)
    assert calls == [((4, 3), [7, 9, 7, 9])]
