"""What a distilled room leaves on disk: pictures from its middle, a plan, and figures.

Symbols: o opacity and z depth of a pixel, seen by fixed cameras in the middle of the box.
    (1)  near    share of pixels with o > 1/2 and z < 0.1 of the box's longest side: fog before
                 the lens
    (2)  opacity mean of o;  depth  median of z where o > 1/2

No training draws these cameras, so they are the same for every run of a box.
"""

import itertools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from experiments.object_report import Pictures
from experiments.recipe import choose_cameras
from experiments.room_recipe import gaze_of
from geojax.geometry.camera_sampling import ViewSample
from geojax.geometry.inside_cameras import facing
from geojax.io.media import color_depth, color_map, grid, write_png, write_video
from geojax.methods.radiance import Rendering
from geojax.methods.text_to_3d import State, collapse
from geojax.models.fields import Field

NEAR = 0.1
"""Of the box's longest side: what is nearer is before the lens."""

_MIDDLE = 0.35  # of the box: where the held-out cameras stand
_PLACES = ((0.0, 0.0), (1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0), (1.0, -1.0))
_YAWS = 4
_FRAMES = 24
_DRAWN = 64  # cameras of the rule, on the plan


def held_out_views(config: Any, size: int) -> ViewSample:
    """Fixed level cameras: from the middle of the box and four places about it, to four sides."""
    half = np.asarray(config.inside.half)
    places = np.asarray([(x, y, 0.0) for x, y in _PLACES]) * _MIDDLE * half
    position = jnp.asarray(np.repeat(places, _YAWS, axis=0), jnp.float32)
    # Turned from place to place, so that all directions are seen.
    turn = np.arange(_YAWS)[None] + np.arange(len(places))[:, None] / len(places)
    yaw = jnp.asarray((turn.reshape(-1) / _YAWS * 2.0 - 1.0) * np.pi, jnp.float32)
    focal = float(np.mean(gaze_of(config).focal))
    return facing(position, yaw, jnp.zeros_like(yaw), focal, size, size)


def turning_views(config: Any, count: int, size: int) -> ViewSample:
    """A turn on the spot in the middle of the box."""
    yaw = 2.0 * jnp.pi * jnp.arange(count, dtype=jnp.float32) / count - jnp.pi
    focal = float(np.mean(gaze_of(config).focal))
    return facing(jnp.zeros((count, 3)), yaw, jnp.zeros_like(yaw), focal, size, size)


def progress_picture(config: Any, pictures: Pictures, state: State) -> np.ndarray:
    """Four views in a row from the middle, to look at while the run goes on."""
    seen = pictures(state, turning_views(config, 4, config.large_size))
    return grid(np.clip(seen.rgb, 0.0, 1.0)[None])


def report_bytes(config: Any) -> int:
    """Most bytes that `write_report` writes."""
    return (_FRAMES + 3 * 8) * 3 * (config.picture_size + 16) ** 2 + 2**16


def room_figures(config: Any, seen: Rendering) -> dict[str, Any]:
    """Equations (1) and (2) of renderings at `held_out_views`."""
    opaque = seen.opacity > 0.5
    near = NEAR * 2.0 * max(config.inside.half)
    trouble = collapse(float(np.mean(seen.opacity)), inside=True)
    return {
        "opacity": float(np.mean(seen.opacity)),
        "collapsed": trouble is not None,
        "collapse": trouble,
        "near": float(np.mean(opaque & (seen.depth < near))),
        # JSON has no NaN.
        "median_depth": float(np.median(seen.depth[opaque])) if opaque.any() else None,
    }


def plan(
    config: Any, field: Field, pictures: Pictures, state: State, size: int, cameras: bool = True
) -> Float[np.ndarray, "size size 3"]:
    """The density seen from above, +y up, and in red where the rule puts cameras now.

    The colour is that of the optical thickness of the lens's distance (1), at the mean density over
    the box's height: dark is empty.
    """
    radius, half = config.field.radius, config.inside.half
    at = ((np.arange(size) + 0.5) / size * 2.0 - 1.0) * radius
    heights = np.linspace(-half[2], half[2], 9)
    x, y, z = np.meshgrid(at, at[::-1], heights, indexing="xy")
    points = np.stack([x, y, z], axis=-1).reshape(-1, 3).astype(np.float32)
    density = np.concatenate(
        [pictures.density(state.params, jnp.asarray(p)) for p in np.array_split(points, 9)]
    )
    thickness = density.reshape(size, size, -1).mean(axis=-1) * NEAR * 2.0 * max(half)
    image = color_map(1.0 - np.exp(-thickness))
    if cameras:
        rule = jax.jit(choose_cameras(config, field), static_argnums=(1, 2))
        drawn = rule(jax.random.fold_in(state.key, 100), _DRAWN, config.small_size, state)
        cells = np.asarray(drawn.camera.position)[:, :2] / radius * 0.5 + 0.5
        columns, rows = np.clip((cells * size).astype(int), 0, size - 1).T
        for down, right in itertools.product(range(-(size // 150), size // 150 + 1), repeat=2):
            at_rows = np.clip(size - 1 - rows + down, 0, size - 1)
            image[at_rows, np.clip(columns + right, 0, size - 1)] = (1.0, 0.1, 0.1)
    return image


def write_report(
    config: Any, prompt: str, field: Field, state: State, pictures: Pictures, out: Path
) -> dict[str, Any]:
    """Write views.png, plan.png and turn.mp4; returns the figures of the room."""
    del prompt  # no truth to compare with
    size = config.picture_size
    eight = pictures(state, turning_views(config, 8, size))
    rows = [np.clip(eight.rgb, 0.0, 1.0), color_depth(eight.depth, eight.opacity > 0.5)]
    degrees = [f"{45 * i - 180} deg" for i in range(8)]
    write_png(out / "views.png", grid(np.stack(rows), ("colour", "depth"), degrees))
    write_png(out / "plan.png", plan(config, field, pictures, state, 2 * size))
    turn = pictures(state, turning_views(config, _FRAMES, size))
    write_video(out / "turn.mp4", np.clip(turn.rgb, 0.0, 1.0), fps=8)
    return room_figures(config, pictures(state, held_out_views(config, config.large_size)))
