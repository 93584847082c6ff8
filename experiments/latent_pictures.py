"""Pictures of a field of latents: rendered finely, averaged to latents, decoded.

Symbols: S side of the picture in pixels, f the autoencoder's factor, l a latent, c a colour.
    (1)  picture = decode(mean over f x f pixels of the latents rendered at S)
    (2)  c = M [l, 1], by least squares over the decoded pictures of the object

Source of (1): Score Jacobian Chaining, the authors' code, which renders four times as finely. (2)
gives a mesh colours: a decoder needs a neighbourhood, which a point of a surface has not.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import object_report
from geojax.geometry.camera_sampling import ViewSample
from geojax.methods.radiance import Rendering
from geojax.methods.text_to_3d import BackgroundOf, State
from geojax.models.fields import Field
from geojax.priors.prior import Prior
from geojax.worlds import measure


class LatentPictures(object_report.Pictures):
    """As `Pictures`, for a field of the prior's latents before its own background."""

    def __init__(self, config: Any, field: Field, background: BackgroundOf, prior: Prior):
        super().__init__(config, field, background)
        self._field, self._factor = field, prior.image_size // prior.latent_size

        def decode(latents: jax.Array) -> jax.Array:
            return prior.decode(prior.params, mean_pool(latents, self._factor))

        self._decode = jax.jit(decode)

    def __call__(self, state: State, views: ViewSample, *, normals: bool = False) -> Rendering:
        """Renderings of V views, as numpy arrays, their `rgb` decoded."""
        seen = super().__call__(state, views, normals=normals)
        decoded = [np.asarray(self._decode(view[None]))[0] for view in seen.rgb]
        rgb: Any = np.stack(decoded)
        return seen._replace(rgb=rgb)

    def coloured(self, state: State, size: int) -> Field:
        """The field with colours by (2) in place of latents, from pictures of side `size`."""
        latents = super().__call__(state, measure.test_views(size))
        decoded = np.stack([np.asarray(self._decode(view[None]))[0] for view in latents.rgb])
        map_ = fit_colours(np.asarray(latents.rgb), decoded, np.asarray(latents.opacity))

        def apply(params: Any, points: jax.Array) -> tuple[jax.Array, jax.Array]:
            density, latent = self._field.apply(params, points)
            return density, latent @ map_[:-1] + map_[None, -1]

        return Field(self._field.init, apply)


def mean_pool(image: jax.Array, factor: int) -> jax.Array:
    """[B, H, W, C] to [B, H / factor, W / factor, C], means over squares.

    Raises:
      ValueError: `factor` does not divide the size.
    """
    b, h, w, c = image.shape
    if h % factor or w % factor:
        raise ValueError(f"pictures of latents need sides that {factor} divides, got {h} x {w}")
    blocks = image.reshape(b, h // factor, factor, w // factor, factor, c)
    return jnp.mean(blocks, axis=(2, 4))


def fit_colours(latents: np.ndarray, colours: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """M of equation (2), [C + 1, 3], over the pixels of the object.

    Args:
      latents: [V, S, S, C].
      colours: [V, S, S, 3], what they decode to.
      opacity: [V, S, S]; pixels count by it. Where there is no object at all, M is 0.
    """
    weight = opacity.reshape(-1, 1)
    flat = latents.reshape(-1, latents.shape[-1])
    inputs = np.concatenate([flat, np.ones_like(weight)], axis=1) * weight
    return np.linalg.lstsq(inputs, colours.reshape(-1, 3) * weight, rcond=None)[0].astype(
        np.float32
    )
