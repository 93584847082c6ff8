"""What is distilled from prompts that the prior was never trained on, against the solids' truth."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import distill, object_report
from experiments.table import format_table, number
from geojax.io.atomic import write_json
from geojax.io.media import grid, read_image, write_png

PROMPTS: tuple[str, ...] = (
    "a red mug",
    "a purple mushroom",
    "a blue chair",
    "a pink tree",
    "an orange house",
    "a green snowman",
    "a turquoise table",
    "a red donut",
    "a yellow chair",
    "a blue cone",
    "a green mug",
    "an orange cube",
    "a purple house",
    "a pink cylinder",
    "a red table",
    "a yellow ball",
)
"""Held-out pairs of colour and kind; every other one is of a kind that no turn maps to itself."""

FIGURES = ("iou", "silhouette_iou", "depth_error", "pieces", "two_faced", "opacity", "seconds")


def mean_and_spread(values: Sequence[float | None]) -> dict[str, float | None]:
    """Mean and standard deviation of what is there; the latter None for fewer than two."""
    known = [v for v in values if v is not None and math.isfinite(v)]
    return {
        "mean": float(np.mean(known)) if known else None,
        "std": float(np.std(known, ddof=1)) if len(known) > 1 else None,
    }


def run_path(out: Path, prompt: str, seed: int) -> Path:
    """The folder of one run: OUT/red_mug-0."""
    return out / f"{prompt.split(' ', 1)[1].replace(' ', '_')}-{seed}"


def with_seed(config: Any, seed: int) -> Any:
    """A copy of a recipe with a seed."""
    config = config.copy_and_resolve_references()
    config.seed = seed
    return config


def finished(config: Any, folder: Path) -> dict[str, Any] | None:
    """The summary of a run that came to its end, or None."""
    file = folder / "summary.json"
    if not file.exists():
        return None
    summary = json.loads(file.read_text())
    return summary if summary["steps"] == distill.last_step(config) else None


def run_object(
    config: Any, prompt: str, seed: int, folder: Path, tools: distill.Tools
) -> dict[str, Any]:
    """The summary of one run, from disk when it is finished.

    A run that diverges has {"failed": cause} and no figures: it counts as missed.
    """
    config = with_seed(config, seed)
    with distill.open_object(config, prompt, folder, tools) as run:
        if summary := finished(config, run.path):
            print(f"{folder}: finished before", flush=True)
            return summary
        print(f"{folder}: {prompt!r}, seed {seed}", flush=True)
        try:
            return distill.distill(config, prompt, run, tools)
        except FloatingPointError as error:
            print(f"{folder}: {error}", flush=True)
            return {"prompt": prompt, "seed": seed, "failed": str(error)}


def run_objects(
    config: Any, prompts: Sequence[str], seeds: int, out: Path, tools: distill.Tools
) -> Iterator[tuple[str, Path, dict[str, Any]]]:
    """Distil every prompt with every seed: prompt, folder and summary of each run.

    Seed by seed, so that a broken-off evaluation has all prompts.
    """
    for seed in range(config.seed, config.seed + seeds):
        for prompt in prompts:
            folder = run_path(out, prompt, seed)
            yield prompt, folder, run_object(config, prompt, seed, folder, tools)


def summarise(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Means and spreads of runs, by prompt and over all.

    Args:
      runs: prompt -> summaries, one a seed.

    Returns:
      "prompts": for each the share of its runs that the judge ranks first, and mean and standard
      deviation over seeds of each figure; "overall": the same figures over all runs, the standard
      deviation being that of the mean over prompts between seeds; "collapsed" and "failed": how
      many runs.
    """

    def right(summaries: Sequence[dict[str, Any]]) -> float:
        return float(np.mean([s.get("judge_rank") == 1 for s in summaries]))

    prompts = [
        {
            "prompt": prompt,
            "r_precision": right(summaries),
            "judge_says": [s.get("judge_says") for s in summaries],
            **{name: mean_and_spread([s.get(name) for s in summaries]) for name in FIGURES},
            "runs": summaries,
        }
        for prompt, summaries in runs.items()
    ]
    every = [s for summaries in runs.values() for s in summaries]
    by_seed = list(zip(*runs.values(), strict=True))
    overall: dict[str, Any] = {}
    for name in FIGURES:
        means = [mean_and_spread([s.get(name) for s in seed])["mean"] for seed in by_seed]
        mean = mean_and_spread([s.get(name) for s in every])["mean"]
        overall[name] = {"mean": mean, "std": mean_and_spread(means)["std"]}
    overall["r_precision"] = {
        "mean": right(every),
        "std": mean_and_spread([right(seed) for seed in by_seed])["std"],
    }
    memory = [s["peak_memory_bytes"] for s in every if "peak_memory_bytes" in s]
    return {
        "prompts": prompts,
        "overall": overall,
        "collapsed": sum(bool(s.get("collapsed")) for s in every),
        "failed": sum("failed" in s for s in every),
        # One process makes all the objects: this is its peak, not that of one run.
        "peak_memory_bytes": max(memory, default=None),
    }


def object_table(result: dict[str, Any]) -> str:
    """The result of `summarise`, to read."""

    def cells(entry: dict[str, Any]) -> list[str]:
        text = []
        for name in FIGURES:
            mean, std = entry[name]["mean"], entry[name]["std"]
            digits = {"seconds": 0, "pieces": 1}.get(name, 3)
            text.append(f"{number(mean, digits)} +- {number(std, digits)}")
        return text

    rows = [[p["prompt"], f"{100 * p['r_precision']:.0f} %", *cells(p)] for p in result["prompts"]]
    overall = result["overall"]
    rows.append(["all", f"{100 * overall['r_precision']['mean']:.0f} %", *cells(overall)])
    lines = [format_table(["prompt", "judge right", *FIGURES], rows)]
    lines.append(f"collapsed: {result['collapsed']}, failed: {result['failed']}")
    if result["peak_memory_bytes"] is not None:
        lines.append(f"peak memory: {result['peak_memory_bytes'] / 1e9:.2f} GB")
    return "\n".join(lines)


def object_sheet(runs: dict[str, list[Path]], summaries: dict[str, list[dict[str, Any]]]) -> Any:
    """Every object from the front, right, back and left: a row a prompt, a column a seed."""
    pictures = [
        [
            None
            if "failed" in summary
            else read_image(folder / "progress" / f"{summary['steps']:06d}.png").rgb
            for folder, summary in zip(folders, summaries[prompt], strict=True)
        ]
        for prompt, folders in runs.items()
    ]
    shape = next((p.shape for row in pictures for p in row if p is not None), (8, 8, 3))
    white = np.ones(shape, np.float32)
    whole = np.stack([np.stack([white if p is None else p for p in row]) for row in pictures])
    columns = [f"seed {summary['seed']}" for summary in next(iter(summaries.values()))]
    return grid(whole, list(runs), columns, gap=6)


def evaluate_objects(config: Any, prompts: Sequence[str], seeds: int, out: Path) -> dict[str, Any]:
    """Distil every prompt with every seed and write table.json and objects.png."""
    for prompt in prompts:
        distill.check_config(config, prompt)
    object_report.load_judge(Path(config.model))  # an absent judge is an error now, not at the end
    tools = distill.prepare(config)
    folders: dict[str, list[Path]] = {prompt: [] for prompt in prompts}
    runs: dict[str, list[dict[str, Any]]] = {prompt: [] for prompt in prompts}
    for prompt, folder, summary in run_objects(config, prompts, seeds, out, tools):
        folders[prompt].append(folder)
        runs[prompt].append(summary)
    result = {"suite": "text_to_3d", "config": config.to_dict(), **summarise(runs)}
    write_json(out / "table.json", result)
    write_png(out / "objects.png", object_sheet(folders, runs))
    print(object_table(result))
    return result
