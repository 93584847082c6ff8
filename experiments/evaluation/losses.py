"""The losses of score distillation side by side: same prompts, seeds, steps and views.

Every loss has a folder, and in it a run a prompt and seed, as the suite `text_to_3d` makes them;
and a process of its own, so that its peak of memory is its own. Runs that fail are misses. What is
compared: experiments/evaluation/loss_figures.py.
"""

import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import distill, object_report
from experiments.evaluation import objects
from experiments.evaluation.looks import Look, read_look, take_look, write_look
from experiments.evaluation.loss_figures import Runs, loss_row, loss_sheet, loss_table
from experiments.own_process import in_own_process
from geojax.io.atomic import write_json
from geojax.io.media import write_png
from geojax.io.metric_log import read_metrics

SAME = ("model", "steps", "stop_after", "views")
"""What all losses must share: the compute."""

_VARIED = ("loss", "times", "perp_neg")  # what the variants differ in


def loss_configs(
    recipe: str, losses: Sequence[str] | None, changes: Mapping[str, Any]
) -> dict[str, Any]:
    """The variants of a recipe file, all with the same changes.

    Args:
      recipe: a file with `VARIANTS` and `get_config(variant)`, as configs/distill/worlds.py.
      losses: some of VARIANTS, or of SCORERS where the file has such; None is all VARIANTS.
      changes: dotted field -> value.

    Raises:
      ValueError: a recipe without variants, an unknown one, or one that does not get the same
        compute as the others.
    """
    file, _, variant = recipe.partition(":")
    if variant:
        raise ValueError(f"--suite=losses takes every variant: --config={file}, without :{variant}")
    module = runpy.run_path(file)
    if "VARIANTS" not in module:
        raise ValueError(f"--suite=losses needs a recipe with VARIANTS, which {file} has not")
    known = (*module["VARIANTS"], *module.get("SCORERS", ()))
    chosen = module["VARIANTS"] if losses is None else tuple(dict.fromkeys(losses))
    if not chosen or (wrong := [name for name in chosen if name not in known]):
        raise ValueError(
            f"--losses={','.join(wrong if chosen else ())} is none of {', '.join(known)}"
        )
    if wrong := [f"--config.{name}" for name in _VARIED if name in changes]:
        raise ValueError(f"--suite=losses varies {', '.join(wrong)} by itself")
    configs = {name: module["get_config"](name) for name in chosen}
    for config in configs.values():
        config.update_from_flattened_dict(dict(changes))
    for name in SAME:
        values = {loss: config[name] for loss, config in configs.items()}
        if len(set(values.values())) > 1:
            raise ValueError(
                f"the losses differ in {name}, {values}; --config.{name} gives all the same"
            )
    return configs


def make_runs(config: Any, prompts: Sequence[str], seeds: int, out: Path) -> Runs:
    """Distil with one loss, and keep the look of every run that ends."""
    object_report.load_judge(Path(config.model))  # an absent judge is an error now, not at the end
    tools = distill.prepare(config)
    runs: Runs = {prompt: [] for prompt in prompts}
    for prompt, folder, summary in objects.run_objects(config, prompts, seeds, out, tools):
        runs[prompt].append(summary)
        if "failed" not in summary and read_look(folder, summary["steps"]) is None:
            own = objects.with_seed(config, summary["seed"])
            write_look(folder, take_look(own, prompt, folder, tools, summary["steps"]))
    return runs


def stored_runs(config: Any, folders: Mapping[str, Sequence[Path]]) -> Runs | None:
    """The summaries, where nothing is left to do."""
    runs: Runs = {}
    for prompt, paths in folders.items():
        for folder in paths:
            summary = objects.finished(config, folder)
            if summary is None or read_look(folder, summary["steps"]) is None:
                return None
            runs.setdefault(prompt, []).append(summary)
    print(f"{next(iter(folders.values()))[0].parent}: finished before", flush=True)
    return runs


def evaluate_losses(
    configs: Mapping[str, Any], prompts: Sequence[str], seeds: int, out: Path
) -> dict[str, Any]:
    """Distil every prompt with every loss and seed; write losses.json and losses.png.

    Both are written after each loss: one that is broken off has those before it.
    """
    # This process computes with NumPy alone: an accelerator that it held, no other could have.
    folders = {
        loss: {
            prompt: [objects.run_path(out / loss, prompt, c.seed + k) for k in range(seeds)]
            for prompt in prompts
        }
        for loss, c in configs.items()
    }
    for loss, config in configs.items():
        for prompt in prompts:
            distill.check_config(config, prompt)
            for k, folder in enumerate(folders[loss][prompt]):
                distill.check_object(objects.with_seed(config, config.seed + k), prompt, folder)
    rows: dict[str, Any] = {}
    looks: dict[str, dict[str, list[Look | None]]] = {}
    for loss, config in configs.items():
        runs = stored_runs(config, folders[loss]) or in_own_process(
            "evaluate", make_runs, config, prompts, seeds, out / loss
        )
        looks[loss] = {
            prompt: [read_look(f, distill.last_step(config)) for f in folders[loss][prompt]]
            for prompt in prompts
        }
        logs = [read_metrics(f / "metrics.jsonl") for of in folders[loss].values() for f in of]
        steps = [[line["seconds"] for line in log] for log in logs]
        rows[loss] = {"config": config.to_dict(), **loss_row(runs, looks[loss], steps)}
        result = {"suite": "losses", "prompts": list(prompts), "seeds": seeds, "losses": rows}
        write_json(out / "losses.json", result)
        if any(views[0] is not None for of in looks.values() for views in of.values()):
            write_png(out / "losses.png", loss_sheet(looks))
        print(loss_table(rows), flush=True)
    return result
