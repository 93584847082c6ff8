"""What the original checkpoints of Stable Diffusion call the tensors of the three networks.

Symbols: key, a tensor's name in diffusers' and transformers' files; n residual blocks a level; i
level, j block in it, both from 0.
    (1) UNet   down level i, block j -> input_blocks.{i (n + 1) + j + 1}; its downsampler takes the
               place of block n; up level i, block j -> output_blocks.{i (n + 1) + j}, the upsampler
               last in the place of block n; .0 is the resnet, .1 the transformer
    (2) VAE    down_blocks.i.resnets.j -> down.i.block.j; going up, the levels are counted from the
               bottom: up_blocks.i -> up.{levels - 1 - i}; the attention is by 1x1 convolutions
    (3) text   1.x: transformers' names; 2.x: OpenCLIP's, query, key and value in one matrix, and
               one layer more than is used

The code of Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models" (2022),
`openaimodel.py` and `model.py`, and of OpenCLIP (Ilharco et al., 2021), gives the names.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

UNET = "model.diffusion_model."
VAE = "first_stage_model."
TEXT = "cond_stage_model."
CLIP_TEXT = TEXT + "transformer."
OPEN_CLIP = TEXT + "model."


class Source(NamedTuple):
    """The key in the file, and which third of its first axis is meant; None is the whole."""

    key: str
    third: int | None = None


UNET_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)")
UNET_RESIZE = re.compile(r"(?:down|up)_blocks\.(\d+)\.(down|up)samplers\.0\.conv\.(.+)")
UNET_MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)")


def _rename(rest: str, table: Mapping[str, str]) -> str:
    """ "conv1.weight" -> "in_layers.2.weight"; what is not in the table stays."""
    head, _, leaf = rest.rpartition(".")
    return f"{table.get(head, head)}.{leaf}"


def unet_source(key: str, config: Mapping[str, Any]) -> Source:
    """Equation (1); `config` holds layers_per_block and up_block_types."""
    n = config["layers_per_block"]
    if match := UNET_BLOCK.fullmatch(key):
        side, level, kind, block, rest = match.groups()
        index = int(level) * (n + 1) + int(block) + (side == "down")
        inner = f"0.{_rename(rest, UNET_RESNET)}" if kind == "resnets" else f"1.{rest}"
        return Source(f"{UNET}{'in' if side == 'down' else 'out'}put_blocks.{index}.{inner}")
    if match := UNET_RESIZE.fullmatch(key):
        level, leaf = int(match[1]), match[3]
        if match[2] == "down":
            return Source(f"{UNET}input_blocks.{(level + 1) * (n + 1)}.0.op.{leaf}")
        place = 2 if config["up_block_types"][level].startswith("CrossAttn") else 1
        return Source(f"{UNET}output_blocks.{level * (n + 1) + n}.{place}.conv.{leaf}")
    if match := UNET_MIDDLE.fullmatch(key):
        kind, block, rest = match.groups()
        if kind == "attentions":
            return Source(f"{UNET}middle_block.1.{rest}")
        return Source(f"{UNET}middle_block.{2 * int(block)}.{_rename(rest, UNET_RESNET)}")
    return Source(UNET + _rename(key, UNET_ENDS))


VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
VAE_SHORTCUT = {"conv_shortcut": "nin_shortcut"}
VAE_BLOCK = re.compile(
    r"(en|de)coder\.(down|up)_blocks\.(\d+)\.(resnets|downsamplers|upsamplers)\.(\d+)\.(.+)"
)
VAE_MIDDLE = re.compile(r"((?:en|de)coder)\.mid_block\.(resnets|attentions)\.(\d)\.(.+)")


def vae_source(key: str, config: Mapping[str, Any]) -> Source:
    """Equation (2); `config` holds block_out_channels."""
    if match := VAE_BLOCK.fullmatch(key):
        coder, side, level, kind, block, rest = match.groups()
        index = int(level) if side == "down" else len(config["block_out_channels"]) - 1 - int(level)
        if kind == "resnets":
            inner = f"block.{block}.{_rename(rest, VAE_SHORTCUT)}"
        else:
            inner = f"{kind.removesuffix('rs')}.{rest}"  # downsample, upsample
        return Source(f"{VAE}{coder}coder.{side}.{index}.{inner}")
    if match := VAE_MIDDLE.fullmatch(key):
        coder, kind, block, rest = match.groups()
        if kind == "attentions":
            return Source(f"{VAE}{coder}.mid.attn_1.{_rename(rest, VAE_ATTENTION)}")
        return Source(f"{VAE}{coder}.mid.block_{int(block) + 1}.{_rename(rest, VAE_SHORTCUT)}")
    return Source(VAE + key.replace("conv_norm_out", "norm_out"))


OPEN_CLIP_ENDS = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
}
OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
THIRDS = {"self_attn.q_proj": 0, "self_attn.k_proj": 1, "self_attn.v_proj": 2}
TEXT_LAYER = re.compile(r"text_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")


def clip_text_source(key: str, config: Mapping[str, Any]) -> Source:
    """Equation (3) of 1.x."""
    del config
    return Source(CLIP_TEXT + key)


def open_clip_source(key: str, config: Mapping[str, Any]) -> Source:
    """Equation (3) of 2.x."""
    del config
    if key in OPEN_CLIP_ENDS:
        return Source(OPEN_CLIP + OPEN_CLIP_ENDS[key])
    match = TEXT_LAYER.fullmatch(key)
    if match is None:
        raise ValueError(f"OpenCLIP's text tower has nothing like {key}")
    layer, name, leaf = match.groups()
    place = f"{OPEN_CLIP}transformer.resblocks.{layer}."
    if name in THIRDS:
        return Source(f"{place}attn.in_proj_{leaf}", THIRDS[name])
    return Source(f"{place}{OPEN_CLIP_LAYER[name]}.{leaf}")


# What training left in the files: the noise schedule, the moving average of the UNet (which
# diffusers leaves aside too), losses, masks; and in the depth model's file, the depth estimator.
IGNORED = re.compile(
    r"(?:betas|alphas_cumprod(?:_prev)?|sqrt_\w+|log_one_minus_alphas_cumprod|posterior_\w+"
    r"|logvar|lvlb_weights|scale_factor|global_step)"
    r"|model_ema\..*|depth_model\..*|first_stage_model\.loss\..*"
    r"|cond_stage_model\.(?:logit_scale|transformer\.(?:text_model\.)?embeddings\.position_ids)"
    r"|cond_stage_model\.model\.(?:logit_scale|text_projection|attn_mask)"
)
