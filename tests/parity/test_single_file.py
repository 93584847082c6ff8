"""One-file checkpoints read as diffusers' own converters read them, tensor by tensor."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import transformers  # noqa: E402
from diffusers import AutoencoderKL, UNet2DConditionModel  # noqa: E402
from diffusers.loaders import single_file_utils as oracle  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from geojax.weights.single_file import load_single_file, single_file_configs  # noqa: E402
from tests.weights.ldm_file import (  # noqa: E402
    IMAGE_SIZE,
    UNETS,
    diffusers_tensors,
    modules,
    write_ldm_file,
)

pytestmark = pytest.mark.parity

LAST = "text_model.encoder.layers.2."


def converted(file, config):
    """Key -> tensor by component, from diffusers."""
    tensors = load_file(file)
    vae = {**config["vae"], "down_block_types": list(config["vae"]["down_block_types"])}
    text = oracle.convert_ldm_clip_checkpoint(dict(tensors))
    if not text:
        model = transformers.CLIPTextModel(transformers.CLIPTextConfig(**config["text_encoder"]))
        # The converter leaves the last layer out by its number in the released file, 23.
        text = {
            key: value
            for key, value in oracle.convert_open_clip_checkpoint(model, dict(tensors)).items()
            if not key.startswith(LAST) and key != "text_projection.weight"
        }
    return {
        "unet": oracle.convert_ldm_unet_checkpoint(dict(tensors), config["unet"]),
        "vae": oracle.convert_ldm_vae_checkpoint(dict(tensors), vae),
        "text_encoder": {k: v for k, v in text.items() if not k.endswith("position_ids")},
    }


@pytest.mark.parametrize("name", UNETS)
def test_every_tensor_is_where_diffusers_puts_it(name, tmp_path):
    file = tmp_path / "model.safetensors"
    write_ldm_file(file, name)
    configs = single_file_configs(file, IMAGE_SIZE)
    found = load_single_file(file, modules(name))
    for part, expected in converted(file, configs).items():
        tensors = diffusers_tensors(found[part])
        assert set(tensors) == set(expected), part
        for key, value in expected.items():
            np.testing.assert_array_equal(tensors[key], value.numpy(), err_msg=key)


@pytest.mark.parametrize("name", ["sd1_inpaint", "sd2"])
def test_the_configs_build_pytorchs_networks_for_these_tensors(name, tmp_path):
    file = tmp_path / "model.safetensors"
    params = write_ldm_file(file, name)
    configs = single_file_configs(file, IMAGE_SIZE)
    for part, cls in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL)):
        state = {k: torch.from_numpy(v) for k, v in diffusers_tensors(params[part]).items()}
        cls.from_config(configs[part]).load_state_dict(state, strict=True)
