"""The architectures of the parity table: network and number of parameters, and tiny stand-ins."""

import dataclasses
from typing import Any, NamedTuple

from experiments.benchmarks.originals import (
    AUTOENCODER,
    CLIP_L,
    DPT_LARGE,
    SD1,
    SD2,
    TEXT_H,
    TEXT_L,
)
from geojax.models.bit import BitConfig
from geojax.models.clip import CLIPText, CLIPTextConfig
from geojax.models.clip_vision import CLIP, CLIPConfig, CLIPVisionConfig
from geojax.models.depth_anything import DepthAnything, DepthAnythingConfig
from geojax.models.dinov2 import Dinov2Config
from geojax.models.dpt import DPT, DPTConfig
from geojax.models.unet import UNet, UNetConfig
from geojax.models.vae import VAE


class Case(NamedTuple):
    """A Linen module, and how many parameters it has (None: not compared)."""

    module: Any
    count: int | None = None


CLIP_H = CLIPConfig(
    text_config=TEXT_H,
    vision_config=CLIPVisionConfig(
        hidden_size=1280,
        intermediate_size=5120,
        num_hidden_layers=32,
        num_attention_heads=16,
        patch_size=14,
        hidden_act="gelu",
    ),
    projection_dim=1024,
)

DPT_HYBRID = DPTConfig(
    is_hybrid=True,
    neck_hidden_sizes=(256, 512, 768, 768),
    reassemble_factors=(1, 1, 1, 0.5),
    backbone_config=BitConfig(),
)


def depth_anything(
    width: int, layers: int, taps: tuple[int, ...], neck: tuple[int, ...], fusion: int
) -> DepthAnything:
    """Depth Anything V2 of a size; every head of its attention is 64 wide."""
    backbone = Dinov2Config(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        image_size=518,
        out_indices=taps,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=width,
        neck_hidden_sizes=neck,
        fusion_hidden_size=fusion,
    )
    return DepthAnything(config)


def with_channels(config: UNetConfig, channels: int) -> UNet:
    """The UNet with another number of input channels."""
    return UNet(dataclasses.replace(config, in_channels=channels))


FULL = {
    "unet_sd1": Case(UNet(SD1), 859_520_964),
    "unet_sd1_inpaint": Case(with_channels(SD1, 9), 859_535_364),
    "unet_sd2": Case(UNet(SD2), 865_910_724),
    "unet_sd2_inpaint": Case(with_channels(SD2, 9), 865_925_124),
    "unet_sd2_depth": Case(with_channels(SD2, 5), 865_913_604),
    "vae": Case(VAE(AUTOENCODER), 83_653_863),
    "text_l": Case(CLIPText(TEXT_L), 123_060_480),
    "text_h": Case(CLIPText(dataclasses.replace(TEXT_H, num_hidden_layers=23)), 340_387_840),
    "clip_l14": Case(CLIP(CLIP_L), 427_616_513),
    "clip_h14": Case(CLIP(CLIP_H), 986_109_441),
    "dpt_large": Case(DPT(DPT_LARGE), 343_030_465),
    "dpt_hybrid": Case(DPT(DPT_HYBRID), 122_377_985),
    "depth_anything_s": Case(
        depth_anything(384, 12, (3, 6, 9, 12), (48, 96, 192, 384), 64), 24_785_089
    ),
    "depth_anything_b": Case(
        depth_anything(768, 12, (3, 6, 9, 12), (96, 192, 384, 768), 128), 97_470_785
    ),
    "depth_anything_l": Case(
        depth_anything(1024, 24, (5, 12, 18, 24), (256, 512, 1024, 1024), 256), 335_315_649
    ),
}


def _small_unet(config: UNetConfig, channels: int) -> UNet:
    heads = 2 if isinstance(config.attention_head_dim, int) else (1, 2, 2, 2)
    return UNet(
        dataclasses.replace(
            config,
            in_channels=channels,
            block_out_channels=(16, 32, 32, 32),
            layers_per_block=1,
            norm_num_groups=8,
            cross_attention_dim=16,
            attention_head_dim=heads,
        )
    )


def _small_text(config: CLIPTextConfig) -> CLIPTextConfig:
    small: dict[str, Any] = {"vocab_size": 40, "bos_token_id": 38, "eos_token_id": 39}
    small |= {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    return dataclasses.replace(config, num_attention_heads=2, max_position_embeddings=12, **small)


def _small_clip(config: CLIPConfig) -> CLIP:
    vision = dataclasses.replace(
        config.vision_config,
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    text = _small_text(config.text_config)
    return CLIP(
        dataclasses.replace(config, text_config=text, vision_config=vision, projection_dim=8)
    )


def _small_dpt(config: DPTConfig) -> DPT:
    small: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4}
    small |= {"num_attention_heads": 2, "image_size": 64, "backbone_out_indices": (0, 1, 2, 3)}
    small |= {"fusion_hidden_size": 8, "neck_hidden_sizes": (32, 64, 16, 16)}
    if config.backbone_config is not None:
        backbone = BitConfig(
            embedding_size=8, hidden_sizes=(32, 64, 96), depths=(1, 1, 1), num_groups=4
        )
        small |= {"backbone_config": backbone}
    return DPT(dataclasses.replace(config, **small))


def _small_depth_anything(module: DepthAnything) -> DepthAnything:
    backbone = dataclasses.replace(
        module.config.backbone_config,
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=42,
        out_indices=(1, 2, 3, 4),
    )
    config = dataclasses.replace(
        module.config,
        backbone_config=backbone,
        reassemble_hidden_size=16,
        neck_hidden_sizes=(8, 8, 16, 16),
        fusion_hidden_size=8,
    )
    return DepthAnything(config)


_VAE = dataclasses.replace(
    AUTOENCODER, block_out_channels=(8, 16, 16, 16), layers_per_block=1, norm_num_groups=4
)
TINY = {
    "unet_sd1": Case(_small_unet(SD1, 4)),
    "unet_sd1_inpaint": Case(_small_unet(SD1, 9)),
    "unet_sd2": Case(_small_unet(SD2, 4)),
    "unet_sd2_inpaint": Case(_small_unet(SD2, 9)),
    "unet_sd2_depth": Case(_small_unet(SD2, 5)),
    "vae": Case(VAE(_VAE)),
    "text_l": Case(CLIPText(_small_text(TEXT_L))),
    "text_h": Case(CLIPText(_small_text(TEXT_H))),
    "clip_l14": Case(_small_clip(CLIP_L)),
    "clip_h14": Case(_small_clip(CLIP_H)),
    "dpt_large": Case(_small_dpt(DPT_LARGE)),
    "dpt_hybrid": Case(_small_dpt(DPT_HYBRID)),
    **{
        name: Case(_small_depth_anything(FULL[name].module))
        for name in ("depth_anything_s", "depth_anything_b", "depth_anything_l")
    },
}
