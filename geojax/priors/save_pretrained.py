"""Write any model that can be opened as a folder in Stable Diffusion's layout.

From one original file, a hub id or another folder, with adaptations merged if there are any, to a
folder that `load_stable_diffusion` and PyTorch diffusers read alike. A model that is shown a depth
map comes with its depth estimator, where there is one: an original file's has other names and is
not read, so that one must be given.
"""

import tempfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike

from geojax.models.clip import CLIPText, CLIPTextConfig
from geojax.models.unet import UNet, UNetConfig
from geojax.models.vae import VAE, VAEConfig
from geojax.priors.depth import ESTIMATOR, open_depth
from geojax.priors.model_files import open_model
from geojax.weights.folder import load_component
from geojax.weights.pipeline_folder import (
    DEPTH_PIPELINE,
    Component,
    read_pipeline_index,
    save_pipeline,
)

NETWORKS: dict[str, tuple[Any, Any]] = {
    "unet": (UNet, UNetConfig),
    "vae": (VAE, VAEConfig),
    "text_encoder": (CLIPText, CLIPTextConfig),
}
# By the number of input channels.
INPAINTING_CHANNELS, DEPTH_CHANNELS = 9, 5
HUB = ("revision", "variant", "local_files_only")


def save_pretrained(
    path: str | Path,
    target: str | Path,
    *,
    depth_estimator: str | Path | None = None,
    dtype: DTypeLike = jnp.float32,
    max_shard_bytes: int | None = None,
    overwrite: bool = False,
    **files: Any,
) -> None:
    """Write the model at `path` to the folder `target`: all of it or nothing.

    Args:
      path: a folder, a hub id or an original file, as in `load_stable_diffusion`.
      target: the new folder.
      depth_estimator: as in `load_depth`, for a model that is shown a depth map; None takes the
        model's own, and without one (as in a single file) none is written.
      dtype: on disk; adaptations are merged in float32 before.
      max_shard_bytes: largest file, roughly.
      overwrite: replace a folder that differs.
      files: further arguments of `open_model`: tokenizer, prediction_type, lora, revision, ...

    Raises:
      FileExistsError: the folder exists and differs.
      FileNotFoundError, ValueError, OSError: as `open_model` and `save_pipeline`.
    """
    model = open_model(path, **files)
    modules = {}
    for name, fields in model.configs.items():
        network, config = NETWORKS[name]
        modules[name] = network(config.from_dict(fields))
    # In float32 whatever the target: a merged weight is then rounded once.
    params = model.load({name: (module, jnp.float32) for name, module in modules.items()})
    channels = model.configs["unet"]["in_channels"]
    components = {name: Component(params[name], m.config.to_dict()) for name, m in modules.items()}
    class_name, preprocessor = "StableDiffusionPipeline", None
    if channels == INPAINTING_CHANNELS:
        class_name = "StableDiffusionInpaintPipeline"
    elif channels == DEPTH_CHANNELS and (depth_estimator or _has_estimator(model.path)):
        hub = {} if depth_estimator else {k: files[k] for k in HUB if k in files}
        depth = open_depth(depth_estimator or path, **hub)
        found = load_component(depth.folder, depth.module, variant=hub.get("variant"))
        components[ESTIMATOR] = Component(found, depth.module.config.to_dict())
        class_name, preprocessor = DEPTH_PIPELINE, depth.input.to_dict()
    with tempfile.TemporaryDirectory() as folder:
        model.tokenizer.save_pretrained(folder)
        save_pipeline(
            target,
            components,
            {"_class_name": "DDIMScheduler", **model.scheduler},
            folder,
            class_name,
            dtype,
            preprocessor=preprocessor,
            max_shard_bytes=max_shard_bytes,
            overwrite=overwrite,
        )


def _has_estimator(path: Path) -> bool:
    return path.is_dir() and ESTIMATOR in read_pipeline_index(path)
