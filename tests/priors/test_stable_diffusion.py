import dataclasses
import json
import logging
import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from geojax.diffusion.parameterization import add_noise, velocity
from geojax.models.unet import UNet
from geojax.models.vae import VAE
from geojax.priors.stable_diffusion import load_schedule, load_stable_diffusion, network_denoise
from tests.weights.tiny_family import LIMIT, UNET, VAE_CONFIG, WIDTH, write_family

PIXELS = dataclasses.replace(UNET, in_channels=3, out_channels=3, sample_size=8)


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """Parameters by component, and their folder."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return write_family(folder), folder


@pytest.fixture(scope="module")
def prior(family):
    return load_stable_diffusion(family[1])


@pytest.fixture
def copy(family, tmp_path):
    """The folder, to spoil."""
    return shutil.copytree(family[1], tmp_path / "copy")


def change(file, **fields):
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(1)
    return (
        jnp.asarray(rng.standard_normal((2, 8, 8, 4)), jnp.float32),
        jnp.asarray([3, 900]),
        jnp.asarray(rng.standard_normal((2, LIMIT, WIDTH)), jnp.float32),
    )


@pytest.fixture(scope="module")
def eps(prior, batch):
    return jax.jit(prior.denoise)(prior.params, *batch)


def test_sizes_and_parameters_are_the_files(family, prior):
    assert (prior.image_size, prior.latent_size, prior.latent_channels) == (16, 8, 4)
    assert prior.schedule.num_steps == 1000
    assert set(prior.params) == {"unet", "vae"}
    for name in prior.params:
        jax.tree.map(np.testing.assert_array_equal, prior.params[name], family[0][name])


def test_encode_and_decode_change_range_and_scale(prior, rng):
    image = jnp.asarray(rng.uniform(size=(1, 16, 16, 3)), jnp.float32)
    vae, params = VAE(VAE_CONFIG), {"params": prior.params["vae"]}
    encode = jax.jit(partial(vae.apply, method="encode"))
    mean, _ = encode(params, 2.0 * image - 1.0)
    latent = jax.jit(prior.encode)(prior.params, image)
    np.testing.assert_allclose(latent, 0.18215 * mean, rtol=1e-5, atol=1e-6)
    # Far outside the range in which the decoder was trained: the image is clipped.
    far = jax.jit(prior.decode)(prior.params, 100.0 * latent)
    decode = jax.jit(partial(vae.apply, method="decode"))
    raw = 0.5 * decode(params, 100.0 * latent / 0.18215) + 0.5
    assert float(jnp.max(jnp.abs(raw - 0.5))) > 0.6
    np.testing.assert_allclose(far, np.clip(raw, 0.0, 1.0), rtol=1e-5, atol=1e-5)


def test_a_gradient_reaches_every_pixel_of_an_image(prior, rng):
    image = jnp.asarray(rng.uniform(size=(1, 16, 16, 3)), jnp.float32)
    gradient = jax.jit(jax.grad(lambda p, x: jnp.sum(prior.encode(p, x) ** 2), argnums=1))(
        prior.params, image
    )
    assert bool(jnp.all(jnp.isfinite(gradient)))
    assert float(jnp.mean(gradient != 0.0)) > 0.99


class Exact:
    """A network that knows the answer."""

    def __init__(self, answer):
        self.answer = answer

    def apply(self, variables, z, t, condition):
        return self.answer


def test_every_prediction_type_becomes_the_same_eps(prior, rng):
    x, eps = (jnp.asarray(rng.standard_normal((2, 4, 4, 4)), jnp.float32) for _ in range(2))
    t = jnp.asarray([150, 700])
    z = add_noise(prior.schedule, x, eps, t)
    v = velocity(prior.schedule, x, eps, t)
    for kind, answer in (("epsilon", eps), ("v_prediction", v), ("sample", x)):
        denoise = network_denoise(Exact(answer), prior.schedule, kind)
        found = denoise({"unet": {}}, z, t, jnp.zeros((2, 1, WIDTH)))
        np.testing.assert_allclose(found, eps, rtol=1e-4, atol=1e-4)


def test_the_schedulers_file_says_what_the_network_predicts(copy):
    assert load_schedule(copy / "scheduler")[1] == "epsilon"
    change(copy / "scheduler" / "scheduler_config.json", prediction_type="v_prediction")
    assert load_schedule(copy / "scheduler")[1] == "v_prediction"
    (copy / "scheduler" / "scheduler_config.json").write_text('{"beta_schedule": "scaled_linear"}')
    assert load_schedule(copy / "scheduler")[1] == "epsilon"  # files older than the field


def test_what_samplers_do_not_follow_is_said(copy, caplog):
    with caplog.at_level(logging.WARNING, logger="absl"):
        load_schedule(copy / "scheduler")
        assert not caplog.records
        change(
            copy / "scheduler" / "scheduler_config.json",
            timestep_spacing="trailing",
            clip_sample=True,
        )
        load_schedule(copy / "scheduler")
    (said,) = (r.getMessage() for r in caplog.records)
    assert "timestep_spacing='trailing', clip_sample=True" in said
    assert "with timestep_spacing='leading', clip_sample=False" in said


def test_the_network_is_called_with_the_files_parameters(prior, batch, eps):
    output = jax.jit(UNet(UNET).apply)({"params": prior.params["unet"]}, *batch)
    np.testing.assert_allclose(eps, output, atol=1e-5)


def test_the_weights_are_arguments_and_not_constants(prior, batch):
    traced = jax.make_jaxpr(prior.denoise)(prior.params, *batch)
    held = sum(np.size(c) for c in traced.consts)
    assert held <= 2 * prior.schedule.num_steps


def test_half_precision_computes_near_and_answers_in_float32(family, prior, batch, eps):
    half = load_stable_diffusion(family[1], dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(half.params)} == {jnp.dtype(jnp.bfloat16)}
    near = jax.jit(half.denoise)(half.params, *batch)
    assert near.dtype == jnp.float32
    error = float(jnp.linalg.norm(near - eps) / jnp.linalg.norm(eps))
    assert 1e-4 < error < 0.05
    prompt = ["a red mug"]
    np.testing.assert_allclose(half.embed(prompt), prior.embed(prompt), atol=0.1)


def test_the_autoencoder_stays_in_float32_in_float16(family):
    half = load_stable_diffusion(family[1], dtype=jnp.float16)
    assert {leaf.dtype for leaf in jax.tree.leaves(half.params["vae"])} == {jnp.dtype(jnp.float32)}
    assert {leaf.dtype for leaf in jax.tree.leaves(half.params["unet"])} == {jnp.dtype(jnp.float16)}


def test_embed_depends_on_the_prompt_and_not_on_its_neighbours(prior):
    y = prior.embed(["a red mug", ""])
    assert y.shape == (2, LIMIT, WIDTH)
    np.testing.assert_allclose(prior.embed([""]), y[1:], atol=1e-5)
    assert float(jnp.max(jnp.abs(y[0, 1:] - y[1, 1:]))) > 0.1


@pytest.mark.parametrize(
    ("prompts", "message"),
    [([], "no prompts"), ("a red mug", "got the string 'a red mug'"), (["a", " \n"], "is blank")],
)
def test_prompts_that_say_nothing_are_refused(prior, prompts, message):
    with pytest.raises(ValueError, match=message):
        prior.embed(prompts)


@pytest.mark.parametrize(
    ("prompt", "cut"),
    [
        ("a b c d e f g h i j K l", "K l"),
        ("a red mug, Blue  XYZWVU", "U"),  # a word is cut where its tokens are
        ("a b c d e f g h i j", ""),  # ten tokens and the two marks are exactly twelve
    ],
)
def test_the_very_text_over_the_limit_is_in_the_warning(prior, prompt, cut, caplog):
    with caplog.at_level(logging.WARNING, logger="absl"):
        y = prior.embed([prompt])
    expected = [f"prompt over the limit of 12 tokens: {cut!r} was cut from {prompt!r}"]
    assert [r.getMessage() for r in caplog.records if r.name == "absl"] == (expected if cut else [])
    if cut == "K l":
        np.testing.assert_allclose(prior.embed(["a b c d e f g h i j"]), y, atol=1e-5)


def test_the_limit_is_the_text_encoders_whatever_the_tokenizer_says(copy, prior):
    """model_max_length is 1e30 unless a file sets it."""
    (copy / "tokenizer" / "tokenizer_config.json").unlink()
    (copy / "tokenizer" / "special_tokens_map.json").unlink()
    prompts = ["a red mug", "a b c d e f g h i j k l"]
    np.testing.assert_allclose(
        load_stable_diffusion(copy).embed(prompts), prior.embed(prompts), atol=1e-6
    )


def test_a_prior_on_pixels_has_no_autoencoder(tmp_path, rng):
    write_family(tmp_path / "pixels", unet=PIXELS, vae=None)
    prior = load_stable_diffusion(tmp_path / "pixels")
    assert (prior.image_size, prior.latent_size, prior.latent_channels) == (8, 8, 3)
    assert set(prior.params) == {"unet"}
    image = jnp.asarray(rng.uniform(size=(2, 8, 8, 3)), jnp.float32)
    z = prior.encode(prior.params, image)
    np.testing.assert_allclose(z, 2.0 * image - 1.0)
    np.testing.assert_allclose(prior.decode(prior.params, z), image, atol=1e-6)
    assert float(jnp.max(prior.decode(prior.params, 3.0 * jnp.ones_like(z)))) == 1.0
    condition = prior.embed(["a", "b"])
    eps = jax.eval_shape(prior.denoise, prior.params, z, jnp.asarray([1, 2]), condition)
    assert eps.shape == z.shape


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        ("unet/config.json", {"in_channels": 9}, "takes 9 channels: an inpainting model"),
        ("unet/config.json", {"in_channels": 5}, "takes 5 channels: a depth model"),
        ("unet/config.json", {"out_channels": 8}, "gives 8 channels, not 4"),
        ("unet/config.json", {"sample_size": None}, "sample_size=None must be one integer"),
        ("unet/config.json", {"cross_attention_dim": 24}, "a condition 24 wide.* 16"),
        ("unet/config.json", {"_class_name": "UNet2DModel"}, "holds a UNet2DModel, expected"),
        ("unet/config.json", {"layers_per_block": 2}, "does not fit UNet2DConditionModel"),
        ("vae/config.json", {"_class_name": "VQModel"}, "holds a VQModel, expected"),
        ("text_encoder/config.json", {"hidden_act": "tanh"}, "hidden_act='tanh'"),
        ("text_encoder/config.json", {"vocab_size": 9}, "has 197 tokens.* embeds 9"),
        ("scheduler/scheduler_config.json", {"prediction_type": "flow"}, "prediction_type='flow'"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "sigmoid"}, "sigmoid"),
        ("model_index.json", {"unet": None, "transformer": ["a", "b"]}, r"without \['unet'\]"),
    ],
)
def test_folders_of_another_kind_are_refused(copy, file, fields, message):
    change(copy / file, **fields)
    if "vocab_size" in fields:
        # A smaller embedding that fits its config, but not the tokenizer.
        file = copy / "text_encoder" / "model.safetensors"
        tensors = load_file(file)
        key = "text_model.embeddings.token_embedding.weight"
        save_file({**tensors, key: tensors[key][:9].copy()}, file)
        (copy / "text_encoder" / "digests.json").unlink()
    with pytest.raises(ValueError, match=message):
        load_stable_diffusion(copy)


@pytest.mark.parametrize(
    ("absent", "message"),
    [
        ("model_index.json", r"no model_index\.json"),
        ("scheduler", r"no scheduler_config\.json.*no such folder"),
        ("tokenizer", r"no tokenizer.*not a folder"),
        ("tokenizer/merges.txt", r"no tokenizer.*looked for vocab\.json and merges\.txt"),
        ("vae", "vae is not a folder"),
        ("text_encoder/model.safetensors", r"no weights in .*found config\.json"),
    ],
)
def test_what_is_absent_is_named(copy, absent, message):
    path = copy / absent
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(FileNotFoundError, match=message):
        load_stable_diffusion(copy)


def test_without_a_network_an_unknown_hub_id_is_a_clear_message():
    with pytest.raises(FileNotFoundError, match=r"no folder nobody/nothing here.*local cache"):
        load_stable_diffusion("nobody/nothing", local_files_only=True)
