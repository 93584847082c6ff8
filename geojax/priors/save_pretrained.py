"""Write any model that can be opened as a folder in Stable Diffusion's layout.

From one original file, a hub id or another folder, with adaptations merged if there are any, to a
folder that `load_stable_diffusion` and PyTorch diffusers read alike.
"""

import tempfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike

from geojax.models.clip import CLIPText, CLIPTextConfig
from geojax.models.unet import UNet, UNetConfig
from geojax.models.vae import VAE, VAEConfig
from geojax.priors.model_files import open_model
from geojax.weights.pipeline_folder import Component, save_pipeline

NETWORKS: dict[str, tuple[Any, Any]] = {
    "unet": (UNet, UNetConfig),
    "vae": (VAE, VAEConfig),
    "text_encoder": (CLIPText, CLIPTextConfig),
}
# By the number of input channels; a depth model's needs its estimator, which is not written.
INPAINTING_CHANNELS = 9


def save_pretrained(
    path: str | Path,
    target: str | Path,
    *,
    dtype: DTypeLike = jnp.float32,
    max_shard_bytes: int | None = None,
    overwrite: bool = False,
    **files: Any,
) -> None:
    """Write the model at `path` to the folder `target`: all of it or nothing.

    Args:
      path: a folder, a hub id or an original file, as in `load_stable_diffusion`.
      target: the new folder.
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
    inpainting = model.configs["unet"]["in_channels"] == INPAINTING_CHANNELS
    with tempfile.TemporaryDirectory() as folder:
        model.tokenizer.save_pretrained(folder)
        save_pipeline(
            target,
            {name: Component(params[name], m.config.to_dict()) for name, m in modules.items()},
            {"_class_name": "DDIMScheduler", **model.scheduler},
            folder,
            "StableDiffusionInpaintPipeline" if inpainting else "StableDiffusionPipeline",
            dtype,
            max_shard_bytes=max_shard_bytes,
            overwrite=overwrite,
        )
