import jax
import jax.numpy as jnp
import numpy as np

from geojax.methods import regularizers


def test_orientation_by_a_loop(rng):
    weights = rng.uniform(size=(2, 3)).astype(np.float32)
    normals, directions = (rng.normal(size=shape) for shape in [(2, 3, 3), (2, 3)])
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    got = jax.jit(regularizers.orientation_penalty)(
        *(jnp.asarray(a, jnp.float32) for a in (weights, normals, directions))
    )
    for ray in range(2):
        want = 0.0
        for i in range(3):
            # Ref-NeRF's form, with the direction back to the camera
            want += weights[ray, i] * min(0.0, normals[ray, i] @ -directions[ray]) ** 2
        np.testing.assert_allclose(got[ray], want, rtol=1e-5)


def test_orientation_turns_normals_and_leaves_density():
    toward, away = jnp.array([[0.0, 0, -1]]), jnp.array([[0.0, 0, 1]])
    forward = jnp.array([0.0, 0, 1])

    @jax.jit
    def slopes(weights, normals):
        return jax.grad(
            lambda w, n: jnp.sum(regularizers.orientation_penalty(w, n, forward)), argnums=(0, 1)
        )(weights, normals)

    by_weight, by_normal = slopes(jnp.array([0.5]), away)
    np.testing.assert_array_equal(by_weight, 0.0)
    np.testing.assert_allclose(by_normal, [[0, 0, 1.0]])
    np.testing.assert_array_equal(slopes(jnp.array([0.5]), toward)[1], 0.0)


def test_orientation_loss_is_a_mean_over_the_rays_that_hit():
    orientation = jnp.array([[[3.0, 1.0, 0.0, 0.0]]])
    opacity = jnp.array([[[0.5, 1.0, 0.0, 0.0]]])
    np.testing.assert_allclose(regularizers.orientation_loss(orientation, opacity), 2.0)
    empty = jnp.zeros_like(opacity)
    assert float(regularizers.orientation_loss(empty, empty)) == 0.0


def test_opacity():
    np.testing.assert_allclose(regularizers.opacity_loss(jnp.zeros((1, 2, 2))), 0.1)
    np.testing.assert_allclose(regularizers.opacity_loss(jnp.ones((1, 2, 2))), 1.01**0.5)
    slope = jax.grad(lambda o: regularizers.opacity_loss(o))(jnp.zeros((1, 1, 1)))
    assert float(slope[0, 0, 0]) == 0.0


def test_entropy():
    p = jnp.array([0.0, 0.25, 0.5, 0.75, 1.0])
    bits = np.asarray(regularizers.binary_entropy(p))
    np.testing.assert_allclose(bits, [0, 0.811278, 1, 0.811278, 0], atol=2e-4)
    slope = np.asarray(jax.jit(jax.grad(lambda p: jnp.sum(regularizers.binary_entropy(p))))(p))
    assert np.isfinite(slope).all() and abs(slope[2]) < 1e-6
    np.testing.assert_allclose(slope[1], np.log2(3), rtol=1e-5)
    np.testing.assert_allclose(regularizers.entropy_loss(p), bits.mean(), rtol=1e-5)


def test_air_is_of_what_lies_about_the_cameras():
    """A uniform density has log(1 + r sigma) everywhere; the points fill the ball evenly."""
    positions = jnp.asarray([[0.0, 0.0, 0.0], [5.0, -1.0, 2.0]])
    points = regularizers.around(jax.random.key(0), positions, 0.5, 4000)
    apart = np.linalg.norm(np.asarray(points).reshape(2, 4000, 3) - positions[:, None], axis=-1)
    assert apart.max() <= 0.5 + 1e-5
    # E |u|^3 of a uniform ball is 1/2.
    np.testing.assert_allclose(((apart / 0.5) ** 3).mean(axis=1), 0.5, atol=0.02)
    np.testing.assert_allclose(regularizers.air_loss(jnp.full(7, 4.0), 0.5), np.log(3.0), rtol=1e-6)
    slope = jax.grad(lambda s: regularizers.air_loss(s, 0.5))(jnp.asarray([0.0, 1e8]))
    np.testing.assert_allclose(slope, [0.25, 0.5e-8], rtol=1e-5)
