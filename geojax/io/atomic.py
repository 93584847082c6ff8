"""Files that are whole or absent: written beside their place, then renamed into it."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path; on leaving without an error it is renamed to `path`.

    The suffix is kept (writers choose a format by it), missing folders are made, and a failed write
    leaves nothing behind. The process id keeps two writers apart.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file in one step."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: str | Path, value: Any) -> None:
    """Write indented JSON in one step; TypeError when a value has no JSON form."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())
