"""Pictures of a state: nothing in occupied space is left out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.distill import worlds
from experiments import object_report
from geojax.geometry.camera_sampling import orbit
from geojax.geometry.occupancy import full_grid
from geojax.io.media import grid, write_png
from geojax.methods.text_to_3d import State
from geojax.models.fields import Field

RADIUS = 0.55


def apply(params, points):
    """Stripes, so that a dropped sample shows; soft ones, so that no rounding does."""
    stripe = 0.5 + 0.5 * jnp.sin(20.0 * points[:, 0])
    return params * stripe, 0.5 + 0.5 * jnp.sin(9.0 * points)


KEY = jax.random.key(0)
FIELD = Field(lambda key: jnp.float32(20.0), apply)


@pytest.mark.parametrize("learnt", [False, True])
def test_no_sample_is_dropped_however_small_the_capacity(learnt):
    config = worlds.get_config()
    config.samples = 12
    # The optimiser, the step and the key are of no interest.
    state = State(jnp.float32(20.0), (), full_grid(4, RADIUS), jnp.zeros((), jnp.int32), KEY)
    views = orbit(2, np.radians(20.0), 1.45, 1.26, 12, 12)
    behind = (lambda params, directions: 0.5 + 0.1 * directions) if learnt else None
    seen = {}
    for capacity in (64, 10_000):
        config.capacity = capacity
        seen[capacity] = object_report.Pictures(config, FIELD, behind)(state, views, normals=True)
    assert np.all(seen[64].dropped == 0.0) and seen[10_000].occupied.min() > 128
    assert seen[64].opacity.max() > 0.5
    # The depth of a ray that only grazes the ball is rounding.
    air = seen[10_000].opacity < 1e-4
    seen = {c: r._replace(depth=np.where(air, 0.0, r.depth)) for c, r in seen.items()}
    for few, many in zip(jax.tree.leaves(seen[64]), jax.tree.leaves(seen[10_000]), strict=True):
        if few.ndim > 1:  # a chunk's count of samples is that of another chunk
            np.testing.assert_allclose(few, many, atol=1e-4)


def test_what_is_written_is_within_what_was_asked_for(tmp_path):
    """PNGs do not grow on being compressed, even those of noise."""
    config = worlds.get_config()
    noise = np.random.default_rng(0).uniform(size=(1, 4, 64, 64, 3))
    write_png(tmp_path / "a.png", grid(noise[0][None]))
    assert 2 * (tmp_path / "a.png").stat().st_size < object_report.progress_bytes(config)
