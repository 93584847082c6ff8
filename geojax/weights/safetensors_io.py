"""Tensors in safetensors files: what is in them, one at a time out, all at once in.

A component's weights are one file, or shards with an index (`*.safetensors.index.json`, whose
`weight_map` is key -> file). Half-precision copies carry a variant before the suffix
(`model.fp16.safetensors`). The names are those of diffusers and transformers. Pickles execute what
is in them: they are refused.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import ml_dtypes  # noqa: F401  gives numpy the type bfloat16, which safe_open asks it for
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

STEMS = ("diffusion_pytorch_model", "model")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".msgpack")
FLOATS = ("F16", "BF16", "F32", "F64")


class Entry(NamedTuple):
    """Where a tensor lies: file, shape in the file, and safetensors' name of its type."""

    file: Path
    shape: tuple[int, ...]
    dtype: str


def listing(folder: Path) -> str:
    """The names in a folder, for messages."""
    names = sorted(p.name + "/" * p.is_dir() for p in folder.iterdir())
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    return shown or "nothing"


def refuse_pickle(path: Path) -> None:
    """Raise ValueError when the file is a pickle by its name."""
    if path.suffix in PICKLES:
        raise ValueError(
            f"{path} is not a safetensors file, and pickles can run any code when they are read: "
            "convert it to safetensors (in PyTorch: "
            "`AutoencoderKL.from_pretrained(folder).save_pretrained(new, safe_serialization=True)`)"
        )


def weight_file(folder: Path, variant: str | None = None) -> Path:
    """The safetensors file, or the index of the shards, of a component.

    Without `variant` the plain file is taken, or the fp16 one where it is alone.

    Raises:
      ValueError: there are only pickles.
      FileNotFoundError: there are no weights, or none of the variant asked for.
    """
    wanted = []
    for v in [variant] if variant else [None, "fp16"]:
        dot = f".{v}" if v else ""
        for stem in STEMS:
            wanted += [
                f"{stem}{dot}.safetensors",
                f"{stem}.safetensors.index{dot}.json",
                f"{stem}{dot}.safetensors.index.json",
            ]
    for name in wanted:
        if (folder / name).is_file():
            return folder / name
    for path in sorted(folder.iterdir()):
        refuse_pickle(path)
    names = ", ".join(dict.fromkeys(wanted))
    raise FileNotFoundError(f"no weights in {folder}: looked for {names}; found {listing(folder)}")


def read_json(path: Path) -> dict:
    """A JSON object from a file.

    Raises:
      ValueError: the file is not JSON, or not an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold a JSON object, it holds a {type(value).__name__}")
    return value


def _header(file: Path) -> dict[str, Entry]:
    try:
        with safe_open(file, "numpy") as opened:
            slices = {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118
            return {k: Entry(file, tuple(s.get_shape()), s.get_dtype()) for k, s in slices.items()}
    except SafetensorError as error:
        raise ValueError(
            f"{file} ({file.stat().st_size} bytes) is truncated or damaged: {error}"
        ) from error


def read_entries(path: Path) -> dict[str, Entry]:
    """Every tensor of a safetensors file or of the shards of an index; no data is read.

    Raises:
      ValueError: a file is truncated or damaged, or the index and its shards disagree.
      FileNotFoundError: a shard is absent.
    """
    if path.suffix != ".json":
        return _header(path)
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict):
        raise ValueError(f"{path} has no weight_map from keys to files")
    shards = sorted(set(weight_map.values()))
    # A name with a folder in it could lead anywhere on the disk.
    outside = [name for name in shards if Path(name).name != name]
    if outside:
        raise ValueError(f"{path} names shards outside its folder: {outside}")
    absent = [name for name in shards if not (path.parent / name).is_file()]
    if absent:
        raise FileNotFoundError(
            f"{path} names shards that are absent: {absent}; found {listing(path.parent)}"
        )
    entries: dict[str, Entry] = {}
    for name in shards:
        found = _header(path.parent / name)
        listed = {key for key, file in weight_map.items() if file == name}
        if listed != set(found):
            raise ValueError(
                f"{path} and {name} disagree: only in the index {sorted(listed - set(found))}, "
                f"only in the shard {sorted(set(found) - listed)}"
            )
        entries |= found
    return entries


def read_tensors(
    entries: Mapping[str, Entry], keys: Iterable[str]
) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors of `keys`, one in memory at a time; each file is opened once."""
    by_file: dict[Path, list[str]] = {}
    for key in keys:
        by_file.setdefault(entries[key].file, []).append(key)
    for file, inside in by_file.items():
        with safe_open(file, "numpy") as opened:
            for key in inside:
                yield key, opened.get_tensor(key)


def _write(file: Path, tensors: Mapping[str, np.ndarray]) -> None:
    # safetensors copies the buffer whatever the strides: a transposed view would be written in
    # the wrong order without a word. `ascontiguousarray` would make a scalar one-dimensional.
    whole = {key: np.asarray(value, order="C") for key, value in tensors.items()}
    try:
        # Readers refuse files without this format, whatever wrote them.
        save_file(whole, file, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(f"could not write {file}: {error}") from error
    # safetensors leaves 0600, which nobody else on a cluster can read: follow the folder.
    file.chmod(file.parent.stat().st_mode & 0o666)


def write_tensors(
    folder: Path,
    stem: str,
    tensors: Mapping[str, np.ndarray],
    max_shard_bytes: int | None = None,
) -> dict[str, str]:
    """Write `stem.safetensors`, or shards of at most `max_shard_bytes` with their index.

    A tensor larger than a shard gets one of its own.

    Returns:
      Key -> name of its file.

    Raises:
      OSError: the disk is full or cannot be written.
    """
    shards: list[dict[str, np.ndarray]] = [{}]
    size = 0
    for key, value in tensors.items():
        if max_shard_bytes is not None and size + value.nbytes > max_shard_bytes and shards[-1]:
            shards.append({})
            size = 0
        shards[-1][key] = value
        size += value.nbytes
    if len(shards) == 1:
        name = f"{stem}.safetensors"
        _write(folder / name, tensors)
        return dict.fromkeys(tensors, name)
    weight_map: dict[str, str] = {}
    for i, shard in enumerate(shards):
        name = f"{stem}-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        _write(folder / name, shard)
        weight_map |= dict.fromkeys(shard, name)
    total = sum(value.nbytes for value in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    text = json.dumps(index, indent=2, sort_keys=True) + "\n"
    (folder / f"{stem}.safetensors.index.json").write_text(text)
    return weight_map
