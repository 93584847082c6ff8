"""Stage 2: the autoencoder."""

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
from geojax.io.media import grid
from geojax.methods import latent_diffusion_training as training
from geojax.models.vae import VAE, VAEConfig
from geojax.weights.folder import save_component
from geojax.worlds import pictures


def train_autoencoder(config: Any, pool: pictures.Pool, out: Path) -> None:
    """Stage 2: autoencoder; its scaling factor is 1 / the standard deviation of its latents."""
    vae = VAE(VAEConfig.from_dict(vae_config(config, 1.0)))
    size = config.image_size
    params = vae.init(jax.random.key(config.seed + 1), jnp.zeros((1, size, size, 3)))["params"]
    settings = config.vae
    rate = optax.warmup_cosine_decay_schedule(
        0.0, settings.learning_rate, min(100, settings.steps // 2), settings.steps, 1e-5
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
