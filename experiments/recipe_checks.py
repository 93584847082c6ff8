"""What a recipe of configs/distill/ may hold: faults said before any work."""

import math
from typing import Any

import jax

from experiments import recipe
from experiments.model_options import model_options
from experiments.room_recipe import inside_cameras, is_inside
from experiments.scorer_recipe import choose_transmittance, is_scored, scorer_folder

# Field -> the least it may be. `stop_after` 0: to the end.
LEAST = {
    "steps": 1,
    "stop_after": 0,
    "checkpoint_every": 1,
    "picture_every": 1,
    "views": 1,
    "samples": 1,
    "capacity": 1,
    "grid_resolution": 1,
    "grid_every": 1,
    "mesh_resolution": 2,
    "picture_size": 8,
    "seed": 0,
    "field.levels": 1,
    "field.table_size": 1,
    "field.coarsest": 2,
    "field.voxels": 2,
    "own.rank": 1,
}
POSITIVE = (
    "field.radius",
    "field.learning_rate",
    "background.learning_rate",
    "own.learning_rate",
    "weights.air_radius",
)


def check_config(config: Any, prompt: str) -> None:
    """Refuse what could only fail later.

    Raises:
      ValueError: naming the field, its value and what was expected.
      FileNotFoundError: an adaptation of the model, or what scores the renderings, is not there.
    """
    if not prompt.strip():
        raise ValueError("--prompt is empty; expected a description such as 'a red mug'")
    for leaf in jax.tree.leaves(config.to_dict()):
        if isinstance(leaf, float) and not math.isfinite(leaf):
            raise ValueError(f"the config holds {leaf}; every number must be finite")
    _check_numbers(config)
    if config.latent:
        _check_latent(config)
    _check_prompts(config)
    if is_scored(config):
        _check_scorer(config)
    else:
        recipe.choose_loss(config)
    recipe.choose_times(config, 1000)
    recipe.choose_optimiser(config, config.field.learning_rate)
    field = recipe.make_field(config)
    if is_inside(config):
        if config.latent:
            raise ValueError("config.latent=True: a room is made of colours, not of latents")
        inside_cameras(config, field)
    model_options(config)


def _check_latent(config: Any) -> None:
    if not (config.background.learnt and config.shaded_share == 0.0):
        raise ValueError(
            "config.latent=True needs config.background.learnt=True and config.shaded_share=0: "
            "latents have neither a plain background nor a light"
        )
    if config.picture_size % 8:
        raise ValueError(
            f"config.picture_size={config.picture_size} must be a multiple of 8 with "
            "config.latent=True: pictures are pooled to latents and decoded"
        )


def _check_numbers(config: Any) -> None:
    for name, least in LEAST.items():
        if (value := _field(config, name)) < least:
            raise ValueError(f"config.{name} must be at least {least}, got {value}")
    for name in POSITIVE:
        if (value := _field(config, name)) <= 0.0:
            raise ValueError(f"config.{name} must be positive, got {value}")
    if config.seed >= 2**32:
        raise ValueError(f"config.seed must be under 2^32, got {config.seed}")
    if config.field.finest < config.field.coarsest:
        raise ValueError(
            f"config.field.finest={config.field.finest} is under "
            f"config.field.coarsest={config.field.coarsest}"
        )
    for name in ("small_size", "large_size"):
        if config[name] < 8 or config[name] % 8:
            raise ValueError(
                f"config.{name} must be a positive multiple of 8, got {config[name]}; the nearest "
                f"are {max(8, config[name] // 8 * 8)} and {(config[name] // 8 + 1) * 8}"
            )
    if config.small_size > config.large_size:
        raise ValueError(
            f"config.small_size={config.small_size} exceeds config.large_size={config.large_size}"
        )
    if len(config.inversion) != 2 or not all(
        isinstance(n, int) and n >= 1 for n in config.inversion
    ):
        raise ValueError(
            "config.inversion must be (steps, time steps), whole numbers of 1 or more, got "
            f"{config.inversion}"
        )
    if not 0.0 <= config.jump_at <= 1.0:
        raise ValueError(f"config.jump_at must be a share in [0, 1], got {config.jump_at}")
    for name in ("t_first", "t_last"):
        if len(config[name]) != 2 or not 0.0 <= config[name][0] < config[name][1] <= 1.0:
            raise ValueError(f"config.{name} must be 0 <= low < high <= 1, got {config[name]}")


def _check_prompts(config: Any) -> None:
    elevations, suffixes = config.view_elevations, config.view_suffixes
    if not suffixes or len(elevations) != len(suffixes) or len({len(row) for row in suffixes}) > 1:
        raise ValueError(
            f"config.view_elevations={tuple(elevations)} must have a row of config.view_suffixes "
            f"each, all of one length, got rows of {[len(row) for row in suffixes]}"
        )
    if config.perp_neg and not any(name.strip() for row in suffixes for name in row):
        raise ValueError("config.perp_neg=True, but no prompt of config.view_suffixes names a view")
    if config.loss == "nfsd" and config.negative_prompt is None:
        raise ValueError("config.loss='nfsd' needs config.negative_prompt; it may be ''")
    if config.perp_neg and (
        config.loss not in ("sds", "sjc", "sjc_plain", "csd") or config.negative_prompt is not None
    ):
        raise ValueError(
            f"config.perp_neg=True with config.loss={config.loss!r} and config.negative_prompt="
            f"{config.negative_prompt!r}: it is of sds, sjc, sjc_plain and csd, and has negative "
            "prompts of its own"
        )
    if config.negative_prompt is not None and config.loss not in ("csd", "nfsd"):
        raise ValueError(
            f"config.negative_prompt={config.negative_prompt!r} with config.loss={config.loss!r}, "
            "which compares with none: it is of csd and nfsd"
        )


def _check_scorer(config: Any) -> None:
    if "scorer" not in config:
        raise ValueError(
            f"config.loss={config.loss!r} needs the fields config.scorer: take the variant "
            f"configs/distill/worlds.py:{config.loss}"
        )
    if config.latent:
        raise ValueError(f"config.loss={config.loss!r} scores pictures: config.latent must be off")
    choose_transmittance(config)
    scorer_folder(config)


def _field(config: Any, name: str) -> Any:
    for part in name.split("."):
        config = config[part]
    return config
