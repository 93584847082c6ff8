import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.own_process import in_own_process
from tests.experiments.binaries import ROOT


def test_the_result_comes_from_another_process():
    assert in_own_process("evaluate", os.getpid) != os.getpid()
    assert in_own_process("evaluate", math.hypot, 3.0, 4.0) == 5.0


def test_its_errors_are_said_by_itself(capfd):
    with pytest.raises(SystemExit) as left:
        in_own_process("evaluate", Path("/no/such/file").read_text)
    assert left.value.code == 1
    assert capfd.readouterr().err == "evaluate: No such file or directory: /no/such/file\n"


def test_an_end_from_outside_is_an_error():
    with pytest.raises(ChildProcessError, match="signal 6"):
        in_own_process("evaluate", os.abort)


def test_it_ends_with_who_started_it(tmp_path):
    """Killed, so that nothing of its own can clean up."""
    held = tmp_path / "held"
    program = (
        "import pathlib, subprocess, sys\n"
        "from experiments.own_process import in_own_process\n"
        "if __name__ == '__main__':\n"
        "    in_own_process('evaluate', exec, \"import os, pathlib, time\\n"
        f"pathlib.Path({str(held)!r}).write_text(str(os.getpid()))\\n"
        'time.sleep(300)")\n'
    )
    script = tmp_path / "program.py"
    script.write_text(program)
    starter = subprocess.Popen(
        [sys.executable, script], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    try:
        deadline = time.monotonic() + 60
        while not (held.exists() and held.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        worker = int(held.read_text())
    finally:
        starter.kill()
        starter.wait()
    deadline = time.monotonic() + 30
    while _runs(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(worker)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{process}/stat")  # one that nobody waits for is no longer at work
    return not (stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] == "Z")
