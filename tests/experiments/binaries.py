"""Run the experiment binaries on the tiny family, as a user would.

Importing JAX and what else a binary needs takes longer than most of these runs. So they are forked
from a process that has imported it all and done nothing else (JAX starts its threads when it first
computes); each is a `__main__` of its own, with its own flags, output and exit status.
"""

import json
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]

BINARIES = (
    *("benchmark", "depth", "distill", "evaluate", "fit_nerf", "paint"),
    *("study_gradients", "study_rooms", "train_worlds", "walk"),
)

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([f"experiments.{name}" for name in BINARIES])

# A recipe whose every size is tiny: six small steps, then six large and lit ones.
TINY = {
    "steps": 12,
    "checkpoint_every": 4,
    "picture_every": 6,
    "views": 2,
    "small_size": 8,
    "large_size": 16,
    "samples": 8,
    "capacity": 512,
    "grid_resolution": 8,
    "grid_every": 3,
    "mesh_resolution": 16,
    "picture_size": 16,
    "density_threshold": 5.0,
    # Two kinds of step, and no more: each takes seconds to compile.
    "large_from": 0.5,
    "shaded_from": 0.5,
    "shaded_share": 1.0,
    "field.levels": 2,
    "field.finest": 16,
    "field.table_size": 4096,
}


def tiny_flags(model: Path, /, **changes: object) -> list[str]:
    """The flags of TINY with a model and other changes; "field__levels" is "field.levels"."""
    fields = {"model": model, **TINY}
    fields |= {name.replace("__", "."): value for name, value in changes.items()}
    return [f"--config.{name}={value}" for name, value in fields.items()]


def command(binary: str, *flags: str) -> list[str]:
    return [sys.executable, "-m", f"experiments.{binary}", *flags]


def run(binary: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run a binary to its end, in the root of the project."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("stdout", "stderr")]
        process = _FORKS.Process(target=_become, args=(binary, flags, dict(os.environ), files))
        process.start()
        process.join(900)
        if process.is_alive():
            process.kill()
            process.join()
        return subprocess.CompletedProcess(
            command(binary, *flags), process.exitcode, *(file.read_text() for file in files)
        )


def _become(binary: str, flags: tuple[str, ...], environ: dict[str, str], files: list[Path]):
    for number, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(ROOT)
    sys.argv = [binary, *flags]
    runpy.run_module(f"experiments.{binary}", run_name="__main__", alter_sys=True)


def strict_json(text: str) -> object:
    """JSON as the standard has it: no NaN, no Infinity."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)
