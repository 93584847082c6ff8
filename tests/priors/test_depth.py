"""Depth models as a method sees them: input, output, tuning, alignment, bad folders."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil

from geojax.models.clip import CLIPText
from geojax.models.dpt import DPT, DPTConfig
from geojax.priors.depth import (
    align,
    depth_from_disparity,
    depth_model,
    load_depth,
    open_depth,
    save_depth,
)
from geojax.priors.depth_input import HALF, IMAGENET, DepthInput, read_depth_input
from geojax.weights.folder import abstract_params, save_component
from geojax.weights.model_folder import save_model
from tests.golden import depth_models
from tests.weights.tiny_family import TEXT, random_params

CONFIG = DPTConfig.from_dict({**depth_models.DPT_TINY, "reassemble_factors": [2, 1, 0.5, 0.25]})
SETTINGS = DepthInput(32, 32, True, 8, "cubic", HALF)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("depth") / "model"
    params = depth_models.parameters(DPT(CONFIG))
    save_model(path, params, CONFIG.to_dict(), preprocessor=SETTINGS.to_dict())
    return path


@pytest.fixture(scope="module")
def model(folder):
    return load_depth(folder)


@pytest.fixture(scope="module")
def slope(model):
    """(params, image) -> error against a ramp, disparity, and the error's gradient; compiled."""

    def loss(params, image):
        disparity = model.predict(params, image)
        ramp = jnp.linspace(0.5, 1.5, disparity.shape[1])[None, :, None]
        return jnp.mean(jnp.square(disparity - ramp)), disparity

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


@pytest.fixture(scope="module")
def image():
    rng = np.random.default_rng(3)
    coarse = rng.uniform(size=(1, 5, 7, 3)).astype(np.float32)
    return np.asarray(jax.image.resize(coarse, (1, 30, 47, 3), "linear"))


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def change(file, **fields):
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def test_prediction_has_the_images_size_and_can_be_tuned(model, slope, image):
    """Test-time tuning: a step down the gradient of every weight lowers the error."""
    assert (model.metric, model.image_size) == (False, 32)
    (before, disparity), gradient = slope(model.params, image)
    assert disparity.shape == (1, 30, 47)
    assert disparity.dtype == jnp.float32
    assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(gradient))
    norm = float(np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(gradient))))
    # The error falls by the step times the squared norm, to first order.
    step = 0.05 * float(before) / norm**2
    tuned = jax.tree.map(lambda p, g: p - step * g, model.params, gradient)
    (after, _), _ = slope(tuned, image)
    assert float(after) == pytest.approx(0.95 * float(before), rel=0.02)


def test_the_folder_written_with_tuned_parameters_is_read_back(folder, model, tmp_path):
    tuned = jax.tree.map(lambda p: p + 1.0, model.params)
    save_depth(folder, tmp_path / "tuned", params=tuned)
    files, found = open_depth(tmp_path / "tuned"), load_depth(tmp_path / "tuned")
    assert (files.module.config, files.input) == (CONFIG, SETTINGS)
    jax.tree.map(np.testing.assert_array_equal, found.params, tuned)
    with pytest.raises(FileExistsError):
        save_depth(folder, tmp_path / "tuned")


@pytest.mark.parametrize(("height", "width"), [(32, 32), (40, 61), (61, 40), (18, 30), (64, 20)])
@pytest.mark.parametrize(("keep", "resample"), [(True, 3), (False, 2)])
def test_the_input_is_transformers_up_to_its_rounding(height, width, keep, resample, rng):
    noise = rng.uniform(-0.3, 1.3, size=(6, 6, 3))
    large = jax.image.resize(jnp.asarray(noise, jnp.float32), (height, width, 3), "linear")
    image = np.array(jnp.clip(large, 0.0, 1.0))
    image[: height // 2, : width // 2] = 1.0
    image = np.round(255.0 * image) / 255.0
    method = {2: "linear", 3: "cubic"}[resample]
    settings = DepthInput(32, 24, keep, 4, method, IMAGENET)
    fields = {k: v for k, v in settings.to_dict().items() if k != "image_processor_type"}
    processor = DPTImageProcessorPil(**fields)
    pil = Image.fromarray(np.round(255.0 * image).astype(np.uint8))
    expected = processor(pil, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    found = settings.pixels(jnp.asarray(image, jnp.float32)[None])[0]
    # Two roundings of half a step (one a direction), times the filter's gain, over sigma.
    assert np.max(np.abs(found - expected)) < 2.0 / 255.0 / 0.22


def test_a_long_strip_still_has_a_patch():
    assert DepthInput(32, 32, False, 8, "cubic", HALF).size(1, 999) == (32, 32)
    assert DepthInput(32, 32, True, 8, "cubic", HALF).size(2, 40) == (8, 32)


def test_settings_of_older_files_and_of_none(tmp_path):
    assert read_depth_input(tmp_path, 32, 8, IMAGENET) == DepthInput(
        32, 32, True, 8, "cubic", IMAGENET
    )
    file = tmp_path / "preprocessor_config.json"
    # Intel/dpt-large: one number for the size, bilinear, any multiple.
    file.write_text(json.dumps({"size": 48, "resample": 2, "image_mean": [0.4] * 3}))
    found = read_depth_input(tmp_path, 32, 8, HALF)
    assert found == DepthInput(48, 48, False, 8, "linear", HALF._replace(mean=(0.4,) * 3))
    file.write_text(json.dumps({"ensure_multiple_of": 12}))
    assert read_depth_input(tmp_path, 32, 8, HALF).multiple == 24


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"do_normalize": False}, r"\['do_normalize'\] is unsupported"),
        ({"do_pad": True}, "do_pad is unsupported"),
        ({"resample": 0}, "resample=0"),
        ({"rescale_factor": 1.0}, "rescale_factor=1.0"),
        ({"size": {"shortest_edge": 3}}, "shortest_edge"),
        ({"image_mean": [0.5]}, "3 entries"),
    ],
)
def test_inputs_that_are_not_supported_are_refused(fields, message, copy):
    change(copy / "preprocessor_config.json", **fields)
    with pytest.raises(ValueError, match=message):
        open_depth(copy)


def test_a_metric_model_gives_one_over_metres():
    module = depth_models.depth_anything("metric")
    params = depth_models.parameters(module)
    settings = DepthInput(16, 16, False, 4, "cubic", HALF)
    model = depth_model(module, settings, params)
    assert model.metric
    image = jnp.full((1, 16, 16, 3), 0.5)
    metres = jax.jit(module.apply)({"params": params}, jnp.zeros((1, 16, 16, 3)))
    found = jax.jit(model.predict)(params, image)
    np.testing.assert_allclose(found, 1.0 / metres, rtol=1e-4)


def test_a_pipelines_estimator_is_found(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "sd" / "depth_estimator")
    processor = tmp_path / "sd" / "feature_extractor" / "preprocessor_config.json"
    processor.parent.mkdir()
    shutil.move(tmp_path / "sd" / "depth_estimator" / "preprocessor_config.json", processor)
    change(processor, size=48)
    index = {"_class_name": "X", "depth_estimator": ["transformers", "DPTForDepthEstimation"]}
    (tmp_path / "sd" / "model_index.json").write_text(json.dumps(index))
    files = open_depth(tmp_path / "sd")
    assert files.folder == tmp_path / "sd" / "depth_estimator"
    assert files.input.height == 48


def test_other_folders_are_named_for_what_they_are(tmp_path, copy):
    save_component(tmp_path / "text", random_params(CLIPText(TEXT)), TEXT.to_dict())
    with pytest.raises(ValueError, match="holds a CLIPTextModel, expected a DPTForDepth"):
        load_depth(tmp_path / "text")
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusion"}))
    with pytest.raises(ValueError, match="is a StableDiffusion without depth_estimator"):
        load_depth(tmp_path)
    with pytest.raises(FileNotFoundError, match="neither a folder nor a hub id"):
        load_depth(tmp_path / "nothing" / "here")
    change(copy / "config.json", architectures=["DPTForSemanticSegmentation"])
    with pytest.raises(ValueError, match="holds a DPTForSemanticSegmentation"):
        load_depth(copy)


def test_damaged_weights_are_refused(copy):
    file = copy / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    with pytest.raises(ValueError, match="digest"):
        load_depth(copy)
    change(copy / "config.json", fusion_hidden_size=24)
    with pytest.raises(ValueError, match=r"mis-shaped \(47\):\n  head"):
        load_depth(copy)


def test_depth_is_bounded_and_flat_beyond_the_floor():
    disparity = jnp.array([-1.0, 0.0, 0.01, 0.5, 4.0])
    np.testing.assert_allclose(
        depth_from_disparity(disparity, 0.02), [50, 50, 50, 2, 0.25], rtol=1e-6
    )
    slope = jax.grad(lambda d: jnp.sum(depth_from_disparity(d, 0.02)))(disparity)
    np.testing.assert_allclose(slope, [0, 0, 0, -4.0, -1 / 16], rtol=1e-6)
    with pytest.raises(ValueError, match=r"floor=0\.0 must be positive"):
        depth_from_disparity(disparity, 0.0)


def test_alignment_is_least_squares(rng):
    disparity = rng.uniform(2, 5, size=(3, 8, 9)).astype(np.float32)
    reference = (0.3 * disparity - 0.7 + 0.1 * rng.standard_normal((3, 8, 9))).astype(np.float32)
    mask = rng.uniform(size=(3, 8, 9)) < 0.6
    reference[~mask] = np.inf
    found = align(jnp.asarray(disparity), jnp.asarray(reference), jnp.asarray(mask))
    for b in range(3):
        d, r = disparity[b][mask[b]], reference[b][mask[b]]
        expected, *_ = np.linalg.lstsq(np.stack([d, np.ones_like(d)], 1), r, rcond=None)
        np.testing.assert_allclose([found.scale[b], found.shift[b]], expected, rtol=1e-3)
    exact = align(jnp.asarray(disparity), jnp.asarray(2 * disparity + 3), jnp.asarray(mask))
    np.testing.assert_allclose(exact(jnp.asarray(disparity)), 2 * disparity + 3, rtol=1e-5)


def test_alignment_of_nothing_and_of_a_constant_is_finite():
    disparity = jnp.full((2, 4, 4), 3.0)
    reference = jnp.full((2, 4, 4), 5.0)
    mask = jnp.stack([jnp.ones((4, 4), bool), jnp.zeros((4, 4), bool)])
    found = align(disparity, reference, mask)
    np.testing.assert_allclose(found.scale, [1.0, 1.0])
    np.testing.assert_allclose(found.shift, [2.0, 0.0], atol=1e-6)
    slope = jax.grad(lambda d: jnp.sum(align(d, reference, mask)(d)))(disparity)
    assert np.all(np.isfinite(slope))


def test_abstract_parameters_of_every_kind_are_those_of_the_files():
    """The loader can lay each network out by itself."""
    for module in (DPT(CONFIG), depth_models.dpt("hybrid"), depth_models.depth_anything("metric")):
        assert len(jax.tree.leaves(abstract_params(module))) > 100
