"""Train the embedded family `worlds-64` on its procedural worlds, resumably.

    python -m experiments.train_worlds --config=configs/train_worlds.py --out=runs/worlds-64

Stages, each skipped when its result is on disk: trace the pictures; train the autoencoder; train
the denoiser with its text encoder; train the judge. The same command goes on where it stopped. The
family is written to OUT/family in Stable Diffusion's folder layout, half precision.
"""

import functools
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags, logging
from ml_collections import config_flags
from transformers import CLIPTokenizer

from experiments.family_configs import judge_config, text_config, unet_config, vae_config
from experiments.training_loop import train
from geojax.diffusion.guidance import guided
from geojax.diffusion.parameterization import eps_from_v
from geojax.diffusion.samplers import sample_ddim
from geojax.diffusion.schedule import scaled_linear
from geojax.io.atomic import replacing
from geojax.io.media import grid
from geojax.methods import latent_diffusion_training as training
from geojax.models.clip import CLIPText, CLIPTextConfig
from geojax.models.judge import Judge, JudgeConfig, joint_log_probability
from geojax.models.unet import UNet, UNetConfig
from geojax.models.vae import VAE, VAEConfig
from geojax.weights.folder import load_component, save_component
from geojax.weights.pipeline_folder import STABLE_DIFFUSION_SCHEDULER, write_pipeline_files
from geojax.worlds import captions, pictures, solids, vocabulary

_CONFIG = config_flags.DEFINE_config_file("config", "configs/train_worlds.py", lock_config=True)
_OUT = flags.DEFINE_string("out", "runs/worlds-64", "Folder of this run; the same folder resumes.")
_STAGE = flags.DEFINE_enum(
    "stage", "all", ["all", "pictures", "vae", "unet", "judge"], "Which stage to run."
)


def train_autoencoder(config: Any, pool: pictures.Pool, out: Path) -> None:
    """Stage 2: autoencoder; its scaling factor is 1 / the standard deviation of its latents."""
    vae = VAE(VAEConfig.from_dict(vae_config(config, 1.0)))
    size = config.image_size
    params = vae.init(jax.random.key(config.seed + 1), jnp.zeros((1, size, size, 3)))["params"]
    settings = config.vae
    rate = optax.warmup_cosine_decay_schedule(
        0.0, settings.learning_rate, 100, settings.steps, 1e-5
    )
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate, b2=0.99))
    step = training.autoencoder_step(vae, optimiser, kl_weight=settings.kl_weight)

    def batches(start: int) -> Iterator[tuple[np.ndarray]]:
        for i in itertools.count(start):
            yield (
                pictures.draw(
                    np.random.default_rng((config.seed, 1, i)), pool, settings.batch
                ).image,
            )

    shown = pictures.draw(np.random.default_rng(config.seed + 9), pool, 8, held_out=True).image
    rebuild = jax.jit(
        lambda p, x: vae.apply(
            {"params": p}, vae.apply({"params": p}, x, method="encode")[0], method="decode"
        )
    )

    def preview(state: training.TrainState) -> np.ndarray:
        again = (np.asarray(rebuild(state.average, 2.0 * shown - 1.0)) + 1.0) / 2.0
        return grid(np.stack([shown, np.clip(again, 0.0, 1.0)]))

    state = training.init_state(jax.random.key(config.seed + 2), params, optimiser)
    state = train(
        "vae", state, step, batches, settings.steps, out / "vae", config.checkpoint_seconds, preview
    )
    encode = jax.jit(lambda p, x: vae.apply({"params": p}, 2.0 * x - 1.0, method="encode")[0])
    latents = [encode(state.average, next(batches(10**6 + i))[0]) for i in range(16)]
    scale = 1.0 / float(jnp.std(jnp.stack(latents)))
    save_component(
        out / "family" / "vae",
        state.average,
        vae_config(config, scale),
        dtype=jnp.float16,
        overwrite=True,
    )


def encoded_pictures(
    config: Any, pool: pictures.Pool, file: Path, encode: Callable[[np.ndarray], jax.Array]
) -> tuple[np.ndarray, pictures.Batch]:
    """Latents of `config.unet.latents` drawn pictures and their labels, kept in a file."""
    if file.exists():
        with np.load(file) as stored:
            fields = dict(stored)
        return fields.pop("latent"), pictures.Batch(**fields)
    rng = np.random.default_rng((config.seed, 2))
    drawn, latents = [], []
    for _ in range(config.unet.latents // 64):
        batch = pictures.draw(rng, pool, 64)
        latents.append(np.asarray(encode(batch.image)))
        drawn.append(batch._replace(image=np.zeros((64, 0))))
    latent = np.concatenate(latents)
    labels = pictures.Batch(*(np.concatenate(leaves) for leaves in zip(*drawn, strict=True)))
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as unfinished:
        np.savez(unfinished, latent=latent, **labels._asdict())
    return latent, labels


def train_denoiser(config: Any, pool: pictures.Pool, out: Path) -> None:
    """Stage 3: denoiser and text encoder, end to end, on latents made once."""
    family, settings = out / "family", config.unet
    stored = json.loads((family / "vae" / "config.json").read_text())
    vae = VAE(VAEConfig.from_dict(stored))
    vae_params = load_component(family / "vae", vae)
    encode = jax.jit(
        lambda p, x: (
            vae.apply({"params": p}, 2.0 * x - 1.0, method="encode")[0] * stored["scaling_factor"]
        )
    )
    decode = jax.jit(
        lambda p, z: vae.apply({"params": p}, z / stored["scaling_factor"], method="decode")
    )
    latent, labels = encoded_pictures(
        config, pool, out / "unet" / "latents.npz", functools.partial(encode, vae_params)
    )
    logging.info("latents: %s, standard deviation %.3f", latent.shape, latent.std())

    size = vocabulary.write_tokenizer(family / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(str(family / "tokenizer"))

    def tokenise(texts: list[str]) -> np.ndarray:
        ids = tokenizer(
            texts, padding="max_length", max_length=vocabulary.MAX_TOKENS, truncation=True
        )
        return np.asarray(ids["input_ids"], np.int32)

    unet = UNet(UNetConfig.from_dict(unet_config(config)))
    text = CLIPText(CLIPTextConfig.from_dict(text_config(config, size)))
    schedule = scaled_linear()
    ids = jnp.zeros((1, vocabulary.MAX_TOKENS), jnp.int32)
    context = jnp.zeros((1, vocabulary.MAX_TOKENS, settings.text_width))
    params = {
        "unet": unet.init(
            jax.random.key(config.seed + 3),
            jnp.zeros((1, *latent.shape[1:])),
            jnp.zeros(1, jnp.int32),
            context,
        )["params"],
        "text_encoder": text.init(jax.random.key(config.seed + 4), ids)["params"],
    }
    # Warm-up, stable, cool-down: the stable part can be lengthened without starting again.
    cooldown = int(settings.steps * settings.cooldown)
    rate = optax.join_schedules(
        [
            optax.linear_schedule(0.0, settings.learning_rate, 200),
            optax.constant_schedule(settings.learning_rate),
            optax.linear_schedule(settings.learning_rate, 1e-5, cooldown),
        ],
        [200, settings.steps - cooldown],
    )
    optimiser = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(rate, b2=0.99, weight_decay=1e-3)
    )
    step = training.denoiser_step(unet, text, schedule, optimiser, decay=settings.ema)
    half = settings.batch // 2

    def batches(start: int) -> Iterator[tuple[np.ndarray, training.Captions]]:
        for i in itertools.count(start):
            rng = np.random.default_rng((config.seed, 3, i))
            index = rng.integers(len(latent), size=settings.batch)
            batch = pictures.Batch(*(leaf[index] for leaf in labels))
            between = [pictures.between_captions(rng, batch, k) for k in range(half)]
            loose = [pictures.loose_caption(rng, batch, k) for k in range(half, 2 * half)]
            nodes = tokenise([c for texts, _ in between for c in texts])
            yield (
                latent[index],
                training.Captions(
                    between=jnp.asarray(nodes.reshape(half, 4, -1)),
                    weights=jnp.asarray([w for _, w in between], jnp.float32),
                    loose=jnp.asarray(tokenise(loose)),
                ),
            )

    pairs = sorted(solids.HELD_OUT)[::2][:12]
    views = [
        captions.view_suffix(a, e) for a, e in ((0, 1), (1, 0), (2, 1), (4, 1), (6, 1), (3, 2))
    ]
    shown = tokenise([captions.subject(c, k) + view for view in views for k, c in pairs])
    empty = tokenise([""])

    @jax.jit
    def draw(params: Any, vae_params: Any, key: jax.Array) -> jax.Array:
        encoded = text.apply({"params": params["text_encoder"]}, jnp.concatenate([empty, shown]))
        uncond = jnp.broadcast_to(encoded[:1], encoded[1:].shape)
        both = jnp.concatenate([uncond, encoded[1:]])

        def denoise(z: jax.Array, t: jax.Array) -> jax.Array:
            z2, t2 = jnp.concatenate([z, z]), jnp.concatenate([t, t])
            v = unet.apply({"params": params["unet"]}, z2, t2, both)
            eps_u, eps_c = jnp.split(eps_from_v(schedule, z2, v, t2), 2)
            return guided(eps_u, eps_c, 3.0)

        noise = jax.random.normal(key, (len(shown), *latent.shape[1:]))
        return decode(vae_params, sample_ddim(denoise, schedule, noise, 20))

    def preview(state: training.TrainState) -> np.ndarray:
        x = (np.asarray(draw(state.average, vae_params, jax.random.key(0))) + 1.0) / 2.0
        return grid(np.clip(x, 0.0, 1.0).reshape(len(views), len(pairs), *x.shape[1:]))

    state = training.init_state(jax.random.key(config.seed + 5), params, optimiser)
    state = train(
        "unet",
        state,
        step,
        batches,
        settings.steps,
        out / "unet",
        config.checkpoint_seconds,
        preview,
    )
    write_denoiser(config, state.average, size, out)


def write_denoiser(config: Any, params: Any, vocabulary_size: int, out: Path) -> None:
    """Write denoiser, text encoder and scheduler into the family's folder."""
    family = out / "family"
    parts = {
        "unet": unet_config(config),
        "text_encoder": text_config(config, vocabulary_size),
    }
    for name, fields in parts.items():
        save_component(family / name, params[name], fields, dtype=jnp.float16, overwrite=True)
    scheduler = {**STABLE_DIFFUSION_SCHEDULER, "prediction_type": "v_prediction"}
    write_pipeline_files(family, scheduler)


def train_judge(config: Any, pool: pictures.Pool, out: Path) -> None:
    """Stage 4: the judge, on all pairs (it must know the held-out ones to judge them)."""
    settings = config.judge
    fields = judge_config(config)
    judge = Judge(JudgeConfig.from_dict(fields))
    size = config.image_size
    params = judge.init(jax.random.key(config.seed + 6), jnp.zeros((1, size, size, 3)))["params"]
    rate = optax.cosine_decay_schedule(settings.learning_rate, settings.steps)
    optimiser = optax.adamw(rate, weight_decay=1e-2)
    step = training.classifier_step(judge, optimiser)

    def batches(start: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for i in itertools.count(start):
            rng = np.random.default_rng((config.seed, 4, i))
            parts = [
                pictures.draw(rng, pool, settings.batch * share // 4, held_out=held, jitter=0.05)
                for held, share in ((False, 3), (True, 1))
            ]
            b = pictures.Batch(*(np.concatenate(leaves) for leaves in zip(*parts, strict=True)))
            noise = rng.normal(0.0, rng.uniform(0.0, 0.08), b.image.shape)
            yield (b.image + noise).astype(np.float32), b.kind, b.colour

    def preview(state: training.TrainState) -> np.ndarray:
        image, kind, colour = next(batches(10**6))
        logits = judge.apply({"params": state.average}, image)
        best = np.asarray(joint_log_probability(*logits)).reshape(len(image), -1).argmax(-1)
        right = best == kind * len(solids.COLOURS) + colour
        logging.info("judge: %.1f %% of unseen draws right", 100.0 * right.mean())
        return grid(np.clip(image[:32], 0, 1).reshape(4, 8, *image.shape[1:]))

    state = training.init_state(jax.random.key(config.seed + 7), params, optimiser)
    state = train(
        "judge",
        state,
        step,
        batches,
        settings.steps,
        out / "judge",
        config.checkpoint_seconds,
        preview,
    )
    save_component(
        out / "family" / "judge", state.average, fields, dtype=jnp.float16, overwrite=True
    )


def main(argv: list[str]) -> None:
    """Run the stages."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; everything is a flag")
    config, out, stage = _CONFIG.value, Path(_OUT.value), _STAGE.value
    parts = []
    for kind, part in pictures.load_or_trace(
        out / "pictures", config.seed, config.views_per_kind, config.image_size
    ):
        logging.info("pictures of %s: %d", kind, len(part.kind))
        parts.append(part)
    pool = pictures.Pool(*(np.concatenate(leaves) for leaves in zip(*parts, strict=True)))
    stages = {"vae": train_autoencoder, "unet": train_denoiser, "judge": train_judge}
    for name, run in stages.items():
        if stage in ("all", name):
            run(config, pool, out)


if __name__ == "__main__":
    app.run(main)
