"""The three fields, their blobs and activations, and the background."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.models import fields

FIELDS = {
    "hash": fields.HashGridField(levels=3, coarsest=4, finest=16, table_size=256, hidden=8),
    "mip": fields.MipNerfField(width=16, blocks=2, radius=1.0, degrees=3),
    "voxels": fields.VoxelField(size=6, ball=1.0, channels=3),
}
ORIGIN = jnp.zeros((1, 3))


def jitted(module):
    field = fields.as_field(module)
    return field._replace(apply=jax.jit(field.apply))


def test_known_answer_blobs():
    assert fields.truncated_exp(fields.gaussian_blob(ORIGIN))[0] == pytest.approx(148.413, rel=1e-5)
    raw = fields.linear_blob(jnp.array([[0.0, 0, 0], [0, 0.5, 0]]))
    np.testing.assert_allclose(jax.nn.softplus(raw), [10.0000454, 0.693147], rtol=1e-6)


def test_a_hollow_box_is_empty_within_and_grows_outward():
    points = jnp.array([[0.0, 0, 0], [0.5, 0, 0], [0.0, -0.4, 0.25], [0.6, 0.1, 0.3], [0, 0, -0.5]])
    raw = fields.hollow_box(points, (0.5, 0.4, 0.25), slope=10.0)
    np.testing.assert_allclose(raw, [-2.5, 0.0, 0.0, 1.0, 2.5], atol=1e-6)


def test_blobs_have_finite_slopes_at_the_origin():
    for blob in (fields.gaussian_blob, fields.linear_blob, fields.no_blob):
        np.testing.assert_array_equal(jax.grad(lambda x, f=blob: f(x).sum())(ORIGIN), ORIGIN)


def test_truncated_exp_slope_stops_growing():
    x = jnp.array([-20.0, 1.0, 20.0])
    np.testing.assert_allclose(fields.truncated_exp(x), np.exp(x), rtol=1e-6)
    slope = jax.grad(lambda x: fields.truncated_exp(x).sum())(x)
    np.testing.assert_allclose(slope, np.exp([-20.0, 1.0, 15.0]), rtol=1e-5)
    # Twice differentiable, for normals.
    assert jax.grad(jax.grad(fields.truncated_exp))(1.0) == pytest.approx(np.e, rel=1e-5)


@pytest.mark.parametrize("name", FIELDS)
def test_face_of_every_field(name, key):
    module = FIELDS[name]
    field = jitted(module)
    params = field.init(key)
    x = jax.random.uniform(key, (64, 3), minval=-1.2, maxval=1.2)

    def total(params, x):
        density, feature = field.apply(params, x)
        return jnp.sum(density) + jnp.sum(feature), (density, feature)

    step = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))
    (_, (density, feature)), grads = step(params, x)
    assert density.shape == (64,) and feature.shape == (64, 3)
    outside = np.linalg.norm(x, axis=-1) > 1.0
    assert outside.any() and np.all(density[outside] == 0) and np.all(density[~outside] > 0)
    assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(grads))
    # Every parameter learns. Zero voxels hide their scale, until they have moved.
    grads[0].pop("log_scale", None)
    assert all(np.any(g != 0) for g in jax.tree.leaves(grads[0]))
    if name != "voxels":
        assert np.all((feature > 0) & (feature < 1))


def test_feature_activation_is_a_choice(key):
    module = FIELDS["hash"].clone(feature_activation=lambda x: x, channels=4)
    field = jitted(module)
    params = jax.tree.map(lambda p: 30.0 * p, field.init(key))
    feature = field.apply(params, jax.random.normal(key, (50, 3)))[1]
    assert feature.shape == (50, 4) and feature.min() < 0


def test_blob_is_visible_from_the_start(key):
    for name in ("hash", "mip"):
        field = jitted(FIELDS[name])
        density, _ = field.apply(field.init(key), jnp.array([[0.0, 0, 0], [0.9, 0, 0]]))
        assert density[0] > 9 and density[1] < 5


def test_voxels_start_as_score_jacobian_chaining(key):
    field = jitted(fields.VoxelField(size=5, channels=4))
    params = field.init(key)
    x = jax.random.uniform(key, (30, 3), minval=-1.0, maxval=1.0)
    density, feature = field.apply(params, x)
    np.testing.assert_allclose(density, np.full(30, 0.313262), rtol=1e-5)
    assert feature.shape == (30, 4) and params["log_scale"].shape == ()
    assert np.all(field.apply(params, x + 5.0)[0] == 0)
    # Values sit at voxel centres: x fastest.
    centre = jnp.array([[-0.8 + 0.4 * 3, -0.8 + 0.4 * 1, -0.8 + 0.4 * 2]])
    index = 3 + 5 * (1 + 5 * 2)
    np.testing.assert_allclose(
        field.apply(params, centre)[1][0], params["feature"][:, index], atol=1e-5
    )
    denser = {**params, "density": jnp.ones_like(params["density"]), "log_scale": jnp.float32(0.5)}
    np.testing.assert_allclose(
        field.apply(denser, centre)[0], jax.nn.softplus(jnp.exp(jnp.array([0.5])) - 1), rtol=1e-5
    )


def test_mip_variance_blurs(key):
    field = jitted(FIELDS["mip"])
    params = field.init(key)
    x = jax.random.normal(key, (20, 3)) * 0.3
    sharp = field.apply(params, x)[1]
    np.testing.assert_array_equal(sharp, field.apply(params, x, jnp.zeros_like(x))[1])
    assert np.abs(sharp - field.apply(params, x, jnp.full_like(x, 0.5))[1]).max() > 1e-3


def test_background_depends_on_the_direction_and_learns(key):
    background = jitted(fields.Background(channels=4, activation=nn.tanh))
    params = background.init(key)
    assert sorted(params) == ["layers_0", "layers_1", "layers_2"]
    directions = jnp.eye(3)
    colour = background.apply(params, directions)
    assert colour.shape == (3, 4) and np.abs(colour[0] - colour[1]).max() > 1e-3
    grads = jax.jit(jax.grad(lambda p: background.apply(p, directions).sum()))(params)
    assert all(np.any(g != 0) for g in jax.tree.leaves(grads))
