"""The folder of a run: one config, one writer, room on the disk.

    runs/NAME/config.json   what the run was started with
    runs/NAME/.lock         held while a process writes; the kernel frees it when the process dies

The same command again resumes. Every check is made before anything is written. A folder in which
nothing was made yet holds no run to be kept: it takes another config.
"""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
from absl import logging

from geojax.io.atomic import write_json

_ABSENT = "(absent)"


@dataclass
class RunFolder:
    """An open run. `resumed` says whether the folder had been a run before."""

    path: Path
    resumed: bool
    _lock: int | None = None

    @property
    def checkpoints(self) -> Path:
        """Where the steps lie: `checkpoints/STEP`."""
        return self.path / "checkpoints"

    def close(self) -> None:
        """Let another process write here."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def check_run(
    out: str | Path,
    config: Mapping[str, Any],
    may_change: Sequence[str] = (),
    needed_bytes: int = 0,
) -> bool:
    """Whether `out` is a run to go on with; raises as `open_run` does, and writes nothing.

    For what is dear to prepare and of no use when the folder is refused.
    """
    path = Path(out)
    config = _as_json(config)
    if path.exists() and not path.is_dir():
        raise ValueError(f"--out={path} is a file, expected a folder")
    others = {p.name for p in path.iterdir()} - {".lock"} if path.exists() else set()
    if others and "config.json" not in others:
        raise ValueError(f"--out={path} is not empty and not a run (it has no config.json)")
    if others:
        _check_config(path, config, may_change)
    _check_space(path, needed_bytes)
    return bool(others)


def open_run(
    out: str | Path,
    config: Mapping[str, Any],
    may_change: Sequence[str] = (),
    needed_bytes: int = 0,
) -> RunFolder:
    """Create the folder of a run, or open it again to go on.

    `config` is JSON-like, nested freely; a field is named by its dotted path. A field in
    `may_change` (or below one) may differ from the run's, and any where nothing was made yet;
    config.json then takes the new value. `needed_bytes` are those of the whole run: what the folder
    holds already is not asked for again. On several hosts only process 0 locks and writes.

    Raises ValueError when `out` holds something else than a run, or a run with another config (each
    differing field is named with both values); OSError when the disk has too little space;
    BlockingIOError when another process writes there. Nothing on disk is changed by an error.
    """
    path = Path(out)
    # Before the lock too: an error about the config must not even touch the lock file.
    resumed = check_run(path, config, may_change, needed_bytes)
    config = _as_json(config)
    if jax.process_index() != 0:
        return RunFolder(path, resumed)
    path.mkdir(parents=True, exist_ok=True)
    run = RunFolder(path, resumed, _take_lock(path))
    try:
        file = path / "config.json"
        found = _check_config(path, config, may_change) if file.exists() else None
        if found is not None and _differences(found, config, may_change):
            logging.warning("%s: nothing was made yet, so it takes the new config", path)
            run.resumed = False
        if found != config:
            write_json(file, config)
    except BaseException:
        run.close()
        raise
    return run


def _as_json(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config as it reads back from JSON: tuples become lists, so that they compare equal."""
    try:
        return json.loads(json.dumps(config))
    except TypeError as error:
        raise ValueError(f"the config has a value that JSON cannot hold: {error}") from error


def _flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted path -> value."""
    if not isinstance(config, dict):
        return {prefix: config}
    flat = {}
    for name, value in config.items():
        flat.update(_flatten(value, f"{prefix}.{name}" if prefix else name))
    return flat


def _differences(
    found: dict[str, Any], config: dict[str, Any], may_change: Sequence[str]
) -> list[str]:
    """A line for each field that differs and may not."""
    old, new = _flatten(found), _flatten(config)
    lines = []
    for name in sorted(old.keys() | new.keys()):
        free = any(name == field or name.startswith(f"{field}.") for field in may_change)
        if not free and old.get(name, _ABSENT) != new.get(name, _ABSENT):
            lines.append(
                f"  {name}: the run has {old.get(name, _ABSENT)!r}, "
                f"this command {new.get(name, _ABSENT)!r}"
            )
    return lines


def _check_config(path: Path, config: dict[str, Any], may_change: Sequence[str]) -> dict[str, Any]:
    """The config on disk; ValueError when it is another one and something was made with it."""
    file = path / "config.json"
    try:
        found = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    lines = _differences(found, config, may_change)
    if lines and _has_begun(path):
        raise ValueError(
            f"--out={path} is a run with another config; choose another folder or the same "
            "values:\n" + "\n".join(lines)
        )
    return found


def _has_begun(path: Path) -> bool:
    """Whether a run wrote more than its config; also where the folder may not be of a run."""
    if not (path / ".lock").exists():
        return True
    # An event file of TensorBoard is never empty; the metrics, that are beside it, may be.
    besides = ("config.json", ".lock", "tensorboard")
    return any(size > 0 for file, size in _files(path) if file.parts[0] not in besides)


def _files(path: Path) -> Iterator[tuple[Path, int]]:
    """Files below `path` and their sizes; another process may be moving them about."""
    for folder, _, names in os.walk(path):  # which passes over a folder that has gone
        for name in names:
            file = Path(folder) / name
            with suppress(FileNotFoundError):
                yield file.relative_to(path), file.stat().st_size


def _check_space(path: Path, needed_bytes: int) -> None:
    """OSError when the disk that will hold `path` has fewer free bytes than are still needed."""
    parent = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    free = shutil.disk_usage(parent).free
    if needed_bytes and path.exists():
        needed_bytes -= sum(size for _, size in _files(path))
    if free < needed_bytes:
        raise OSError(
            errno.ENOSPC,
            f"not enough disk space for {path}: {needed_bytes / 1e6:.0f} MB needed, "
            f"{free / 1e6:.0f} MB free",
        )


def _take_lock(path: Path) -> int:
    """An open descriptor that holds the lock; a lock of a dead process is free by itself."""
    descriptor = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(descriptor, 100).decode(errors="replace").strip() or "another process"
        os.close(descriptor)
        raise BlockingIOError(
            errno.EWOULDBLOCK, f"{path} is being written by {holder}; wait for it or end it"
        ) from error
    except OSError as error:
        # Some network file systems have no locks at all: a run there must still be possible.
        logging.warning("%s cannot be locked (%s): let no other process write it", path, error)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} on {os.uname().nodename}\n".encode(), 0)
    return descriptor
