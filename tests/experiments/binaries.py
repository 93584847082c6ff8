"""Run the experiment binaries on the tiny family, as a user would."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

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
    """Run a binary to its end."""
    return subprocess.run(
        command(binary, *flags),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )


def strict_json(text: str) -> object:
    """JSON as the standard has it: no NaN, no Infinity."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)
