"""The autoencoder, of objects or of both worlds."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.training.family_configs import vae_config
from experiments.training.loop import train
from experiments.training.worlds import Worlds, draw
from geojax.io.media import grid
from geojax.methods.latent_diffusion_training import autoencoder_step
from geojax.methods.train_state import TrainState, init_state
from geojax.models.vae import VAE, VAEConfig
from geojax.weights.folder import load_component, save_component


def train_autoencoder(config: Any, worlds: Worlds, out: Path) -> None:
    """The autoencoder; its scaling factor is 1 / the standard deviation of its latents."""
    family = out / config.family
    vae = VAE(VAEConfig.from_dict(vae_config(config, 1.0)))
    size = config.image_size
    params = vae.init(jax.random.key(config.seed + 1), jnp.zeros((1, size, size, 3)))["params"]
    if config.start:
        params = load_component(Path(config.start) / "vae", vae)
    settings = config.vae
    rate = optax.warmup_cosine_decay_schedule(
        0.0, settings.learning_rate, min(100, settings.steps // 2), settings.steps, 1e-5
    )
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate, b2=0.99))
    step = autoencoder_step(vae, optimiser, kl_weight=settings.kl_weight)

    def batches(start: int) -> Iterator[tuple[np.ndarray]]:
        for i in itertools.count(start):
            rng = np.random.default_rng((config.seed, 1, i))
            yield (draw(rng, worlds, settings.batch, config.rooms_share).image,)

    rng = np.random.default_rng(config.seed + 9)
    shown = draw(rng, worlds, 8, config.rooms_share, held_out=True).image
    rebuild = jax.jit(
        lambda p, x: vae.apply(
            {"params": p}, vae.apply({"params": p}, x, method="encode")[0], method="decode"
        )
    )

    def preview(state: TrainState) -> np.ndarray:
        again = (np.asarray(rebuild(state.average, 2.0 * shown - 1.0)) + 1.0) / 2.0
        return grid(np.stack([shown, np.clip(again, 0.0, 1.0)]))

    state = init_state(jax.random.key(config.seed + 2), params, optimiser)
    state = train(
        "vae", state, step, batches, settings.steps, out / "vae", config.checkpoint_seconds, preview
    )
    encode = jax.jit(lambda p, x: vae.apply({"params": p}, 2.0 * x - 1.0, method="encode")[0])
    latents = [encode(state.average, next(batches(10**6 + i))[0]) for i in range(16)]
    scale = 1.0 / float(jnp.std(jnp.stack(latents)))
    save_component(
        family / "vae",
        state.average,
        vae_config(config, scale),
        dtype=jnp.float16,
        overwrite=True,
    )
