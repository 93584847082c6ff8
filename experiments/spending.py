"""What a run has cost over all its resumptions: seconds and memory.

A killed run leaves what its last checkpoint says, a finished one what its summary says. Steps that
a kill made void are made again and counted once.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geojax.io.metric_log import peak_memory

SECONDS, MEMORY = "seconds", "peak_memory_bytes"


class Spending:
    """Counts on from what was spent before.

    Attributes:
      before: seconds and peak bytes of earlier processes.
    """

    def __init__(self, started: float, before: Mapping[str, Any]):
        """`started` is the `time.monotonic()` at which this process began."""
        self._started = started
        self.before = {name: before.get(name, 0) for name in (SECONDS, MEMORY)}

    def figures(self) -> dict[str, Any]:
        """`seconds` and `peak_memory_bytes` until now."""
        seconds = self.before[SECONDS] + time.monotonic() - self._started
        memory = max(self.before[MEMORY], peak_memory().host)
        return {SECONDS: round(seconds, 1), MEMORY: memory}


def spent_before(folder: Path, step: int, metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """Figures of a run at a step: of its summary, where it has one of that step; else `metadata`'s.

    The summary has counted the report too, which comes after the last checkpoint.
    """
    file = folder / "summary.json"
    if file.exists():
        summary = json.loads(file.read_text())
        if summary.get("steps") == step:
            return summary
    return metadata
