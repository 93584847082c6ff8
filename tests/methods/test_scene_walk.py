import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from geojax.diffusion import samplers
from geojax.diffusion.schedule import scaled_linear
from geojax.methods import scene_walk
from geojax.priors.depth import Alignment, DepthModel
from geojax.priors.prior import Prior

SIZE, CELLS, FACTOR = 8, 4, 2
ONE = Alignment(jnp.ones(1), jnp.zeros(1))
# optax raises a float to an integer power.
lenient = jax.numpy_dtype_promotion
HOLE = jnp.zeros((SIZE, SIZE), bool).at[:, 4:].set(True)


def encode(params, image):
    batch, height, width, _ = image.shape
    cells = image.reshape(batch, height // FACTOR, FACTOR, width // FACTOR, FACTOR, 3)
    return cells.mean(axis=(2, 4))


def decode(params, z):
    """A decoder with a gain to tune, which makes everything too dark."""
    picture = jnp.repeat(jnp.repeat(z, FACTOR, axis=1), FACTOR, axis=2)
    return jnp.clip(picture * params["vae"]["decoder"]["gain"][None, None, None], 0.0, 1.0)


def prior():
    """Its score is that of a point: the colour that the condition names."""
    schedule = scaled_linear()

    def denoise(params, z, t, condition):
        mean = condition[:, 0, :3][:, None, None]
        a, s = (f(t)[:, None, None, None] for f in (schedule.alpha, schedule.s))
        return (z - a * mean) / s

    return Prior(
        params={"vae": {"decoder": {"gain": jnp.asarray([0.8, 0.8, 0.8])}}, "unet": {}},
        encode=encode,
        decode=decode,
        embed=lambda prompts: jnp.zeros((len(prompts), 1, 3)),
        denoise=denoise,
        schedule=schedule,
        image_size=SIZE,
        latent_size=CELLS,
        latent_channels=3,
    )


def paint(model, count=2):
    colour = jnp.asarray([0.2, 0.5, 0.7])
    condition = jnp.broadcast_to(colour, (1, 1, 3))
    known = jnp.full((SIZE, SIZE, 3), 0.5)
    return scene_walk.paint(
        jax.random.key(0),
        model,
        model.params,
        known,
        HOLE,
        known,
        condition,
        condition,
        count=count,
        sampler=samplers.DDIM,
        steps=5,
        guidance=1.0,
    )


def test_candidates_are_of_the_prompt_and_each_starts_from_its_own_noise():
    found = paint(prior())
    assert found.latents.shape == (2, CELLS, CELLS, 3) and found.pictures.shape == (
        2,
        SIZE,
        SIZE,
        3,
    )
    # In the hole the colour that the prompt names, up to the noise that DDIM ends with; outside it
    # what was there.
    new = found.latents[:, :, 3]
    np.testing.assert_allclose(
        new, jnp.broadcast_to(jnp.asarray([0.2, 0.5, 0.7]), new.shape), atol=0.12
    )
    np.testing.assert_allclose(found.latents[:, :, 0], 0.5, atol=1e-4)
    blurry = dataclasses.replace(prior(), denoise=lambda p, z, t, c: 0.5 * z)
    several = paint(blurry)
    assert float(jnp.abs(several.latents[0] - several.latents[1]).max()) > 0.05
    with pytest.raises(ValueError, match="0 candidates"):
        paint(prior(), 0)


def test_the_decoder_is_tuned_to_what_is_known_and_its_original_kept():
    model = prior()
    image = jnp.full((SIZE, SIZE, 3), 0.5)
    z = jnp.full((CELLS, CELLS, 3), 0.5)
    picture = model.decode(model.params, z[None])[0]
    with lenient("standard"):
        rebuilt, losses = scene_walk.tune_decoder(
            model, model.params, z, picture, image, HOLE, optimiser=optax.adam(0.02), steps=60
        )
    # The known half asks for gain 1, a hundredth of the weight for .8.
    np.testing.assert_allclose(rebuilt, 0.499, atol=5e-3)
    assert losses.shape == (60,) and float(losses[-1]) < 0.02 * float(losses[0])
    np.testing.assert_array_equal(model.params["vae"]["decoder"]["gain"], jnp.float32(0.8))
    with lenient("standard"):
        same, _ = scene_walk.tune_decoder(
            model, model.params, z, picture, image, HOLE, optimiser=optax.adam(0.02), steps=0
        )
    np.testing.assert_array_equal(same, picture)


def test_a_model_on_pixels_has_no_decoder_to_tune():
    model, z = prior(), jnp.zeros((SIZE, SIZE, 3))
    with pytest.raises(ValueError, match="a model on pixels has no"):
        scene_walk.tune_decoder(
            model, {"unet": {}}, z, z, z, HOLE, optimiser=optax.adam(0.1), steps=1
        )


def linear_depth():
    """Disparity is the red of the picture, times a weight to tune."""
    return DepthModel(
        params={"weight": jnp.asarray(1.0)},
        predict=lambda params, image: params["weight"] * image[..., 0],
        metric=False,
        image_size=SIZE,
    )


@pytest.mark.parametrize("relative", [False, True])
def test_depth_is_tuned_to_what_is_known(relative):
    """True disparity is .4, the model says .5: after tuning .4 everywhere, in the hole too."""
    model, picture = linear_depth(), jnp.full((SIZE, SIZE, 3), 0.5)
    depth = jnp.where(HOLE, jnp.nan, 2.5)
    with lenient("standard"):
        found, losses = scene_walk.tune_depth(
            model,
            model.params,
            picture,
            depth,
            ~HOLE,
            ONE,
            optimiser=optax.adam(0.01),
            steps=80,
            relative=relative,
        )
    np.testing.assert_allclose(found, 0.4, rtol=0.02)
    assert float(losses[-1]) < 0.1 * float(losses[0])
    scaled = Alignment(jnp.asarray([0.8]), jnp.asarray([0.01]))
    np.testing.assert_allclose(
        scene_walk.predict(model, model.params, picture, scaled), 0.41, rtol=1e-5
    )


def test_the_scale_is_fitted_to_what_is_known(rng):
    disparity = jnp.asarray(rng.uniform(0.2, 1.0, (SIZE, SIZE)), jnp.float32)
    depth = jnp.where(HOLE, jnp.nan, 1.0 / (2.0 * disparity + 0.3))
    found = scene_walk.fit_scale(disparity, depth, ~HOLE)
    np.testing.assert_allclose([*found.scale, *found.shift], [2.0, 0.3], rtol=1e-4)
    # Nothing known, or near taken for far: as it is.
    for truth, known in ((depth, HOLE & ~HOLE), (1.0 / (2.0 - disparity), ~HOLE)):
        kept = scene_walk.fit_scale(disparity, truth, known)
        np.testing.assert_array_equal([*kept.scale, *kept.shift], [1.0, 0.0])


def test_completed_depth_joins_without_a_step_and_fades_into_the_prediction():
    """The prediction is 20 % too far at the edge: beside it the new depth is right, away not."""
    disparity = jnp.full((SIZE, 40), 0.4)
    hole = jnp.zeros((SIZE, 40), bool).at[:, 10:].set(True)
    depth = jnp.where(hole, 0.0, 2.0)
    none = hole & ~hole
    options = {"farthest": 50.0, "reach": 3.0}
    found = scene_walk.complete_depth(disparity, depth, ~hole, hole, none, **options)
    np.testing.assert_array_equal(found.depth[:, :10], 2.0)
    # The logarithm of the error falls by k a pixel: k^2 - (2 + 1 / 9) k + 1 = 0.
    k = 1.0 + 1.0 / 18.0 - np.sqrt((1.0 + 1.0 / 18.0) ** 2 - 1.0)
    expected = 2.5 * 0.8 ** (k ** np.arange(1, 31))
    np.testing.assert_allclose(found.depth[:, 10:], np.tile(expected, (SIZE, 1)), rtol=1e-3)
    step = scene_walk.complete_depth(disparity, depth, ~hole, hole, none, farthest=50.0, reach=0.0)
    np.testing.assert_allclose(step.depth[:, 10:], 2.5, rtol=1e-6)


def test_what_is_beyond_the_farthest_is_far_and_has_no_depth():
    disparity = jnp.full((SIZE, SIZE), 0.4).at[:, 6:].set(0.011)
    old = jnp.zeros((SIZE, SIZE), bool).at[:2, :4].set(True)
    known = ~HOLE & ~old
    found = scene_walk.complete_depth(
        disparity, jnp.where(known, 2.0, 0.0), known, HOLE, old, farthest=30.0, reach=0.0
    )
    np.testing.assert_array_equal(found.far, old | (jnp.arange(SIZE) >= 6)[None])
    assert not np.asarray(found.depth)[np.asarray(found.far)].any()
    np.testing.assert_allclose(found.depth[:, 4:6], 2.5, rtol=1e-6)
