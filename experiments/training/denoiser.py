"""The denoiser with its text encoder, end to end, on latents made once.

With captions, or without: then every picture is one of the empty caption, and the denoiser, which
starts from one that was trained with captions, forgets what they meant.
"""

import functools
import hashlib
import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from transformers import CLIPTokenizer

from experiments.training.family_configs import text_config, unet_config
from experiments.training.loop import train, warmup_stable_decay
from experiments.training.worlds import Worlds
from geojax.diffusion.guidance import guided
from geojax.diffusion.parameterization import eps_from_v
from geojax.diffusion.samplers import sample_ddim
from geojax.diffusion.schedule import scaled_linear
from geojax.io.atomic import replacing
from geojax.io.media import grid
from geojax.methods.latent_diffusion_training import Captions, denoiser_step
from geojax.methods.train_state import TrainState, init_state
from geojax.models.clip import CLIPText, CLIPTextConfig
from geojax.models.unet import UNet, UNetConfig
from geojax.models.vae import VAE, VAEConfig
from geojax.weights.folder import load_component, save_component
from geojax.weights.pipeline_folder import STABLE_DIFFUSION_SCHEDULER, write_pipeline_files
from geojax.worlds import captions, pictures, solids, vocabulary


class CodecParts(NamedTuple):
    """A trained autoencoder: its parameters; `encode` of images in [0, 1], batch by batch, to
    latents of unit variance; `decode` (params, latent) -> image in about [-1, 1]."""

    params: Any
    encode: Callable[[np.ndarray], jax.Array]
    decode: Callable[[Any, jax.Array], jax.Array]


def load_codec(family: Path) -> CodecParts:
    """The autoencoder of the stage before."""
    stored = json.loads((family / "vae" / "config.json").read_text())
    vae, scale = VAE(VAEConfig.from_dict(stored)), stored["scaling_factor"]
    params = load_component(family / "vae", vae)
    encode = jax.jit(
        lambda p, x: vae.apply({"params": p}, 2.0 * x - 1.0, method="encode")[0] * scale
    )
    decode = jax.jit(lambda p, z: vae.apply({"params": p}, z / scale, method="decode"))
    return CodecParts(params, functools.partial(encode, params), decode)


def make_tokenise(folder: Path) -> Callable[[list[str]], np.ndarray]:
    """Texts -> token ids [B, MAX_TOKENS] int32, by the tokenizer in a folder."""
    tokenizer = CLIPTokenizer.from_pretrained(str(folder))

    def tokenise(texts: list[str]) -> np.ndarray:
        ids = tokenizer(
            texts, padding="max_length", max_length=vocabulary.MAX_TOKENS, truncation=True
        )
        return np.asarray(ids["input_ids"], np.int32)

    return tokenise


def encoding_key(config: Any, family: Path) -> str:
    """Short digest of what encoded pictures depend on: another autoencoder, other latents."""
    weights = sorted((family / "vae").glob("*.safetensors"))
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in weights))
    fields = (config.seed, config.unet.latents, config.views_per_kind, config.rooms)
    digest.update(repr((*fields, config.rooms_share, config.image_size)).encode())
    return digest.hexdigest()[:12]


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


def take_over(start: Path, family: Path, names: Sequence[str]) -> None:
    """Copy the parts of another family that this one does not train; those it has, it keeps."""
    for name in names:
        if not (family / name).exists():
            unfinished = family / f".{name}"
            shutil.copytree(start / name, unfinished, dirs_exist_ok=True)
            unfinished.rename(family / name)


def train_denoiser(config: Any, worlds: Worlds, out: Path) -> None:
    """Denoiser and text encoder, end to end, on latents made once."""
    family, settings = out / config.family, config.unet
    if config.start:
        take_over(Path(config.start), family, ("vae", "judge"))
    codec = load_codec(family)
    latent, labels = encoded_pictures(
        config,
        worlds.objects,
        out / "unet" / f"latents-{encoding_key(config, family)}.npz",
        codec.encode,
    )
    logging.info("latents: %s, standard deviation %.3f", latent.shape, latent.std())

    size = vocabulary.write_tokenizer(family / "tokenizer")
    tokenise = make_tokenise(family / "tokenizer")

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
    if config.start:
        start = Path(config.start)
        params = {
            name: load_component(start / name, module)
            for name, module in (("unet", unet), ("text_encoder", text))
        }
    optimiser = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(warmup_stable_decay(settings), b2=0.99, weight_decay=1e-3),
    )
    step = denoiser_step(unet, text, schedule, optimiser, decay=settings.ema, late=settings.late)
    half = settings.batch // 2
    nothing = Captions(
        between=jnp.zeros((0, 4, vocabulary.MAX_TOKENS), jnp.int32),
        weights=jnp.zeros((0, 4)),
        loose=jnp.asarray(tokenise([""] * settings.batch)),
    )

    def batches(start: int) -> Iterator[tuple[np.ndarray, Captions]]:
        for i in itertools.count(start):
            rng = np.random.default_rng((config.seed, 3, i))
            index = rng.integers(len(latent), size=settings.batch)
            if not settings.captioned:
                yield latent[index], nothing
                continue
            batch = pictures.Batch(*(leaf[index] for leaf in labels))
            between = [pictures.between_captions(rng, batch, k) for k in range(half)]
            loose = [pictures.loose_caption(rng, batch, k) for k in range(half, 2 * half)]
            nodes = tokenise([c for texts, _ in between for c in texts])
            yield (
                latent[index],
                Captions(
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
        return codec.decode(vae_params, sample_ddim(denoise, schedule, noise, 20))

    def preview(state: TrainState) -> np.ndarray:
        x = (np.asarray(draw(state.average, codec.params, jax.random.key(0))) + 1.0) / 2.0
        return grid(np.clip(x, 0.0, 1.0).reshape(len(views), len(pairs), *x.shape[1:]))

    state = init_state(jax.random.key(config.seed + 5), params, optimiser)
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


def write_denoiser(
    config: Any, params: Any, vocabulary_size: int, out: Path, in_channels: int | None = None
) -> None:
    """Write denoiser, text encoder and scheduler into the family's folder."""
    family = out / config.family
    parts = {
        "unet": unet_config(config, in_channels),
        "text_encoder": text_config(config, vocabulary_size),
    }
    for name, fields in parts.items():
        save_component(family / name, params[name], fields, dtype=jnp.float16, overwrite=True)
    scheduler = {**STABLE_DIFFUSION_SCHEDULER, "prediction_type": "v_prediction"}
    if in_channels is None:
        write_pipeline_files(family, scheduler)
    else:
        write_pipeline_files(family, scheduler, class_name="StableDiffusionInpaintPipeline")
