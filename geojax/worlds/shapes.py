"""Signed distances of primitive shapes, from which solids are put together.

Conventions: z is up, lengths are in world units, a distance is negative inside. Every function
takes points p [..., 3] and returns distances [...]. All are exact outside the shape, except
`ellipsoid` and `cone` near their rims, which are lower bounds (safe for sphere tracing).

Formulas: J. C. Hart, "Sphere tracing" (1996), and elementary geometry.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

Points = Float[Array, "*b 3"]
Distances = Float[Array, "*b"]

# A square root with a bounded slope at 0: the distance field is differentiated for normals.
_TINY = 1e-12


def _norm(v: Float[Array, "*b d"]) -> Distances:
    return jnp.sqrt(jnp.sum(v * v, axis=-1) + _TINY)


def _like(p: Points, vector: tuple[float, float, float]) -> Points:
    return jnp.broadcast_to(jnp.asarray(vector, p.dtype), p.shape)


def sphere(p: Points, center: tuple[float, float, float], radius: float) -> Distances:
    """Ball of a radius."""
    return _norm(p - _like(p, center)) - radius


def box(
    p: Points,
    center: tuple[float, float, float],
    half: tuple[float, float, float],
    rounding: float = 0.0,
) -> Distances:
    """Axis-aligned box of half sizes, its edges rounded inward by `rounding`."""
    q = jnp.abs(p - _like(p, center)) - (_like(p, half) - rounding)
    outside = _norm(jnp.maximum(q, 0.0))
    return outside + jnp.minimum(jnp.max(q, axis=-1), 0.0) - rounding


def _in_plane(radial: Distances, height: Distances) -> Distances:
    """Distance to the corner region {radial <= 0, height <= 0} of a plane."""
    outside = _norm(jnp.maximum(jnp.stack([radial, height], axis=-1), 0.0))
    return outside + jnp.minimum(jnp.maximum(radial, height), 0.0)


def cylinder(
    p: Points,
    center: tuple[float, float, float],
    radius: float,
    half_height: float,
    rounding: float = 0.0,
) -> Distances:
    """Upright cylinder, its rims rounded inward."""
    q = p - _like(p, center)
    radial = _norm(q[..., :2]) - (radius - rounding)
    return _in_plane(radial, jnp.abs(q[..., 2]) - (half_height - rounding)) - rounding


def cone(p: Points, base: float, top: float, radius: float, rounding: float = 0.02) -> Distances:
    """Upright cone: a disc of `radius` at z = base, tip at z = top (a lower bound at the rim)."""
    height = top - base
    slant = (height**2 + radius**2) ** 0.5
    radial = _norm(p[..., :2])
    side = (height * (radial - radius) + radius * (p[..., 2] - base)) / slant
    return _in_plane(side + rounding, base - p[..., 2] + rounding) - rounding


def torus(
    p: Points, center: tuple[float, float, float], major: float, minor: float, axis: int
) -> Distances:
    """Torus around the axis 0, 1 or 2."""
    q = p - _like(p, center)
    along = q[..., axis]
    others = [i for i in range(3) if i != axis]
    radial = _norm(q[..., jnp.asarray(others)]) - major
    return _norm(jnp.stack([radial, along], axis=-1)) - minor


def ellipsoid(
    p: Points, center: tuple[float, float, float], radii: tuple[float, float, float]
) -> Distances:
    """Ellipsoid: k (k - 1) / |grad k| with k = |p / radii|, first order near its surface."""
    q = p - _like(p, center)
    r = _like(p, radii)
    k = _norm(q / r)
    slope = _norm(q / (r * r))
    return k * (k - 1.0) / slope


def wedge(p: Points, eaves: float, ridge: float, half_x: float, half_y: float) -> Distances:
    """Gable roof: a prism with its ridge along y, |x| <= half_x at the eaves (a lower bound)."""
    rise = ridge - eaves
    slant = (rise**2 + half_x**2) ** 0.5
    side = (rise * (jnp.abs(p[..., 0]) - half_x) + half_x * (p[..., 2] - eaves)) / slant
    ends = jnp.abs(p[..., 1]) - half_y
    return jnp.maximum(_in_plane(side, eaves - p[..., 2]), ends)
