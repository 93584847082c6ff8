"""A process of its own for each side of a comparison, so that each has a peak of memory of its own.

The parent writes a line, the worker answers with one of JSON: "run" is answered with the seconds of
one call, "save FILE" with the last call's result written as .npy, "peak" with the process's peaks
of resident memory. Workers take turns: one waits while another runs. Nothing here imports a
framework, which would count as memory of the other side.
"""

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_bytes() -> int:
    """The most memory that was resident in this process since it started or was last reset."""
    if STATUS.is_file():
        # Not getrusage: a process inherits the peak there from the one that started it.
        lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if ":" in line)
        if "VmHWM" in lines:
            return 1024 * int(lines["VmHWM"].split()[0])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def serve(make: Callable[[], Callable[[], np.ndarray]]) -> None:
    """The worker's end: make the function, then answer until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    run = make()
    loading, result = peak_bytes(), None
    # Where the system does not allow it, the peak is that of loading and running together.
    with contextlib.suppress(OSError):
        CLEAR_REFS.write_text("5")
    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        command, _, argument = line.strip().partition(" ")
        answer: dict[str, Any] = {}
        if command == "run":
            cpu, started = time.process_time(), time.perf_counter()
            result = run()
            answer["seconds"] = time.perf_counter() - started
            answer["cpu_seconds"] = time.process_time() - cpu
        elif command == "save":
            if result is None:
                raise ValueError("nothing to save: run first")
            np.save(argument, result)
        elif command == "peak":
            answer = {"loading": loading, "running": peak_bytes()}
        else:
            raise ValueError(f"unknown command {command!r}")
        print(json.dumps(answer), file=answers)


class Worker(contextlib.AbstractContextManager["Worker"]):
    """The parent's end of a process that runs `serve`."""

    def __init__(self, command: Sequence[str]):
        """Start `python -m command...` and wait until it is ready.

        Raises:
          RuntimeError: it ended before, with what it wrote to standard error.
        """
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in __exit__)
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._read()

    def ask(self, line: str) -> Any:
        """The worker's answer.

        Raises:
          RuntimeError: it has ended.
        """
        assert self._process.stdin is not None
        print(line, file=self._process.stdin, flush=True)
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise RuntimeError(f"{self._process.args!r} ended:\n{self._errors.read()[-4000:]}")
        return json.loads(line)

    def __exit__(self, *exception: object) -> None:
        """End the process."""
        self._process.communicate()  # closes its standard input
        self._errors.close()
