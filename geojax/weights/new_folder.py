"""A folder that is whole or absent: written beside its place, then renamed into it."""

import filecmp
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def new_folder(path: Path, overwrite: bool) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` when the block ends without an error.

    A `path` that holds the very same files stays; one that differs is an error, or with
    `overwrite` is replaced as a whole. The process id keeps two writers apart.

    Raises:
      FileExistsError: `path` exists and differs.
    """
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = (path.with_name(f".{path.name}.{end}-{os.getpid()}") for end in ("new", "old"))
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if path.is_dir() and _same_files(temporary, path):
            return
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            if not overwrite:
                raise FileExistsError(
                    f"{path} exists and differs from what would be written; "
                    "remove it, or pass overwrite=True"
                )
            path.rename(old)
        try:
            temporary.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _same_files(a: Path, b: Path) -> bool:
    names = [{p.relative_to(x) for p in x.rglob("*") if p.is_file()} for x in (a, b)]
    return names[0] == names[1] and all(filecmp.cmp(a / n, b / n, shallow=False) for n in names[0])
