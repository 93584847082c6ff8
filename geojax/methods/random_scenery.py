"""What surrounds an object in each picture: a light, and a plain background.

Poole et al., "DreamFusion" (2022), section 3.1 and appendix A: both are drawn anew for every view,
so that neither the light nor what is behind can be painted on the surface.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from geojax.geometry.camera_sampling import sample_light
from geojax.methods.ray_marching import Light


def random_light(
    key: Key[Array, ""],
    positions: Float[Array, "B 3"],
    ambient: tuple[float, float],
    textureless: float,
) -> Light:
    """DreamFusion's random light around each camera; some views lose their texture.

    Args:
      key: consumed.
      positions: of the cameras, world units.
      ambient: range of the ambient share; the diffuse share is the rest.
      textureless: probability that a view shows a white surface, which only shape can please.
    """
    light_key, ambient_key, texture_key = jax.random.split(key, 3)
    low, high = ambient
    share = jax.random.uniform(ambient_key, positions.shape[:1], minval=low, maxval=high)
    white = jax.random.bernoulli(texture_key, textureless, positions.shape[:1])
    return Light(
        position=sample_light(light_key, positions),
        ambient=share,
        diffuse=1.0 - share,
        texture=1.0 - white.astype(jnp.float32),
    )


def random_backgrounds(key: Key[Array, ""], count: int) -> Float[Array, "B 3"]:
    """Plain random backgrounds in [0, 1]: what is not solid cannot please before all of them."""
    grey_key, tint_key = jax.random.split(key)
    grey = jax.random.uniform(grey_key, (count, 1), minval=0.3, maxval=1.0)
    return jnp.clip(grey + 0.06 * jax.random.normal(tint_key, (count, 3)), 0.0, 1.0)
