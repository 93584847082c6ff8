"""The files of a Stable Diffusion, wherever they lie: a folder, the hub, or one original file.

What a folder says in five config files, one file leaves to its shapes, read by
`geojax.weights.single_file`, and three things are not in it at all: the tokenizer, what the network
predicts, and the size of its pictures. LoRA files are merged while the parameters are read.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import logging
from jax.typing import DTypeLike
from transformers import CLIPTokenizer

from geojax.priors.text_condition import TOKENIZER_FILES, load_tokenizer
from geojax.weights.folder import Params, load_component, load_config
from geojax.weights.hub import resolve_folder
from geojax.weights.lora import merge_lora
from geojax.weights.pipeline_folder import STABLE_DIFFUSION_SCHEDULER, read_pipeline_index
from geojax.weights.safetensors_io import PICKLES, listing, read_json
from geojax.weights.single_file import load_single_file, single_file_configs

REQUIRED = ("unet", "text_encoder", "tokenizer", "scheduler")
CLASSES = {
    "unet": "UNet2DConditionModel",
    "text_encoder": "CLIPTextModel",
    "vae": "AutoencoderKL",
}

Lora = Sequence[tuple[str | Path, float]]
# Component -> network and type of its parameters.
Networks = Mapping[str, tuple[Any, DTypeLike]]


class ModelFiles(NamedTuple):
    """Configs of a model, and a function that reads its parameters.

    Attributes:
      path: the folder or file, for messages.
      configs: fields of config.json by component: "unet", "text_encoder" and, unless the model
        works on pixels, "vae".
      scheduler: fields of scheduler_config.json.
      tokenizer: padding as the model was trained.
      load: networks -> parameters by component, adaptations merged.
    """

    path: Path
    configs: Mapping[str, dict[str, Any]]
    scheduler: Mapping[str, Any]
    tokenizer: CLIPTokenizer
    load: Callable[[Networks], dict[str, Params]]


def open_model(
    path: str | Path,
    *,
    tokenizer: str | Path | None = None,
    prediction_type: str | None = None,
    lora: Lora = (),
    revision: str | None = None,
    variant: str | None = None,
    local_files_only: bool = False,
) -> ModelFiles:
    """The files of a model; configs are read, no weights yet.

    Args:
      path: a folder in Stable Diffusion's layout, a hub id, or an original `.safetensors` file.
      tokenizer: a folder to take the tokenizer from; None takes the folder's own, and beside a
        single file `tokenizer/` or the file's folder.
      prediction_type: of a single file, "epsilon" or "v_prediction" (a folder says it itself). None
        means epsilon, with a warning where the file could as well be one of 2.x that predict v.
      lora: (file, scale) to merge, in this order.
      revision, variant, local_files_only: as of `resolve_folder`.

    Raises:
      FileNotFoundError: the folder, the file or a part of it is absent; says what was looked for.
      ValueError: another kind of folder or file, or a damaged one; or a prediction type for a
        folder, whose scheduler names one.
    """
    file = Path(path).expanduser()
    # By the name too: "models/v1.safetensors" that is not there must not pass for a hub id.
    if file.is_file() or file.suffix in (".safetensors", *PICKLES):
        found = _open_file(file, tokenizer, prediction_type)
    else:
        folder = resolve_folder(
            path, revision=revision, variant=variant, local_files_only=local_files_only
        )
        if prediction_type is not None:
            raise ValueError(
                f"prediction_type={prediction_type!r} is for a single file; {folder} says it in "
                "scheduler/scheduler_config.json"
            )
        found = _open_folder(folder, tokenizer, variant)
    if not lora:
        return found

    def load(networks: Networks) -> dict[str, Params]:
        params = found.load(networks)
        for adaptation, scale in lora:
            params = merge_lora(params, adaptation, scale)
        return params

    return found._replace(load=load)


def _open_folder(folder: Path, tokenizer: str | Path | None, variant: str | None) -> ModelFiles:
    index = read_pipeline_index(folder)
    absent = [name for name in REQUIRED if name not in index]
    if absent:
        raise ValueError(
            f"{folder} is a {index.get('_class_name')} without {absent}: "
            f"expected Stable Diffusion's layout with {REQUIRED}"
        )

    def load(networks: Networks) -> dict[str, Params]:
        return {
            name: load_component(folder / name, network, dtype=dtype, variant=variant)
            for name, (network, dtype) in networks.items()
        }

    scheduler = read_scheduler(folder / "scheduler")
    configs = {name: load_config(folder / name, CLASSES[name]) for name in CLASSES if name in index}
    tokens = load_tokenizer(tokenizer or folder / "tokenizer")
    return ModelFiles(folder, configs, scheduler, tokens, load)


def read_scheduler(folder: Path) -> dict[str, Any]:
    """The fields of scheduler_config.json.

    Raises:
      FileNotFoundError: no such file.
    """
    file = folder / "scheduler_config.json"
    if not file.is_file():
        there = listing(folder) if folder.is_dir() else "no such folder"
        raise FileNotFoundError(f"no scheduler_config.json in {folder}; found {there}")
    return read_json(file)


def _open_file(file: Path, tokenizer: str | Path | None, prediction_type: str | None) -> ModelFiles:
    large = prediction_type == "v_prediction"  # The models of 2.x that predict v, 768 pixels.
    configs = single_file_configs(file, image_size=768 if large else 512)
    ambiguous = configs["unet"]["use_linear_projection"] and configs["unet"]["in_channels"] == 4
    if prediction_type is None and ambiguous:
        logging.warning(
            "%s is of Stable Diffusion 2.x, and nothing in it says what it predicts: taken for a "
            "base model (epsilon, 512 pixels). For one of 768 pixels pass "
            'prediction_type="v_prediction".',
            file,
        )
    scheduler = {**STABLE_DIFFUSION_SCHEDULER, "prediction_type": prediction_type or "epsilon"}
    tokens = load_tokenizer(tokenizer or _tokenizer_beside(file))
    # 1.x was trained with the end token as padding, 2.x with token 0, whichever tokenizer this is.
    tokens.pad_token = tokens.convert_ids_to_tokens(configs["text_encoder"]["pad_token_id"])

    def load(networks: Networks) -> dict[str, Params]:
        modules = {name: network for name, (network, _) in networks.items()}
        return load_single_file(file, modules, {name: d for name, (_, d) in networks.items()})

    return ModelFiles(file, configs, scheduler, tokens, load)


def _tokenizer_beside(file: Path) -> Path:
    places = (file.parent / "tokenizer", file.parent)
    for place in places:
        if all((place / name).is_file() for name in TOKENIZER_FILES):
            return place
    raise FileNotFoundError(
        f"{file} holds no tokenizer, and there is none beside it: looked for "
        f"{' and '.join(TOKENIZER_FILES)} in {places[0]} and {places[1]}. Pass tokenizer=FOLDER; "
        "every model folder of Stable Diffusion 1.x or 2.x has a fitting one in tokenizer/"
    )
