"""Exact pictures of rooms: colour, z-depth, normals and what is seen, of any pinhole camera.

Symbols
    rho         albedo at the hit, averaged over the pixel (`room_textures`)
    n           unit normal;  p  the hit;  c(p)  distance from p to the nearest solid
    E           irradiance, equation (1): ambient + lamps + sun, Lambertian, so the same from
                wherever it is seen

Equations
    (1)  E = a E_0 (.8 + .2 n_z) + a sum_i I_i max(0, n . l_i) / (.4 + r_i^2) + v E_s max(0, n . s)
    (2)  a = product over h of 1 - k_h max(0, 1 - c(p + h n) / h), h = .12 and .5 m: darkens corners
         and what is under furniture (Evans, "Fast approximations for global illumination on
         dynamic scenes", 2006); the lamps cast no other shadows
    (3)  colour = (1 - exp(-f rho E)) ** (1 / 2.2), f the exposure; the mean over a pixel is taken
         before the power

v is 1 where the sun is seen: it throws shadows. A lamp lights its own space and fades within .35 m
outside of it. Windows show a sky without distance: its z-depth is `SKY_DEPTH`, its mask is kept.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from geojax.geometry.camera import Camera, camera_rays
from geojax.worlds import room_rays, room_textures
from geojax.worlds.room_materials import GAMMA
from geojax.worlds.room_rays import Hit, Rays3
from geojax.worlds.room_scene import Scene

SKY_DEPTH = 50.0
"""z-depth of the sky, metres: larger than of anything in a room."""

EXPOSURE = 2.5
Row = tuple[Float[Array, "b r"], ...]
"""The numbers of the texture at each hit, an array for each."""

_CORNERS = ((0.12, 0.35), (0.5, 0.5))  # (h, k_h) of equation (2)
_GROUND = (0.36, 0.44, 0.26)  # display colour of what lies under the horizon, by day


class Truth(NamedTuple):
    """What is exactly known at the pixel centres of a view.

    Attributes:
      depth: z-depth, metres; `SKY_DEPTH` in the sky.
      normal: unit, world frame, towards the camera; 0 in the sky.
      primitive: index of the box or round solid (boxes first); -1 in the sky.
      thing: index into `Room.things`; -1 in the sky.
      sky: whether the ray leaves through a window.
    """

    depth: Float[Array, "b H W"]
    normal: Float[Array, "b H W 3"]
    primitive: Int[Array, "b H W"]
    thing: Int[Array, "b H W"]
    sky: Bool[Array, "b H W"]


def batched(scene: Scene, count: int) -> Scene:
    """A scene for each of `count` cameras: one scene is repeated, a batch of them is kept.

    Raises:
      ValueError: if there are neither one scene nor `count`.
    """
    if scene.low.ndim == 2:
        return Scene(*(jnp.broadcast_to(jnp.asarray(x), (count, *x.shape)) for x in scene))
    if scene.low.shape[0] != count:
        raise ValueError(f"{scene.low.shape[0]} scenes for {count} cameras")
    return Scene(*(jnp.asarray(x) for x in scene))


@jax.jit
def _rays(camera: Camera) -> tuple[Rays3, Rays3]:
    """Origins and directions of all pixels; at z-depth 1, so that t is depth."""
    rays = camera_rays(camera)
    count = len(camera.camera_to_world)
    directions = (rays.directions / rays.z_scale[..., None]).reshape(count, -1, 3)
    origins = camera.position[:, None, :]
    o = (origins[..., 0], origins[..., 1], origins[..., 2])
    return o, (directions[..., 0], directions[..., 1], directions[..., 2])


def render_truth(scene: Scene, camera: Camera) -> Truth:
    """Depth, normals and what is seen at the pixel centres.

    Args:
      scene: one scene, or b of them.
      camera: b cameras in free space.

    Returns:
      the truth of b views.
    """
    scene = batched(scene, len(camera.camera_to_world))
    return _truth(scene, camera, room_rays.nearest(scene, *_rays(camera)))


@jax.jit
def _truth(scene: Scene, camera: Camera, hit: Hit) -> Truth:
    shape = (len(camera.camera_to_world), camera.height, camera.width)
    thing = jnp.take_along_axis(jnp.asarray(scene.thing), hit.primitive, axis=1)
    normal = jnp.where(hit.miss[..., None], 0.0, jnp.stack(hit.normal, axis=-1))
    return Truth(
        depth=jnp.where(hit.miss, SKY_DEPTH, hit.t).reshape(shape),
        normal=normal.reshape(*shape, 3),
        primitive=jnp.where(hit.miss, -1, hit.primitive).reshape(shape),
        thing=jnp.where(hit.miss, -1, thing).reshape(shape),
        sky=hit.miss.reshape(shape),
    )


def render(scene: Scene, camera: Camera, *, supersample: int = 2) -> Float[Array, "b H W 3"]:
    """Antialiased pictures of b cameras, display-encoded in [0, 1].

    Its stages are compiled one by one: in one program XLA fuses each into its users, and computes
    all of it several times.

    Args:
      scene: one scene, or b of them.
      camera: b cameras in free space.
      supersample: rays a side of a pixel; their mean is the pixel.

    Returns:
      rgb.
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
    scene = batched(scene, len(camera.camera_to_world))
    o, d = _rays(fine)
    hit = room_rays.nearest(scene, o, d)
    at, row = _surface(scene, hit, o, d)
    rho = room_textures.albedo(row, *_coordinates(fine, hit, at, d))
    light = _irradiance(scene, hit, at, _open(scene, hit, at))
    return _pixels(scene, camera, hit, d, row, rho, light)


@jax.jit
def _surface(scene: Scene, hit: Hit, o: Rays3, d: Rays3) -> tuple[Rays3, Row]:
    """Positions of the hits, and the numbers of the texture there."""
    x, y, z = (p + hit.t * q for p, q in zip(o, d, strict=True))
    material = jnp.take_along_axis(jnp.asarray(scene.material), hit.primitive, axis=1)
    tables = jnp.moveaxis(jnp.asarray(scene.textures), -1, 0)
    row = tuple(jnp.take_along_axis(t, material, axis=1, mode="clip") for t in tables)
    return (x, y, z), row


@jax.jit
def _pixels(
    scene: Scene,
    camera: Camera,
    hit: Hit,
    d: Rays3,
    row: Row,
    rho: Rays3,
    light: Rays3,
) -> Float[Array, "b H W 3"]:
    """Equation (3): tone, the glow of lamps, the sky, and the mean over each pixel."""
    count, k = (
        len(camera.camera_to_world),
        round((hit.t.shape[1] / camera.height / camera.width) ** 0.5),
    )
    channels = []
    for i, sky in enumerate(_sky(scene, d)):
        lit = 1.0 - jnp.exp(-EXPOSURE * rho[i] * light[i])
        lit = lit + row[21] * (row[i] - lit)
        linear = jnp.where(hit.miss, sky, lit)
        # Sums of slices, not a reduction: it is fused with what comes before.
        split = linear.reshape(count, camera.height, k, camera.width, k)
        mean = sum(split[:, :, a, :, b] for a in range(k) for b in range(k)) / (k * k)
        channels.append(jnp.clip(mean, 1e-6, 1.0) ** (1.0 / GAMMA))
    return jnp.stack(channels, axis=-1)


@jax.jit
def _coordinates(
    camera: Camera, hit: Hit, at: Rays3, d: Rays3
) -> tuple[tuple[Float[Array, "b r"], Float[Array, "b r"]], ...]:
    """(u, v) and each pixel's footprint along them, on the tangent plane of its hit."""
    facing = sum(n * q for n, q in zip(hit.normal, d, strict=True))
    facing = jnp.where(jnp.abs(facing) < 1e-3, 1e-3, facing)
    extent: list[Float[Array, "b r"]] = [jnp.zeros_like(hit.t)] * 3
    for column, focal in ((0, camera.fx), (1, camera.fy)):
        step = [camera.rotation[:, i, column, None] / focal[:, None] for i in range(3)]
        lift = sum(n * s for n, s in zip(hit.normal, step, strict=True)) / facing
        extent = [
            e + jnp.abs(hit.t * (s - q * lift)) for e, s, q in zip(extent, step, d, strict=True)
        ]
    across_x, across_z = hit.axis == 0, hit.axis == 2
    u = jnp.where(across_x, at[1], at[0])
    v = jnp.where(across_z, at[1], at[2])
    w_u = jnp.where(across_x, extent[1], extent[0])
    w_v = jnp.where(across_z, extent[1], extent[2])
    return (u, v), (w_u, w_v)


@jax.jit
def _open(scene: Scene, hit: Hit, at: Rays3) -> Float[Array, "b r"]:
    """a, equation (2)."""
    n = hit.normal
    lifted = tuple((at[0] + h * n[0], at[1] + h * n[1], at[2] + h * n[2]) for h, _ in _CORNERS)
    shade: Float[Array, "b r"] = jnp.ones_like(hit.t)
    for (h, k), free in zip(_CORNERS, room_rays.clearances(scene, lifted), strict=True):
        shade = shade * (1.0 - k * jnp.maximum(0.0, 1.0 - free / h))
    return shade


@jax.jit
def _irradiance(scene: Scene, hit: Hit, at: Rays3, shade: Float[Array, "b r"]) -> Rays3:
    """Equation (1), one array a channel."""
    n = hit.normal
    around = shade * (0.8 + 0.2 * n[2])
    # Lamps as an axis of their own, [b, lights, r]: one matrix product gives the three channels.
    lamps: Float[Array, "b l r"] = jnp.zeros((1, 1, 1))
    square, cosine, sent, away = lamps, lamps, lamps, lamps
    for i in range(3):
        here, facing = at[i][:, None, :], n[i][:, None, :]
        to = scene.light[:, :, i, None] - here
        square = square + to * to
        cosine = cosine + to * facing
        sent = sent - to * scene.light_normal[:, :, i, None]
        before = jnp.maximum(scene.zone_low[:, :, i, None] - here, 0.0)
        away = away + before + jnp.maximum(here - scene.zone_high[:, :, i, None], 0.0)
    inverse = jax.lax.rsqrt(square + 1e-4)
    aimed = jnp.any(scene.light_normal != 0.0, axis=-1)[..., None]
    strength = jnp.where(aimed, jnp.maximum(0.0, sent * inverse), 1.0)
    fall = jnp.exp(-away / 0.35) / (0.4 + square)
    power = jnp.maximum(0.0, cosine * inverse) * strength * fall * shade[:, None, :]
    lit = jnp.einsum("blr,bli->ibr", power, scene.light_colour, precision="highest")
    ambient = jnp.asarray(scene.ambient)
    red, green, blue = (ambient[:, i, None] * around + lit[i] for i in range(3))
    total = (red, green, blue)

    sun, sunlight = jnp.asarray(scene.sun), jnp.asarray(scene.sun_colour)

    def with_sun() -> Rays3:
        x, y, z = (p + 2e-3 * m for p, m in zip(at, n, strict=True))
        s = (sun[:, 0, None], sun[:, 1, None], sun[:, 2, None])
        cosine = jnp.maximum(0.0, n[0] * s[0] + n[1] * s[1] + n[2] * s[2])
        seen = jnp.where(room_rays.blocked(scene, (x, y, z), s), 0.0, cosine)
        red, green, blue = (t + sunlight[:, i, None] * seen for i, t in enumerate(total))
        return red, green, blue

    # One more pass over the solids, where it is needed.
    return jax.lax.cond(jnp.any(sunlight > 0.0), with_sun, lambda: total)


def _sky(scene: Scene, d: Rays3) -> list[Float[Array, "b r"]]:
    """Linear colour of the sky, and of the ground under its horizon, in each direction."""
    length = jnp.sqrt(d[0] ** 2 + d[1] ** 2 + d[2] ** 2)
    height = d[2] / length
    up = jnp.clip(height * 1.6, 0.0, 1.0)
    below = jnp.clip(-height * 30.0, 0.0, 1.0)
    colours = []
    for i in range(3):
        horizon, zenith = (jnp.asarray(scene.sky)[:, j, i, None] for j in (0, 1))
        colour = horizon + up * (zenith - horizon)
        ground = _GROUND[i] * horizon
        colours.append((colour + below * (ground - colour)) ** GAMMA)
    return colours
