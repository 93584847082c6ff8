"""Depth from one image: DPT and Depth Anything, as a method sees them.

Symbols: x image in [0, 1] [B, H, W, 3]; d disparity, larger where nearer, up to a scale and, for
most models, a shift; r a reference; m a mask; z z-depth; sums run over one image where m.
    (1) predict   d = resize(network(input of x)), to x's own size by PyTorch's cubic
    (2) depth     z = 1 / max(d, floor)
    (3) align     s, t = argmin sum m (s d + t - r)^2
                  s = sum (d - mean d)(r - mean r) / sum (d - mean d)^2,  t = mean r - s mean d

Ranftl et al., "Vision Transformers for Dense Prediction" (2021); (3) Ranftl et al., "Towards Robust
Monocular Depth Estimation" (2020), eq. 4.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from geojax.models.depth_anything import DepthAnything, DepthAnythingConfig
from geojax.models.dpt import DPT, DPTConfig
from geojax.models.resize import resize
from geojax.priors.depth_input import HALF, IMAGENET, DepthInput, read_depth_input
from geojax.priors.prior import Image, Params
from geojax.weights.folder import config_class, load_component, load_config
from geojax.weights.hub import resolve_folder
from geojax.weights.model_folder import save_model
from geojax.weights.pipeline_folder import read_pipeline_index

Disparity = Float[Array, "B H W"]
ESTIMATOR, PROCESSOR = "depth_estimator", "feature_extractor"  # inside a pipeline
CLASSES = ("DPTForDepthEstimation", "DepthAnythingForDepthEstimation")
# Of a network that predicts metres; nothing it was trained on is nearer.
NEAREST = 1e-3


@dataclasses.dataclass(frozen=True)
class DepthModel:
    """A depth model: its parameters and a pure function of them.

    Attributes:
      params: a pytree, as in the file.
      predict: (params, image [B, H, W, 3] in [0, 1]) -> disparity [B, H, W], equation (1), float32.
        Of any size. Differentiable in both. The cubic can undershoot 0 at an edge.
      metric: whether the disparity is 1 / metres; else up to scale and shift.
      image_size: side of the images it was trained on.
    """

    params: Params
    predict: Callable[[Params, Image], Disparity]
    metric: bool
    image_size: int


class DepthFiles(NamedTuple):
    """A depth model's files, no weights read: its folder, network and input."""

    folder: Path
    module: DPT | DepthAnything
    input: DepthInput


class Alignment(NamedTuple):
    """s and t of equation (3), [B]."""

    scale: Float[Array, "B"]
    shift: Float[Array, "B"]

    def __call__(self, disparity: Disparity) -> Disparity:
        """s d + t."""
        return self.scale[:, None, None] * disparity + self.shift[:, None, None]


def open_depth(
    path: str | Path,
    *,
    dtype: DTypeLike = jnp.float32,
    revision: str | None = None,
    variant: str | None = None,
    local_files_only: bool = False,
) -> DepthFiles:
    """The files of a depth model; arguments and errors as `load_depth`."""
    folder = resolve_folder(
        path,
        revision=revision,
        variant=variant,
        local_files_only=local_files_only,
        components=(".", ESTIMATOR, PROCESSOR),
    )
    processor = folder
    if (folder / "model_index.json").is_file():
        index = read_pipeline_index(folder)
        if ESTIMATOR not in index:
            raise ValueError(
                f"{folder} is a {index.get('_class_name')} without {ESTIMATOR}; expected a depth "
                f"model ({' or '.join(CLASSES)}) or a pipeline that has one"
            )
        folder, processor = folder / ESTIMATOR, folder / PROCESSOR
    fields = load_config(folder)
    found = config_class(fields)
    if found not in CLASSES:
        raise ValueError(f"{folder} holds a {found}, expected a {' or a '.join(CLASSES)}")
    if found == "DPTForDepthEstimation":
        config = DPTConfig.from_dict(fields)
        size, patch, statistics = config.image_size, config.patch_size, HALF
        module: DPT | DepthAnything = DPT(config, dtype)
    else:
        anything = DepthAnythingConfig.from_dict(fields)
        size, patch, statistics = anything.backbone_config.image_size, anything.patch_size, IMAGENET
        module = DepthAnything(anything, dtype)
    return DepthFiles(folder, module, read_depth_input(processor, size, patch, statistics))


def load_depth(
    path: str | Path,
    *,
    dtype: DTypeLike = jnp.float32,
    revision: str | None = None,
    variant: str | None = None,
    local_files_only: bool = False,
) -> DepthModel:
    """A depth model from a folder with config.json, weights and preprocessor_config.json.

    Args:
      path: a folder or a hub id such as "Intel/dpt-large", "Intel/dpt-hybrid-midas" or
        "depth-anything/Depth-Anything-V2-Small-hf"; or a pipeline with a `depth_estimator`, such
        as "stabilityai/stable-diffusion-2-depth".
      dtype: of parameters and computation; the disparity is float32.
      revision: of the hub's repository.
      variant: "fp16" to read `*.fp16.safetensors`.
      local_files_only: do not ask the network for a hub id.

    Raises:
      FileNotFoundError: the folder or its weights are absent.
      ValueError: another kind of folder (says which), an unsupported config, or damaged weights.
    """
    files = open_depth(
        path,
        dtype=dtype,
        revision=revision,
        variant=variant,
        local_files_only=local_files_only,
    )
    params = load_component(files.folder, files.module, dtype=dtype, variant=variant)
    return depth_model(files.module, files.input, params)


def depth_model(module: DPT | DepthAnything, settings: DepthInput, params: Params) -> DepthModel:
    """The model of a network, of how it is fed, and of its parameters."""
    kind = getattr(module.config, "depth_estimation_type", "relative")

    def predict(params: Params, image: Image) -> Disparity:
        found = module.apply({"params": params}, settings.pixels(image))
        if kind == "metric":
            found = 1.0 / jnp.maximum(found, NEAREST)
        size = image.shape[1:3]
        return resize(found[..., None], size, "cubic", align_corners=False)[..., 0]

    return DepthModel(params, predict, kind == "metric", max(settings.height, settings.width))


def save_depth(
    path: str | Path,
    target: str | Path,
    *,
    params: Params | None = None,
    dtype: DTypeLike = jnp.float32,
    overwrite: bool = False,
    **files: Any,
) -> None:
    """Write a depth model to a folder that transformers reads: all of it or nothing.

    Args:
      path: as in `load_depth`, like `files`: revision, variant, local_files_only.
      target: the new folder.
      params: in place of the file's, such as tuned ones.
      dtype: on disk.
      overwrite: replace a folder that differs.

    Raises:
      FileExistsError: the folder exists and differs.
      FileNotFoundError, ValueError, OSError: as `load_depth` and `save_component`.
    """
    found = open_depth(path, **files)
    if params is None:
        params = load_component(found.folder, found.module, variant=files.get("variant"))
    save_model(
        target,
        params,
        found.module.config.to_dict(),
        dtype=dtype,
        preprocessor=found.input.to_dict(),
        overwrite=overwrite,
    )


def depth_from_disparity(disparity: Float[Array, "*b"], floor: float) -> Float[Array, "*b"]:
    """Equation (2): positive, at most 1 / floor; no gradient where the floor holds.

    Raises:
      ValueError: a floor that is not positive.
    """
    if not floor > 0:
        raise ValueError(f"floor={floor} must be positive: it is the disparity of the farthest")
    return 1.0 / jnp.maximum(disparity, floor)


def align(disparity: Disparity, reference: Disparity, mask: Bool[Array, "B H W"]) -> Alignment:
    """Equation (3) of every image.

    Args:
      disparity: d, or anything else that is to be scaled and shifted.
      reference: r; read only where `mask`.
      mask: m. Where d is constant on it, s = 1; where it is empty, s = 1 and t = 0.
    """
    count = jnp.sum(mask, axis=(1, 2))
    some = jnp.maximum(count, 1).astype(jnp.float32)

    def mean(x: Disparity) -> Float[Array, "B"]:
        return jnp.sum(jnp.where(mask, x, 0.0), axis=(1, 2)) / some

    # A reference is often infinite or nan where it is not known.
    reference = jnp.where(mask, reference, 0.0)
    centre, target = mean(disparity), mean(reference)
    d = disparity - centre[:, None, None]
    spread = mean(jnp.square(d))
    # Rounding of a constant is not spread.
    flat = spread <= 1e-12 * jnp.square(centre)
    joint = mean(d * (reference - target[:, None, None]))
    scale = jnp.where(flat, 1.0, joint / jnp.where(flat, 1.0, spread))
    return Alignment(scale, jnp.where(count > 0, target - scale * centre, 0.0))
