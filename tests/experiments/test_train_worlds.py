"""The embedded family's own training, tiny but whole: every stage, resumed, and read back."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.object_report import judge_rank
from geojax.priors.stable_diffusion import load_stable_diffusion
from tests.experiments.binaries import run

TINY = {
    "image_size": 16,
    "views_per_kind": 2,
    "vae.channels": "(8,8,8)",
    "vae.batch": 2,
    "vae.steps": 2,
    "unet.channels": "(16,16,16)",
    "unet.heads": 2,
    "unet.text_width": 16,
    "unet.text_layers": 1,
    "unet.latents": 64,
    "unet.batch": 4,
    "unet.steps": 3,
    "judge.batch": 4,
    "judge.steps": 2,
}


def train(out, *flags):
    fields = [f"--config.{name}={value}" for name, value in TINY.items()]
    return run("train_worlds", f"--out={out}", *fields, *flags)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("worlds") / "out"
    done = train(out)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def test_the_family_is_a_prior_with_a_judge(trained):
    prior = load_stable_diffusion(trained / "family")
    image = jnp.full((1, 16, 16, 3), 0.5)
    latent = prior.encode(prior.params, image)
    assert latent.shape == (1, 4, 4, 4)
    t = jnp.asarray([500])
    eps = prior.denoise(prior.params, latent, t, prior.embed(["a red mug"]))
    assert eps.shape == latent.shape and np.isfinite(np.asarray(eps)).all()
    rank, named = judge_rank(trained / "family", np.asarray(image), "mug", "red")
    assert 1 <= rank <= 96 and len(named) == 2
    for stage in ("vae", "unet", "judge"):
        assert (trained / stage / "preview.png").is_file()


def test_the_same_command_goes_on_and_a_longer_one_adds_steps(trained, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(trained, out)
    before = (out / "family" / "vae" / "diffusion_pytorch_model.safetensors").read_bytes()
    done = train(out, "--stage=vae")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "resumed at step 2" in done.stderr
    assert (out / "family" / "vae" / "diffusion_pytorch_model.safetensors").read_bytes() == before
    done = train(out, "--stage=vae", "--config.vae.steps=4")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "vae 4/4" in done.stderr
    assert (out / "family" / "vae" / "diffusion_pytorch_model.safetensors").read_bytes() != before


def test_the_scaling_factor_makes_latents_of_unit_variance(trained):
    config = json.loads((trained / "family" / "vae" / "config.json").read_text())
    with np.load(trained / "unet" / "latents.npz") as stored:
        latent = stored["latent"]
    assert config["scaling_factor"] > 0.0
    assert latent.std() == pytest.approx(1.0, rel=0.2)
