"""The config.json of each part of the family `worlds-64`, from the training recipe.

The fields are those of diffusers and transformers, so that their classes read the folders too.
"""

from typing import Any

from geojax.worlds import captions, solids, vocabulary


def vae_config(config: Any, scaling_factor: float) -> dict[str, Any]:
    """config.json of the autoencoder."""
    levels = len(config.vae.channels)
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": config.vae.latent_channels,
        "block_out_channels": list(config.vae.channels),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "act_fn": "silu",
        "sample_size": config.image_size,
        "scaling_factor": scaling_factor,
    }


def unet_config(config: Any, in_channels: int | None = None) -> dict[str, Any]:
    """config.json of the denoiser; with `in_channels`, of one that is shown more than the noise."""
    down = ["CrossAttnDownBlock2D" if there else "DownBlock2D" for there in config.unet.attention]
    return {
        "_class_name": "UNet2DConditionModel",
        "in_channels": in_channels or config.vae.latent_channels,
        "out_channels": config.vae.latent_channels,
        "sample_size": config.image_size // 2 ** (len(config.vae.channels) - 1),
        "block_out_channels": list(config.unet.channels),
        "down_block_types": down,
        "up_block_types": [name.replace("Down", "Up") for name in reversed(down)],
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "layers_per_block": 1,
        "attention_head_dim": config.unet.heads,
        "cross_attention_dim": config.unet.text_width,
        "use_linear_projection": True,
        "norm_num_groups": 16,
        "norm_eps": 1e-5,
        "act_fn": "silu",
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "center_input_sample": False,
        "downsample_padding": 1,
    }


def text_config(config: Any, vocabulary_size: int) -> dict[str, Any]:
    """config.json of the text encoder."""
    return {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "vocab_size": vocabulary_size,
        "hidden_size": config.unet.text_width,
        "intermediate_size": 4 * config.unet.text_width,
        "num_hidden_layers": config.unet.text_layers,
        "num_attention_heads": 4,
        "max_position_embeddings": vocabulary.MAX_TOKENS,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        "bos_token_id": vocabulary_size - 2,
        "eos_token_id": vocabulary_size - 1,
        "pad_token_id": vocabulary_size - 1,
        "projection_dim": config.unet.text_width,
    }


def clip_config(config: Any, vocabulary_size: int) -> dict[str, Any]:
    """config.json of the pair that scores captions."""
    c = config.clip
    text = {
        **text_config(config, vocabulary_size),
        "hidden_size": c.width,
        "intermediate_size": 4 * c.width,
        "num_hidden_layers": c.text_layers,
        "projection_dim": c.width,
    }
    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": c.width,
        "intermediate_size": 4 * c.width,
        "num_hidden_layers": c.vision_layers,
        "num_attention_heads": 4,
        "num_channels": 3,
        "image_size": config.image_size,
        "patch_size": config.image_size // 8,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        "projection_dim": c.width,
    }
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": c.width,
        "logit_scale_init_value": 2.6592,
        "text_config": text,
        "vision_config": vision,
    }


def dpt_config(config: Any) -> dict[str, Any]:
    """config.json of the depth model; patches of 8 pixels, maps at 1/4 to 1/32 of the sides."""
    d = config.depth
    return {
        "architectures": ["DPTForDepthEstimation"],
        "model_type": "dpt",
        "hidden_size": d.width,
        "intermediate_size": 4 * d.width,
        "num_hidden_layers": d.layers,
        "num_attention_heads": 4,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "image_size": config.image_size,
        "patch_size": 8,
        "num_channels": 3,
        "qkv_bias": True,
        "is_hybrid": False,
        "backbone_out_indices": [d.layers * (i + 1) // 4 - 1 for i in range(4)],
        "readout_type": "project",
        "reassemble_factors": [2, 1, 0.5, 0.25],
        "neck_hidden_sizes": list(d.neck),
        "fusion_hidden_size": d.fusion,
        "head_in_index": -1,
        "use_batch_norm_in_fusion_residual": False,
        "add_projection": False,
        "use_auxiliary_head": False,
    }


def judge_config(config: Any) -> dict[str, Any]:
    """config.json of the judge."""
    return {
        "_class_name": "Judge",
        "channels": [32, 64, 96, 128],
        "kinds": list(solids.KINDS),
        "colours": list(solids.COLOURS),
        "image_size": config.image_size,
    }


def discriminator_config(config: Any) -> dict[str, Any]:
    """config.json of the discriminator; `phrases` is all that an object's caption may say."""
    elevations = [name for _, name in captions.ELEVATIONS]
    return {
        "_class_name": "Discriminator",
        "channels": list(config.discriminator.channels),
        "phrases": [*solids.KINDS, *solids.COLOURS, *captions.AZIMUTHS, *elevations],
        "image_size": config.image_size,
    }
