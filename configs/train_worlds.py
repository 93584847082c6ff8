"""The embedded family `worlds-64`, trained on its own procedural worlds.

Command: python -m experiments.train_worlds --config=configs/train_worlds.py --out=runs/worlds-64
         python -m experiments.train_worlds --config=configs/train_worlds.py:editor \
             --out=runs/worlds-64-editor
         python -m experiments.train_worlds --config=configs/train_worlds.py:painter \
             --out=runs/painter
         python -m experiments.train_worlds --config=configs/train_worlds.py:uncaptioned \
             --out=runs/uncaptioned
Time: see README, "The embedded family".
"""

import ml_collections


def get_config(family: str = "objects") -> ml_collections.ConfigDict:
    """Sizes and lengths of the stages, of one of four families.

    Args:
      family: "objects" (text to image, the judge, and what scores renderings), "editor"
        (inpainting, captions, depth, of objects and rooms, started from the first), "painter" (the
        inpainting model of the second trained on, with its autoencoder as it is) or "uncaptioned"
        (the denoiser of the first trained on without captions, for the study of gradients).
    """
    families = ("objects", "editor", "painter", "uncaptioned")
    if family not in families:
        raise ValueError(f"no family {family!r}; expected one of {families}")
    config = ml_collections.ConfigDict()
    config.stages = ("vae", "unet", "judge", "classifier", "discriminator")
    config.family = "family"
    config.start = ""
    config.seed = 0
    config.image_size = 64
    config.views_per_kind = 3000
    config.rooms = 0
    config.rooms_share = 0.0
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
    config.unet.attention = (False, True, True)  # at each of these widths
    config.unet.heads = 4
    config.unet.text_width = 128
    config.unet.text_layers = 2
    config.unet.latents = 36_864
    config.unet.batch = 32
    config.unet.steps = 14_000
    config.unet.learning_rate = 6e-4
    config.unet.cooldown = 0.2
    config.unet.ema = 0.998
    config.unet.captioned = True
    config.unet.late = 0.0  # more noise in more of the draws: methods/latent_diffusion_training.py

    config.judge = ml_collections.ConfigDict()
    config.judge.batch = 64
    config.judge.steps = 3000
    config.judge.learning_rate = 2e-3

    config.clip = ml_collections.ConfigDict()
    config.clip.folder = "family/clip"
    config.clip.width = 128
    config.clip.vision_layers = 4
    config.clip.text_layers = 2
    config.clip.batch = 128
    config.clip.steps = 3000
    config.clip.learning_rate = 1e-3

    config.depth = ml_collections.ConfigDict()
    config.depth.folder = "family/depth"
    config.depth.width = 128
    config.depth.layers = 6
    config.depth.neck = (32, 64, 96, 128)
    config.depth.fusion = 48
    config.depth.views_per_kind = 500
    config.depth.batch = 32
    config.depth.steps = 4000
    config.depth.learning_rate = 6e-4
    config.depth.edge_weight = 0.5

    if family == "objects":
        config.classifier = ml_collections.ConfigDict()
        config.classifier.batch = 64
        config.classifier.steps = 3000
        config.classifier.learning_rate = 2e-3

        config.discriminator = ml_collections.ConfigDict()
        config.discriminator.channels = (32, 64, 96, 96)
        config.discriminator.batch = 32
        config.discriminator.steps = 2500
        config.discriminator.learning_rate = 1e-3
        config.discriminator.cooldown = 0.5
        config.discriminator.penalty = 0.1  # at 10 it says nothing after 450 steps

    if family == "uncaptioned":
        config.stages = ("unet",)
        config.start = "geojax/assets/worlds-64"
        config.unet.captioned = False
        config.unet.steps = 1500
        config.unet.learning_rate = 3e-4
        config.unet.cooldown = 0.5

    if family == "editor":
        config.stages = ("vae", "inpainting", "clip", "depth")
        config.family = "family-inpainting"
        config.start = "geojax/assets/worlds-64"
        config.rooms = 5120
        config.rooms_share = 0.75
        config.vae.learning_rate = 6e-4
        config.vae.steps = 2400
        config.unet.steps = 7000
        config.unet.learning_rate = 4e-4
        config.unet.cooldown = 0.25
        config.unet.late = 1.0

    if family == "painter":
        config.stages = ("inpainting",)
        config.family = "family-inpainting"
        config.start = "geojax/assets/worlds-64-inpainting"
        config.views_per_kind = 800
        config.rooms = 6400
        config.rooms_share = 0.75
        config.unet.latents = 24_576
        config.unet.steps = 2600
        config.unet.learning_rate = 3e-4
        config.unet.cooldown = 0.5
        config.unet.late = 1.0
    return config
