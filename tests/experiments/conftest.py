import dataclasses

import numpy as np
import pytest

from geojax.models.clip import CLIPTextConfig
from geojax.models.clip_vision import CLIP, CLIPConfig, CLIPVisionConfig
from geojax.models.dpt import DPT, DPTConfig
from geojax.models.unet import UNet
from geojax.priors.depth_input import HALF, DepthInput
from geojax.weights.folder import load_config, save_component
from geojax.weights.model_folder import ClipInput, save_model
from tests.golden import depth_models
from tests.tiny_family import IMAGE_SIZE, write_worlds_family
from tests.weights.tiny_family import UNET, random_params


@pytest.fixture(scope="session")
def family(tmp_path_factory):
    """The folder of a tiny random family."""
    return write_worlds_family(tmp_path_factory.mktemp("family") / "tiny")


@pytest.fixture(scope="session")
def clip_folder(family, tmp_path_factory):
    """A tiny random CLIP with the vocabulary of the worlds."""
    fields = load_config(family / "text_encoder", "CLIPTextModel")
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=IMAGE_SIZE,
        patch_size=8,
    )
    config = CLIPConfig(CLIPTextConfig.from_dict(fields), vision, projection_dim=8)
    params = random_params(CLIP(config))
    params["logit_scale"] = np.float32(2.0)
    folder = tmp_path_factory.mktemp("clip") / "clip"
    inputs = ClipInput(IMAGE_SIZE, IMAGE_SIZE).to_dict()
    tokenizer = family / "tokenizer"
    save_model(folder, params, config.to_dict(), tokenizer=tokenizer, preprocessor=inputs)
    return folder


@pytest.fixture(scope="session")
def inpainting_folder(family, tmp_path_factory):
    """The tiny family with an UNet of 9 channels."""
    folder = tmp_path_factory.mktemp("inpainting") / "family"
    folder.mkdir()
    for part in family.iterdir():
        if part.name not in ("unet", "judge"):
            (folder / part.name).symlink_to(part)
    unet = UNet(dataclasses.replace(UNET, in_channels=9))
    save_component(folder / "unet", random_params(unet), unet.config.to_dict())
    return folder


@pytest.fixture(scope="session")
def depth_folder(tmp_path_factory):
    """The folder of a DPT with two blocks and two maps."""
    fields = {**depth_models.DPT_TINY, "num_hidden_layers": 2, "backbone_out_indices": [0, 1]}
    fields |= {"neck_hidden_sizes": [8, 12], "reassemble_factors": [2, 1]}
    config = DPTConfig.from_dict(fields)
    path = tmp_path_factory.mktemp("depth") / "model"
    settings = DepthInput(32, 32, True, 8, "cubic", HALF)
    params = depth_models.parameters(DPT(config))
    save_model(path, params, config.to_dict(), preprocessor=settings.to_dict())
    return path
