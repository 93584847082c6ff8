"""Checkpoints that survive a killed process, a full disk and a flipped bit.

A checkpoint is one pytree and one small metadata dict in `FOLDER/STEP`, written by orbax in the
background and renamed into place when whole. Orbax does not checksum array data, so the SHA-256 of
each leaf lies beside it in the same step; a step that does not match its digests, or cannot be
read, is named in a warning and the step before it is used. A damaged step is never deleted: when
its number is written again it moves to `FOLDER/damaged/`.

    FOLDER/STEP/state      arrays, one entry a leaf, named by the leaf's path in the pytree
    FOLDER/STEP/manifest   path -> shape, dtype, sha256; the metadata; the digest of both
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

# What orbax raises on damaged files (the tests flip bits in every file of a step): ValueError for
# array chunks and broken JSON, the others for JSON that is whole but says something else.
_UNREADABLE = (ValueError, OSError, KeyError, TypeError, AttributeError)


class Checkpoint(NamedTuple):
    """A restored step: its number, the pytree, and the metadata saved with it."""

    step: int
    tree: Any
    metadata: dict[str, Any]


class DamagedStepError(ValueError):
    """A step folder cannot be trusted: unreadable, cut short or not matching its digests."""


class Checkpointer:
    """Saves and restores one pytree in a folder, the last `keep` steps of it.

    Every process of a multi-host run makes one; the leaves must be fully replicated or local.
    """

    def __init__(self, folder: str | Path, keep: int = 3):
        """Open or create a folder. Raises ValueError when `keep` leaves nothing to fall back to."""
        if keep < 2:
            raise ValueError(f"keep must be at least 2 (one step to fall back to), got {keep}")
        self.folder = Path(folder).absolute()
        self._manager = ocp.CheckpointManager(
            self.folder, options=ocp.CheckpointManagerOptions(max_to_keep=keep)
        )
        self._cleared = False

    def save(self, step: int, tree: Any, metadata: Mapping[str, Any] | None = None) -> None:
        """Start writing a step and return; `tree` may be donated or changed at once.

        Leaves are arrays (typed random keys too) or Python numbers; metadata is JSON. Waits for the
        save before it. Raises ValueError when the step is there already and sound, and the error of
        an earlier background save.
        """
        self._manager.wait_until_finished()
        if not self._cleared:
            self._clear_unfinished()
        if (self.folder / str(step)).exists():
            self._set_aside(step)
        arrays, leaves = {}, {}
        for path, leaf in _named_leaves(tree).items():
            value = _to_host(leaf)
            leaves[path] = {**_describe(leaf), "sha256": _digest(value)}
            if value.size:  # orbax refuses empty arrays; their shape in the manifest is all of them
                arrays[path] = value
        if not arrays:
            raise ValueError("nothing to save: the tree has no non-empty array")
        manifest = {"step": step, "leaves": leaves, "metadata": dict(metadata or {})}
        manifest["sha256"] = _text_digest(manifest)
        # `force`: without it a step older than the newest one is silently not written.
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeSave(arrays), manifest=ocp.args.JsonSave(manifest)
            ),
            force=True,
        )

    def wait(self) -> None:
        """Block until the last save is on disk; raises its error if it had one."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Finish the last save and release the background threads."""
        self._manager.wait_until_finished()
        self._manager.close()

    def latest_step(self) -> int | None:
        """Newest step whose manifest is whole, or None; damaged ones are named in a warning."""
        for step in self._steps():
            try:
                self._manifest(step)
            except DamagedStepError as error:
                logging.warning("checkpoint step %d is passed over: %s", step, error)
            else:
                return step
        return None

    def restore(self, example: Any) -> Any:
        """The newest sound step's pytree. See `load`."""
        return self.load(example).tree

    def load(self, example: Any, step: int | None = None) -> Checkpoint:
        """Restore a step (default: the newest sound one), falling back past damaged ones.

        `example` gives the structure: its leaves are arrays, `jax.ShapeDtypeStruct`s or numbers.
        Each leaf comes back as the example's kind, on the example's sharding if it has one.

        Raises FileNotFoundError when there is no step, DamagedStepError (a ValueError) when none is
        sound, and ValueError listing every path, shape or dtype that differs from the example's.
        """
        self._manager.wait_until_finished()
        steps = [s for s in self._steps() if step is None or s == step]
        if not steps:
            wanted = "step" if step is None else f"step {step}"
            raise FileNotFoundError(f"no checkpoint {wanted} in {self.folder}")
        expected = _named_leaves(example)
        causes = []
        for found in steps:
            try:
                manifest = self._manifest(found)
                _check_structure(expected, manifest["leaves"], self.folder / str(found))
                arrays = self._arrays(found, manifest)
            except DamagedStepError as error:
                causes.append(f"step {found}: {error}")
                logging.warning("checkpoint step %d is damaged (%s): not used", found, error)
            else:
                leaves = [_from_host(np.asarray(arrays[p]), leaf) for p, leaf in expected.items()]
                tree = jax.tree.unflatten(jax.tree.structure(example), leaves)
                return Checkpoint(found, tree, manifest["metadata"])
        raise DamagedStepError(f"no sound checkpoint in {self.folder}: " + "; ".join(causes))

    def _arrays(self, step: int, manifest: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Path -> array of a step, each checked against its digest; raises DamagedStepError."""
        arrays = {
            path: np.zeros(entry["data_shape"], np.dtype(entry["data_dtype"]))
            for path, entry in manifest["leaves"].items()
        }
        as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
        restore_args = {path: as_numpy for path, array in arrays.items() if array.size}
        try:
            arrays |= self._manager.restore(
                step,
                args=ocp.args.Composite(state=ocp.args.PyTreeRestore(restore_args=restore_args)),
            )["state"]
        except _UNREADABLE as error:
            cause = f"{type(error).__name__}: {error}".split("\n")[0]
            raise DamagedStepError(f"arrays cannot be read, {cause}") from error
        for path, entry in manifest["leaves"].items():
            if _digest(np.asarray(arrays[path])) != entry["sha256"]:
                raise DamagedStepError(f"the data of {path} does not match its digest")
        return arrays

    def _manifest(self, step: int) -> dict[str, Any]:
        files = [
            self.folder / str(step) / "manifest" / "metadata",
            self.folder / str(step) / "state",
        ]
        for file in files:
            if not file.exists():
                raise DamagedStepError(f"{file.relative_to(self.folder)} is missing")
        try:
            manifest = json.loads(files[0].read_text())
        except ValueError as error:  # covers broken UTF-8 too
            raise DamagedStepError(f"the manifest is not JSON: {error}") from error
        if not isinstance(manifest, dict) or "sha256" not in manifest:
            raise DamagedStepError("the manifest has no digest")
        digest = manifest.pop("sha256")
        if _text_digest(manifest) != digest:
            raise DamagedStepError("the manifest does not match its own digest")
        return manifest

    def _steps(self) -> list[int]:
        """Step numbers with a folder, newest first; whether they are sound is not said."""
        names = (path.name for path in self.folder.iterdir() if path.is_dir())
        return sorted((int(name) for name in names if name.isdecimal()), reverse=True)

    def _set_aside(self, step: int) -> None:
        """Move a damaged step out of the way of a new one of its number."""
        try:
            self._arrays(step, self._manifest(step))
        except DamagedStepError as error:
            if jax.process_index() == 0:
                damaged = self.folder / "damaged"
                damaged.mkdir(exist_ok=True)
                taken = sum(path.name.split(".")[0] == str(step) for path in damaged.iterdir())
                target = damaged / (f"{step}.{taken}" if taken else str(step))
                logging.warning("checkpoint step %d (%s) moves to %s", step, error, target)
                (self.folder / str(step)).rename(target)
            self._manager.reload()
        else:
            raise ValueError(f"checkpoint step {step} is in {self.folder} already")

    def _clear_unfinished(self) -> None:
        """Remove what a killed save left: folders that never became a step, of no use to anyone."""
        if jax.process_index() == 0:
            for path in self.folder.glob("*.orbax-checkpoint-tmp*"):
                logging.info("removing the unfinished save %s", path.name)
                shutil.rmtree(path)
        self._cleared = True


def _named_leaves(tree: Any) -> dict[str, Any]:
    """Path -> leaf, in the tree's own order; `keystr` paths are unique."""
    return {jax.tree_util.keystr(p): leaf for p, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | jax.ShapeDtypeStruct) and jax.dtypes.issubdtype(
        leaf.dtype, jax.dtypes.prng_key
    )


def _key_name(leaf: Any) -> str:
    """`fry` or `rbg`: an abstract key has no other public way to say its implementation."""
    return str(leaf.dtype).removeprefix("key<").removesuffix(">")


def _describe(leaf: Any) -> dict[str, Any]:
    """Shape and dtype of a leaf, and of the plain array that holds it on disk."""
    if _is_key(leaf):
        data = jax.eval_shape(jax.random.key_data, leaf)
        return {
            "shape": list(leaf.shape),
            "dtype": str(leaf.dtype),
            "data_shape": list(data.shape),
            "data_dtype": str(data.dtype),
        }
    if not hasattr(leaf, "dtype"):
        leaf = np.asarray(leaf)
    shape, dtype = list(leaf.shape), str(leaf.dtype)
    return {"shape": shape, "dtype": dtype, "data_shape": shape, "data_dtype": dtype}


def _to_host(leaf: Any) -> np.ndarray:
    """A leaf as a host array; orbax copies it before its `save` returns."""
    if _is_key(leaf):
        leaf = jax.random.key_data(leaf)
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        if not leaf.is_fully_replicated:
            raise ValueError(f"a leaf of shape {leaf.shape} is split over hosts: replicate it")
        leaf = leaf.addressable_data(0)
    value = np.asarray(leaf)
    if value.dtype == object:
        raise ValueError(f"a leaf is neither array nor number: {leaf!r}")
    return value


def _from_host(value: np.ndarray, example: Any) -> Any:
    """A host array as the example's kind of leaf."""
    # An uncommitted example must give an uncommitted leaf: otherwise jit compiles a second time.
    free = isinstance(example, jax.Array) and not example.committed
    sharding = None if free else getattr(example, "sharding", None)
    if _is_key(example):
        names = {"fry": "threefry2x32"}
        name = _key_name(example)
        keys = jax.random.wrap_key_data(jax.numpy.asarray(value), impl=names.get(name, name))
        return jax.device_put(keys, sharding)
    if isinstance(example, jax.Array | jax.ShapeDtypeStruct):
        return jax.device_put(value, sharding)
    if isinstance(example, np.ndarray):
        return value
    return type(example)(value.item())


def _check_structure(expected: Mapping[str, Any], found: Mapping[str, Any], where: Path) -> None:
    """Raise ValueError with every leaf that differs."""
    lines = [f"  {path}: expected, not in the checkpoint" for path in expected if path not in found]
    lines += [
        f"  {path}: in the checkpoint, not expected" for path in found if path not in expected
    ]
    for path in expected:
        if path in found:
            want = _describe(expected[path])
            have = {name: found[path][name] for name in want}
            if want != have:
                lines.append(
                    f"  {path}: expected {want['dtype']}{want['shape']}, "
                    f"found {have['dtype']}{have['shape']}"
                )
    if lines:
        raise ValueError(f"checkpoint {where} is of another tree:\n" + "\n".join(lines))


def _digest(value: np.ndarray) -> str:
    """SHA-256 of dtype, shape and bytes."""
    header = f"{value.dtype}{value.shape}".encode()
    return hashlib.sha256(header + np.ascontiguousarray(value).tobytes()).hexdigest()


def _text_digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
