"""The metric log: valid lines always, none twice after a resume, time that adds up."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from geojax.io.metric_log import MetricLog, format_seconds, peak_memory, read_metrics


def open_log(folder, **kwargs) -> MetricLog:
    return MetricLog(folder, total_steps=10, **kwargs)


def test_figures_read_back_and_every_line_is_json(tmp_path):
    with open_log(tmp_path) as log:
        log.write(0, {"loss": jnp.float32(0.5), "n": np.int64(3), "bf": jnp.bfloat16(1.5)})
        log.write(1, {"loss": float("nan"), "up": math.inf, "down": np.float32(-np.inf)})
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    first, second = read_metrics(tmp_path / "metrics.jsonl")
    assert (first["step"], first["loss"], first["n"], first["bf"]) == (0, 0.5, 3.0, 1.5)
    assert math.isnan(second["loss"]) and (second["up"], second["down"]) == (math.inf, -math.inf)


def test_resume_drops_the_lines_that_will_come_again(tmp_path):
    with open_log(tmp_path) as log:
        for step in range(6):
            log.write(step, {"loss": step})
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 6, "lo')  # killed in the middle of a line
    spent = read_metrics(path)[3]["seconds"]
    with open_log(tmp_path, resume_step=4) as log:
        assert log.seconds >= spent
        for step in range(4, 8):
            log.write(step, {"loss": 10 * step})
    lines = read_metrics(path)
    assert [line["step"] for line in lines] == list(range(8))
    assert [line["loss"] for line in lines] == [0, 1, 2, 3, 40, 50, 60, 70]
    seconds = [line["seconds"] for line in lines]
    assert seconds == sorted(seconds)


def test_a_fresh_start_empties_the_log(tmp_path):
    for _ in range(2):
        with open_log(tmp_path) as log:
            log.write(0, {"loss": 1})
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 1


def test_bad_figures_and_bad_lines_are_named(tmp_path):
    with open_log(tmp_path) as log:
        with pytest.raises(ValueError, match=r"metric loss must be one number.*\(2,\)"):
            log.write(0, {"loss": np.zeros(2)})
        with pytest.raises(ValueError, match="metric name"):
            log.write(0, {"name": "mug"})
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0}\nnonsense\n')
    with pytest.raises(ValueError, match="line 2"):
        read_metrics(path)
    path.write_text('{"step": "x"}\n')
    with pytest.raises(ValueError, match="'x'"):
        read_metrics(path)
    assert read_metrics(tmp_path / "absent.jsonl") == []


def test_the_progress_line_has_rate_and_time_left(tmp_path, monkeypatch, capsys):
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    log = MetricLog(tmp_path, 10, shown=("loss", "absent"), print_seconds=3.0)
    for step in range(5):
        now += 4.0
        log.write(step, {"loss": 0.25, "hidden": 1.0})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "step 1/10  loss 0.25"
    assert lines[-1] == "step 5/10  0.25 steps/s  20s left  loss 0.25"


def test_progress_is_printed_seldom_but_the_last_always(tmp_path, capsys):
    log = MetricLog(tmp_path, 10, print_seconds=60.0)
    for step in range(10):
        log.write(step, {"loss": 1.0})
    assert [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()] == [
        "step 1/10",
        "step 10/10",
    ]


def test_tensorboard_is_optional(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with open_log(tmp_path) as log:
        log.write(0, {"loss": 1})
        log.image(0, "view", np.zeros((4, 4, 3), np.float32))
    assert not (tmp_path / "tensorboard").exists()


def test_tensorboard_gets_the_figures(tmp_path):
    pytest.importorskip("tensorboardX")
    with open_log(tmp_path) as log:
        log.write(0, {"a_figure": 1})
        log.image(0, "a_view", np.zeros((4, 4, 3), np.float32))
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"a_figure" in events.read_bytes() and b"a_view" in events.read_bytes()


def test_peak_memory_sees_an_allocation():
    before = peak_memory().host
    block = np.ones(before // 8 + 10_000_000)  # as large as the peak so far, and 80 MB
    assert peak_memory().host >= before + 40_000_000
    del block


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0s"), (59.6, "1m00s"), (200, "3m20s"), (3599.7, "1h00m"), (7500, "2h05m")],
)
def test_format_seconds(seconds, text):
    assert format_seconds(seconds) == text
