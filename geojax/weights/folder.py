"""One component of a model (a folder with config.json and safetensors) <-> a parameter tree.

Loading is strict: the tree that the network's `init` would make says which keys must be there and
in which shape, and every missing, unused and mis-shaped one is named in a single error before any
data is read. Tensors are then read one at a time, so the peak is the tree plus one tensor.

Saving is the inverse, bit for bit; what it writes loads in PyTorch diffusers and transformers. It
writes digests beside the weights, and the loader compares where they are.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from geojax.weights import key_tables
from geojax.weights.digests import Verifier, save_digests, tensor_digest
from geojax.weights.new_folder import new_folder
from geojax.weights.safetensors_io import (
    FLOATS,
    Entry,
    listing,
    read_entries,
    read_json,
    read_tensors,
    refuse_pickle,
    weight_file,
    write_tensors,
)

Params = dict[str, Any]


def load_config(path: str | Path, class_name: str | None = None) -> dict[str, Any]:
    """The config.json of a component, checked to be one of `class_name`.

    Raises:
      FileNotFoundError: no such folder, or no config.json in it.
      ValueError: a damaged file, a whole pipeline, or a component of another class.
    """
    folder = Path(path)
    if not folder.is_dir():
        above = folder.parent
        there = f"{above} holds {listing(above)}" if above.is_dir() else f"nor is {above}"
        raise FileNotFoundError(f"{folder} is not a folder; {there}")
    file = folder / "config.json"
    if not file.is_file():
        if (folder / "model_index.json").is_file():
            raise ValueError(
                f"{folder} is a whole pipeline, name one of its components: {listing(folder)}"
            )
        raise FileNotFoundError(f"no config.json in {folder}; found {listing(folder)}")
    config = read_json(file)
    found = config_class(config)
    if class_name is not None and found is not None and found != class_name:
        raise ValueError(f"{folder} holds a {found}, expected a {class_name}")
    return config


def config_class(config: Mapping[str, Any]) -> str | None:
    """The class that a config.json names: diffusers' `_class_name`, transformers' architecture."""
    return config.get("_class_name") or (config.get("architectures") or [None])[0]


def abstract_params(module: Any) -> Params:
    """Shapes of a network's parameters, without making them.

    Raises:
      ValueError: the loader does not know what to call this network with.
    """
    kind = key_tables.KINDS.get(type(module).__name__)
    if kind is None:
        raise ValueError(
            f"no example inputs for {type(module).__name__}, only for {list(key_tables.KINDS)}: "
            'pass jax.eval_shape(module.init, key, ...)["params"] instead'
        )
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.eval_shape(module.init, key, *kind.inputs(module.config))["params"]


def named_leaves(tree: Any) -> dict[tuple[str, ...], Any]:
    """The leaves of nested dicts by the names that lead to them, in jax's order of leaves."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {tuple(str(entry.key) for entry in path): leaf for path, leaf in leaves}


def keys_of(paths: Sequence[tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Key in the file -> path in the tree; ValueError where two paths share a key."""
    keys: dict[str, tuple[str, ...]] = {}
    for path in paths:
        key = key_tables.file_key(path)
        if key in keys:
            raise ValueError(f"{'/'.join(path)} and {'/'.join(keys[key])} share the key {key}")
        keys[key] = path
    return keys


def refuse_misfits(
    title: str, missing: Sequence[str], unused: Sequence[str], wrong: Sequence[str]
) -> None:
    """Raise one ValueError with every line of the three lists, where there is any."""
    parts = [
        f"{name} ({len(lines)}):\n  " + "\n  ".join(lines)
        for name, lines in (("missing", missing), ("unused", unused), ("mis-shaped", wrong))
        if lines
    ]
    if parts:
        raise ValueError(title + "\n" + "\n".join(parts))


def _match(
    file: Path, class_name: str, entries: Mapping[str, Entry], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, str]:
    """Expected key -> the file's key; ValueError naming every key that does not fit."""
    found: dict[str, str] = {}
    unused, wrong = [], []
    for key, entry in entries.items():
        current = key_tables.current_key(class_name, key)
        if current is None:
            continue
        if current not in shapes:
            unused.append(f"{key}: found {entry.shape}, expected no such key")
            continue
        if current in found:
            unused.append(f"{key}: found {entry.shape}, a second spelling of {found[current]}")
            continue
        found[current] = key
        if key_tables.current_shape(class_name, current, entry.shape) != shapes[current]:
            wrong.append(f"{key}: found {entry.shape}, expected {shapes[current]}")
        elif entry.dtype not in FLOATS:
            wrong.append(f"{key}: found type {entry.dtype}, expected one of {FLOATS}")
    missing = [
        f"{key}: found nothing, expected {s}" for key, s in shapes.items() if key not in found
    ]
    refuse_misfits(f"{file} does not fit {class_name or 'the tree'}", missing, unused, wrong)
    return found


def cast_checked(name: str, value: np.ndarray, dtype: DTypeLike) -> np.ndarray:
    """`value` in another type; ValueError where a finite number is none any more."""
    with np.errstate(over="ignore"):
        result = value.astype(dtype)
    if not np.all(np.isfinite(result)) and np.all(np.isfinite(value)):
        largest = float(np.max(np.abs(value.astype(np.float32))))
        raise ValueError(f"{name}: {largest:.6g} overflows {jnp.dtype(dtype).name}")
    return result


def load_component(
    path: str | Path,
    expected: Any,
    *,
    class_name: str | None = None,
    dtype: DTypeLike = jnp.float32,
    variant: str | None = None,
) -> Params:
    """The parameters in a component's folder (or a single safetensors file, then without config).

    Args:
      path: the component's folder, such as `.../unet`.
      expected: the Linen module, or the tree of shapes that its `init` makes under "params".
      class_name: as in config.json; known for geojax's modules, needed with a tree only to have
        the folder's class checked and older spellings understood.
      dtype: of the parameters in memory, whatever it is on disk.
      variant: "fp16" for `*.fp16.safetensors`; None takes the plain file, or fp16 if it is alone.

    Returns:
      A tree as `expected`, of jax arrays.

    Raises:
      FileNotFoundError: folder, config.json, weights or a shard absent; says what is there.
      ValueError: another class; pickles; a damaged file; a number that overflows `dtype`; tensors
        that do not fit, or that differ from their digests, all of them named.
    """
    if hasattr(expected, "init"):
        kind = key_tables.KINDS.get(type(expected).__name__)
        class_name = class_name or (kind.class_name if kind else None)
        expected = abstract_params(expected)
    file = Path(path)
    if file.is_file():
        refuse_pickle(file)
    else:
        config = load_config(path, class_name)
        class_name = class_name or config_class(config)
        file = weight_file(file, variant)
    leaves = named_leaves(expected)
    paths = keys_of(list(leaves))
    shapes = {k: key_tables.file_shape(p, tuple(leaves[p].shape)) for k, p in paths.items()}
    entries = read_entries(file)
    found = _match(file, class_name or "", entries, shapes)
    key_of = {file_key: key for key, file_key in found.items()}
    values: dict[tuple[str, ...], jax.Array] = {}
    verifier = Verifier(file.parent)
    for file_key, tensor in read_tensors(entries, key_of):
        verifier.check(entries[file_key].file, file_key, tensor)
        key = key_of[file_key]
        where = paths[key]
        tensor = cast_checked(f"{file}: {file_key}", tensor.reshape(shapes[key]), dtype)
        values[where] = jnp.asarray(key_tables.from_file(where, tensor))
    verifier.finish()
    treedef = jax.tree_util.tree_structure(expected)
    return jax.tree_util.tree_unflatten(treedef, [values[p] for p in leaves])


def save_component(
    path: str | Path,
    params: Params,
    config: Mapping[str, Any],
    class_name: str | None = None,
    dtype: DTypeLike = jnp.float32,
    *,
    max_shard_bytes: int | None = None,
    overwrite: bool = False,
) -> None:
    """Write config.json, safetensors and their digests: whole or not at all.

    Args:
      path: the component's folder.
      params: the tree under "params".
      config: fields of config.json; with `architectures` or `model_type` it is a component of
        transformers, otherwise of diffusers.
      class_name: needed where the config does not name it.
      dtype: on disk.
      max_shard_bytes: largest file, roughly; None writes one.
      overwrite: replace a folder that differs.

    Raises:
      ValueError: no class name, two different ones, or a number that overflows `dtype`.
      FileExistsError: the folder exists and differs.
      OSError: the disk is full or cannot be written; nothing is left behind.
    """
    with new_folder(Path(path), overwrite) as folder:
        write_component(folder, params, config, class_name, dtype, max_shard_bytes)


def write_component(
    folder: Path,
    params: Params,
    config: Mapping[str, Any],
    class_name: str | None = None,
    dtype: DTypeLike = jnp.float32,
    max_shard_bytes: int | None = None,
) -> None:
    """`save_component` into a folder that exists, for a writer that adds files of its own.

    Raises:
      ValueError, OSError: as `save_component`.
    """
    config = dict(config)
    named = config_class(config)
    class_name = class_name or named
    if class_name is None or named not in (None, class_name):
        raise ValueError(f"component of class_name={class_name!r}, the config's class is {named!r}")
    if "architectures" in config or "model_type" in config:
        stem, config["architectures"] = "model", [class_name]
    else:
        stem, config["_class_name"] = "diffusion_pytorch_model", class_name
    leaves = named_leaves(params)
    tensors = {
        key: key_tables.to_file(where, cast_checked(key, np.asarray(leaves[where]), dtype))
        for key, where in sorted(keys_of(list(leaves)).items())
    }
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / "config.json").write_text(text)
    digests: dict[str, dict[str, str]] = {}
    for key, name in write_tensors(folder, stem, tensors, max_shard_bytes).items():
        # Of the tensors in memory: what the disk gives back is compared with these.
        digests.setdefault(name, {})[key] = tensor_digest(tensors[key])
    save_digests(folder, digests)
