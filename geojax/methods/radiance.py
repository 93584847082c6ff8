"""Differentiable pictures of a field: rays, samples, compaction, shading, compositing.

Symbols: ray o + t d with |d| = 1, inside the ball of radius R for t in [near, far]; sample i has
density sigma_i, albedo rho_i, normal n_i and weight w_i; l the unit vector to the light.

    (1)  n = -grad sigma / |grad sigma|
    (2)  c = rho' (ambient + diffuse max(0, n . l)),  rho' = texture rho + (1 - texture)
    (3)  rgb = sum w c + (1 - sum w) background
    (4)  orientation = sum sg(w) max(0, n . d)^2,  sg = stop-gradient
    (5)  entropy = sum H(w),  H(w) = -w log2 w - (1 - w) log2(1 - w)
    (6)  emptiness = sum log(1 + 10 w)

Sources: (1, 2) DreamFusion eq. 8 and section 3.1; (4) Ref-NeRF eq. 11; (5) stable-dreamfusion;
(6) Score Jacobian Chaining, section 4.3.
Weights: geometry/volume.py.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from geojax.geometry import volume
from geojax.geometry.camera import Camera, camera_rays
from geojax.geometry.occupancy import OccupancyGrid
from geojax.methods.ray_marching import (
    FieldApply,
    Light,
    RayBatch,
    intersect_ball,
    march,
    per_view,
    split_keys,
    unit,
)
from geojax.methods.regularizers import binary_entropy, orientation_penalty

BackgroundFn = Callable[[Float[Array, "N 3"]], Float[Array, "N C"]]


class Rendering(NamedTuple):
    """Pictures of B views; see the equations above.

    Attributes:
      rgb: [B, H, W, C], colour over the background, as many channels as the field's feature.
      opacity: sum of weights, in [0, 1].
      depth: expected z-depth in world units; 0 where nothing was hit.
      normal: weighted sum of world normals (length <= opacity); None when not computed.
      orientation: eq. (4), normals that face away; None when normals are not computed.
      entropy: eq. (5), bits a ray.
      emptiness: eq. (6).
      dropped: fraction of occupied samples that found no slot (see ``capacity`` of ``render``).
      occupied: number of samples in occupied space; the capacity should be over it.
    """

    rgb: Float[Array, "*b C"]
    opacity: Float[Array, "*b"]
    depth: Float[Array, "*b"]
    normal: Float[Array, "*b 3"] | None
    orientation: Float[Array, "*b"] | None
    entropy: Float[Array, "*b"]
    emptiness: Float[Array, "*b"]
    dropped: Float[Array, ""]
    occupied: Int[Array, ""]


def _shade(
    feature: Float[Array, "K C"],
    points: Float[Array, "K 3"],
    normal: Float[Array, "K 3"],
    light: Light,
) -> Float[Array, "K C"]:
    to_light = unit(light.position - points)
    lambert = jnp.maximum(jnp.sum(normal * to_light, axis=-1), 0.0)
    texture = light.texture[:, None]
    albedo = texture * feature + (1.0 - texture)
    return albedo * (light.ambient + light.diffuse * lambert)[:, None]


def render_rays(
    field_apply: FieldApply,
    params: PyTree,
    rays: RayBatch,
    key: Key[Array, "..."] | None,
    *,
    samples: int,
    radius: float,
    normals: bool = False,
    importance: int = 0,
    occupancy: OccupancyGrid | None = None,
    capacity: int | None = None,
    gaussians: bool = False,
    background: BackgroundFn | None = None,
) -> Rendering:
    """Render R rays; ``render`` says what the options mean.

    ``key`` is one key, or [V] keys of V views of R / V rays each. The pictures of the result are
    [R, ...] in place of [B, H, W, ...].
    """
    count = rays.origins.shape[0]
    keys = split_keys(key, 3)
    options: dict[str, Any] = {
        "occupancy": occupancy,
        "capacity": capacity,
        "gaussians": gaussians,
    }
    edges = volume.linear_edges(*intersect_ball(rays.origins, rays.directions, radius), samples)
    if importance:
        frozen = jax.lax.stop_gradient(params)
        coarse = march(field_apply, frozen, rays, keys[0], edges, normals=False, **options)
        # The floor keeps some samples everywhere: what is never sampled can never grow.
        edges = per_view(
            lambda k, e, w: volume.sample_intervals(k, e, w, importance, padding=0.1 / samples),
            keys[1], edges, coarse.weights,
        )  # fmt: skip
    normals = normals or rays.light is not None
    found = march(field_apply, params, rays, keys[2], edges, normals=normals, **options)
    chosen, ray = found.chosen, found.ray

    color = found.feature
    if rays.light is not None and found.normal is not None:
        light = jax.tree.map(lambda leaf: leaf[ray], rays.light)
        color = _shade(color, found.points, found.normal, light)
    weights = found.weights.reshape(-1)[chosen.sample]
    weights = jnp.where(chosen.valid, weights, 0.0)[:, None]
    parts = [weights * color]
    if found.normal is not None:
        away = orientation_penalty(weights, found.normal[:, None], rays.directions[ray])
        parts += [weights * found.normal, away[:, None]]
    columns = jnp.concatenate(parts, axis=-1)
    if capacity is None:
        sums = jnp.sum(columns.reshape(count, -1, columns.shape[-1]), axis=1)
    else:
        sums = jnp.zeros((count, columns.shape[-1])).at[ray].add(columns)

    channels = color.shape[-1]
    opacity = jnp.sum(found.weights, axis=-1)
    behind = background(rays.directions) if background is not None else rays.background
    if behind is None:
        raise ValueError("rays without a background colour need a background function")
    distance = jnp.sum(found.weights * found.distances, axis=-1) / jnp.maximum(opacity, 1e-4)
    return Rendering(
        rgb=sums[:, :channels] + (1.0 - opacity)[:, None] * behind,
        opacity=opacity,
        depth=distance * rays.z_scale,
        normal=sums[:, channels : channels + 3] if normals else None,
        orientation=sums[:, -1] if normals else None,
        entropy=jnp.sum(binary_entropy(found.weights), axis=-1),
        emptiness=jnp.sum(jnp.log1p(10.0 * found.weights), axis=-1),
        dropped=chosen.dropped,
        occupied=chosen.occupied,
    )


def ray_batch(
    camera: Camera, background: float | Float[Array, "..."] | None, light: Light | None
) -> RayBatch:
    """All rays of a batch of cameras [B], in one list of B H W."""
    if camera.camera_to_world.ndim != 3:
        raise ValueError(
            f"expected cameras of batch shape [B], got {camera.camera_to_world.shape[:-2]}"
        )
    rays = camera_rays(camera)
    shape = rays.z_scale.shape
    each = lambda x: jnp.repeat(x, shape[1] * shape[2], axis=0)  # noqa: E731
    if background is not None:
        color = jnp.atleast_1d(jnp.asarray(background, jnp.float32))
        if color.ndim not in (1, 2, 4):
            raise ValueError(f"background: scalar, [C], [B, C] or [B, H, W, C], got {color.shape}")
        lead = {1: (1, 1, 1), 2: (shape[0], 1, 1), 4: color.shape[:3]}[color.ndim]
        color = color.reshape(*lead, color.shape[-1])
        background = jnp.broadcast_to(color, (*shape, color.shape[-1])).reshape(-1, color.shape[-1])
    return RayBatch(
        origins=rays.origins.reshape(-1, 3),
        directions=rays.directions.reshape(-1, 3),
        z_scale=rays.z_scale.reshape(-1),
        # The disc with the variance of a square pixel (mip-NeRF).
        pixel_radius=each(2.0 / 12.0**0.5 / jnp.sqrt(camera.fx * camera.fy)),
        background=background,
        light=jax.tree.map(each, light),
    )


def render(
    field_apply: FieldApply,
    params: PyTree,
    camera: Camera,
    key: Key[Array, "..."] | None,
    *,
    samples: int,
    radius: float,
    background: float | Float[Array, "..."] | BackgroundFn = 1.0,
    light: Light | None = None,
    normals: bool = False,
    importance: int = 0,
    occupancy: OccupancyGrid | None = None,
    capacity: int | None = None,
    gaussians: bool = False,
    chunk: int | None = None,
) -> Rendering:
    """Pictures of a field from B cameras, differentiable in ``params`` (and cameras).

    Args:
      field_apply: (params, points [N, 3]) -> (density [N], feature [N, C]).
      camera: batch shape [B].
      key: jitters the samples. One key, or [B] keys, one a view: so that a view looks the same
        whichever views are rendered beside it. None: no jitter, for evaluation.
      samples: intervals on each ray, equal parts of its stretch inside the ball.
      radius: of the bounding ball around the origin, world units.
      background: scalar, [C], [B, C] or [B, H, W, C], or a function of directions [N, 3].
      light: shade by eq. (2), with normals; None shows the albedo.
      normals: also return normals and orientation. They are derivatives of the density by
        autodiff and make the render some three times as dear.
      importance: when positive, the number of intervals of a second pass, drawn from the weights
        of a first one (without gradient) of ``samples`` intervals.
      occupancy: skip samples in empty cells.
      capacity: most samples whose field is evaluated, a static number; None: samples on all rays.
        What is over it is dropped evenly (``Rendering.dropped``). Without an occupancy grid it
        should be None.
      gaussians: give the field the mean and variance of conical frustums (``MipNerfField``).
      chunk: rays rendered at a time, each chunk rematerialised in the backward pass: memory is
        that of one chunk, whatever the size of the picture. ``capacity`` is then that of a chunk,
        ``dropped`` the mean and ``occupied`` the maximum over chunks.

    Raises:
      ValueError: for cameras without a batch axis, an odd background, samples or chunk < 1.
    """
    if samples < 1 or (chunk is not None and chunk < 1):
        raise ValueError(f"samples and chunk must be at least 1, got {samples} and {chunk}")
    network = background if callable(background) else None
    rays = ray_batch(camera, None if callable(background) else background, light)
    views = camera.camera_to_world.shape[0]
    shape = (views, camera.height, camera.width)

    def render_some(rays, key):
        return render_rays(
            field_apply, params, rays, key, samples=samples, radius=radius, normals=normals,
            importance=importance, occupancy=occupancy, capacity=capacity, gaussians=gaussians,
            background=network,
        )  # fmt: skip

    if chunk is None:
        if key is not None and key.ndim == 0:
            key = jax.random.split(key, views)
        out = render_some(rays, key)
    else:
        out = _in_chunks(render_some, rays, key, chunk)
    pictures = jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]) if x.ndim else x, out)
    return pictures


def _in_chunks(render_some, rays: RayBatch, key, chunk: int) -> Rendering:
    """Map over chunks of rays; the last one is filled up with copies of the last ray."""
    total = rays.z_scale.shape[0]
    count = -(-total // chunk)
    pad = count * chunk - total

    def cut(x):
        width = [(0, pad)] + [(0, 0)] * (x.ndim - 1)
        return jnp.pad(x, width, mode="edge").reshape(count, chunk, *x.shape[1:])

    keys = None
    if key is not None:
        if key.ndim:
            raise ValueError("render in chunks takes one key, not one a view")
        keys = jax.random.split(key, count)
    # Without the barrier against common subexpressions a scan body is rematerialised for free.
    body = jax.checkpoint(lambda inputs: render_some(*inputs), prevent_cse=False)
    out = jax.lax.map(body, (jax.tree.map(cut, rays), keys))
    joined = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:total] if x.ndim > 1 else x, out)
    return joined._replace(dropped=jnp.mean(out.dropped), occupied=jnp.max(out.occupied))
