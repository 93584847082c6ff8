"""Depth models against transformers', through folders that transformers has written."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from geojax.models.resize import resize  # noqa: E402
from geojax.weights.folder import load_component, load_config, named_leaves  # noqa: E402
from geojax.weights.key_tables import current_key, file_key, to_file  # noqa: E402
from tests.golden import cases, depth_models  # noqa: E402
from tests.golden.make_golden import to_numpy, to_torch  # noqa: E402
from tests.parity.full_size import gradient_error  # noqa: E402

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
