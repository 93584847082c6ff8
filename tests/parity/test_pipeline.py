"""Text to image, prompt to picture, against diffusers' own pipeline from the same noise.

Both read one folder written by geojax, so tokenizer, text encoder, guidance, DDIM, denoiser and
autoencoder are compared at once. No safety checker; small random weights.
"""

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from diffusers import StableDiffusionPipeline  # noqa: E402

from geojax.diffusion.guidance import guided  # noqa: E402
from geojax.diffusion.samplers import sample_ddim  # noqa: E402
from geojax.priors.stable_diffusion import load_stable_diffusion  # noqa: E402
from tests.weights.tiny_family import TEXT, UNET, write_family  # noqa: E402

pytestmark = pytest.mark.parity
# Tensors this small cost less than the threads that would share them.
torch.set_num_threads(1)

STEPS = 20
GUIDANCE = 7.5
PROMPTS = ["a red mug", "two Blue houses, and too many words for the limit"]
FAMILIES = {
    "1": {},
    "2": {
        "unet": dataclasses.replace(UNET, use_linear_projection=True, attention_head_dim=(1, 2)),
        "text": dataclasses.replace(TEXT, hidden_act="gelu", pad_token_id=0),
        "prediction": "v_prediction",
        "pad_token": "!",
    },
}


@pytest.fixture(scope="module", params=FAMILIES)
def both(request, tmp_path_factory):
    """The folder in geojax, and in diffusers."""
    folder = tmp_path_factory.mktemp("models") / request.param
    write_family(folder, **FAMILIES[request.param])
    pipeline = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return load_stable_diffusion(folder), pipeline


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(3).standard_normal((2, 8, 8, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def latents(both, noise):
    """The last latents of both, NHWC."""
    prior, pipeline = both
    condition, empty = prior.embed(PROMPTS), prior.embed(["", ""])

    @jax.jit
    def sample(params, z):
        def denoise(z, t):
            twice = (jnp.concatenate([x, x]) for x in (z, t))
            eps = prior.denoise(params, *twice, jnp.concatenate([empty, condition]))
            return guided(*jnp.split(eps, 2), GUIDANCE)

        return sample_ddim(denoise, prior.schedule, z, STEPS)

    theirs = pipeline(
        PROMPTS,
        latents=torch.tensor(noise).permute(0, 3, 1, 2),
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        output_type="latent",
    ).images
    return np.asarray(sample(prior.params, noise)), theirs.permute(0, 2, 3, 1).numpy()


def test_the_scheduler_is_the_one_compared_with(both):
    assert type(both[1].scheduler).__name__ == "DDIMScheduler"
    assert both[1].safety_checker is None


def test_conditions_agree(both):
    prior, pipeline = both
    for prompts in (PROMPTS, [""]):
        ids = pipeline.tokenizer(
            prompts,
            padding="max_length",
            max_length=pipeline.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        np.testing.assert_array_equal(ids, prior.embed.tokenize(prompts).ids)
        with torch.no_grad():
            theirs = pipeline.text_encoder(ids)[0].numpy()
        np.testing.assert_allclose(prior.embed(prompts), theirs, atol=2e-5)


def test_twenty_guided_steps_of_ddim_agree(latents):
    ours, theirs = latents
    assert float(np.std(theirs)) > 0.1
    assert float(np.max(np.abs(ours - theirs))) < 1e-3


def test_the_pictures_agree(both, latents):
    prior, pipeline = both
    ours = jax.jit(prior.decode)(prior.params, jnp.asarray(latents[0]))
    z = torch.tensor(latents[1]).permute(0, 3, 1, 2)
    with torch.no_grad():
        image = pipeline.vae.decode(z / pipeline.vae.config.scaling_factor).sample
    theirs = pipeline.image_processor.postprocess(image, output_type="np")
    assert float(np.std(theirs)) > 0.02
    assert float(np.max(np.abs(np.asarray(ours) - theirs))) < 1e-3


def test_encoding_a_picture_agrees(both):
    prior, pipeline = both
    image = np.random.default_rng(4).uniform(size=(1, 16, 16, 3)).astype(np.float32)
    with torch.no_grad():
        posterior = pipeline.vae.encode(2.0 * torch.tensor(image).permute(0, 3, 1, 2) - 1.0)
    theirs = pipeline.vae.config.scaling_factor * posterior.latent_dist.mean
    ours = jax.jit(prior.encode)(prior.params, jnp.asarray(image))
    np.testing.assert_allclose(ours, theirs.permute(0, 2, 3, 1).numpy(), rtol=1e-4, atol=1e-5)
