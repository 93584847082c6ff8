"""A whole pipeline in Stable Diffusion's folder layout: components, scheduler, tokenizer, index.

model_index.json
unet/ vae/ text_encoder/    config.json and safetensors
scheduler/                  scheduler_config.json
tokenizer/                  vocab.json, merges.txt, tokenizer_config.json, ...
depth_estimator/            config.json and safetensors    where the model is shown a depth map
feature_extractor/          preprocessor_config.json       of the depth estimator
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike

from geojax.weights.folder import Params, config_class, load_config, save_component
from geojax.weights.new_folder import new_folder
from geojax.weights.safetensors_io import listing, read_json

TOKENIZER_FILES = (
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)

# Other networks may lie beside these; diffusers refuses an index that names them.
NETWORKS = ("unet", "vae", "text_encoder")
# The one whose index names a depth estimator too.
DEPTH_PIPELINE = "StableDiffusionDepth2ImgPipeline"

# Whose layout is written; diffusers' inpainting pipeline does not load an index without it.
DIFFUSERS_VERSION = "0.40.0"

# Stable Diffusion's; with prediction_type "v_prediction" for the 768-pixel models of 2.x.
STABLE_DIFFUSION_SCHEDULER: Mapping[str, Any] = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "clip_sample": False,
}


class Component(NamedTuple):
    """A network's parameters and the fields of its config.json."""

    params: Params
    config: Mapping[str, Any]


def read_pipeline_index(path: str | Path) -> dict[str, Any]:
    """model_index.json: component -> [library, class]; absent components are left out.

    Raises:
      FileNotFoundError: no such folder or no index in it.
      ValueError: a single component, or a damaged index.
    """
    folder = Path(path)
    if folder.is_file():
        raise ValueError(f"{folder} is a file, expected a folder in Stable Diffusion's layout")
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    file = folder / "model_index.json"
    if not file.is_file():
        if (folder / "config.json").is_file():
            kind = config_class(load_config(folder))
            raise ValueError(f"{folder} is a component ({kind}), expected the pipeline around it")
        raise FileNotFoundError(f"no model_index.json in {folder}; found {listing(folder)}")
    index = read_json(file)
    return {k: v for k, v in index.items() if v is not None and v != [None, None]}


def copy_tokenizer(source: str | Path, target: Path) -> None:
    """Copy a CLIP tokenizer, with the vocab.json and merges.txt that older readers want.

    transformers 5 saves tokenizer.json alone: the two are then taken out of it.

    Raises:
      FileNotFoundError: neither form is in `source`.
    """
    source = Path(source)
    target.mkdir(parents=True, exist_ok=True)
    present = [source / name for name in TOKENIZER_FILES if (source / name).is_file()]
    for file in present:
        shutil.copyfile(file, target / file.name)
    names = {file.name for file in present}
    if {"vocab.json", "merges.txt"} <= names:
        return
    if "tokenizer.json" not in names:
        found = listing(source) if source.is_dir() else "no such folder"
        raise FileNotFoundError(
            f"no tokenizer in {source}: looked for vocab.json and merges.txt, or tokenizer.json; "
            f"found {found}"
        )
    model = read_json(source / "tokenizer.json")["model"]
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    (target / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), "utf-8")
    (target / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", "utf-8")


def write_pipeline_files(
    folder: str | Path,
    scheduler: Mapping[str, Any] = STABLE_DIFFUSION_SCHEDULER,
    tokenizer: str | Path | None = None,
    class_name: str = "StableDiffusionPipeline",
) -> None:
    """Around the components in `folder`: scheduler, tokenizer and model_index.json.

    Args:
      folder: holds components written by `save_component`.
      scheduler: fields of scheduler_config.json with `_class_name`.
      tokenizer: folder to copy it from; None leaves `folder/tokenizer` as it is.
      class_name: the pipeline's class in diffusers.

    Raises:
      FileNotFoundError: there is no tokenizer.
    """
    folder = Path(folder)
    if tokenizer is not None:
        copy_tokenizer(tokenizer, folder / "tokenizer")
    index: dict[str, Any] = {
        "_class_name": class_name,
        "_diffusers_version": DIFFUSERS_VERSION,
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", scheduler["_class_name"]],
    }
    networks: tuple[str, ...] = NETWORKS
    if class_name == DEPTH_PIPELINE:
        networks = (*NETWORKS, "depth_estimator")
        index["feature_extractor"] = ["transformers", "DPTImageProcessor"]
        for name in ("safety_checker", "requires_safety_checker"):  # it takes neither
            del index[name]
    for name in networks:
        if (folder / name).is_dir():
            fields = load_config(folder / name)
            library = "diffusers" if "_class_name" in fields else "transformers"
            index[name] = [library, config_class(fields)]
    if (folder / "tokenizer").is_dir():
        index["tokenizer"] = ["transformers", "CLIPTokenizer"]
    (folder / "scheduler").mkdir(exist_ok=True)
    _write_json(folder / "scheduler" / "scheduler_config.json", dict(scheduler))
    # The index comes last: a folder without it is not taken for a pipeline.
    _write_json(folder / "model_index.json", index)


def _write_json(file: Path, value: dict[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def save_pipeline(
    path: str | Path,
    components: Mapping[str, Component],
    scheduler: Mapping[str, Any] = STABLE_DIFFUSION_SCHEDULER,
    tokenizer: str | Path | None = None,
    class_name: str = "StableDiffusionPipeline",
    dtype: DTypeLike = jnp.float32,
    *,
    preprocessor: Mapping[str, Any] | None = None,
    max_shard_bytes: int | None = None,
    overwrite: bool = False,
) -> None:
    """Write a whole pipeline: all of it or nothing.

    Args:
      path: the pipeline's folder.
      components: "unet", "text_encoder" and, unless it works on pixels, "vae"; with
        `DEPTH_PIPELINE` also "depth_estimator".
      scheduler: as in `write_pipeline_files`, like `tokenizer` and `class_name`.
      tokenizer: folder of the tokenizer.
      class_name: the pipeline's class.
      dtype: on disk.
      preprocessor: of the depth estimator's images, fields of preprocessor_config.json.
      max_shard_bytes: as in `save_component`.
      overwrite: replace a folder that differs.

    Raises:
      FileExistsError: the folder exists and differs.
      ValueError, OSError: as `save_component`.
    """
    with new_folder(Path(path), overwrite) as folder:
        if preprocessor is not None:
            (folder / "feature_extractor").mkdir()
            file = folder / "feature_extractor" / "preprocessor_config.json"
            _write_json(file, dict(preprocessor))
        for name, (params, config) in components.items():
            save_component(
                folder / name, params, config, dtype=dtype, max_shard_bytes=max_shard_bytes
            )
        write_pipeline_files(folder, scheduler, tokenizer, class_name)
