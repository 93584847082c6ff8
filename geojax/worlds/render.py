"""Exact pictures of the object world: sphere tracing, Lambertian light, plain backgrounds.

A ray o + s d (|d| = 1) is cut to the bounding ball, then marched: s <- s + f(o + s d), f the
signed distance (1). It has hit where f falls under a tolerance; the normal is n = grad f /
|grad f| (2), by autodiff. Light is DreamFusion's: c = rho (l_a + l_d max(0, n . l)), l towards a
point light (3), l_a + l_d = 1.

(1) J. C. Hart, "Sphere tracing" (1996). (3) Poole et al., "DreamFusion" (2022), equation 3.

A picture is linear in the colours: rgb = body * colour + accent + (1 - coverage) * background. The
trace is therefore kept as `Layers`, and any colour and background is applied afterwards for free.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from geojax.geometry.camera import Camera, camera_rays
from geojax.worlds import solids

# Marching steps. Grazing rays converge slowly: a picture can do without them, the truth cannot.
_PICTURE_STEPS, _TRUTH_STEPS = 40, 96


class Hit(NamedTuple):
    """Where rays meet a solid. Entries of rays that miss are 0.

    Attributes:
      mask: whether the ray meets the solid.
      distance: along the ray, world units.
      position: world point.
      normal: unit, world frame, outward.
      body: 1 where the material is the body, 0 where it is the accent.
    """

    mask: Bool[Array, "*b"]
    distance: Float[Array, "*b"]
    position: Float[Array, "*b 3"]
    normal: Float[Array, "*b 3"]
    body: Float[Array, "*b"]


class Layers(NamedTuple):
    """A picture before its colours: antialiased, linear in what is still free.

    Attributes:
      body: light that the body sends back, per unit of its albedo, in [0, 1].
      accent: colour that the accent sends back, in [0, 1].
      coverage: share of the pixel that the solid covers, in [0, 1].
    """

    body: Float[Array, "*b H W"]
    accent: Float[Array, "*b H W 3"]
    coverage: Float[Array, "*b H W"]


class Truth(NamedTuple):
    """What is exactly known at the pixel centres of a view.

    Attributes:
      mask: whether the ray through the pixel centre meets the solid.
      depth: z-depth in world units, 0 where it misses.
      normal: unit, world frame; 0 where it misses.
    """

    mask: Bool[Array, "*b H W"]
    depth: Float[Array, "*b H W"]
    normal: Float[Array, "*b H W 3"]


def trace(
    kind: str,
    origins: Float[Array, "*b 3"],
    directions: Float[Array, "*b 3"],
    *,
    tolerance: float,
    steps: int,
) -> Hit:
    """Meet rays with a solid.

    Args:
      kind: one of `solids.KINDS`.
      origins: ray origins, world units.
      directions: unit ray directions.
      tolerance: distance at which a ray counts as a hit, world units.
      steps: most steps of a ray.

    Returns:
      the hits.
    """
    distance = functools.partial(solids.signed_distance, kind)
    toward = jnp.sum(origins * directions, axis=-1)
    chord = toward**2 - jnp.sum(origins * origins, axis=-1) + solids.BALL**2
    half = jnp.sqrt(jnp.maximum(chord, 0.0))
    near, far = jnp.maximum(-toward - half, 0.0), -toward + half

    def march(_: Any, s: Float[Array, "*b"]) -> Float[Array, "*b"]:
        step = distance(origins + s[..., None] * directions)
        return jnp.minimum(s + step, far)

    s = jax.lax.fori_loop(0, steps, march, near)
    position = origins + s[..., None] * directions
    mask = (distance(position) < tolerance) & (chord > 0.0)
    gradient = jax.grad(lambda p: jnp.sum(distance(p)))(position)
    length = jnp.sqrt(jnp.sum(gradient**2, axis=-1, keepdims=True) + 1e-12)
    body, accent = solids.KINDS[kind].distances(position)
    return Hit(
        mask=mask,
        distance=jnp.where(mask, s, 0.0),
        position=jnp.where(mask[..., None], position, 0.0),
        normal=jnp.where(mask[..., None], gradient / length, 0.0),
        body=jnp.where(mask & (body <= accent), 1.0, 0.0),
    )


@functools.partial(jax.jit, static_argnames=("kind", "supersample"))
def render_layers(
    kind: str,
    camera: Camera,
    light: Float[Array, "b 3"],
    ambient: Float[Array, " b"],
    *,
    supersample: int = 2,
) -> Layers:
    """Antialiased layers of a solid under a point light, equation (3).

    Args:
      kind: one of `solids.KINDS`.
      camera: b cameras.
      light: positions of the light, world frame.
      ambient: l_a in [0, 1]; the diffuse share is 1 - l_a.
      supersample: samples a side of a pixel; their mean is the pixel.

    Returns:
      layers of b pictures.
    """
    k = supersample
    fine = Camera(
        camera_to_world=camera.camera_to_world,
        fx=camera.fx * k,
        fy=camera.fy * k,
        cx=camera.cx * k,
        cy=camera.cy * k,
        height=camera.height * k,
        width=camera.width * k,
    )
    rays = camera_rays(fine)
    # A tolerance well below a pixel: silhouettes are no wider than the antialiasing blurs them.
    hit = trace(kind, rays.origins, rays.directions, tolerance=2e-3, steps=_PICTURE_STEPS)
    to_light = light[:, None, None, :] - hit.position
    to_light = to_light / jnp.linalg.norm(to_light, axis=-1, keepdims=True)
    lambert = jnp.maximum(jnp.sum(hit.normal * to_light, axis=-1), 0.0)
    l_a = ambient[:, None, None]
    shade = jnp.where(hit.mask, l_a + (1.0 - l_a) * lambert, 0.0)
    accent = jnp.asarray(solids.KINDS[kind].accent, jnp.float32)
    accent_rgb = (shade * (1.0 - hit.body))[..., None] * accent[None, None, None, :]

    def pool(x: Float[Array, "b HK WK *c"]) -> Float[Array, "b H W *c"]:
        split = (x.shape[0], camera.height, k, camera.width, k, *x.shape[3:])
        return jnp.mean(x.reshape(split), axis=(2, 4))

    return Layers(
        body=pool(shade * hit.body),
        accent=pool(accent_rgb),
        coverage=pool(hit.mask.astype(jnp.float32)),
    )


def colourise(
    layers: Layers, colour: Float[Array, "*b 3"], background: Float[Array, "*b 3"]
) -> Float[Array, "*b H W 3"]:
    """Pictures in [0, 1] from layers, one colour and one plain background each, both in [0, 1]."""
    behind = (1.0 - layers.coverage)[..., None] * background[..., None, None, :]
    return layers.body[..., None] * colour[..., None, None, :] + layers.accent + behind


@functools.partial(jax.jit, static_argnames=("kind",))
def render_truth(kind: str, camera: Camera) -> Truth:
    """Exact mask, z-depth and normal at the pixel centres of b cameras."""
    rays = camera_rays(camera)
    hit = trace(kind, rays.origins, rays.directions, tolerance=1e-4, steps=_TRUTH_STEPS)
    return Truth(mask=hit.mask, depth=hit.distance * rays.z_scale, normal=hit.normal)
