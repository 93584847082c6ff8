"""Digests beside weights: a file in which a bit has flipped is named, not used.

`digests.json` in a component's folder: {"sha256": {file: {key: digest of the tensor}}}. A file of
safetensors has no checksum: where a bit flips in its data it still opens, and the network is a
little wrong for ever. The loader hashes what it reads anyway.

A digest covers the tensor's type, shape and bytes. A config.json has none: it is text that people
edit. A file that digests.json does not list is not checked: other libraries may have added it.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from geojax.weights.safetensors_io import read_entries, read_json, read_tensors

DIGESTS = "digests.json"
ALGORITHM = "sha256"
MOST_NAMED = 20


def tensor_digest(value: np.ndarray) -> str:
    """The digest of a tensor in the file's layout, as hexadecimal digits."""
    value = np.asarray(value, order="C")
    digest = hashlib.sha256(f"{value.dtype} {value.shape} ".encode())
    # As bytes first: numpy hands out no buffer of bfloat16.
    digest.update(value.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def save_digests(folder: Path, digests: Mapping[str, Mapping[str, str]]) -> None:
    """Write digests.json: file -> key -> digest."""
    text = json.dumps({ALGORITHM: digests}, indent=1, sort_keys=True) + "\n"
    (folder / DIGESTS).write_text(text)


def write_digests(folder: str | Path) -> list[Path]:
    """Write digests.json beside all safetensors files in a folder and below, as they are now.

    For weights that something else than `save_component` wrote, or that were changed on purpose.

    Returns:
      The folders that got one.

    Raises:
      FileNotFoundError: there are no safetensors files.
      ValueError: one of them is truncated or damaged.
    """
    by_folder: dict[Path, dict[str, dict[str, str]]] = {}
    for file in sorted(Path(folder).rglob("*.safetensors")):
        entries = read_entries(file)
        digests = {key: tensor_digest(value) for key, value in read_tensors(entries, entries)}
        by_folder.setdefault(file.parent, {})[file.name] = digests
    if not by_folder:
        raise FileNotFoundError(f"no safetensors files in {folder} or below")
    for place, digests_of in by_folder.items():
        save_digests(place, digests_of)
    return list(by_folder)


class Verifier:
    """Compares tensors as they are read; `finish` names all that differ."""

    def __init__(self, folder: Path):
        self.file = folder / DIGESTS
        self.expected: Mapping[str, Mapping[str, str]] = {}
        self.damaged: list[str] = []
        if self.file.is_file():
            found = read_json(self.file).get(ALGORITHM)
            if not isinstance(found, dict) or not all(isinstance(v, dict) for v in found.values()):
                raise ValueError(f"{self.file} is damaged: it must hold {ALGORITHM}: file: key")
            self.expected = found

    def check(self, file: Path, key: str, value: np.ndarray) -> None:
        """Compare one tensor of `file`."""
        listed = self.expected.get(file.name)
        if listed is None:
            return
        if key not in listed:
            self.damaged.append(f"{file.name}: {key} has no digest")
        elif listed[key] != tensor_digest(value):
            self.damaged.append(f"{file.name}: {key} differs")

    def finish(self) -> None:
        """Raise where something differed.

        Raises:
          ValueError: naming every tensor whose digest is another, or absent.
        """
        if self.damaged:
            count, shown = len(self.damaged), self.damaged[:MOST_NAMED]
            more = [f"and {count - MOST_NAMED} more"] if count > MOST_NAMED else []
            raise ValueError(
                f"weights damaged since {self.file} was written ({count} tensors):\n  "
                + "\n  ".join([*shown, *more])
                + "\nFetch or copy them again. If they were changed on purpose, write new digests: "
                "geojax.weights.digests.write_digests(folder)"
            )
