"""Tiny Stable Diffusions in one file under the original names."""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from geojax.models.clip import CLIPText, CLIPTextConfig
from geojax.models.unet import UNet, UNetConfig
from geojax.models.vae import VAE, VAEConfig
from geojax.weights import key_tables, ldm_keys
from geojax.weights.folder import named_leaves
from tests.weights.tiny_family import LIMIT, VOCABULARY, random_params

WIDTH = 64
LAYERS = {
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "block_out_channels": (32, 64, 64),
    "layers_per_block": 1,
    "cross_attention_dim": WIDTH,
    "sample_size": 32,
}
UNETS = {
    "sd1": UNetConfig(**LAYERS),
    "sd1_inpaint": UNetConfig(**{**LAYERS, "in_channels": 9, "layers_per_block": 2}),
    "sd2": UNetConfig(**LAYERS, use_linear_projection=True, attention_head_dim=(1, 1, 1)),
    "sd2_depth": UNetConfig(
        **LAYERS, use_linear_projection=True, attention_head_dim=(1, 1, 1), in_channels=5
    ),
}
VAE_CONFIG = VAEConfig(
    block_out_channels=(32, 32, 64),
    down_block_types=("DownEncoderBlock2D",) * 3,
    up_block_types=("UpDecoderBlock2D",) * 3,
    sample_size=128,
)
TEXT = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": WIDTH,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "max_position_embeddings": LIMIT,
}
TEXT_1 = CLIPTextConfig(**TEXT, pad_token_id=len(VOCABULARY) - 1)
TEXT_2 = CLIPTextConfig(**TEXT, hidden_act="gelu", pad_token_id=0)
IMAGE_SIZE = 128


def modules(name):
    """The three networks of a case."""
    text = TEXT_1 if name.startswith("sd1") else TEXT_2
    return {"unet": UNet(UNETS[name]), "vae": VAE(VAE_CONFIG), "text_encoder": CLIPText(text)}


def diffusers_tensors(params):
    """Key -> tensor, as in a component's folder."""
    return {
        key_tables.file_key(path): np.asarray(
            key_tables.to_file(path, np.asarray(value)), order="C"
        )
        for path, value in named_leaves(params).items()
    }


def ldm_tensors(name, params):
    """Key -> tensor, as in the original file, with what training leaves there."""
    open_clip = not name.startswith("sd1")
    functions = {
        "unet": ldm_keys.unet_source,
        "vae": ldm_keys.vae_source,
        "text_encoder": ldm_keys.open_clip_source if open_clip else ldm_keys.clip_text_source,
    }
    found, thirds = {}, {}
    for part, module in modules(name).items():
        config = module.config.to_dict()
        for key, value in diffusers_tensors(params[part]).items():
            source = functions[part](key, config)
            if source.third is None:
                assert source.key not in found, source.key
                found[source.key] = value
            else:
                thirds.setdefault(source.key, [None] * 3)[source.third] = value
    found |= {key: np.concatenate(rows) for key, rows in thirds.items()}
    for key in [k for k in found if ".mid.attn_1." in k and found[k].ndim == 2]:
        found[key] = found[key][:, :, None, None]
    found["betas"] = np.zeros(1000, np.float32)
    found["model_ema.num_updates"] = np.zeros((), np.int64)
    if open_clip:
        place = ldm_keys.OPEN_CLIP + "transformer.resblocks."
        last = {k: v for k, v in found.items() if k.startswith(place + "1.")}
        found |= {k.replace(place + "1.", place + "2."): v + 1 for k, v in last.items()}
        found[ldm_keys.OPEN_CLIP + "text_projection"] = np.eye(WIDTH, dtype=np.float32)
        found[ldm_keys.OPEN_CLIP + "logit_scale"] = np.ones((), np.float32)
    else:
        key = ldm_keys.CLIP_TEXT + "text_model.embeddings.position_ids"
        found[key] = np.arange(LIMIT, dtype=np.int64)[None]
    return found


def write_ldm_file(file: Path, name: str):
    """Write the file of a case; returns its parameters by component."""
    networks = modules(name)
    params = {part: random_params(m, seed) for seed, (part, m) in enumerate(networks.items())}
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(ldm_tensors(name, params), file)
    return params
