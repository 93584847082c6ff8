"""The networks of Stable Diffusion against PyTorch diffusers, both in float32: time and memory.

unet       a forward pass of a batch of two, the size of one step with guidance
encode     a picture through the autoencoder's encoder and the gradient back, as in distillation
generate   a picture from a prompt: text encoder, DDIM with guidance, decoder

Both sides read one folder with random weights and the same inputs, each in a process of its own,
and run in turn, so that both see the same load; what they give is compared. PyTorch is optional:
without it only geojax is measured.
"""

import contextlib
import dataclasses
import importlib.util
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks.worker import Worker
from experiments.table import format_table, number

TASKS = ("unet", "encode", "generate")
SIDES = ("geojax", "torch")
# One call more that is not counted; a generation is long enough to hide what is slow once.
WARM_UP = {"unet": True, "encode": True, "generate": False}
PROMPT = "a red mug"


@dataclasses.dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes:
      folder: a model in Stable Diffusion's layout; None makes one of SD 1.5's size (4.3 GB) with
        random weights in the temporary folder, and removes it.
      tasks: some of TASKS.
      steps: of a generation.
      guidance: of a generation.
    """

    folder: str | None = None
    tasks: tuple[str, ...] = TASKS
    steps: int = 20
    guidance: float = 7.5

    def __post_init__(self) -> None:
        if unknown := [task for task in self.tasks if task not in TASKS]:
            raise ValueError(f"unknown tasks {unknown}, choose from {TASKS}")


def write_inputs(folder: Path, file: Path) -> dict[str, int]:
    """Random inputs of the model's own sizes, channels last; returns the sizes."""
    unet, vae = (
        json.loads((folder / name / "config.json").read_text()) for name in ("unet", "vae")
    )
    text = json.loads((folder / "text_encoder" / "config.json").read_text())
    side, channels = unet["sample_size"], vae["latent_channels"]
    image = side * 2 ** (len(vae["block_out_channels"]) - 1)
    shapes = {
        "sample": (2, side, side, unet["in_channels"]),
        "condition": (2, text["max_position_embeddings"], unet["cross_attention_dim"]),
        "image": (1, image, image, 3),
        "cotangent": (1, side, side, channels),
        "noise": (1, side, side, channels),
    }
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()
    }
    np.savez(file, t=np.full(2, 500, np.int32), **arrays)
    return {"latent": side, "image": image}


def measure_task(task: str, folder: Path, inputs: Path, options: Options, repeats: int) -> Any:
    """Seconds and bytes of both sides (of PyTorch's None where it is absent), and their ratios."""
    sides = SIDES if importlib.util.find_spec("torch") else SIDES[:1]
    settings = [task, folder, inputs, options.steps, options.guidance, PROMPT]
    turns: dict[str, list[Any]] = {side: [] for side in sides}
    found: dict[str, Any] = {"task": task, "geojax": None, "torch": None}
    with contextlib.ExitStack() as stack:
        workers = {
            side: stack.enter_context(
                Worker([f"experiments.benchmarks.models_{side}", *map(str, settings)])
            )
            for side in sides
        }
        for turn in range(repeats + WARM_UP[task]):
            for side, worker in workers.items():
                answer = worker.ask("run")
                if turn or not WARM_UP[task]:
                    turns[side].append(answer)
        results = []
        for side, worker in workers.items():
            file = inputs.with_name(f"{side}.npy")
            worker.ask(f"save {file}")
            results.append(np.load(file))
            seconds = [turn["seconds"] for turn in turns[side]]
            peaks = worker.ask("peak")
            found[side] = {
                "seconds": min(seconds),
                "median_seconds": float(np.median(seconds)),
                "cpu_seconds": min(turn["cpu_seconds"] for turn in turns[side]),
                "peak_bytes": max(peaks.values()),
                "loading_peak_bytes": peaks["loading"],
                "running_peak_bytes": peaks["running"],
            }
    ratios = ("seconds", "cpu_seconds", "peak_bytes", "running_peak_bytes")
    found["ratio"] = found["error"] = None
    if found["torch"]:
        found["ratio"] = {name: found["geojax"][name] / found["torch"][name] for name in ratios}
        found["error"] = float(np.abs(results[0] - results[1]).max() / np.abs(results[1]).max())
    return found


def measure(options: Options, repeats: int) -> dict[str, Any]:
    """The figures of every task, the fastest of `repeats` turns."""
    if importlib.util.find_spec("torch") is None:
        print("PyTorch is not installed, so there is no comparison: pip install -e '.[torch]'")
    with tempfile.TemporaryDirectory() as temporary:
        folder, inputs = Path(temporary, "model"), Path(temporary, "inputs.npz")
        if options.folder is not None:
            folder = Path(options.folder)
        else:
            from experiments.benchmarks.random_model import write_random_model

            write_random_model(folder)
        sizes = write_inputs(folder, inputs)
        rows = [measure_task(task, folder, inputs, options, repeats) for task in options.tasks]
    return {**dataclasses.asdict(options), **sizes, "rows": rows}


def title(figures: dict[str, Any]) -> str:
    """What the table shows."""
    return (
        f"Stable Diffusion, float32: UNet of 2 x {figures['latent']}x{figures['latent']} latents, "
        f"encoder forward and backward at {figures['image']} px, {figures['steps']} steps of DDIM"
    )


def table(figures: dict[str, Any]) -> str:
    """A row a task; ratios are geojax's over PyTorch's, error is the largest relative one."""
    header = ["task", "geojax s", "torch s", "ratio", "geojax GB", "torch GB", "ratio", "error"]
    rows = []
    for row in figures["rows"]:
        ours, theirs, ratio = row["geojax"], row["torch"], row["ratio"]
        rows.append([row["task"]])
        for name, unit in (("seconds", 1.0), ("peak_bytes", 1e9)):
            rows[-1] += [
                number(ours[name] / unit),
                number(theirs and theirs[name] / unit),
                number(ratio and ratio[name], 2),
            ]
        rows[-1].append("-" if row["error"] is None else f"{row['error']:.1e}")
    return format_table(header, rows)
