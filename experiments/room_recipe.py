"""What a recipe of rooms (configs/distill/rooms.py) names: the prior, and cameras inside."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from experiments.model_options import model_options
from geojax.geometry.inside_cameras import (
    Box,
    FreeSpace,
    Gaze,
    box_of,
    free_inside,
    grown,
    opening,
)
from geojax.geometry.volume import MAX_DENSITY
from geojax.methods.text_to_3d import Cameras, State
from geojax.models.fields import Field
from geojax.priors.inpainting import load_inpainting, painted_whole
from geojax.priors.prior import Prior
from geojax.priors.stable_diffusion import load_stable_diffusion

RULES = ("random", "free", "schedule")


def is_inside(config: Any) -> bool:
    """Whether a recipe is of a scene that its cameras stand in."""
    return "inside" in config


def load_prior(config: Any) -> Prior:
    """The denoiser of a recipe; of an inpainting model, with the whole picture as its hole."""
    options = model_options(config)
    if is_inside(config) and config.inside.inpainting:
        return painted_whole(load_inpainting(config.model, **options))
    return load_stable_diffusion(config.model, **options)


def gaze_of(config: Any) -> Gaze:
    """How the cameras of a recipe look; ValueError for ranges that are none."""
    for name in ("pitch", "focal"):
        if len(config.inside[name]) != 2:
            raise ValueError(
                f"config.inside.{name} must be (low, high), got {tuple(config.inside[name])}"
            )
    return Gaze(tuple(config.inside.pitch), tuple(config.inside.focal))


def inside_cameras(config: Any, field: Field) -> Cameras:
    """The cameras that `config.inside.rule` names: anywhere, in free space, or ever farther out.

    Raises:
      ValueError: for any other name, or numbers that make no cameras.
    """
    inside, gaze = config.inside, gaze_of(config)
    box, free, start = box_of(inside.half), FreeSpace(**inside.free), tuple(inside.start)
    if len(start) != 3 or not all(abs(x) <= h for x, h in zip(start, inside.half, strict=True)):
        raise ValueError(f"config.inside.start={start} must be a point of the box +-{inside.half}")
    if inside.hollow:
        box_of(tuple(inside.hollow))
    if not (0.0 < inside.first_share <= 1.0 and 0.0 <= inside.open_at <= 1.0):
        raise ValueError(
            "config.inside.first_share must be in (0, 1] and config.inside.open_at in [0, 1], got "
            f"{inside.first_share} and {inside.open_at}"
        )

    def in_free(key: jax.Array, count: int, size: int, state: State, region: Box = box):
        density = solid_beyond(density_of(field, state), config.field.radius)
        return free_inside(key, region, gaze, free, density, count, size, size)

    def anywhere(key: jax.Array, count: int, size: int, state: State):
        del state  # as if the whole ball were air: no rule has cameras beyond it
        density = solid_beyond(lambda points: jnp.zeros(points.shape[:1]), config.field.radius)
        return free_inside(key, box, gaze, free, density, count, size, size)

    def scheduled(key: jax.Array, count: int, size: int, state: State):
        share = opening(state.step, round(inside.open_at * config.steps), inside.first_share)
        region = grown(box, jnp.asarray(start, jnp.float32), share)
        return in_free(key, count, size, state, region)

    rules: dict[str, Cameras] = dict(zip(RULES, (anywhere, in_free, scheduled), strict=True))
    if inside.rule not in rules:
        raise ValueError(f"config.inside.rule={inside.rule!r} is not one of {', '.join(RULES)}")
    return rules[inside.rule]


def solid_beyond(
    density: Callable[[jax.Array], jax.Array], radius: float
) -> Callable[[jax.Array], jax.Array]:
    """The density, and no free space outside of the ball that the field lives in: a camera there
    would look at the walls from behind, or at nothing."""

    def everywhere(points: jax.Array) -> jax.Array:
        beyond = jnp.sum(points**2, axis=-1) > radius**2
        return jnp.where(beyond, jnp.float32(MAX_DENSITY), density(points))

    return everywhere


def density_of(field: Field, state: State) -> Callable[[jax.Array], jax.Array]:
    """Points [n, 3] -> density [n] of a state."""
    return lambda points: field.apply(state.params, points)[0]
