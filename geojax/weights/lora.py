"""Low-rank adaptations of a model, merged into its weights when it is loaded.

Symbols: W [O, I] a weight (a convolution's is [O, I h w]); A [r, I] "down" and B [O, r] "up"; r the
rank; alpha the file's own scale, r where it has none; s the user's.
    (1) merged   W' = W + s (alpha / r) B A

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021), section 4.1. A merged model
costs nothing at run time, and several may be merged one after the other.

Names, of a file's tensors for the parameter `down_blocks.0....attn1.to_q.weight` of the UNet:
    kohya      lora_unet_down_blocks_0_..._attn1_to_q.lora_down.weight, .lora_up.weight, .alpha;
               lora_te_text_model_... for the text encoder
    diffusers  unet.down_blocks.0....attn1.to_q.lora_A.weight, .lora_B.weight (peft; alpha in the
               file's metadata), .lora.down.weight, .lora.up.weight; older, processor.to_q_lora and
               self_attn.to_q_lora of the text encoder, the oldest without `unet.`
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import safe_open

from geojax.weights.folder import cast_checked, keys_of, named_leaves, refuse_misfits
from geojax.weights.key_tables import file_shape, from_file, to_file
from geojax.weights.safetensors_io import read_entries, read_tensors, refuse_pickle

DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
METADATA = "lora_adapter_metadata"
KOHYA = {"unet": "lora_unet_", "text_encoder": "lora_te_"}
ROLES = (
    re.compile(r"(?P<name>.+)\.lora_(?P<role>down|up|A|B)\.weight"),
    re.compile(r"(?P<name>.+?)(?:[._]lora|\.lora_linear_layer)\.(?P<role>down|up)\.weight"),
    re.compile(r"(?P<name>.+?)(?:[._]lora|\.lora_linear_layer)?\.(?P<role>alpha)"),
)
OLD_ATTENTION = re.compile(r"(.+)\.(?:processor|self_attn)\.to_(q|k|v|out)")

ModulePath = tuple[str, tuple[str, ...]]


class _Update(NamedTuple):
    """A, B and alpha of one weight, by their keys in the file; None where there is none."""

    down: str | None = None
    up: str | None = None
    alpha: str | None = None


def _modules(params: Mapping[str, Any]) -> dict[str, ModulePath]:
    """Every spelling of a module that has a kernel -> its component and path."""
    found: dict[str, ModulePath] = {}
    for component in params:
        leaves = [path for path in named_leaves(params[component]) if path[-1] == "kernel"]
        for key, path in keys_of(leaves).items():
            name = key.removesuffix(".weight")
            found[f"{component}.{name}"] = (component, path)
            if component in KOHYA:
                found[KOHYA[component] + name.replace(".", "_")] = (component, path)
    return found


def _module_name(name: str) -> str:
    """A module's name in today's spelling of diffusers; kohya's stays."""
    if name.startswith(tuple(KOHYA.values())):
        return name
    component, _, rest = name.partition(".")
    if component not in KOHYA:
        component, rest = "unet", name
    if match := OLD_ATTENTION.fullmatch(rest):
        if component == "unet":
            rest = f"{match[1]}.to_{match[2]}" + (".0" if match[2] == "out" else "")
        else:
            rest = f"{match[1]}.self_attn.{match[2]}_proj"
    if component == "text_encoder" and not rest.startswith("text_model."):
        rest = f"text_model.{rest}"
    return f"{component}.{rest}"


def _alphas(file: Path) -> dict[str, Any]:
    """What peft wrote into the metadata; ValueError for a form that equation (1) is not."""
    with safe_open(file, "numpy") as opened:
        text = (opened.metadata() or {}).get(METADATA)
    fields: dict[str, Any] = json.loads(text) if text else {}
    for name, value in fields.items():
        if name.rpartition(".")[2] in ("use_rslora", "use_dora") and value:
            raise ValueError(f"{file}: {name}={value} is unsupported, only plain LoRA is")
    return fields


def _alpha(fields: Mapping[str, Any], component: str, name: str, rank: int) -> float:
    """alpha of one module by peft's metadata; the rank, so a factor of one, where there is none."""
    for pattern, value in (fields.get(f"{component}.alpha_pattern") or {}).items():
        if name == pattern or name.endswith(f".{pattern}"):
            return float(value)
    return float(fields.get(f"{component}.lora_alpha") or rank)


def merge_lora(params: Mapping[str, Any], path: str | Path, scale: float = 1.0) -> dict[str, Any]:
    """Equation (1) on every weight that the file adapts.

    Args:
      params: trees by component, "unet" and "text_encoder" (others stay as they are).
      path: a `.safetensors` file, or a folder with pytorch_lora_weights.safetensors.
      scale: s; 0 changes nothing, negative values undo.

    Returns:
      Trees as `params`, of the same types; the sum is taken in float32.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a pickle or damaged file; a scale that is not finite; a form that is not plain
        LoRA; or keys that fit no weight, all of them named.
    """
    file = Path(path) / DIFFUSERS_FILE if Path(path).is_dir() else Path(path)
    refuse_pickle(file)
    if not file.is_file():
        raise FileNotFoundError(f"no LoRA file {file}")
    if not math.isfinite(scale):
        raise ValueError(f"scale={scale} of {file} is not finite")
    entries = read_entries(file)
    shapes = {key: entry.shape for key, entry in entries.items()}
    modules, fields = _modules(params), _alphas(file)
    updates: dict[str, _Update] = {}
    unused = []
    for key, shape in sorted(shapes.items()):
        match = next((m for m in (role.fullmatch(key) for role in ROLES) if m), None)
        name = _module_name(match["name"]) if match else ""
        if match is None or name not in modules:
            unused.append(f"{key}: found {shape}, expected no such key")
            continue
        role = {"A": "down", "B": "up"}.get(match["role"], match["role"])
        updates[name] = updates.get(name, _Update())._replace(**{role: key})
    missing, wrong = _misfits(updates, modules, params, shapes)
    refuse_misfits(f"{file} does not fit {sorted(params)}", missing, unused, wrong)

    tensors = dict(read_tensors(entries, shapes))
    changed: dict[ModulePath, jax.Array] = {}
    leaves = {component: named_leaves(params[component]) for component in params}
    for name, update in updates.items():
        assert update.down is not None and update.up is not None  # else they were missing
        component, where = modules[name]
        down, up = (tensors[key].astype(np.float32) for key in (update.down, update.up))
        rank = down.shape[0]
        if update.alpha is not None:
            alpha = float(tensors[update.alpha].astype(np.float32).item())
        else:
            alpha = _alpha(fields, component, name.removeprefix(f"{component}."), rank)
        leaf = leaves[component][where]
        weight = to_file(where, np.asarray(leaf, np.float32))
        delta = (up.reshape(-1, rank) @ down.reshape(rank, -1)).reshape(weight.shape)
        merged = from_file(where, weight + np.float32(scale * alpha / rank) * delta)
        changed[component, where] = jnp.asarray(cast_checked(name, merged, leaf.dtype))
    return {
        component: jax.tree_util.tree_unflatten(
            jax.tree_util.tree_structure(params[component]),
            [changed.get((component, p), leaf) for p, leaf in leaves[component].items()],
        )
        for component in params
    }


def _misfits(
    updates: Mapping[str, _Update],
    modules: Mapping[str, ModulePath],
    params: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
) -> tuple[list[str], list[str]]:
    """What is missing and what has a wrong shape."""
    missing, wrong = [], []
    leaves = {component: named_leaves(params[component]) for component in params}
    for name, update in updates.items():
        component, path = modules[name]
        if update.down is None or update.up is None:
            what = "down" if update.down is None else "up"
            missing.append(f"{name}: found no {what} matrix, expected both")
            continue
        outputs, *inputs = file_shape(path, leaves[component][path].shape)
        down, up = shapes[update.down], shapes[update.up]
        rank = down[0]
        if (
            math.prod(down) != rank * math.prod(inputs)
            or up[:2] != (outputs, rank)
            or (math.prod(up) != outputs * rank)
        ):
            wrong.append(
                f"{name}: found {up} times {down}, expected [{outputs}, r] times {['r', *inputs]}"
            )
        if update.alpha is not None and math.prod(shapes[update.alpha]) != 1:
            wrong.append(f"{update.alpha}: found {shapes[update.alpha]}, expected one number")
    return missing, wrong
