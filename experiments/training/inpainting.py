"""The inpainting denoiser with its text encoder, end to end, on latents made once.

It starts from a denoiser of the same widths, whose first convolution gains channels of zeros (as
Stable Diffusion's did), and sees beside the noisy latent the hole and the latent of what is around.
Where its recipe asks for attention that the denoiser has not, that begins by adding nothing.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging

from experiments.training.denoiser import (
    encoding_key,
    load_codec,
    make_tokenise,
    take_over,
    write_denoiser,
)
from experiments.training.family_configs import text_config, unet_config
from experiments.training.loop import train, warmup_stable_decay
from experiments.training.worlds import Captioned, Worlds, draw, loose_captions
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
from geojax.priors.inpainting import GREY, latent_mask
from geojax.weights.folder import Params, load_component, load_config
from geojax.worlds import pictures, room_pictures, vocabulary
from geojax.worlds.room_holes import random_hole

_AT_ONCE = 64
_PLAIN = 0.15  # of the draws: the whole picture is to be painted, as from a prompt alone


class Latents(NamedTuple):
    """Encoded draws.

    Attributes:
      latent: [N, h, w, c] of the whole picture, unit variance.
      seen: [N, h, w, c] of the picture with its hole in grey.
      hole: [N, h, w] bool, cells with a pixel in the hole.
      drawn: what they show, in blocks of `_AT_ONCE`, without the pictures.
    """

    latent: np.ndarray
    seen: np.ndarray
    hole: np.ndarray
    drawn: list[Captioned]


def draw_holes(rng: np.random.Generator, drawn: Captioned) -> np.ndarray:
    """A hole [B, S, S] bool for each picture; some are the whole picture."""
    size = drawn.image.shape[1]
    holes = [random_hole(rng, size) for _ in range(len(drawn.objects.kind))]
    if drawn.rooms is not None:
        holes += list(room_pictures.holes(rng, drawn.rooms))
    whole = rng.uniform(size=len(holes)) < _PLAIN
    return np.stack(holes) | whole[:, None, None]


def encode_draws(config: Any, worlds: Worlds, out: Path, encode: Any) -> Latents:
    """`config.unet.latents` draws with their holes, encoded; kept in files of `_AT_ONCE` draws."""
    factor = 2 ** (len(config.vae.channels) - 1)
    folder = out / "inpainting" / f"latents-{encoding_key(config, out / config.family)}"
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for i in range(config.unet.latents // _AT_ONCE):
        # The labels are drawn again rather than stored; the pictures cost next to nothing.
        rng = np.random.default_rng((config.seed, 5, i))
        drawn = draw(rng, worlds, _AT_ONCE, config.rooms_share)
        file = folder / f"{i:05d}.npz"
        if not file.exists():
            hole = draw_holes(rng, drawn)
            masked = np.where(hole[..., None], np.float32(GREY), drawn.image)
            latent, seen = np.split(np.asarray(encode(np.concatenate([drawn.image, masked]))), 2)
            with replacing(file) as unfinished:
                cells = np.asarray(latent_mask(jnp.asarray(hole), factor))
                np.savez(unfinished, latent=latent, seen=seen, hole=cells)
        with np.load(file) as stored:
            parts.append((stored["latent"], stored["seen"], stored["hole"], without(drawn)))
        if (i + 1) % 50 == 0:
            logging.info("latents: %d", (i + 1) * _AT_ONCE)
    arrays = [np.concatenate(leaves) for leaves in list(zip(*parts, strict=True))[:3]]
    return Latents(arrays[0], arrays[1], arrays[2], [part[3] for part in parts])


def without(drawn: Captioned) -> Captioned:
    """Without pictures and depth: what captions are made of."""
    empty = np.zeros((len(drawn.image), 0), np.float32)
    objects = drawn.objects._replace(image=empty[: len(drawn.objects.kind)])
    rooms = drawn.rooms
    if rooms is not None:
        nothing = empty[: len(rooms.focal)]
        rooms = rooms._replace(image=nothing, depth=nothing)
    return Captioned(empty, objects, rooms)


def grown(params: Params, small: Params) -> Params:
    """A network's parameters from one with fewer input channels or less attention.

    The new channels are of zeros, and what a new attention adds is zero, so that at first it says
    what the small one says.

    Args:
      params: fresh ones of the network.
      small: those to take over.
    """
    start: dict[str, Any] = {}
    for name, value in params.items():
        if name not in small:
            start[name] = jax.tree_util.tree_map_with_path(_silent, value)
        elif isinstance(value, dict):
            start[name] = grown(value, small[name])
        else:
            missing = [(0, n - m) for n, m in zip(value.shape, small[name].shape, strict=True)]
            start[name] = jnp.pad(jnp.asarray(small[name]), missing)
    return start


def _silent(path: tuple[Any, ...], value: jax.Array) -> jax.Array:
    """A leaf of a new attention; its last layer is zero."""
    return jnp.zeros_like(value) if path[-2:][0].key == "proj_out" else value


def train_inpainting(config: Any, worlds: Worlds, out: Path) -> None:
    """Inpainting denoiser and text encoder; writes a family in the layout of SD-inpainting."""
    family, settings = out / config.family, config.unet
    if "vae" not in config.stages:
        take_over(Path(config.start), family, ("vae",))
    codec = load_codec(family)
    data = encode_draws(config, worlds, out, codec.encode)
    logging.info("latents: %s, standard deviation %.3f", data.latent.shape, data.latent.std())
    size = vocabulary.write_tokenizer(family / "tokenizer")
    tokenise = make_tokenise(family / "tokenizer")

    channels = data.latent.shape[-1]
    in_channels = 2 * channels + 1
    unet = UNet(UNetConfig.from_dict(unet_config(config, in_channels)))
    text = CLIPText(CLIPTextConfig.from_dict(text_config(config, size)))
    schedule = scaled_linear()
    ids = jnp.zeros((1, vocabulary.MAX_TOKENS), jnp.int32)
    context = jnp.zeros((1, vocabulary.MAX_TOKENS, settings.text_width))
    sample = jnp.zeros((1, *data.latent.shape[1:3], in_channels))
    fresh = unet.init(jax.random.key(config.seed + 3), sample, jnp.zeros(1, jnp.int32), context)
    params = {
        "unet": fresh["params"],
        "text_encoder": text.init(jax.random.key(config.seed + 4), ids)["params"],
    }
    if config.start:
        start = Path(config.start)
        small = UNet(UNetConfig.from_dict(load_config(start / "unet")))
        params = {
            "unet": grown(params["unet"], load_component(start / "unet", small)),
            "text_encoder": load_component(start / "text_encoder", text),
        }
    optimiser = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(warmup_stable_decay(settings), b2=0.99, weight_decay=1e-3),
    )
    step = denoiser_step(unet, text, schedule, optimiser, decay=settings.ema, late=settings.late)
    nothing = jnp.zeros((0, 4, vocabulary.MAX_TOKENS), jnp.int32), jnp.zeros((0, 4))

    def batches(start: int) -> Iterator[tuple[np.ndarray, Captions, np.ndarray]]:
        for i in itertools.count(start):
            rng = np.random.default_rng((config.seed, 6, i))
            index = rng.integers(len(data.latent), size=settings.batch)
            texts = [caption_of(rng, data, int(k)) for k in index]
            extra = np.concatenate(
                [data.hole[index][..., None].astype(np.float32), data.seen[index]], axis=-1
            )
            loose = jnp.asarray(tokenise(texts))
            yield data.latent[index], Captions(*nothing, loose), extra

    shown = draw(np.random.default_rng(config.seed + 9), worlds, 24, config.rooms_share)
    rng = np.random.default_rng(config.seed + 10)
    hole = draw_holes(rng, shown)
    masked = np.where(hole[..., None], np.float32(GREY), shown.image)
    factor = 2 ** (len(config.vae.channels) - 1)
    cells = np.asarray(latent_mask(jnp.asarray(hole), factor), np.float32)[..., None]
    extra = np.concatenate([cells, np.asarray(codec.encode(masked))], axis=-1)
    prompts = tokenise(loose_captions(rng, shown, dropped=0.0))
    empty = tokenise([""])

    @jax.jit
    def paint(params: Any, vae_params: Any, key: jax.Array) -> jax.Array:
        ids = jnp.concatenate([jnp.asarray(empty), jnp.asarray(prompts)])
        encoded = text.apply({"params": params["text_encoder"]}, ids)
        uncond = jnp.broadcast_to(encoded[:1], encoded[1:].shape)
        both, twice = jnp.concatenate([uncond, encoded[1:]]), jnp.tile(extra, (2, 1, 1, 1))

        def denoise(z: jax.Array, t: jax.Array) -> jax.Array:
            z2, t2 = jnp.concatenate([z, z]), jnp.concatenate([t, t])
            v = unet.apply(
                {"params": params["unet"]}, jnp.concatenate([z2, twice], axis=-1), t2, both
            )
            eps_u, eps_c = jnp.split(eps_from_v(schedule, z2, v, t2), 2)
            return guided(eps_u, eps_c, 3.0)

        noise = jax.random.normal(key, (len(prompts), *data.latent.shape[1:]))
        return codec.decode(vae_params, sample_ddim(denoise, schedule, noise, 20))

    def preview(state: TrainState) -> np.ndarray:
        painted = (np.asarray(paint(state.average, codec.params, jax.random.key(0))) + 1.0) / 2.0
        rows = [shown.image, masked, np.clip(painted, 0.0, 1.0)]
        return grid(np.concatenate([np.stack([r[i : i + 12] for r in rows]) for i in (0, 12)]))

    state = init_state(jax.random.key(config.seed + 5), params, optimiser)
    state = train(
        "inpainting",
        state,
        step,
        batches,
        settings.steps,
        out / "inpainting",
        config.checkpoint_seconds,
        preview,
    )
    write_denoiser(config, state.average, size, out, in_channels)


def caption_of(rng: np.random.Generator, data: Latents, index: int) -> str:
    """A random caption of one of the encoded draws, empty for a fifth."""
    drawn, i = data.drawn[index // _AT_ONCE], index % _AT_ONCE
    objects = len(drawn.objects.kind)
    if i < objects:
        return pictures.loose_caption(rng, drawn.objects, i)
    assert drawn.rooms is not None
    one = room_pictures.Batch(*(leaf[i - objects : i - objects + 1] for leaf in drawn.rooms))
    return room_pictures.captions(rng, one, dropped=0.2)[0]
