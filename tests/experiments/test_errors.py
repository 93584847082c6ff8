import errno
import subprocess
import sys
from pathlib import Path

import ml_collections
import numpy as np
import pytest

from experiments.errors import reported
from geojax.io.media import write_video
from tests.experiments.binaries import ROOT


def absent():
    Path("/no/such/file").read_text()


def full():
    raise OSError(errno.ENOSPC, "not enough disk space for runs/x")


def ours():
    write_video("a.avi", [])


def unknown_field():
    config = ml_collections.ConfigDict({"guidance": 1.0})
    _ = config.gidance


@pytest.mark.parametrize(
    ("fails", "line"),
    [
        (absent, "distill: No such file or directory: /no/such/file\n"),
        (full, "distill: not enough disk space for runs/x\n"),
        (ours, "distill: expected a path ending in .mp4 or .gif, got a.avi\n"),
        (unknown_field, 'distill: gidance: Did you mean "guidance" instead of "gidance"?\n'),
    ],
)
def test_a_message_is_one_line(fails, line, capsys):
    with pytest.raises(SystemExit) as left, reported("distill"):
        fails()
    assert left.value.code == 1
    assert capsys.readouterr().err == line


def library():
    np.zeros(3).reshape(2, 2)


def called_by_ours():
    # Our own line, but NumPy's C code raises: no `raise` of ours.
    from geojax.io.media import to_uint8

    to_uint8("text")


def attribute():
    _ = np.no_such_name


def key():
    raise KeyError("name")


@pytest.mark.parametrize("bug", [library, called_by_ours, attribute, key])
def test_a_bug_goes_through(bug, capsys):
    with pytest.raises((ValueError, AttributeError, KeyError, TypeError)), reported("distill"):
        bug()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "binary",
    [
        p.stem
        for p in (ROOT / "experiments").glob("*.py")
        if p.stem != "errors" and "app.run(main)" in p.read_text()
    ],
)
def test_every_binary_reports(binary):
    """What defines its flags and runs it stands under `reported` with its own name.

    Defining is part of it: ml_collections reads the flags of a recipe while it defines them.
    """
    text = (ROOT / "experiments" / f"{binary}.py").read_text()
    lines = ("        define_flags()\n", "        app.run(main)\n")
    assert f'    with reported("{binary}"):\n{"".join(lines)}' in text


def test_a_process_ends_with_1_and_no_traceback():
    program = (
        "from experiments.errors import reported\n"
        "with reported('depth'):\n    raise ValueError('--fov=0 must be positive')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "depth: --fov=0 must be positive\n")
