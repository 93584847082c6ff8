import jax
import jax.numpy as jnp
import numpy as np

from geojax.models.backgrounds import TextureBackground, with_background
from geojax.models.fields import VoxelField, as_field


def test_directions_find_their_texel_without_a_seam():
    background = as_field(TextureBackground(channels=1, size=4))
    texture = jnp.arange(16.0).reshape(4, 4, 1)

    def at(polar, azimuth):
        direction = [
            np.sin(polar) * np.cos(azimuth),
            np.sin(polar) * np.sin(azimuth),
            np.cos(polar),
        ]
        return float(background.apply({"texture": texture}, jnp.asarray([direction]))[0, 0])

    # The centre of texel (i, j): polar angle (i + .5) pi / 4, azimuth (j + .5) pi / 2 - pi.
    for i in range(4):
        for j in range(4):
            value = at((i + 0.5) * np.pi / 4, (j + 0.5) * np.pi / 2 - np.pi)
            np.testing.assert_allclose(value, 4 * i + j, atol=1e-3)
    # Halfway between the last column and the first, from both sides of the cut at azimuth pi.
    for azimuth in (np.pi - 1e-4, -np.pi + 1e-4):
        np.testing.assert_allclose(at(1.5 * np.pi / 4, azimuth), (4 + 7) / 2, atol=1e-2)
    np.testing.assert_allclose(at(0.0, 0.0), at(0.01, 0.0), atol=0.1)
    up = background.apply({"texture": texture}, jnp.asarray([[0.0, 0.0, 1.0]]))
    assert np.isfinite(np.asarray(up)).all()


def test_field_and_background_share_their_parameters():
    voxels = as_field(VoxelField(channels=4, size=4))
    field, behind = with_background(voxels, as_field(TextureBackground()))
    params = field.init(jax.random.key(0))
    points = jnp.zeros((3, 3))
    for got, want in zip(
        field.apply(params, points), voxels.apply(params["field"], points), strict=True
    ):
        np.testing.assert_array_equal(got, want)
    # Before training the voxels are a fog of softplus(-1) everywhere.
    np.testing.assert_allclose(field.apply(params, points)[0], 0.313262, atol=1e-6)
    assert behind(params, jnp.eye(3)).shape == (3, 4)
    slope = jax.grad(lambda p: jnp.sum(behind(p, jnp.eye(3))))(params)
    np.testing.assert_allclose(jnp.sum(slope["background"]["texture"]), 12.0, rtol=1e-5)
    assert not np.any(slope["field"]["density"])
