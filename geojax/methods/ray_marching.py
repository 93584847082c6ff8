"""The samples of a field along rays: where they lie, which of them count, what they weigh.

Symbols: ray o + t d with |d| = 1, inside the ball of radius R for t in [near, far]; R rays of S
samples, K of which are evaluated; n the normal of the density sigma.

    (1)  n = -grad sigma / |grad sigma|

Source: DreamFusion, equation 8. Weights: geometry/volume.py; which samples: geometry/occupancy.py.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from geojax.geometry import volume
from geojax.geometry.integrated_encoding import frustum_gaussian
from geojax.geometry.occupancy import (
    Compaction,
    OccupancyGrid,
    compact,
    every_sample,
    expand,
    is_occupied,
)
from geojax.pytree import register

FieldApply = Callable[..., tuple[Float[Array, "N"], Float[Array, "N C"]]]


@register
@dataclasses.dataclass(frozen=True)
class Light:
    """A point light a view, eq. (2). ``texture``: 1 shows the albedo, 0 a white surface."""

    position: Float[Array, "B 3"]
    ambient: Float[Array, "B"]
    diffuse: Float[Array, "B"]
    texture: Float[Array, "B"]


class RayBatch(NamedTuple):
    """R rays with what shading needs of the view each belongs to."""

    origins: Float[Array, "R 3"]
    directions: Float[Array, "R 3"]  # unit length
    z_scale: Float[Array, "R"]
    pixel_radius: Float[Array, "R"]  # of the pixel's cone at distance 1
    background: Float[Array, "R C"] | None
    light: Light | None  # with R for B


def intersect_ball(
    origins: Float[Array, "... 3"], directions: Float[Array, "... 3"], radius: float
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Distances [near, far] at which unit-speed rays are inside the ball around the origin.

    near >= 0. Rays that miss, or have the ball behind them, get near = far: no length, no weight.
    """
    middle = -jnp.sum(origins * directions, axis=-1)
    squared = middle**2 - jnp.sum(origins**2, axis=-1) + radius**2
    # sqrt has an infinite slope at 0, where a ray grazes the ball.
    hit = squared > 1e-12
    half = jnp.where(hit, jnp.sqrt(jnp.where(hit, squared, 1.0)), 0.0)
    near = jnp.maximum(middle - half, 0.0)
    return near, jnp.maximum(middle + half, near)


def unit(vectors: Float[Array, "... 3"], smallest: float = 1e-6) -> Float[Array, "... 3"]:
    """Unit vectors; 0, with derivative 0, where the length is under ``smallest``."""
    squared = jnp.sum(vectors**2, axis=-1, keepdims=True)
    enough = squared > smallest**2
    return jnp.where(enough, vectors * jax.lax.rsqrt(jnp.where(enough, squared, 1.0)), 0.0)


def _evaluate(field_apply, params, normals: bool, points, *variance):
    """Density, feature and, on demand, normals by autodiff of the density, eq. (1)."""
    if not normals:
        return (*field_apply(params, points, *variance), None)

    def total_density(points):
        density, feature = field_apply(params, points, *variance)
        return jnp.sum(density), (density, feature)

    gradient, (density, feature) = jax.grad(total_density, has_aux=True)(points)
    return density, feature, -unit(gradient)


def per_view(fn: Callable[..., Array], key: Key[Array, "..."] | None, *arrays: Array) -> Array:
    """``fn(key, *arrays)`` on rays [R, ...]; with [V] keys, on the R / V rays of each view."""
    if key is None or key.ndim == 0:
        return fn(key, *arrays)
    views = key.shape[0]
    out = jax.vmap(fn)(key, *[a.reshape(views, -1, *a.shape[1:]) for a in arrays])
    return out.reshape(-1, *out.shape[2:])


def split_keys(key: Key[Array, "..."] | None, count: int) -> list[Any]:
    """``count`` keys in place of one, or of each of [V]; None stays None."""
    if key is None:
        return [None] * count
    if key.ndim == 0:
        return list(jax.random.split(key, count))
    return list(jax.vmap(lambda k: jax.random.split(k, count), out_axes=1)(key))


class Samples(NamedTuple):
    """K evaluated samples of R x S."""

    chosen: Compaction
    ray: Int[Array, "K"]
    points: Float[Array, "K 3"]
    feature: Float[Array, "K C"]
    normal: Float[Array, "K 3"] | None
    distances: Float[Array, "R S"]
    weights: Float[Array, "R S"]


def march(
    field_apply: FieldApply,
    params: PyTree,
    rays: RayBatch,
    key: Key[Array, "..."] | None,
    edges: Float[Array, "R T"],
    *,
    normals: bool,
    occupancy: OccupancyGrid | None,
    capacity: int | None,
    gaussians: bool,
) -> Samples:
    """Evaluate the field on the samples that count, between ``edges`` (T = S + 1), and weigh them.

    The options are those of ``radiance.render``.
    """
    count, size = edges.shape[0], edges.shape[1] - 1
    if key is None or gaussians:  # a Gaussian stands for its whole interval
        distances = (edges[:, 1:] + edges[:, :-1]) / 2
    else:
        distances = per_view(volume.stratified_distances, key, edges)
    mask = edges[:, 1:] > edges[:, :-1]
    if occupancy is not None:
        along = distances[..., None] * rays.directions[:, None]
        mask = mask & is_occupied(occupancy, rays.origins[:, None] + along)
    chosen = every_sample(mask) if capacity is None else compact(mask, capacity)

    ray = chosen.sample // size
    origins, directions = rays.origins[ray], rays.directions[ray]
    pick = lambda x: x.reshape(-1)[chosen.sample]  # noqa: E731
    if gaussians:
        start, end = pick(edges[:, :-1]), pick(edges[:, 1:])
        inputs: tuple[Array, ...] = frustum_gaussian(
            origins, directions, start, end, rays.pixel_radius[ray]
        )
    else:
        inputs = (origins + pick(distances)[:, None] * directions,)
    density, feature, normal = _evaluate(field_apply, params, normals, *inputs)
    # What was dropped is made up for by what was kept: the optical depth is right on average.
    density = jnp.minimum(density, volume.MAX_DENSITY) / (1.0 - chosen.dropped)
    weights = volume.composite_weights(expand(chosen, density, count, size), edges)
    return Samples(chosen, ray, inputs[0], feature, normal, distances, weights)
