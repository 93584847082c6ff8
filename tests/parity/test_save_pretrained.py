"""One original file in, a folder out that PyTorch diffusers loads with difference 0."""

import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from diffusers import (  # noqa: E402
    DiffusionPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
)

from geojax.priors.save_pretrained import save_pretrained  # noqa: E402
from geojax.priors.stable_diffusion import load_stable_diffusion  # noqa: E402
from geojax.weights.key_tables import current_key  # noqa: E402
from tests.weights.ldm_file import diffusers_tensors, write_ldm_file  # noqa: E402
from tests.weights.tiny_family import write_tokenizer  # noqa: E402

pytestmark = pytest.mark.parity
torch.set_num_threads(1)

CASES = {
    "sd1": StableDiffusionPipeline,
    "sd1_inpaint": StableDiffusionInpaintPipeline,
    "sd2": StableDiffusionPipeline,
}


@pytest.mark.parametrize("name", CASES)
def test_pytorch_loads_the_folder_made_of_one_file(name, tmp_path):
    file = tmp_path / "model.safetensors"
    params = write_ldm_file(file, name)
    write_tokenizer(tmp_path / "tokenizer")
    prediction = "v_prediction" if name == "sd2" else None
    save_pretrained(file, tmp_path / "folder", prediction_type=prediction)
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "folder", local_files_only=True)
    assert type(pipeline) is CASES[name]
    assert pipeline.scheduler.config.prediction_type == (prediction or "epsilon")
    for part in ("unet", "vae", "text_encoder"):
        model = getattr(pipeline, part)
        state = {current_key(type(model).__name__, k): v for k, v in model.state_dict().items()}
        expected = diffusers_tensors(params[part])
        assert set(state) - {None} == set(expected)
        for key, value in expected.items():
            assert float(np.max(np.abs(state[key].numpy() - value))) == 0.0, key
    # Padding as the model was trained, whichever tokenizer lay beside the file.
    ids = pipeline.tokenizer(["red"], padding="max_length", max_length=12)["input_ids"][0]
    assert ids[-1] == (0 if name == "sd2" else pipeline.tokenizer.eos_token_id)


def test_the_folder_is_the_prior_that_the_file_is(tmp_path):
    file = tmp_path / "model.safetensors"
    write_ldm_file(file, "sd1")
    write_tokenizer(tmp_path / "tokenizer")
    save_pretrained(file, tmp_path / "half", dtype=jnp.float16)
    half, whole = (load_stable_diffusion(p) for p in (tmp_path / "half", file))
    np.testing.assert_allclose(half.embed(["a red mug"]), whole.embed(["a red mug"]), atol=2e-2)
    assert (half.image_size, half.latent_size) == (whole.image_size, whole.latent_size)
