"""Inpainting with priors whose answer is known: no network, latents are the pictures."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.diffusion.parameterization import eps_from_x0
from geojax.diffusion.resampling import resampling
from geojax.diffusion.samplers import DDIM, DPM_SOLVER, EULER, Sampler, time_steps
from geojax.diffusion.schedule import scaled_linear
from geojax.methods.image_to_image import image_to_image
from geojax.methods.inpainting import (
    check_mask,
    inpaint,
    inpaint_and_mend,
    match_edge,
    replacement,
)
from geojax.priors.inpainting import ConditionedPrior
from geojax.priors.mixture import mixture_prior

SIZE = 8
SCHEDULE = scaled_linear()
RED, BLUE = (
    jnp.broadcast_to(jnp.array(c), (1, SIZE, SIZE, 3)) for c in ([0.8, 0.1, 0.1], [0.1, 0.2, 0.9])
)
MASK = jnp.zeros((1, SIZE, SIZE), bool).at[:, 2:5, 3:7].set(True)


@pytest.fixture(scope="module")
def prior():
    """Plain red or plain blue pictures."""
    return mixture_prior(SCHEDULE, jnp.concatenate([RED, BLUE]), 1e-3, ["red", "blue"])


def trained_prior(answer, extra_channels=4):
    """A network that was trained to inpaint: it knows the whole picture from what it is shown."""

    def denoise(params, z, t, condition, extra):
        return eps_from_x0(SCHEDULE, z, answer(extra, condition), t)

    return ConditionedPrior(
        params={},
        encode=lambda params, image: 2.0 * image - 1.0,
        decode=lambda params, z: jnp.clip(0.5 * z + 0.5, 0.0, 1.0),
        embed=lambda prompts: jnp.zeros((len(prompts), 1, 1)),
        denoise=denoise,
        schedule=SCHEDULE,
        image_size=SIZE,
        latent_size=SIZE,
        latent_channels=3,
        extra_channels=extra_channels,
    )


def run(prior, image, filled, prompt="red", mask=MASK, seed=0, **options):
    options = {"sampler": EULER, "steps": 20, "guidance": 1.0, **options}
    condition = prior.embed([prompt])
    paint = jax.jit(functools.partial(inpaint, prior=prior, **options), static_argnames=())
    return paint(
        jax.random.key(seed),
        params=prior.params,
        image=image,
        mask=mask,
        filled=filled,
        condition=condition,
        unconditional=condition,
    )


@pytest.mark.parametrize("sampler", [DDIM, EULER, DPM_SOLVER, resampling(2, 2)])
def test_known_pixels_are_returned_bit_for_bit_and_the_hole_is_painted(prior, sampler, rng):
    image = jnp.asarray(rng.uniform(size=(1, SIZE, SIZE, 3)), jnp.float32)
    # In the plain way the network has to agree with what is known, else it is no picture of its.
    for known in (image, RED):
        painted = run(prior, known, jnp.where(MASK[..., None], 0.5, known), sampler=sampler)
        np.testing.assert_array_equal(painted[~MASK], known[~MASK])
    assert float(jnp.max(jnp.abs(painted - RED))) < 0.25
    assert float(jnp.max(jnp.abs(painted[MASK] - 0.5))) > 0.2


def test_the_known_part_decides_where_the_prompt_does_not(prior):
    """With both modes open, a blue surrounding makes a blue filling."""
    grey = jnp.where(MASK[..., None], 0.5, BLUE)
    for seed in range(3):
        painted = run(prior, BLUE, grey, prompt="", seed=seed)
        assert float(jnp.max(jnp.abs(painted - BLUE))) < 0.2


def test_an_empty_mask_keeps_the_latent_at_every_level(prior, key):
    """All known: the sample is E(image) exactly, whatever the network says."""
    nothing = jnp.zeros((1, SIZE, SIZE), bool)
    noise = jax.random.normal(key, BLUE.shape)
    constrain = replacement(key, BLUE, nothing, noise, False)
    z = DDIM.sample(key, lambda z, t: 3.0 + z, SCHEDULE, noise, 5, constrain=constrain)
    np.testing.assert_array_equal(z, BLUE)


def test_noise_is_the_same_in_every_step_or_fresh(key):
    noise = jax.random.normal(key, BLUE.shape)
    nothing = jnp.zeros((1, SIZE, SIZE), bool)
    level = jnp.float32(0.6), jnp.float32(0.8)
    same, fresh = (
        [replacement(key, BLUE, nothing, noise, f)(noise, jnp.int32(i), *level) for i in (0, 1)]
        for f in (False, True)
    )
    np.testing.assert_allclose(same[0], 0.6 * BLUE + 0.8 * noise, rtol=1e-6)
    np.testing.assert_array_equal(*same)
    assert float(jnp.max(jnp.abs(fresh[0] - fresh[1]))) > 0.5


@pytest.mark.parametrize(
    ("grow", "cells"), [(0, (2, 5, 3, 7)), (1, (1, 6, 2, 8)), (9, (0, 8, 0, 8))]
)
def test_growing_frees_the_cells_around_the_hole(prior, grow, cells):
    """They are encoded with the fill in sight; the pixels in them stay known all the same."""
    seen = []

    def sample(key, denoise, schedule, z, steps, start, constrain):
        seen.append(constrain(jnp.full_like(z, 9.0), jnp.int32(0), jnp.float32(1), jnp.float32(0)))
        return z

    painted = inpaint(
        jax.random.key(0),
        prior,
        prior.params,
        BLUE,
        MASK,
        RED,
        prior.embed(["red"]),
        prior.embed(["red"]),
        sampler=Sampler(sample, time_steps),
        steps=4,
        guidance=1.0,
        grow=grow,
    )
    top, bottom, left, right = cells
    expected = np.array(RED)
    expected[:, top:bottom, left:right] = 9.0
    np.testing.assert_array_equal(seen[0], expected)
    np.testing.assert_array_equal(painted[~MASK], BLUE[~MASK])


def test_a_trained_network_is_shown_mask_and_masked_image():
    """It answers: the known pixels, and 1 - mean of them where the mask is."""

    def answer(extra, condition):
        mask, seen = extra[..., :1], extra[..., 1:]
        known = 1.0 - mask
        mean = jnp.sum(seen * known, (1, 2), keepdims=True) / jnp.sum(known, (1, 2), keepdims=True)
        return jnp.where(mask > 0.0, -mean, seen)

    prior = trained_prior(answer)
    painted = run(prior, BLUE, RED)
    np.testing.assert_array_equal(painted[~MASK], BLUE[~MASK])
    expected = jnp.broadcast_to(1.0 - BLUE[0, 0, 0], painted[MASK].shape)
    np.testing.assert_allclose(painted[MASK], expected, atol=1e-3)


@pytest.mark.parametrize("extra_channels", [1, 5])
def test_a_prior_that_is_shown_something_else_is_refused(extra_channels):
    prior = trained_prior(lambda extra, condition: extra[..., :3], extra_channels)
    with pytest.raises(ValueError, match=f"is shown {extra_channels} channels.* model 4"):
        run(prior, BLUE, RED)


def test_strength_goes_from_the_fill_to_nothing_of_it():
    """A network that leaves a picture as it is, up to noise: what is painted is the fill."""
    noisy = dataclasses.replace(
        trained_prior(None),
        denoise=lambda params, z, t, y, extra: 0.0 * z,
    )
    kept = run(noisy, BLUE, RED, strength=0.0)
    np.testing.assert_array_equal(kept, jnp.where(MASK[..., None], RED, BLUE))
    distance = [
        float(jnp.mean(jnp.abs(run(noisy, BLUE, RED, strength=q)[MASK] - RED[MASK])))
        for q in (0.1, 0.5, 1.0)
    ]
    assert 0.0 < distance[0] < distance[1] < distance[2]
    for q, message in [(-0.1, "got -0.1"), (1.1, "got 1.1"), (0.01, "leaves none of 20")]:
        with pytest.raises(ValueError, match=message):
            run(noisy, BLUE, RED, strength=q)


def test_the_seam_is_painted_again_and_nothing_else():
    calls = []

    def paint(key, image, mask, filled, *, strength):
        calls.append((np.asarray(mask), strength))
        return jnp.where(mask[..., None], 0.25 * len(calls) + 0.0 * filled, image)

    mend = functools.partial(
        inpaint_and_mend, jax.random.key(0), paint, BLUE, MASK, RED, strength=0.9
    )
    np.testing.assert_array_equal(mend(seam=0)[MASK], 0.25)
    calls.clear()
    painted = np.asarray(mend(seam=1, seam_strength=0.4))
    assert [strength for _, strength in calls] == [0.9, 0.4]
    np.testing.assert_array_equal(painted[0, 3, 4:6], 0.25)  # the inside of the hole
    np.testing.assert_array_equal(painted[0, 2, 3:7], 0.5)
    np.testing.assert_array_equal(painted[~MASK], BLUE[~MASK])
    calls.clear()
    wide = np.asarray(mend(seam=1, outside=True))
    np.testing.assert_array_equal(wide[0, 1, 2:8], 0.5)
    np.testing.assert_array_equal(wide[0, 0], BLUE[0, 0])
    with pytest.raises(ValueError, match="got -1"):
        mend(seam=-1)


def test_a_step_in_colour_is_taken_out_at_the_edge_and_fades():
    """What is known came out .1 too dark on the left: so did the painting beside it."""
    image = jnp.full((1, 12, 48, 3), 0.5)
    mask = jnp.zeros((1, 12, 48), bool).at[:, :, 16:32].set(True)
    painted = jnp.where(jnp.arange(48)[None, None, :, None] < 24, 0.4, 0.5) + 0.0 * image
    matched = np.asarray(match_edge(painted, image, mask, 3.0))[0, 5, :, 0]
    # h of one dimension falls by the root of k^2 - (2 + 1 / 9) k + 1 in each pixel.
    k = 1.0 + 1.0 / 18.0 - np.sqrt((1.0 + 1.0 / 18.0) ** 2 - 1.0)
    expected = np.where(np.arange(16) < 8, 0.4, 0.5) + 0.1 * k ** np.arange(1, 17)
    np.testing.assert_allclose(matched[16:32], expected, atol=2e-3)


def test_matching_leaves_alone_what_agrees_and_what_stands_alone(rng):
    painted = jnp.asarray(rng.uniform(size=(1, SIZE, SIZE, 3)), jnp.float32)
    agrees = jnp.where(MASK[..., None], 0.3, painted)
    np.testing.assert_allclose(match_edge(painted, agrees, MASK, 2.0), painted, atol=1e-6)
    full = jnp.ones_like(MASK)
    np.testing.assert_allclose(match_edge(painted, BLUE, full, 2.0), painted, atol=1e-6)


def test_an_autoencoder_that_darkens_leaves_no_step_where_edges_are_matched():
    """Its decode loses .1 everywhere; the network repeats what is known."""
    dark = dataclasses.replace(
        trained_prior(
            lambda extra, condition: jnp.broadcast_to(extra[:, :1, :1, 1:], (2, 8, 8, 3))
        ),
        decode=lambda params, z: 0.5 * z + 0.4,
    )
    grey = jnp.full_like(BLUE, 0.5)
    np.testing.assert_allclose(run(dark, grey, grey)[MASK], 0.4, atol=2e-3)
    np.testing.assert_allclose(run(dark, grey, grey, match=20.0)[MASK], 0.5, atol=2e-3)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((1, 4, 8), bool), "mask is 8x4 pixels, the image 8x8"),
        (np.zeros((1, 8, 8), bool), "mask is empty"),
        (np.ones((1, 8, 8), bool), "mask is full"),
    ],
)
def test_masks_that_mean_nothing_are_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        check_mask(BLUE, mask)
    check_mask(BLUE, MASK)


@pytest.mark.parametrize("sampler", [DDIM, EULER, DPM_SOLVER])
def test_image_to_image_keeps_less_the_stronger_it_is(prior, sampler):
    """From red towards blue: the prompt wins where enough noise was added."""
    prior = dataclasses.replace(prior, params=prior.params._replace(variance=jnp.float32(0.05)))
    embed = prior.embed(["blue"])

    def edit(strength):
        return image_to_image(
            jax.random.key(1),
            prior,
            prior.params,
            RED,
            embed,
            embed,
            sampler=sampler,
            steps=10,
            strength=strength,
            guidance=1.0,
        )

    np.testing.assert_array_equal(edit(0.0), RED)
    to_blue = [float(jnp.mean(jnp.abs(edit(q) - BLUE))) for q in (0.1, 0.4, 1.0)]
    assert to_blue[0] > to_blue[1] > to_blue[2]
    with pytest.raises(ValueError, match=r"got 1\.5"):
        edit(1.5)
