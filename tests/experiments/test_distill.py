"""The distillation binary, end to end on a tiny family: a run, a kill, and what it refuses."""

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest

from geojax.io.metric_log import read_metrics
from geojax.io.run_folder import open_run
from tests.experiments.binaries import ROOT, command, run, strict_json, tiny_flags

pytestmark = pytest.mark.end_to_end

# Over the limit of tokens, so that the cut is seen too.
PROMPT = "a red mug " + " ".join(["standing quietly on its own in the middle of nowhere"] * 3)


def figures(folder):
    return [
        {name: value for name, value in line.items() if name != "seconds"}
        for line in read_metrics(folder / "metrics.jsonl")
    ]


def digests(folder, step):
    """Path -> SHA-256 of every array of a checkpoint."""
    manifest = json.loads((folder / "checkpoints" / str(step) / "manifest/metadata").read_text())
    return {path: leaf["sha256"] for path, leaf in manifest["leaves"].items()}


def kill_after_first_checkpoint(flags, folder):
    """Start a run and kill it, as kill -9 does, once its first checkpoint is whole."""
    with subprocess.Popen(
        command("distill", *flags),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        while not (folder / "checkpoints" / "4").is_dir() and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, "the run ended before it could be killed"


def test_a_prompt_becomes_an_object_and_a_killed_run_the_same_one(family, tmp_path):
    # Room for every sample of a picture: one program draws them all, and not two.
    flags = [f"--prompt={PROMPT}", *tiny_flags(family, capacity=2048)]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = run("distill", f"--out={whole}", *flags)
    assert done.returncode == 0, done.stderr[-3000:]

    # What was cut off the prompt is said.
    assert done.stderr.count("over the limit of 24 tokens") == 1
    assert "in the middle of nowhere" in done.stderr
    assert "step 12/12" in done.stdout

    summary = strict_json((whole / "summary.json").read_text())
    assert summary["prompt"] == PROMPT
    assert (summary["seed"], summary["steps"]) == (0, 12)
    # Loading and this report are work too.
    assert summary["seconds"] > summary["seconds_steps"] > 0.0
    assert summary["collapsed"] is (summary["collapse"] is not None)
    assert summary["peak_memory_bytes"] > 1e7
    assert 0.0 <= summary["opacity"] <= 1.0
    assert 0.0 <= summary["iou"] <= 1.0
    assert 0.0 <= summary["silhouette_iou"] <= 1.0
    assert 1 <= summary["judge_rank"] <= 96
    assert "depth_error" in summary
    assert summary["pieces"] >= 0 and -1.0 <= summary["two_faced"] <= 1.0
    for name in ("views.png", "turntable.mp4", "mesh.glb", "config.json"):
        assert (whole / name).stat().st_size > 100, name
    assert sorted(p.name for p in (whole / "progress").iterdir()) == ["000006.png", "000012.png"]
    assert [line["step"] for line in figures(whole)] == list(range(12))
    assert all(0.0 <= line["dropped"] < 1.0 for line in figures(whole))
    assert {p.name for p in (whole / "checkpoints").iterdir()} >= {"4", "8", "12"}

    killed_flags = [f"--out={killed}", *flags]
    kill_after_first_checkpoint(killed_flags, killed)
    assert not (killed / "summary.json").exists()
    again = run("distill", *killed_flags)
    assert again.returncode == 0, again.stderr[-3000:]
    assert figures(killed) == figures(whole)
    assert digests(killed, 12) == digests(whole, 12)
    assert (killed / "mesh.glb").read_bytes() == (whole / "mesh.glb").read_bytes()
    assert (killed / "views.png").read_bytes() == (whole / "views.png").read_bytes()


def damage(family, tmp_path, change):
    """A copy of the family with a change made to it."""
    folder = tmp_path / "damaged"
    shutil.copytree(family, folder)
    change(folder)
    return folder


def truncate(folder):
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    ("prompt", "changes", "said"),
    [
        ("", {}, "--prompt is empty"),
        ("a red mug", {"gidance": 3.0}, 'Did you mean "guidance"'),
        ("a red mug", {"guidance": "nan"}, "every number must be finite"),
        ("a red mug", {"cameras__distance": "(1.3, 1e999)"}, "every number must be finite"),
        ("a red mug", {"large_size": 20}, "config.large_size must be a positive multiple of 8"),
        ("a red mug", {"t_first": "(0.9, 0.1)"}, "config.t_first must be 0 <= low < high <= 1"),
        ("a red mug", {"model": "/no/such/family"}, "/no/such/family"),
    ],
    ids=["empty", "unknown", "nan", "camera", "size", "range", "absent"],
)
def test_a_bad_setting_is_refused(family, tmp_path, prompt, changes, said):
    refused(tmp_path, said, f"--prompt={prompt}", *tiny_flags(family, **changes))


@pytest.mark.parametrize(
    ("change", "part", "said"),
    [
        (lambda f: (f / "unet" / WEIGHTS).unlink(), "", "no weights in"),
        (truncate, "", "is truncated or damaged"),
        (lambda f: None, "unet", "is a component (UNet2DConditionModel)"),
        (lambda f: (f / "model_index.json").unlink(), "", "no model_index.json"),
    ],
    ids=["weights", "truncated", "component", "index"],
)
def test_a_bad_model_folder_is_refused(family, tmp_path, change, part, said):
    model = damage(family, tmp_path, change) / part
    refused(tmp_path, said, "--prompt=a red mug", *tiny_flags(model))


def refused(tmp_path, said, *flags):
    """The binary fails, says why, and has not touched the disk."""
    out = tmp_path / "out"
    done = run("distill", f"--out={out}", *flags)
    assert done.returncode == 1
    assert said in done.stderr, done.stderr[-2000:]
    assert done.stderr.splitlines()[-1].startswith("distill: ")
    assert "Traceback" not in done.stderr
    assert not out.exists()


def test_a_full_disk_is_said_before_work(family, tmp_path):
    out = tmp_path / "out"
    program = (
        "import shutil\n"
        "from collections import namedtuple\n"
        "from absl import app\n"
        "from experiments import distill\n"
        "from experiments.errors import reported\n"
        "usage = namedtuple('usage', 'total used free')(10**9, 10**9, 100_000)\n"
        "shutil.disk_usage = lambda path: usage\n"
        "with reported('distill'):\n    distill.define_flags()\n    app.run(distill.main)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, f"--out={out}", "--prompt=a mug", *tiny_flags(family)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr[-2000:]
    assert "distill: not enough disk space for" in done.stderr
    assert not out.exists()


def test_the_folder_of_another_run_is_left_alone(family, tmp_path):
    """And said before the model is read, which could not be."""
    out, model = tmp_path / "run", damage(family, tmp_path, truncate)
    with open_run(out, {"prompt": "a blue chair", "seed": 3}):
        (out / "metrics.jsonl").write_text('{"step": 0, "seconds": 1.0}\n')
    before = {p: p.read_bytes() for p in out.iterdir()}
    done = run("distill", f"--out={out}", "--prompt=a red mug", *tiny_flags(model))
    assert done.returncode == 1
    assert "prompt: the run has 'a blue chair', this command 'a red mug'" in done.stderr
    assert {p: p.read_bytes() for p in out.iterdir()} == before


@pytest.mark.parametrize("variant", ["sjc", "vsd"])
def test_other_losses_make_an_object_too(family, tmp_path, variant):
    """The two that differ most: latents that are decoded, and a network learnt along."""
    config = f"--config=configs/distill/worlds.py:{variant}"
    # One kind of step: small and unlit. SJC has no small size, and latents no light.
    changes = {"large_from": 1.0, "shaded_share": 0.0, "small_size": 16, "field__voxels": 8}
    tiny = tiny_flags(family, steps=4, capacity=2048, **changes)
    done = run("distill", f"--out={tmp_path}", config, "--prompt=a red mug", *tiny)
    assert done.returncode == 0, done.stderr[-3000:]
    summary = strict_json((tmp_path / "summary.json").read_text())
    assert summary["steps"] == 4 and 0.0 <= summary["opacity"] <= 1.0
    assert (tmp_path / "views.png").stat().st_size > 100
    saved = digests(tmp_path, 4)
    assert any("lora" in path for path in saved) == (variant == "vsd")
    assert any("background" in path for path in saved) == (variant == "sjc")
