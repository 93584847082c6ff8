"""A model that paints plain colours: the prompt's, in any size, and exactly."""

import jax.numpy as jnp
import numpy as np

from geojax.diffusion.parameterization import eps_from_x0
from geojax.diffusion.schedule import scaled_linear
from geojax.priors.inpainting import ConditionedPrior
from geojax.priors.prior import Prior

FACTOR, SIZE = 4, 16
COLOURS = {"": (0.5, 0.5, 0.5), "red": (0.8, 0.1, 0.1), "blue": (0.1, 0.2, 0.9)}
SCHEDULE = scaled_linear()


def embed(prompts):
    return jnp.asarray([COLOURS[prompt] for prompt in prompts])[:, None]


def encode(params, image):
    batch, height, width, _ = image.shape
    cells = image.reshape(batch, height // FACTOR, FACTOR, width // FACTOR, FACTOR, 3)
    return 2.0 * cells.mean(axis=(2, 4)) - 1.0


def decode(params, z):
    image = jnp.repeat(jnp.repeat(0.5 * z + 0.5, FACTOR, axis=1), FACTOR, axis=2)
    return jnp.clip(image, 0.0, 1.0)


def denoise(params, z, t, condition):
    x = jnp.broadcast_to(2.0 * condition[:, :, None] - 1.0, z.shape)
    return eps_from_x0(SCHEDULE, z, x, t)


FIELDS = {
    "params": {},
    "encode": encode,
    "decode": decode,
    "embed": embed,
    "schedule": SCHEDULE,
    "image_size": SIZE,
    "latent_size": SIZE // FACTOR,
    "latent_channels": 3,
}


def plain():
    return Prior(denoise=denoise, **FIELDS)


def trained():
    """As it would be after training to inpaint."""
    return ConditionedPrior(
        denoise=lambda params, z, t, y, extra: denoise(params, z, t, y), extra_channels=4, **FIELDS
    )


def depth_conditioned():
    """Its pictures are brighter where the map is nearer."""

    def shaded(params, z, t, condition, extra):
        x = jnp.broadcast_to(extra, z.shape)
        return eps_from_x0(SCHEDULE, z, x, t)

    return ConditionedPrior(denoise=shaded, extra_channels=1, **FIELDS)


def close(found, colour, atol=0.04):
    """Whether an image has a prompt's colour, up to DDIM's last noise and 8 bits."""
    return np.abs(np.asarray(found) - COLOURS[colour]).max() < atol
