import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.methods import surrogate


@pytest.mark.parametrize("batch", [3, 4])
def test_the_surrogates_gradient_is_g_over_b_bit_for_bit(batch):
    """Also where |x| is so much larger than g that x - (x - g) is not g."""
    x, g = (jax.random.normal(key, (batch, 5)) for key in jax.random.split(jax.random.key(3)))
    value, grad = jax.jit(jax.value_and_grad(surrogate.surrogate_loss))(1e4 * x, g)
    np.testing.assert_array_equal(grad, g / batch)
    np.testing.assert_allclose(value, 0.5 * np.sum(np.square(g)) / batch, rtol=1e-6)


def test_the_gradient_is_weighted_by_item_and_finite():
    eps, noise = (jax.random.normal(key, (2, 3)) for key in jax.random.split(jax.random.key(4)))
    eps = eps.at[0, 0].set(jnp.nan).at[1, 2].set(jnp.inf)
    weight = jnp.array([0.5, 2.0])
    got = surrogate.weighted(eps - noise, weight)
    want = np.asarray(weight)[:, None] * np.asarray(eps - noise)
    want[0, 0] = want[1, 2] = 0.0
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_what_is_not_finite_is_told_and_kept_out():
    x, t = jnp.ones((2, 3)), jnp.array([1, 2])
    residual = jnp.ones((2, 3)).at[1, 1].set(jnp.nan)

    def loss(x):
        return surrogate.distill(x, residual, jnp.array([1.0, 2.0]), t)

    (value, metrics), grad = jax.value_and_grad(loss, has_aux=True)(x)
    assert not bool(metrics.finite)
    assert np.isfinite(value) and all(np.isfinite(np.asarray(m)).all() for m in metrics)
    np.testing.assert_array_equal(grad, [[0.5, 0.5, 0.5], [1.0, 0.0, 1.0]])


def test_coherence_tells_signal_from_noise():
    noise = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    ramp = jnp.broadcast_to(jnp.linspace(-1, 1, 32)[None, :, None, None], noise.shape)
    t, weight = jnp.array([1, 2]), jnp.ones(2)

    def coherence(residual):
        return float(surrogate.distill(noise, residual, weight, t)[1].coherence)

    assert abs(coherence(noise)) < 0.05
    assert coherence(ramp) > 0.99
    # A neighbour's correlation of c says a signal-to-noise ratio of c / (1 - c).
    power = float(jnp.mean(ramp**2))
    both = coherence(ramp + noise)
    np.testing.assert_allclose(both / (1 - both), power, rtol=0.1)
