"""Figures of a run: one JSON line a step, TensorBoard when installed, and a line on the screen.

    {"step": 120, "seconds": 41.2, "loss": 0.31, ...}

Non-finite figures are written as the strings "nan", "inf", "-inf", so that each line is valid JSON
and no information is lost; `read_metrics` gives them back as floats. `seconds` counts the time
spent in the run over all its resumptions.
"""

import importlib.util
import json
import math
import resource
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import jax
import numpy as np

from geojax.io.atomic import write_bytes

_NON_FINITE = ("nan", "inf", "-inf")


class MetricLog:
    """Writes `metrics.jsonl` (and `tensorboard/`) in a run's folder."""

    def __init__(
        self,
        folder: str | Path,
        total_steps: int,
        resume_step: int = 0,
        shown: Sequence[str] = ("loss",),
        print_seconds: float = 2.0,
    ):
        """Open the log to go on at `resume_step`: lines of that step and later ones are dropped.

        `shown` are the figures of the progress line, printed at most every `print_seconds`.
        """
        self._path = Path(folder) / "metrics.jsonl"
        kept = [line for line in read_metrics(self._path) if line["step"] < resume_step]
        write_bytes(self._path, "".join(_line(entry) for entry in kept).encode())
        self._file = self._path.open("a")
        self._seconds_before = kept[-1]["seconds"] if kept else 0.0
        self._start = time.monotonic()
        self._total, self._shown = total_steps, tuple(shown)
        self._print_seconds = print_seconds
        # Recent (time, step) pairs: the rate of the last prints, without the compilation.
        self._recent: deque[tuple[float, int]] = deque(maxlen=8)
        self._tensorboard = _tensorboard(Path(folder) / "tensorboard", resume_step)

    @property
    def seconds(self) -> float:
        """Time spent in the run so far, all resumptions together."""
        return self._seconds_before + time.monotonic() - self._start

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Append a step's figures (numbers or scalar arrays) and, when it is time, print a line.

        Reading a device scalar waits for the device: call it every few steps, not at each one.
        """
        figures = {name: _number(name, value) for name, value in metrics.items()}
        entry = {"step": int(step), "seconds": round(self.seconds, 3), **figures}
        self._file.write(_line(entry))
        self._file.flush()  # a killed process loses no line
        if self._tensorboard is not None:
            for name, value in figures.items():
                self._tensorboard.add_scalar(name, value, step)
        now = time.monotonic()
        due = not self._recent or now - self._recent[-1][0] >= self._print_seconds
        if due or step >= self._total - 1:
            self._recent.append((now, step))
            print(self._progress(step, figures), flush=True)

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """Show a picture [H, W, 3] in [0, 1] in TensorBoard, if it is there."""
        if self._tensorboard is not None:
            self._tensorboard.add_image(name, np.asarray(image), step, dataformats="HWC")

    def close(self) -> None:
        """Flush and close the files."""
        self._file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()

    def _progress(self, step: int, figures: Mapping[str, float]) -> str:
        parts = [f"step {step + 1}/{self._total}"]
        (then, first), (now, last) = self._recent[0], self._recent[-1]
        if last > first and now > then:
            rate = (last - first) / (now - then)
            parts.append(f"{rate:.2f} steps/s" if rate < 10 else f"{rate:.0f} steps/s")
            parts.append(f"{format_seconds((self._total - 1 - step) / rate)} left")
        parts += [f"{name} {figures[name]:.4g}" for name in self._shown if name in figures]
        return "  ".join(parts)

    def __enter__(self) -> "MetricLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a log, oldest first; [] when there is no file.

    A last line cut short by a kill is left out. Raises ValueError naming any other broken line.
    """
    path = Path(path)
    if not path.exists():
        return []
    entries = []
    lines = path.read_text().split("\n")
    for number, line in enumerate(lines):
        if number == len(lines) - 1:  # what follows the last newline: empty, or cut short
            break
        try:
            entry = json.loads(line)
            step = entry["step"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} line {number + 1} is not a line of metrics: {line!r}"
            ) from error
        if not isinstance(step, int):
            raise ValueError(f"{path} line {number + 1}: step is {step!r}, expected an integer")
        entries.append({k: float(v) if v in _NON_FINITE else v for k, v in entry.items()})
    return entries


class PeakMemory(NamedTuple):
    """Largest memory so far in bytes: of the process, and of device 0 where it keeps count."""

    host: int
    device: int | None


def peak_memory() -> PeakMemory:
    """Peak resident set of this process and peak bytes in use on the first device."""
    # ru_maxrss is in kilobytes on Linux and in bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    stats = jax.local_devices()[0].memory_stats() or {}  # None on CPU
    return PeakMemory(host, stats.get("peak_bytes_in_use"))


def format_seconds(seconds: float) -> str:
    """`45s`, `3m20s`, `2h05m`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def _number(name: str, value: Any) -> float:
    array = np.asarray(value)
    if array.size != 1 or (array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16"):
        raise ValueError(f"metric {name} must be one number, got {array.dtype}{array.shape}")
    return float(array.astype(np.float64).reshape(()))


def _line(entry: Mapping[str, Any]) -> str:
    finite = {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in entry.items()
    }
    return json.dumps(finite, allow_nan=False) + "\n"


def _tensorboard(folder: Path, resume_step: int) -> Any:
    """A tensorboardX writer, or None when it is not installed (extra `viz`)."""
    if importlib.util.find_spec("tensorboardX") is None:
        return None
    from tensorboardX import SummaryWriter

    return SummaryWriter(str(folder), purge_step=resume_step or None)
