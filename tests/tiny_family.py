"""A family in the layout of `worlds-64`, tiny and random: what the binaries run on in tests.

Pictures of 16 px, latents of 8 x 8 x 4, the vocabulary of the worlds, and a judge.
"""

import dataclasses
from pathlib import Path

from geojax.models.clip import CLIPText
from geojax.models.judge import Judge, JudgeConfig
from geojax.models.unet import UNet
from geojax.models.vae import VAE
from geojax.weights.folder import save_component
from geojax.weights.pipeline_folder import STABLE_DIFFUSION_SCHEDULER, Component, save_pipeline
from geojax.worlds import solids, vocabulary
from tests.weights.tiny_family import TEXT, UNET, VAE_CONFIG, random_params

IMAGE_SIZE = 16
JUDGE = {
    "channels": (8, 16),
    "kinds": tuple(solids.KINDS),
    "colours": tuple(solids.COLOURS),
    "image_size": IMAGE_SIZE,
}


def write_worlds_family(folder: Path) -> Path:
    """Write every part of the family; returns its folder."""
    tokenizer = folder.parent / f"{folder.name}_tokenizer"
    size = vocabulary.write_tokenizer(tokenizer)
    text = dataclasses.replace(
        TEXT,
        vocab_size=size,
        max_position_embeddings=vocabulary.MAX_TOKENS,
        bos_token_id=size - 2,
        eos_token_id=size - 1,
        pad_token_id=size - 1,
    )
    networks = {"unet": UNet(UNET), "vae": VAE(VAE_CONFIG), "text_encoder": CLIPText(text)}
    save_pipeline(
        folder,
        {
            name: Component(random_params(network, seed), network.config.to_dict())
            for seed, (name, network) in enumerate(networks.items())
        },
        {**STABLE_DIFFUSION_SCHEDULER, "prediction_type": "v_prediction"},
        tokenizer,
    )
    judge = Judge(JudgeConfig.from_dict(JUDGE))
    save_component(folder / "judge", random_params(judge), {"_class_name": "Judge", **JUDGE})
    return folder
