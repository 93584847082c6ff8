"""The embedded family's own training, tiny but whole: every stage, resumed, and read back."""

import itertools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.train_worlds import get_config
from experiments.object_report import judge_rank, load_judge
from experiments.training import loop
from experiments.training.denoiser import encoding_key
from experiments.training.discriminator import picture_codes, wrong_codes
from experiments.training.family_configs import discriminator_config
from geojax.io.checkpoint import Checkpointer
from geojax.methods.train_state import init_state
from geojax.methods.view_prompts import interpolate_view_embeddings
from geojax.models.judge import joint_log_probability
from geojax.priors.clip_score import load_clip
from geojax.priors.depth import load_depth
from geojax.priors.image_scorer import (
    code_captions,
    load_classifier_scorer,
    load_discriminator_scorer,
)
from geojax.priors.inpainting import inpainting_channels, load_inpainting
from geojax.priors.stable_diffusion import load_stable_diffusion
from geojax.worlds import captions, pictures, solids
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

SCORERS = {
    "classifier.batch": 4,
    "classifier.steps": 2,
    "discriminator.channels": "(8,8)",
    "discriminator.batch": 4,
    "discriminator.steps": 2,
}

EDITOR = {
    "rooms": 4,
    "clip.width": 16,
    "clip.vision_layers": 1,
    "clip.text_layers": 1,
    "clip.batch": 20,
    "clip.steps": 2,
    "depth.width": 16,
    "depth.layers": 4,
    "depth.neck": "(8,8,8,8)",
    "depth.fusion": 8,
    "depth.views_per_kind": 1,
    "depth.batch": 4,
    "depth.steps": 2,
}


def train(out, *flags, family="objects", fields=TINY | SCORERS):
    return run(
        "train_worlds",
        f"--config=configs/train_worlds.py:{family}",
        f"--out={out}",
        *(f"--config.{name}={value}" for name, value in fields.items()),
        *flags,
    )


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
    for stage in ("vae", "unet", "judge", "classifier", "discriminator"):
        assert (trained / stage / "preview.png").is_file()


def test_what_scores_renderings_is_not_the_judge(trained):
    """The classifier has the judge's size and labels, and other weights; both scorers load."""
    family = trained / "family"
    judge, params = load_judge(family)
    classifier = load_classifier_scorer(family / "scorers" / "classifier")
    apart = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), params, classifier.params)
    assert apart["conv_0"]["kernel"] > 0.1
    image = jnp.full((1, 16, 16, 3), 0.5)
    label = classifier.embed(["a red mug"])
    log_p = joint_log_probability(*judge.apply({"params": classifier.params}, image))
    config = judge.config
    expected = log_p[:, config.kinds.index("mug"), config.colours.index("red")]
    found = classifier.score(classifier.params, image, label)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    discriminator = load_discriminator_scorer(family / "scorers" / "discriminator")
    code = discriminator.embed(["a red mug, back view, from above"])
    score = discriminator.score(discriminator.params, image, code)
    assert score.shape == (1,) and np.isfinite(np.asarray(score)).all()


def test_a_pictures_code_is_that_of_the_captions_around_it():
    """What a discriminator is trained on, and what it is asked while it judges renderings."""
    phrases = discriminator_config(get_config())["phrases"]
    embed = code_captions(phrases)
    nodes = captions.view_captions("a turquoise mug")
    table = jnp.stack([embed(row) for row in nodes])
    rows = jnp.asarray([np.radians(e) for e, _ in captions.ELEVATIONS], jnp.float32)
    rng = np.random.default_rng(0)
    azimuth = rng.uniform(-4.0, 7.0, 6).astype(np.float32)
    elevation = np.radians(rng.uniform(-10.0, 90.0, 6)).astype(np.float32)
    kind, colour = list(solids.KINDS).index("mug"), list(solids.COLOURS).index("turquoise")
    found = picture_codes(np.full(6, kind), np.full(6, colour), azimuth, elevation)
    asked = interpolate_view_embeddings(table, rows, jnp.asarray(azimuth), jnp.asarray(elevation))
    np.testing.assert_allclose(found, asked[:, 0], atol=1e-5)
    assert found.shape == (6, len(phrases))


def test_a_wrong_code_is_wrong_in_one_thing():
    rng = np.random.default_rng(0)
    count = 300
    batch = pictures.Batch(
        np.zeros((count, 1, 1, 3), np.float32),
        rng.integers(len(solids.KINDS), size=count),
        rng.integers(len(solids.COLOURS), size=count),
        rng.uniform(0.0, 6.0, count),
        np.radians(rng.uniform(0.0, 80.0, count)),
    )
    right = picture_codes(batch.kind, batch.colour, batch.azimuth, batch.elevation)
    wrong = wrong_codes(rng, batch)
    edges = np.cumsum([len(solids.KINDS), len(solids.COLOURS), len(captions.AZIMUTHS)])
    differs = [
        np.abs(a - b).max(axis=1) > 1e-4
        for a, b in zip(np.split(right, edges, 1), np.split(wrong, edges, 1), strict=True)
    ]
    np.testing.assert_array_equal(np.sum(differs, axis=0), 1)
    assert [bool(d.any()) for d in differs] == [True, True, True, False]


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


def test_another_recipe_in_the_same_folder_is_refused(trained):
    done = train(trained, "--stage=vae", "--config.vae.kl_weight=0.5")
    assert done.returncode != 0
    assert "vae.kl_weight" in done.stderr and "0.5" in done.stderr


def test_other_weights_of_the_autoencoder_make_other_latents(trained, tmp_path):
    config = get_config()
    family = shutil.copytree(trained / "family", tmp_path / "family")
    before = encoding_key(config, family)
    assert encoding_key(config, family) == before
    config.seed = 1
    assert encoding_key(config, family) != before
    config.seed = 0
    file = family / "vae" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert encoding_key(config, family) != before


def test_a_state_that_is_not_finite_is_never_saved(tmp_path):
    def step(state, x):
        loss = jnp.where(state.step < 2, 1.0, jnp.nan)
        return state._replace(step=state.step + 1), {"loss": loss}

    def run_to(steps):
        start = init_state(jax.random.key(0), {"a": jnp.zeros(2)}, optax.sgd(0.1))
        batches = lambda start: itertools.repeat((np.zeros((2, 1)),))  # noqa: E731
        preview = lambda state: np.zeros((8, 8, 3))  # noqa: E731
        return loop.train("x", start, step, batches, steps, tmp_path, 0.0, preview)

    assert int(run_to(2).step) == 2
    with pytest.raises(FloatingPointError, match="not finite at step 3"):
        run_to(5)
    assert Checkpointer(tmp_path / "checkpoints").latest_step() == 2


def test_the_scaling_factor_makes_latents_of_unit_variance(trained):
    config = json.loads((trained / "family" / "vae" / "config.json").read_text())
    (file,) = (trained / "unet").glob("latents-*.npz")
    with np.load(file) as stored:
        latent = stored["latent"]
    assert config["scaling_factor"] > 0.0
    assert latent.std() == pytest.approx(1.0, rel=0.2)


def test_a_denoiser_is_trained_on_without_captions(trained, tmp_path):
    out, start = tmp_path / "uncaptioned", trained / "family"
    fields = {**TINY, "start": start, "unet.steps": 1}
    done = train(out, family="uncaptioned", fields=fields)
    assert done.returncode == 0, done.stderr[-3000:]
    prior, before = load_stable_diffusion(out / "family"), load_stable_diffusion(start)
    for part in ("unet", "vae"):
        pairs = zip(
            jax.tree.leaves(prior.params[part]), jax.tree.leaves(before.params[part]), strict=True
        )
        apart = max(float(jnp.max(jnp.abs(a - b))) for a, b in pairs)
        assert apart == 0.0 if part == "vae" else 0.0 < apart < 2e-2
    rank, _ = judge_rank(out / "family", np.full((1, 16, 16, 3), 0.5, np.float32), "mug", "red")
    assert 1 <= rank <= 96


@pytest.fixture(scope="module")
def editor(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("editor") / "out"
    fields = {**TINY, **EDITOR, "start": trained / "family"}
    done = train(out, family="editor", fields=fields)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def test_the_editor_starts_from_the_family_and_is_an_inpainting_prior(trained, editor):
    prior = load_inpainting(editor / "family-inpainting")
    image, mask = jnp.full((1, 16, 16, 3), 0.5), jnp.zeros((1, 16, 16), bool).at[:, 4:8].set(True)
    extra = inpainting_channels(prior, prior.params, image, mask)
    z, t = jnp.ones((1, 4, 4, 4)), jnp.asarray([500])
    condition = prior.embed(["a corridor with brick walls"])
    eps = prior.denoise(prior.params, z, t, condition, extra)
    assert eps.shape == z.shape and np.isfinite(np.asarray(eps)).all()
    # Two steps of a small rate leave a network near to where it started.
    small = load_stable_diffusion(trained / "family").params["unet"]["mid_block"]
    for new, old in zip(
        jax.tree.leaves(prior.params["unet"]["mid_block"]), jax.tree.leaves(small), strict=True
    ):
        np.testing.assert_allclose(np.asarray(new), np.asarray(old), atol=2e-2)


def test_the_pair_ranks_captions(editor):
    clip = load_clip(editor / "family" / "clip")
    ranks = clip.rank(jnp.zeros((2, 16, 16, 3)), ["a red mug", "a corridor", "a blue chair"])
    assert ranks.shape == (2, 3) and np.isfinite(np.asarray(ranks)).all()
    for stage in ("vae", "inpainting", "clip", "depth"):
        assert (editor / stage / "preview.png").is_file()


def test_the_depth_model_predicts_a_disparity(editor):
    model = load_depth(editor / "family" / "depth")
    disparity = np.asarray(model.predict(model.params, jnp.full((1, 16, 16, 3), 0.5)))
    assert disparity.shape == (1, 16, 16)
    assert np.all(disparity > 0.0)  # alive, from the first step on


def test_a_stage_of_the_other_recipe_is_refused(tmp_path):
    done = train(tmp_path / "out", "--stage=clip")
    assert done.returncode != 0
    assert "--stage=clip is not in this recipe" in done.stderr
    assert not (tmp_path / "out").exists()
