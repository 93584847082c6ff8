"""Depth models against transformers', through folders that transformers has written."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import diffusers  # noqa: E402
import transformers  # noqa: E402
from transformers.models.dpt.image_processing_pil_dpt import (  # noqa: E402
    DPTImageProcessorPil,
)

from geojax.models.resize import resize  # noqa: E402
from geojax.priors.depth import load_depth, open_depth, save_depth  # noqa: E402
from geojax.priors.depth_input import HALF, DepthInput  # noqa: E402
from geojax.priors.save_pretrained import save_pretrained  # noqa: E402
from geojax.weights.folder import load_component, load_config, named_leaves  # noqa: E402
from geojax.weights.key_tables import current_key, file_key, to_file  # noqa: E402
from tests.golden import cases, depth_models  # noqa: E402
from tests.golden.make_golden import to_numpy, to_torch  # noqa: E402
from tests.parity.full_size import gradient_error  # noqa: E402
from tests.weights.tiny_family import UNET, write_family  # noqa: E402

pytestmark = pytest.mark.parity
torch.set_num_threads(1)

SINGLE = 1e-4


def torch_slopes(model, pixels, cotangent, key_of=lambda key: key):
    """Gradients of <disparity, cotangent> by key, and by "latent" that in the image."""
    x = to_torch(pixels).requires_grad_()
    (model(x).predicted_depth * torch.from_numpy(cotangent)).sum().backward()
    slopes = {key_of(k): p.grad for k, p in model.named_parameters()}
    zeros = {k: torch.zeros(v.shape) for k, v in model.named_parameters()}
    found = {k: (zeros[k] if v is None else v).numpy() for k, v in slopes.items()}
    return {**found, "latent": to_numpy(x.grad)}


def slopes(module, params, pixels, cotangent):
    """The same here, and the disparity."""

    @jax.jit
    def run(params, pixels):
        def loss(params, pixels):
            disparity = module.apply({"params": params}, pixels)
            return jnp.sum(disparity * jnp.asarray(cotangent)), disparity

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, pixels)

    (by_parameter, by_pixel), disparity = run(params, jnp.asarray(pixels))
    leaves = named_leaves(by_parameter)
    found = {file_key(path): to_file(path, np.asarray(leaf)) for path, leaf in leaves.items()}
    return disparity, {**found, "latent": np.asarray(by_pixel)}


def check(model, module, class_name, pixels, folder, record):
    """A folder of transformers' gives the same disparity and the same gradients."""
    model.save_pretrained(folder)
    config = type(module.config).from_dict(load_config(folder, class_name))
    assert config == module.config
    params = load_component(folder, module)
    with torch.no_grad():
        expected = model(to_torch(pixels)).predicted_depth.numpy()
    assert np.mean(expected > 0) > 0.5
    cotangent = cases.noise("cotangent", *expected.shape)
    disparity, found = slopes(module, params, pixels, cotangent)
    error = cases.relative_error(disparity, expected)
    theirs = torch_slopes(model, pixels, cotangent, lambda key: current_key(class_name, key))
    assert set(theirs) == set(found)
    wrong = gradient_error(found, theirs)
    record(f"relative_error.{class_name}", error)
    print(f"\n{class_name}: {error:.1e}, gradients {wrong:.1e}", end="")
    assert error < SINGLE
    assert wrong < SINGLE


@pytest.mark.parametrize(
    ("name", "side"), [("as released", 32), ("variations", 48), ("ignore", 40), ("hybrid", 64)]
)
def test_dpt_and_its_gradients_from_pytorchs_folder(name, side, tmp_path, record_property):
    """48 and 40 resample the positions; at 40 the halved map is rounded up."""
    module, model = depth_models.dpt(name), depth_models.torch_model("dpt", name)
    pixels = depth_models.pixels(side, side)
    check(model, module, "DPTForDepthEstimation", pixels, tmp_path, record_property)


@pytest.mark.parametrize(("name", "size"), [("as released", (24, 20)), ("metric", (16, 16))])
def test_depth_anything_and_its_gradients(name, size, tmp_path, record_property):
    """24x20 resamples the positions, and its 6x5 patches do not halve."""
    model = depth_models.torch_model("anything", name)
    module, pixels = depth_models.depth_anything(name), depth_models.pixels(*size)
    check(model, module, "DepthAnythingForDepthEstimation", pixels, tmp_path, record_property)


def test_dpt_of_an_image_that_is_not_square():
    """transformers' own forward takes the patches for a square; its parts do not."""
    model = depth_models.torch_model("dpt", "as released")
    module = depth_models.dpt("as released")
    pixels = depth_models.pixels(32, 48)
    with torch.no_grad():
        states = model.dpt(to_torch(pixels), output_hidden_states=True).hidden_states[1:]
        taps = [states[i] for i in module.config.backbone_out_indices]
        expected = model.head(model.neck(taps, 4, 6)).numpy()
    params = {"params": depth_models.parameters(module)}
    found = jax.jit(module.apply)(params, jnp.asarray(pixels))
    assert found.shape == (2, 64, 96)
    assert cases.relative_error(found, expected) < SINGLE


@pytest.mark.parametrize(("method", "mode"), [("linear", "bilinear"), ("cubic", "bicubic")])
@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", [(10, 8), (3, 9), (7, 1), (5, 4)])
def test_resampling(method, mode, align_corners, size):
    x = cases.noise("map", 2, 5, 4, 3)
    expected = torch.nn.functional.interpolate(
        to_torch(x), size=size, mode=mode, align_corners=align_corners
    )
    found = resize(jnp.asarray(x), size, method, align_corners=align_corners)
    np.testing.assert_allclose(found, to_numpy(expected), atol=1e-5)


def test_from_picture_to_disparity_with_transformers_own_input(tmp_path, rng):
    """The whole way at another size: resampling, network, back to the picture's size."""
    model = depth_models.torch_model("dpt", "variations")
    model.save_pretrained(tmp_path / "theirs")
    settings = DepthInput(32, 32, True, 8, "cubic", HALF)
    processor = DPTImageProcessorPil(
        **{k: v for k, v in settings.to_dict().items() if k != "image_processor_type"}
    )
    processor.save_pretrained(tmp_path / "theirs")
    save_depth(tmp_path / "theirs", tmp_path / "ours")
    oracle, report = transformers.DPTForDepthEstimation.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    for name in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not report.get(name), (name, report[name])
    for key, value in model.state_dict().items():
        assert torch.equal(oracle.state_dict()[key], value), key
    # Smooth, so that rounding to 8 bits between the two directions is all that differs.
    image = np.asarray(jax.image.resize(rng.uniform(size=(6, 6, 3)), (50, 51, 3), "linear"))
    image = np.round(255 * image).astype(np.uint8)
    pixels = processor(image, return_tensors="pt")
    assert pixels["pixel_values"].shape == (1, 3, 32, 32)
    with torch.no_grad():
        found = oracle(**pixels)
    (expected,) = processor.post_process_depth_estimation(found, target_sizes=[(50, 51)])
    ours = load_depth(tmp_path / "ours")
    disparity = jax.jit(ours.predict)(ours.params, jnp.asarray(image[None] / np.float32(255)))
    assert cases.relative_error(disparity[0], expected["predicted_depth"]) < 0.02


def test_diffusers_reads_a_depth_pipeline_with_its_estimator(tmp_path):
    """And a copy of the copy is the same, estimator and all."""
    estimator, folder = tmp_path / "estimator", tmp_path / "sd"
    depth_models.torch_model("dpt", "hybrid").save_pretrained(estimator)
    write_family(tmp_path / "plain", unet=dataclasses.replace(UNET, in_channels=5))
    save_pretrained(tmp_path / "plain", folder, depth_estimator=estimator)
    save_pretrained(folder, tmp_path / "again")
    save_pretrained(tmp_path / "plain", tmp_path / "without")
    assert not (tmp_path / "without" / "depth_estimator").exists()
    for path in (folder, tmp_path / "again"):
        assert json.loads((path / "feature_extractor" / "preprocessor_config.json").read_text())
        # transformers' image processor needs torchvision, which is not there.
        pipeline = diffusers.StableDiffusionDepth2ImgPipeline.from_pretrained(
            path, local_files_only=True, feature_extractor=None
        )
        expected = depth_models.torch_model("dpt", "hybrid").state_dict()
        for key, value in pipeline.depth_estimator.state_dict().items():
            assert torch.equal(expected[key], value), key
    module, params = open_depth(folder).module, load_depth(tmp_path / "again").params
    assert module == depth_models.dpt("hybrid")
    jax.tree.map(np.testing.assert_array_equal, params, depth_models.parameters(module))
