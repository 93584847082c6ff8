"""Architectures of the originals at full size, as configs: Stable Diffusion, CLIP, DPT."""

from geojax.models.clip import CLIPTextConfig
from geojax.models.clip_vision import CLIPConfig, CLIPVisionConfig
from geojax.models.dpt import DPTConfig
from geojax.models.unet import UNetConfig
from geojax.models.vae import VAEConfig

SD1 = UNetConfig(cross_attention_dim=768, sample_size=64)
SD2 = UNetConfig(
    cross_attention_dim=1024,
    attention_head_dim=(5, 10, 20, 20),
    use_linear_projection=True,
    sample_size=64,
)
AUTOENCODER = VAEConfig(
    block_out_channels=(128, 256, 512, 512),
    layers_per_block=2,
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
    sample_size=512,
)
TEXT_L = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12)
TEXT_H = CLIPTextConfig(
    hidden_size=1024,
    intermediate_size=4096,
    num_attention_heads=16,
    num_hidden_layers=24,
    hidden_act="gelu",
)
CLIP_L = CLIPConfig(
    text_config=TEXT_L,
    vision_config=CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        patch_size=14,
    ),
    projection_dim=768,
)
DPT_LARGE = DPTConfig(
    hidden_size=1024,
    intermediate_size=4096,
    num_hidden_layers=24,
    num_attention_heads=16,
    backbone_out_indices=(5, 11, 17, 23),
    neck_hidden_sizes=(256, 512, 1024, 1024),
)
