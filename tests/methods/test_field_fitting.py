import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from geojax.geometry.camera import Camera, camera_rays, look_at
from geojax.methods.field_fitting import (
    PSNR_LIMIT,
    Renderer,
    Target,
    Views,
    Weights,
    all_pixels,
    draw_rays,
    fitting_loss,
    fitting_step,
    picture_function,
    psnr,
)
from geojax.methods.radiance import Rendering
from geojax.methods.train_state import init_state
from geojax.models.fields import Field, VoxelField, as_field

HEIGHT, WIDTH, FRAMES, NEAR = 5, 7, 3, 0.1
SHELL = 0.5  # radius of the opaque shell of `shell_field`


def cameras():
    """Three cameras around the origin, off-centre, of pixels that are no squares."""
    a = 2 * jnp.pi * jnp.arange(3.0) / 3
    position = 0.9 * jnp.stack([jnp.cos(a), jnp.sin(a), 0.3 * jnp.ones(3)], -1)
    pose = look_at(position, jnp.zeros((3, 3)), jnp.tile(jnp.asarray([[0.0, 0, 1]]), (3, 1)))
    each = jnp.asarray([9.0, 9.5, 10.0])
    return Camera(pose, each, each + 2.0, each / 3.0, each / 4.0, HEIGHT, WIDTH)


def views(rng, depth=0.0):
    image = rng.integers(0, 256, (FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)
    depths = jnp.full((FRAMES, HEIGHT, WIDTH), depth) + jnp.arange(105.0).reshape(3, 5, 7)
    kept = np.ones((FRAMES, HEIGHT, WIDTH), bool)
    kept[1, 2:] = False
    return Views(cameras(), jnp.asarray(image), depths, jnp.asarray(all_pixels(kept)))


def shell_field():
    """Opaque outside of a radius, coloured by the point; its one parameter is a factor."""

    def apply(params, points):
        outside = jnp.sum(points**2, -1) > SHELL**2
        return jnp.where(outside, 1e4, 0.0) * params, 0.5 + 0.5 * points

    return Field(lambda key: jnp.float32(1.0), apply)


def renderer(field=None, near=NEAR, importance=0, samples=400):
    return Renderer(field or shell_field(), samples, importance, near, (0.0, 0.25, 1.0))


def test_a_drawn_ray_is_that_of_its_pixel(key, rng):
    seen = views(rng)
    rays, target = draw_rays(key, seen, renderer(), 500)
    whole = camera_rays(seen.camera)
    flat = np.asarray(target.depth).astype(int)  # `views` numbers the pixels by their depth
    assert set(flat) == set(np.asarray(seen.pixels).tolist())
    direction = np.asarray(whole.directions).reshape(-1, 3)[flat]
    np.testing.assert_allclose(rays.directions, direction, atol=1e-6)
    origin = np.asarray(whole.origins).reshape(-1, 3)[flat] + NEAR * direction
    np.testing.assert_allclose(rays.origins, origin, atol=1e-6)
    np.testing.assert_allclose(rays.z_scale, np.asarray(whole.z_scale).reshape(-1)[flat], rtol=1e-6)
    rgb = np.asarray(seen.image).reshape(-1, 3)[flat] / 255
    np.testing.assert_allclose(target.rgb, rgb, rtol=1e-6)


def rendering(rgb, depth, opacity, entropy):
    arrays = (jnp.asarray(x, jnp.float32) for x in (rgb, opacity, depth, entropy))
    rgb, opacity, depth, entropy = arrays
    zero = jnp.zeros(())
    return Rendering(rgb, opacity, depth, None, None, entropy, entropy, zero, jnp.int32(0))


def test_the_loss_is_equation_1_by_hand():
    target = Target(jnp.asarray([[0.0, 0, 0], [1, 1, 1]]), jnp.asarray([2.0, 0.0]))
    seen = rendering([[0.3, 0, 0], [1, 1, 1]], [3.0, 9.0], [0.8, 0.1], [0.4, 0.2])
    total, figures = fitting_loss(seen, target, Weights(depth=2.0, solid=3.0, entropy=5.0))
    colour = 0.09 / 6
    assert float(total) == pytest.approx(colour + 2 * 0.5 + 3 * 0.04 + 5 * 0.3, rel=1e-5)
    assert float(figures["psnr"]) == pytest.approx(-10 * np.log10(colour), rel=1e-5)
    assert float(figures["depth_error"]) == pytest.approx(0.5)
    # No depth at all: finite, and so is the gradient.
    unknown = target._replace(depth=jnp.zeros(2))

    def loss(rgb, depth):
        seen = rendering([[0, 0, 0]] * 2, [0, 0], [0, 0], [0, 0])._replace(rgb=rgb, depth=depth)
        return fitting_loss(seen, unknown, Weights(2.0, 3.0, 5.0))[0]

    gradients = jax.grad(loss, argnums=(0, 1))(target.rgb, jnp.zeros(2))
    assert all(np.isfinite(g).all() for g in gradients)


def test_a_picture_is_that_of_its_rays_whatever_the_chunk():
    """From inside of a shell: depth by a sphere's equation, colour by the point that is hit."""
    camera = cameras()
    inner = jnp.asarray(camera.camera_to_world).at[:, :3, 3].multiply(0.3 / 0.9)
    camera = Camera(inner, camera.fx, camera.fy, camera.cx, camera.cy, HEIGHT, WIDTH)
    picture = picture_function(renderer(), 8)(jnp.float32(1.0), camera[1])
    rays = camera_rays(camera[1])
    o, d = np.asarray(rays.origins), np.asarray(rays.directions)
    along = -(o * d).sum(-1)
    distance = along + np.sqrt(along**2 - (o**2).sum(-1) + SHELL**2)
    np.testing.assert_allclose(picture.depth, distance * rays.z_scale, atol=4e-3)
    hit = o + distance[..., None] * d
    np.testing.assert_allclose(picture.rgb, 0.5 + 0.5 * hit, atol=4e-3)
    np.testing.assert_allclose(picture.opacity, 1.0, atol=1e-5)
    whole = picture_function(renderer(), 1000)(jnp.float32(1.0), camera[1])
    for a, b in zip(jax.tree.leaves(picture), jax.tree.leaves(whole), strict=True):
        if a.ndim:
            np.testing.assert_allclose(a, b, atol=1e-6)
    # Through an empty field the background; what is nearer than `near` is not there.
    empty = picture_function(renderer(), 8)(jnp.float32(0.0), camera[1])
    np.testing.assert_allclose(empty.rgb, np.broadcast_to([0, 0.25, 1], (5, 7, 3)), atol=1e-6)
    # Every point of the shell is within 0.9 of the camera, the ball's rim is not.
    passed = picture_function(renderer(near=0.9), 8)(jnp.float32(1.0), camera[1])
    assert float(passed.depth.min()) > float((0.85 * rays.z_scale).min())


def test_a_background_can_be_learnt(rng):
    field = Field(
        lambda key: jnp.zeros(3), lambda p, x: (jnp.zeros(len(x)), jnp.zeros((len(x), 3)))
    )

    def behind(params, directions):
        return jnp.abs(directions) + params[None]

    one = Renderer(field, 4, 0, NEAR, behind)
    out = picture_function(one, 16)(jnp.asarray([0.0, 0.0, 0.5]), cameras()[0])
    wanted = np.abs(camera_rays(cameras()[0]).directions) + np.array([0, 0, 0.5])
    np.testing.assert_allclose(out.rgb, wanted, atol=1e-6)


def test_steps_find_colour_and_depth_and_repeat_bit_for_bit():
    """A plain red shell at one depth: voxels learn it from rays alone."""
    camera = cameras()
    image = jnp.tile(jnp.asarray([[[[200, 50, 25]]]], jnp.uint8), (FRAMES, HEIGHT, WIDTH, 1))
    depth = jnp.full((FRAMES, HEIGHT, WIDTH), 0.8)
    kept = all_pixels(np.ones(depth.shape, bool))
    seen = Views(camera, image, depth, jnp.asarray(kept))
    field = as_field(VoxelField(size=12, ball=1.0, feature_activation=jax.nn.sigmoid))
    base = optax.adam(0.1)

    def update(*arguments):
        with jax.numpy_dtype_promotion("standard"):
            return base.update(*arguments)

    optimiser = optax.GradientTransformation(base.init, update)
    one = Renderer(field, 16, 16, NEAR, (0.0, 0.0, 0.0))
    step = fitting_step(one, optimiser, Weights(depth=0.3, solid=0.1), rays=64, decay=0.5)

    def run():
        state = init_state(jax.random.key(0), field.init(jax.random.key(1)), optimiser)
        figures = []
        for _ in range(60):
            state, metrics = step(state, seen)
            figures.append({name: float(value) for name, value in metrics.items()})
        return state, figures

    (state, figures), (again, _) = run(), run()
    assert figures[-1]["psnr"] > figures[0]["psnr"] + 12.0
    assert figures[-1]["depth_error"] < 0.5 * figures[0]["depth_error"]
    assert figures[-1]["opacity"] > 0.9
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(again.params), strict=True):
        np.testing.assert_array_equal(a, b)


def test_psnr_is_of_the_kept_pixels(rng):
    truth = rng.uniform(0.2, 0.8, (2, 4, 5, 3)).astype(np.float32)
    off = truth + np.float32(0.1)
    off[0] = np.nan
    kept = np.ones((2, 4, 5), bool)
    kept[0] = False
    assert psnr(off, truth, kept) == pytest.approx(20.0, abs=1e-4)
    assert psnr(truth, truth, kept) == PSNR_LIMIT
    with pytest.raises(ValueError, match="no pixels"):
        psnr(truth, truth, np.zeros((2, 4, 5), bool))
    with pytest.raises(ValueError, match="no pixel to fit"):
        all_pixels(np.zeros((2, 4, 5), bool))
