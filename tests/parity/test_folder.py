"""Folders written by geojax read by PyTorch diffusers and transformers, and back: difference 0."""

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from diffusers import AutoencoderKL, UNet2DConditionModel  # noqa: E402
from transformers import CLIPTextConfig as TorchTextConfig  # noqa: E402
from transformers import CLIPTextModel  # noqa: E402

from geojax.models.clip import CLIPText  # noqa: E402
from geojax.models.unet import UNet  # noqa: E402
from geojax.models.vae import VAE  # noqa: E402
from geojax.weights import key_tables  # noqa: E402
from geojax.weights.folder import (  # noqa: E402
    load_component,
    load_config,
    named_leaves,
    save_component,
)
from tests.weights.tiny_family import TEXT, UNET, VAE_CONFIG, random_params  # noqa: E402

pytestmark = pytest.mark.parity
torch.set_num_threads(1)  # as in test_pipeline

SD2_UNET = dataclasses.replace(
    UNET,
    use_linear_projection=True,
    attention_head_dim=(1, 2),
    in_channels=9,
    upcast_attention=True,
)
SD2_TEXT = dataclasses.replace(TEXT, hidden_act="gelu", num_hidden_layers=3, pad_token_id=0)
CASES = {
    "unet_1": (UNet(UNET), UNet2DConditionModel),
    "unet_2_inpainting": (UNet(SD2_UNET), UNet2DConditionModel),
    "vae": (VAE(VAE_CONFIG), AutoencoderKL),
    "text_1": (CLIPText(TEXT), CLIPTextModel),
    "text_2": (CLIPText(SD2_TEXT), CLIPTextModel),
}
TORCH = {np.float32: torch.float32, np.float16: torch.float16}


def state(model):
    """PyTorch's parameters as float32 arrays, under the keys that geojax writes."""
    tensors = {}
    for key, value in model.state_dict().items():
        key = key_tables.current_key(type(model).__name__, key)
        if key is not None:
            tensors[key] = value.float().numpy()
    return tensors


def in_file(params):
    return {
        key_tables.file_key(path): key_tables.to_file(path, np.asarray(value, np.float32))
        for path, value in named_leaves(params).items()
    }


def assert_difference_zero(found, expected):
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert found[key].shape == value.shape, key
        assert float(np.max(np.abs(found[key] - value))) == 0.0, key


def from_pretrained(cls, folder, dtype=torch.float32):
    """Loaded with its own report of keys, which must be empty."""
    model, report = cls.from_pretrained(folder, output_loading_info=True, torch_dtype=dtype)
    for name in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not report.get(name), (name, report[name])
    return model


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("name", CASES)
def test_pytorch_reads_what_geojax_writes(name, dtype, tmp_path):
    module, cls = CASES[name]
    params = random_params(module)
    save_component(tmp_path / name, params, module.config.to_dict(), dtype=dtype)
    model = from_pretrained(cls, tmp_path / name, TORCH[dtype])
    rounded = {
        key: value.astype(dtype).astype(np.float32) for key, value in in_file(params).items()
    }
    assert_difference_zero(state(model), rounded)
    for field, value in dataclasses.asdict(module.config).items():
        theirs = getattr(model.config, field)
        assert (tuple(theirs) if isinstance(theirs, list) else theirs) == value, field


def test_pytorch_reads_the_shards_that_geojax_writes(tmp_path):
    module, cls = CASES["unet_1"]
    params = random_params(module)
    save_component(tmp_path / "u", params, module.config.to_dict(), max_shard_bytes=60_000)
    assert len(list((tmp_path / "u").glob("*.safetensors"))) > 3
    assert_difference_zero(state(from_pretrained(cls, tmp_path / "u")), in_file(params))


def torch_model(name):
    """PyTorch's own initialisation of the same config."""
    module, cls = CASES[name]
    torch.manual_seed(0)
    fields = {k: v for k, v in module.config.to_dict().items() if k != "_class_name"}
    if cls is CLIPTextModel:
        return cls(TorchTextConfig(**fields)).eval()
    return cls.from_config(fields).eval()


@pytest.mark.parametrize("name", CASES)
def test_geojax_reads_what_pytorch_writes(name, tmp_path):
    module, _ = CASES[name]
    model = torch_model(name)
    model.save_pretrained(tmp_path / name)
    assert type(module.config).from_dict(load_config(tmp_path / name)) == module.config
    assert_difference_zero(in_file(load_component(tmp_path / name, module)), state(model))


def test_geojax_reads_pytorchs_shards_variants_and_half_precision(tmp_path):
    module, _ = CASES["unet_1"]
    model = torch_model("unet_1")
    model.save_pretrained(tmp_path / "shards", max_shard_size="60KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 3
    assert_difference_zero(in_file(load_component(tmp_path / "shards", module)), state(model))
    for dtype in (torch.float16, torch.bfloat16):
        half = torch_model("unet_1").to(dtype)
        folder = tmp_path / str(dtype)
        half.save_pretrained(folder, variant="fp16", max_shard_size="60KB")
        assert (folder / "diffusion_pytorch_model.safetensors.index.fp16.json").is_file()
        found = load_component(folder, module, variant="fp16")
        assert_difference_zero(in_file(found), state(half))


def test_there_and_back_gives_the_same_file(tmp_path):
    module, cls = CASES["vae"]
    config = module.config.to_dict()
    save_component(tmp_path / "a", random_params(module), config)
    from_pretrained(cls, tmp_path / "a").save_pretrained(tmp_path / "b")
    save_component(tmp_path / "c", load_component(tmp_path / "b", module), config)
    name = "diffusion_pytorch_model.safetensors"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "c" / name).read_bytes()


def test_pickles_that_pytorch_writes_are_refused(tmp_path):
    model = torch_model("vae")
    model.save_pretrained(tmp_path / "vae", safe_serialization=False)
    with pytest.raises(ValueError, match="convert it to safetensors"):
        load_component(tmp_path / "vae", CASES["vae"][0])
