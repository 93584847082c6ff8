"""The embedded family `worlds-64`, trained on its own procedural worlds.

Command: python -m experiments.train_worlds --config=configs/train_worlds.py --out=runs/worlds-64
Time: see README, "The embedded family".
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Sizes and lengths of the stages: pictures, autoencoder, denoiser, judge."""
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.image_size = 64
    config.views_per_kind = 3000
    config.checkpoint_seconds = 120.0

    config.vae = ml_collections.ConfigDict()
    config.vae.channels = (32, 64, 64)
    config.vae.latent_channels = 4
    config.vae.batch = 16
    config.vae.steps = 3200
    config.vae.learning_rate = 1e-3
    config.vae.kl_weight = 1e-4

    config.unet = ml_collections.ConfigDict()
    config.unet.channels = (64, 96, 128)
    config.unet.heads = 4
    config.unet.text_width = 128
    config.unet.text_layers = 2
    config.unet.latents = 36_864
    config.unet.batch = 32
    config.unet.steps = 8400
    config.unet.learning_rate = 6e-4
    config.unet.cooldown = 0.25
    config.unet.ema = 0.998

    config.judge = ml_collections.ConfigDict()
    config.judge.batch = 64
    config.judge.steps = 3000
    config.judge.learning_rate = 2e-3
    return config
