"""What a distilled object looks like from 8 sides and which cells it fills, kept with its run.

Beside it the exact solid, unlit on the same grey. What compares runs needs no model then.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from experiments import distill
from experiments.object_report import density_grid
from geojax.geometry.camera_sampling import ViewSample, orbit
from geojax.io.atomic import replacing
from geojax.io.checkpoint import Checkpointer
from geojax.io.metric_log import peak_memory
from geojax.worlds import captions, solids
from geojax.worlds.render import colourise, render_layers

VIEWS = 8
"""Azimuths, from the front on; 20 degrees above."""

_FILE = "look.npz"
_CELLS = 64  # a side
_GREY = 0.85  # behind `object_report.Pictures` too


class Look(NamedTuple):
    """V views of S x S pixels, and N^3 cells.

    Attributes:
      rgb: [V, S, S, 3] in [0, 1].
      opacity: [V, S, S] in [0, 1].
      exact_rgb: the solid that the prompt names, its front where the captions have it.
      exact_opacity: likewise.
      occupied: [N, N, N], holes closed: space behind an opaque surface is never trained.
      steps: of the run.
      device_bytes: peak memory of the device until now; 0 where it keeps no count.
    """

    rgb: Float[np.ndarray, "V S S 3"]
    opacity: Float[np.ndarray, "V S S"]
    exact_rgb: Float[np.ndarray, "V S S 3"]
    exact_opacity: Float[np.ndarray, "V S S"]
    occupied: Bool[np.ndarray, "N N N"]
    steps: int
    device_bytes: int


def exact_pictures(
    prompt: str, views: ViewSample
) -> tuple[Float[np.ndarray, "V S S 3"], Float[np.ndarray, "V S S"]]:
    """Colour and opacity of the solid that a prompt names, unlit.

    Raises:
      ValueError: the prompt names none.
    """
    subject = captions.parse_subject(prompt)
    if subject is None:
        raise ValueError(f"{prompt!r} names no object of the world, as 'a red mug' does")
    kind, colour = subject
    count = len(views.azimuth)
    # Ambient light alone: where the light stands is of no matter.
    layers = render_layers(kind, views.camera, jnp.zeros((count, 3)), jnp.ones(count))
    body = jnp.broadcast_to(jnp.asarray(solids.COLOURS[colour]), (count, 3))
    rgb = colourise(layers, body, jnp.full((count, 3), _GREY))
    return np.asarray(rgb), np.asarray(layers.coverage)


def take_look(config: Any, prompt: str, folder: Path, tools: distill.Tools, steps: int) -> Look:
    """Draw a finished run from its last checkpoint; `config` is the run's, with its seed."""
    checkpointer = Checkpointer(folder / "checkpoints")
    state = checkpointer.load(distill.initial_state(config, tools), steps).tree
    checkpointer.close()
    views = orbit(VIEWS, math.radians(20.0), 1.45, 1.26, config.large_size, config.large_size)
    seen = tools.pictures(state, views)
    dense = density_grid(tools.pictures, state, _CELLS, config.field.radius)
    return Look(
        np.clip(seen.rgb, 0.0, 1.0),
        np.asarray(seen.opacity),
        *exact_pictures(prompt, views),
        ndimage.binary_fill_holes(dense > config.density_threshold),
        steps,
        peak_memory().device or 0,
    )


def write_look(folder: Path, look: Look) -> None:
    """Keep it in the folder of its run."""
    with replacing(folder / _FILE) as temporary:
        np.savez_compressed(temporary, **look._asdict())


def read_look(folder: Path, steps: int) -> Look | None:
    """The one of a run's last step, if it was kept."""
    file = folder / _FILE
    if not file.exists():
        return None
    with np.load(file) as stored:
        look = Look(**stored)
    look = look._replace(steps=int(look.steps), device_bytes=int(look.device_bytes))
    return look if look.steps == steps else None
