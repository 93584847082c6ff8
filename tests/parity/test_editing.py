"""Image to image, inpainting and depth to image against diffusers' pipelines from the same noise.

Both read one folder written by geojax; no part is skipped, from the prompt to the picture. What
diffusers draws is given to it: the noise is the one that geojax draws from its key, and the
autoencoder's sample is its mean. Small random weights, a picture that is not square, and masks
along the cells of the latent (elsewhere the two differ by design, see `priors/inpainting.py`).
"""

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import diffusers  # noqa: E402
import jax  # noqa: E402
from diffusers.pipelines.stable_diffusion import (  # noqa: E402
    pipeline_stable_diffusion as text_module,
)
from diffusers.pipelines.stable_diffusion import (  # noqa: E402
    pipeline_stable_diffusion_depth2img as depth_module,
)
from diffusers.pipelines.stable_diffusion import (  # noqa: E402
    pipeline_stable_diffusion_img2img as image_module,
)
from diffusers.pipelines.stable_diffusion import (  # noqa: E402
    pipeline_stable_diffusion_inpaint as inpaint_module,
)

from geojax.diffusion import samplers  # noqa: E402
from geojax.methods.image_to_image import image_to_image, prompted  # noqa: E402
from geojax.methods.inpainting import inpaint  # noqa: E402
from geojax.priors.inpainting import (  # noqa: E402
    depth_channels,
    load_depth_conditioned,
    load_inpainting,
)
from geojax.priors.stable_diffusion import load_stable_diffusion  # noqa: E402
from tests.weights.tiny_family import UNET, write_family  # noqa: E402

pytestmark = pytest.mark.parity
torch.set_num_threads(1)

STEPS, GUIDANCE, SIZE = 10, 5.0, (16, 24)
PROMPT = "a red mug"
LATENT = (1, 8, 12, 4)
SAMPLERS = {
    "ddim": (samplers.DDIM, diffusers.DDIMScheduler),
    "euler": (samplers.EULER, diffusers.EulerDiscreteScheduler),
    "dpm": (samplers.DPM_SOLVER, diffusers.DPMSolverMultistepScheduler),
}
LOADERS = {4: load_stable_diffusion, 5: load_depth_conditioned, 9: load_inpainting}
MODULES = (text_module, image_module, inpaint_module, depth_module)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """By number of channels: geojax's prior and diffusers' parts."""
    root, found = tmp_path_factory.mktemp("models"), {}
    for channels, load in LOADERS.items():
        folder = root / str(channels)
        write_family(
            folder,
            unet=dataclasses.replace(UNET, in_channels=channels),
            prediction="epsilon" if channels == 9 else "v_prediction",
        )
        pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
            folder, torch_dtype=torch.float32
        )
        found[channels] = load(folder), pipeline.components
    return found


@pytest.fixture(scope="module")
def picture():
    rng = np.random.default_rng(4)
    coarse = rng.uniform(size=(1, 4, 6, 3)).astype(np.float32)
    return np.asarray(jax.image.resize(coarse, (1, *SIZE, 3), "cubic")).clip(0.0, 1.0)


@pytest.fixture(scope="module")
def mask():
    mask = np.zeros((1, *SIZE), bool)
    mask[:, 4:12, 6:20] = True
    return mask


def nchw(image):
    return torch.tensor(np.asarray(image)).permute(0, 3, 1, 2)


def pipeline_of(loaded, channels, kind, sampler, noise, monkeypatch):
    """diffusers' pipeline of a kind, with its scheduler and the noise it is to draw."""
    parts = dict(loaded[channels][1])
    scheduler = SAMPLERS[sampler][1]
    parts["scheduler"] = scheduler.from_config(
        {**parts["scheduler"].config, "final_sigmas_type": "zero"}
    )
    if kind is diffusers.StableDiffusionDepth2ImgPipeline:
        parts = {k: parts[k] for k in ("vae", "unet", "text_encoder", "tokenizer", "scheduler")}
        parts |= {"depth_estimator": None, "feature_extractor": None}
    else:
        parts["requires_safety_checker"] = False
    for module in MODULES:
        monkeypatch.setattr(module, "randn_tensor", lambda *a, **k: nchw(noise), raising=False)
        monkeypatch.setattr(
            module, "retrieve_latents", lambda out, **k: out.latent_dist.mode(), raising=False
        )
    pipeline = kind(**parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def agree(ours, theirs, where=None):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    if where is not None:
        ours, theirs = ours[where], theirs[where]
    assert float(np.std(theirs)) > 0.02
    assert float(np.max(np.abs(ours - theirs))) < 1e-3


CALL = {"guidance_scale": GUIDANCE, "num_inference_steps": STEPS, "output_type": "np"}


@pytest.mark.parametrize("sampler", ["euler", "dpm"])  # DDIM in test_pipeline.py
def test_text_to_image(loaded, sampler, monkeypatch):
    prior, key = loaded[4][0], jax.random.key(1)
    noise = jax.random.normal(key, LATENT)

    @jax.jit
    def sample(params, z, y, nothing):
        denoise = prompted(prior, params, y, nothing, GUIDANCE)
        z = SAMPLERS[sampler][0].sample(key, denoise, prior.schedule, z, STEPS)
        return prior.decode(params, z)

    ours = sample(prior.params, noise, prior.embed([PROMPT]), prior.embed([""]))
    pipeline = pipeline_of(
        loaded, 4, diffusers.StableDiffusionPipeline, sampler, noise, monkeypatch
    )
    agree(ours, pipeline(PROMPT, latents=nchw(noise), **CALL).images)


@pytest.mark.parametrize(
    ("sampler", "strength"), [("ddim", 0.75), ("euler", 0.45), ("dpm", 0.8), ("dpm", 1.0)]
)
def test_image_to_image(loaded, picture, sampler, strength, monkeypatch):
    prior, key = loaded[4][0], jax.random.key(2)
    noise = jax.random.normal(jax.random.split(key)[0], LATENT)
    ours = jax.jit(
        lambda params, x, y, nothing: image_to_image(
            key, prior, params, x, y, nothing,
            sampler=SAMPLERS[sampler][0], steps=STEPS, strength=strength, guidance=GUIDANCE,
        )
    )(prior.params, picture, prior.embed([PROMPT]), prior.embed([""]))  # fmt: skip
    kind = diffusers.StableDiffusionImg2ImgPipeline
    pipeline = pipeline_of(loaded, 4, kind, sampler, noise, monkeypatch)
    agree(ours, pipeline(PROMPT, image=nchw(picture), strength=strength, **CALL).images)


@pytest.mark.parametrize(
    ("channels", "sampler", "strength"),
    [(9, "ddim", 1.0), (9, "euler", 0.6), (4, "ddim", 1.0), (4, "euler", 0.75), (4, "dpm", 0.6)],
)
def test_inpainting(loaded, picture, mask, channels, sampler, strength, monkeypatch):
    """The hole; outside it geojax returns what was known, and diffusers the autoencoder's copy."""
    prior, key = loaded[channels][0], jax.random.key(3)
    noise = jax.random.normal(jax.random.split(key, 3)[0], LATENT)
    ours = jax.jit(
        lambda params, x, m, y, nothing: inpaint(
            key, prior, params, x, m, x, y, nothing,
            sampler=SAMPLERS[sampler][0], steps=STEPS, strength=strength, guidance=GUIDANCE,
        )
    )(prior.params, picture, mask, prior.embed([PROMPT]), prior.embed([""]))  # fmt: skip
    kind = diffusers.StableDiffusionInpaintPipeline
    pipeline = pipeline_of(loaded, channels, kind, sampler, noise, monkeypatch)
    theirs = pipeline(
        PROMPT,
        image=nchw(picture),
        mask_image=torch.tensor(mask, dtype=torch.float32)[:, None],
        height=SIZE[0],
        width=SIZE[1],
        strength=strength,
        **CALL,
    ).images
    agree(ours, theirs, mask)
    np.testing.assert_array_equal(np.asarray(ours)[~mask], picture[~mask])


def test_depth_to_image(loaded, picture, monkeypatch):
    """The map comes from outside, and in another size than picture and latent."""
    prior, key = loaded[5][0], jax.random.key(4)
    noise = jax.random.normal(jax.random.split(key)[0], LATENT)
    disparity = np.random.default_rng(5).uniform(3.0, 40.0, (1, 20, 31)).astype(np.float32)
    ours = jax.jit(
        lambda params, x, d, y, nothing: image_to_image(
            key, prior.given(depth_channels(d, *LATENT[1:3])), params, x, y, nothing,
            sampler=samplers.DDIM, steps=STEPS, strength=0.8, guidance=GUIDANCE,
        )
    )(prior.params, picture, disparity, prior.embed([PROMPT]), prior.embed([""]))  # fmt: skip
    kind = diffusers.StableDiffusionDepth2ImgPipeline
    pipeline = pipeline_of(loaded, 5, kind, "ddim", noise, monkeypatch)
    theirs = pipeline(
        PROMPT, image=nchw(picture), depth_map=torch.tensor(disparity), strength=0.8, **CALL
    ).images
    agree(ours, theirs)
