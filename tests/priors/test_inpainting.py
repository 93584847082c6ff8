import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.priors.inpainting import (
    depth_channels,
    inpainting_channels,
    latent_mask,
    load_depth_conditioned,
    load_inpainting,
    painted_whole,
)
from geojax.priors.stable_diffusion import load_stable_diffusion
from tests.weights.tiny_family import LIMIT, UNET, WIDTH, write_family

LOADERS = {
    4: (load_stable_diffusion, "a text-to-image model"),
    5: (load_depth_conditioned, "a depth model"),
    9: (load_inpainting, "an inpainting model"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tiny folder of each kind, by its number of channels."""
    root = tmp_path_factory.mktemp("kinds")
    for channels in LOADERS:
        write_family(
            root / str(channels),
            unet=dataclasses.replace(UNET, in_channels=channels),
            prediction="v_prediction",
        )
    return root


@pytest.fixture(scope="module")
def prior(folders):
    return load_inpainting(folders / "9")


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(2)
    return (
        jnp.asarray(rng.standard_normal((2, 8, 8, 4)), jnp.float32),
        jnp.asarray([3, 900]),
        jnp.asarray(rng.standard_normal((2, LIMIT, WIDTH)), jnp.float32),
    )


@pytest.mark.parametrize("holds", LOADERS)
@pytest.mark.parametrize("wants", LOADERS)
def test_each_loader_takes_its_own_kind_and_names_another(folders, holds, wants):
    load, wanted = LOADERS[wants]
    if holds == wants:
        prior = load(folders / str(holds))
        assert (prior.image_size, prior.latent_size, prior.latent_channels) == (16, 8, 4)
        assert getattr(prior, "extra_channels", 0) == holds - 4
        return
    message = f"takes {holds} channels: {LOADERS[holds][1]}; expected {wanted}.* takes {wants}"
    with pytest.raises(ValueError, match=message):
        load(folders / str(holds))


def test_channels_of_no_kind_are_refused(tmp_path):
    write_family(tmp_path / "six", unet=dataclasses.replace(UNET, in_channels=6))
    with pytest.raises(ValueError, match="takes 6 channels; expected an inpainting model"):
        load_inpainting(tmp_path / "six")


def test_zero_weights_for_the_extra_channels_are_the_plain_model(prior, batch, rng):
    """And to_eps sees the latent alone: the model predicts v."""
    plain_params = jax.tree.map(jnp.asarray, prior.params)
    kernel = plain_params["unet"]["conv_in"]["kernel"]
    plain_params["unet"]["conv_in"]["kernel"] = kernel.at[:, :, 4:].set(0.0)
    extra = jnp.asarray(rng.standard_normal((2, 8, 8, 5)), jnp.float32)
    denoise = jax.jit(prior.denoise)
    blind = denoise(plain_params, *batch, extra)
    np.testing.assert_allclose(blind, denoise(plain_params, *batch, 0.0 * extra), atol=1e-6)
    # With its weights it looks.
    assert float(jnp.max(jnp.abs(denoise(prior.params, *batch, extra) - blind))) > 0.05


def test_what_is_given_is_repeated_as_guidance_stacks(prior, batch, rng):
    z, t, y = batch
    extra = jnp.asarray(rng.standard_normal((2, 8, 8, 5)), jnp.float32)
    twice = jax.jit(
        lambda p, e, *a: prior.given(e).denoise(
            p, *(jnp.tile(x, (2,) + (1,) * (x.ndim - 1)) for x in a)
        )
    )
    once = jax.jit(prior.denoise)(prior.params, z, t, y, extra)
    np.testing.assert_allclose(
        twice(prior.params, extra, z, t, y), jnp.concatenate([once, once]), atol=1e-5
    )


def test_the_channels_are_mask_then_masked_image(prior, rng):
    image = jnp.asarray(rng.uniform(size=(1, 16, 16, 3)), jnp.float32)
    mask = jnp.zeros((1, 16, 16), bool).at[0, 4:8, 5:9].set(True)
    make = jax.jit(lambda x: inpainting_channels(prior, prior.params, x, mask))
    extra = make(image)
    assert extra.shape == (1, 8, 8, 5)
    expected = np.zeros((8, 8))
    expected[2:4, 2:5] = 1.0  # pixels 5..8 touch cells 2..4
    np.testing.assert_array_equal(extra[0, ..., 0], expected)
    grey = jnp.where(mask[..., None], 0.5, image)
    np.testing.assert_allclose(
        extra[..., 1:], jax.jit(prior.encode)(prior.params, grey), rtol=1e-4, atol=1e-5
    )
    # What is under the mask has no say.
    np.testing.assert_array_equal(make(jnp.where(mask[..., None], 0.9, image)), extra)


def test_painted_whole_is_the_model_shown_nothing(prior, batch):
    """Channels made by hand: ones, and the latent of grey; whatever the size of the batch."""
    z, t, condition = batch
    grey = jnp.broadcast_to(prior.encode(prior.params, jnp.full((1, 16, 16, 3), 0.5)), (2, 8, 8, 4))
    extra = jnp.concatenate([jnp.ones((2, 8, 8, 1)), grey], axis=-1)
    want = prior.denoise(prior.params, z, t, condition, extra)
    whole = painted_whole(prior)
    np.testing.assert_allclose(whole.denoise(whole.params, z, t, condition), want, atol=1e-5)
    # Where something is shown the answer is another one.
    other = prior.denoise(prior.params, z, t, condition, extra.at[..., 0].set(0.0))
    assert np.abs(np.asarray(other - want)).max() > 1e-3
    twice = [jnp.concatenate([x, x]) for x in batch]
    found = whole.denoise(whole.params, *twice)
    np.testing.assert_allclose(found, jnp.concatenate([want, want]), atol=1e-5)
    assert whole.embed is prior.embed and whole.latent_size == prior.latent_size


def test_only_an_inpainting_model_can_be_painted_whole(folders):
    depth = load_depth_conditioned(folders / "5")
    with pytest.raises(ValueError, match="5 channels beside the noisy latent, got 1"):
        painted_whole(depth)


def test_one_pixel_anywhere_in_a_cell_paints_it():
    """Nearest, at pixel (8 i, 8 j), would lose it."""
    mask = jnp.zeros((1, 16, 24), bool).at[0, 11, 19].set(True)
    cells = latent_mask(mask, 8)
    assert np.argwhere(cells).tolist() == [[0, 1, 2]]
    with pytest.raises(ValueError, match="divisible by 5"):
        latent_mask(mask, 5)


def test_depth_spans_its_range_whatever_scale_and_shift(rng):
    d = jnp.asarray(rng.uniform(1.0, 4.0, size=(2, 24, 16)), jnp.float32)
    extra = depth_channels(d, 6, 4)
    assert extra.shape == (2, 6, 4, 1)
    np.testing.assert_array_equal(jnp.max(extra, axis=(1, 2, 3)), 1.0)
    np.testing.assert_array_equal(jnp.min(extra, axis=(1, 2, 3)), -1.0)
    np.testing.assert_allclose(depth_channels(3.0 * d + 5.0, 6, 4), extra, atol=1e-5)
    # A filter that is not antialiased, at the centre of four pixels: weights (-3, 19, 19, -3) / 32.
    taps = np.asarray([-3.0, 19.0, 19.0, -3.0]) / 32.0
    picture = np.asarray(d[0])
    rows = [np.clip(np.arange(4 * i, 4 * i + 4), 0, 23) for i in range(6)]
    columns = [np.clip(np.arange(4 * j, 4 * j + 4), 0, 15) for j in range(4)]
    small = np.asarray([[taps @ picture[np.ix_(r, c)] @ taps for c in columns] for r in rows])
    stretched = 2.0 * (small - small.min()) / (small.max() - small.min()) - 1.0
    np.testing.assert_allclose(extra[0, ..., 0], stretched, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.3, -250.0])
def test_constant_depth_is_the_middle_and_not_a_division_by_zero(value):
    d = jnp.full((1, 24, 20), value, jnp.float32)
    np.testing.assert_array_equal(depth_channels(d, 7, 9), 0.0)
    gradient = jax.grad(lambda d: jnp.sum(depth_channels(d, 7, 9)))(d)
    assert bool(jnp.all(jnp.isfinite(gradient)))
