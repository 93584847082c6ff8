"""A run's folder: resume, refusal with a reason, and nothing touched by a refusal."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from geojax.io.run_folder import check_run, open_run

CONFIG = {"prompt": "a red mug", "steps": 400, "field": {"levels": 8, "bound": (1.0, 2.0)}}


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns)
        for p in folder.rglob("*")
        if p.is_file()
    }


def test_the_same_config_resumes(tmp_path):
    with open_run(tmp_path / "a" / "run", CONFIG) as run:
        assert not run.resumed
        assert run.checkpoints == tmp_path / "a" / "run" / "checkpoints"
        assert json.loads((run.path / "config.json").read_text())["field"]["levels"] == 8
    with open_run(tmp_path / "a" / "run", CONFIG) as run:
        assert run.resumed


def begin(folder: Path, config: dict) -> None:
    """A run that has made something."""
    with open_run(folder, config):
        (folder / "metrics.jsonl").write_text('{"step": 0}\n')


@pytest.mark.parametrize("open_or_check", [open_run, check_run])
def test_another_config_is_refused_with_both_values(tmp_path, open_or_check):
    begin(tmp_path, CONFIG)
    before = snapshot(tmp_path)
    other = {"prompt": "a blue mug", "steps": 500, "field": {"levels": 8}, "new": None}
    with pytest.raises(ValueError) as error:
        open_or_check(tmp_path, other, may_change=("steps",))
    text = str(error.value)
    assert "prompt: the run has 'a red mug', this command 'a blue mug'" in text
    assert "field.bound: the run has [1.0, 2.0], this command '(absent)'" in text
    assert "new: the run has '(absent)', this command None" in text
    assert "steps" not in text and "levels" not in text
    assert snapshot(tmp_path) == before


def test_a_field_that_may_change_is_written(tmp_path):
    open_run(tmp_path, CONFIG).close()
    longer = {**CONFIG, "steps": 800, "field": {"levels": 9, "bound": (1.0, 2.0)}}
    with open_run(tmp_path, longer, may_change=("steps", "field")) as run:
        assert run.resumed
    assert json.loads((tmp_path / "config.json").read_text())["steps"] == 800


def test_a_run_that_made_nothing_takes_another_config(tmp_path):
    """What a run leaves that fails at its start: empty folders, an empty log, event files."""
    open_run(tmp_path, CONFIG).close()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "metrics.jsonl").touch()
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "events").write_bytes(b"header")
    other = {**CONFIG, "prompt": "a blue mug"}
    before = snapshot(tmp_path)
    assert check_run(tmp_path, other)
    assert snapshot(tmp_path) == before
    with open_run(tmp_path, other) as run:
        assert not run.resumed
        assert json.loads((tmp_path / "config.json").read_text())["prompt"] == "a blue mug"
        # Another one may not take it from the process that has just started.
        with pytest.raises(BlockingIOError):
            open_run(tmp_path, CONFIG)
    (tmp_path / "checkpoints" / "4").mkdir()
    (tmp_path / "checkpoints" / "4" / "manifest").write_text("{}")
    with pytest.raises(ValueError, match="prompt: the run has 'a blue mug'"):
        open_run(tmp_path, CONFIG)


def test_a_config_that_is_not_of_a_run_is_left_alone(tmp_path):
    """Such as a model's."""
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(ValueError, match="model_type: the run has 'clip'"):
        open_run(tmp_path, CONFIG)
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]


def test_checking_makes_no_folder(tmp_path):
    assert not check_run(tmp_path / "run", CONFIG)
    assert not (tmp_path / "run").exists()


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="not empty and not a run"):
        open_run(tmp_path, CONFIG)
    with pytest.raises(ValueError, match="is a file"):
        open_run(tmp_path / "thesis.tex", CONFIG)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_broken_or_unwritable_config_is_named(tmp_path):
    with pytest.raises(ValueError, match="JSON cannot hold"):
        open_run(tmp_path / "a", {"f": print})
    (tmp_path / "config.json").write_text('{"prompt": ')
    with pytest.raises(ValueError, match=r"config\.json is not JSON"):
        open_run(tmp_path, CONFIG)


def test_too_little_space_is_said_before_work(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, 5_000_000))
    with pytest.raises(OSError, match="200 MB needed, 5 MB free"):
        open_run(tmp_path / "run", CONFIG, needed_bytes=200_000_000)
    assert not (tmp_path / "run").exists()
    open_run(tmp_path / "run", CONFIG, needed_bytes=4_000_000).close()
    # What the run has written already is not needed a second time.
    (tmp_path / "run" / "checkpoint").write_bytes(bytes(3_000_000))
    open_run(tmp_path / "run", CONFIG, needed_bytes=7_900_000).close()
    with pytest.raises(OSError, match="6 MB needed"):
        open_run(tmp_path / "run", CONFIG, needed_bytes=9_000_000)


def test_one_writer_at_a_time(tmp_path):
    with (
        open_run(tmp_path, CONFIG),
        pytest.raises(BlockingIOError, match=f"written by process {os.getpid()}"),
    ):
        open_run(tmp_path, CONFIG)
    open_run(tmp_path, CONFIG).close()


HOLD = """
import sys, time
from geojax.io.run_folder import open_run
run = open_run(sys.argv[1], {"a": 1})
print("held", flush=True)
time.sleep(600)
"""


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError, match=f"process {process.pid}"):
            open_run(tmp_path, {"a": 1})
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    with open_run(tmp_path, {"a": 1}) as run:
        assert run.resumed
