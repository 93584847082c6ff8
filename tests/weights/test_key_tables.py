import numpy as np
import pytest

from geojax.models.clip import CLIPText, CLIPTextConfig
from geojax.models.unet import UNet, UNetConfig
from geojax.models.vae import VAE, VAEConfig
from geojax.weights import key_tables
from geojax.weights.folder import abstract_params, named_leaves


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("conv_in/kernel", "conv_in.weight"),
        ("time_embedding/linear_1/kernel", "time_embedding.linear_1.weight"),
        (
            "down_blocks_0/resnets_1/time_emb_proj/bias",
            "down_blocks.0.resnets.1.time_emb_proj.bias",
        ),
        ("up_blocks_2/upsamplers_0/conv/kernel", "up_blocks.2.upsamplers.0.conv.weight"),
        (
            "mid_block/attentions_0/transformer_blocks_0/attn1/to_out_0/kernel",
            "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0.weight",
        ),
        ("transformer_blocks_0/ff/net_0/proj/bias", "transformer_blocks.0.ff.net.0.proj.bias"),
        ("transformer_blocks_0/norm1/scale", "transformer_blocks.0.norm1.weight"),
        (
            "text_model/encoder/layers_11/layer_norm1/scale",
            "text_model.encoder.layers.11.layer_norm1.weight",
        ),
        (
            "text_model/embeddings/token_embedding/embedding",
            "text_model.embeddings.token_embedding.weight",
        ),
        ("logit_scale", "logit_scale"),
    ],
)
def test_keys_are_those_of_the_released_files(path, key):
    assert key_tables.file_key(tuple(path.split("/"))) == key


@pytest.mark.parametrize(
    ("module", "count", "key", "shape"),
    [
        # The number of tensors in the released files of Stable Diffusion 1.5 (the text encoder's
        # without its position_ids).
        (
            UNet(UNetConfig(cross_attention_dim=768)),
            686,
            "up_blocks.3.attentions.2.transformer_blocks.0.ff.net.0.proj.weight",
            (2560, 320),
        ),
        (
            VAE(
                VAEConfig(
                    block_out_channels=(128, 256, 512, 512),
                    layers_per_block=2,
                    down_block_types=("DownEncoderBlock2D",) * 4,
                    up_block_types=("UpDecoderBlock2D",) * 4,
                )
            ),
            248,
            "decoder.up_blocks.2.resnets.0.conv1.weight",
            (256, 512, 3, 3),
        ),
        (
            CLIPText(
                CLIPTextConfig(hidden_size=768, num_attention_heads=12, intermediate_size=3072)
            ),
            196,
            "text_model.encoder.layers.11.mlp.fc1.weight",
            (3072, 768),
        ),
    ],
)
def test_the_full_sizes_have_the_released_number_of_distinct_keys(module, count, key, shape):
    leaves = named_leaves(abstract_params(module))
    keys = {
        key_tables.file_key(p): key_tables.file_shape(p, leaf.shape) for p, leaf in leaves.items()
    }
    assert len(keys) == len(leaves) == count
    assert keys[key] == shape


def test_layout_of_a_convolution_is_that_of_torch(rng):
    path = ("conv", "kernel")
    kernel = rng.standard_normal((2, 3, 4, 5)).astype(np.float32)  # h, w, I, O
    torch = key_tables.to_file(path, kernel)
    assert torch.shape == key_tables.file_shape(path, kernel.shape) == (5, 4, 2, 3)
    for o, i, h, w in np.ndindex(5, 4, 2, 3):
        assert torch[o, i, h, w] == kernel[h, w, i, o]
    np.testing.assert_array_equal(key_tables.from_file(path, torch), kernel)


def test_layout_of_a_dense_kernel_is_transposed_and_an_embedding_is_not(rng):
    matrix = rng.standard_normal((2, 3)).astype(np.float32)
    np.testing.assert_array_equal(key_tables.to_file(("fc1", "kernel"), matrix), matrix.T)
    np.testing.assert_array_equal(key_tables.from_file(("fc1", "kernel"), matrix.T), matrix)
    np.testing.assert_array_equal(key_tables.to_file(("e", "embedding"), matrix), matrix)


def test_a_kernel_of_another_rank_is_refused():
    with pytest.raises(ValueError, match=r"conv/kernel: a kernel has 2 or 4 axes, this one has 3"):
        key_tables.file_shape(("conv", "kernel"), (3, 4, 5))


def test_only_the_autoencoders_old_attention_is_respelled():
    old = "encoder.mid_block.attentions.0.proj_attn.weight"
    new = "encoder.mid_block.attentions.0.to_out.0.weight"
    assert key_tables.current_key("AutoencoderKL", old) == new
    assert key_tables.current_key("UNet2DConditionModel", old) == old
    assert key_tables.current_shape("AutoencoderKL", new, (8, 8, 1, 1)) == (8, 8)
    # A convolution of 1x1 elsewhere stays one.
    assert key_tables.current_shape("AutoencoderKL", "quant_conv.weight", (8, 8, 1, 1)) == (
        8,
        8,
        1,
        1,
    )
