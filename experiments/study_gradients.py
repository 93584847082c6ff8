"""Why conditioning matters: how much the gradients of an image model agree, and what becomes of it.

    python -m experiments.study_gradients --out=runs/study [--prompt="a red mug"] [--seeds=3] \
        [--config.FIELD=...]

With the same weights, with and without a caption: an object is distilled (guidance of the recipe,
or 0, which leaves the unconditional prediction alone), and gradients are drawn at the start, half
way and at the end of the conditional run, by time step, under captions of growing detail. Writes
study.json, gradients.png (signal to noise, cosine) and opacity.png, beside the runs' folders; runs
that are finished are not done again.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags, logging
from ml_collections import config_flags

from experiments import distill
from experiments.errors import reported
from experiments.evaluation.objects import run_object
from experiments.studies import gradients, plots
from experiments.table import format_table, number
from geojax.geometry.camera_sampling import orbit
from geojax.geometry.occupancy import full_grid
from geojax.io.atomic import write_json
from geojax.io.checkpoint import Checkpointer
from geojax.methods import text_to_3d
from geojax.worlds import captions

FLAGS = flags.FLAGS
MODES = {"conditional": None, "unconditional": 0.0}  # guidance; None is the recipe's
EMPTY = 0.05
"""Mean opacity below which a field counts as empty."""


def define_flags() -> None:
    """The flags of this binary."""
    config_flags.DEFINE_config_file(
        "config", "configs/distill/worlds.py", "Recipe, a file of configs/.", lock_config=True
    )
    flags.DEFINE_string("prompt", "a red mug", "An object of the world.")
    flags.DEFINE_string("out", "runs/study", "Folder of the runs, tables and plots.")
    flags.DEFINE_integer("seeds", 3, "Runs with a caption, and as many without.", lower_bound=1)
    flags.DEFINE_integer("batches", 8, "Draws at a view and time step, in 32s.", lower_bound=1)
    flags.DEFINE_integer("views", 4, "Views around the object.", lower_bound=1)
    flags.DEFINE_list("times", ["50", "200", "350", "500", "650", "800", "950"], "Time steps.")
    flags.DEFINE_bool("plots", True, "Draw the PNGs too; needs matplotlib.")


def train(config: Any, prompt: str, seeds: int, out: Path) -> dict[str, list[dict[str, Any]]]:
    """Distil with and without the caption; the summaries, with the opacity over the steps."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for mode, guidance in MODES.items():
        settings = config.copy_and_resolve_references()
        settings.checkpoint_every = max(1, config.steps // 2)
        if guidance is not None:
            settings.guidance = guidance
        tools = distill.prepare(settings)
        for seed in range(seeds):
            folder = out / f"{mode}-{seed}"
            summary = run_object(settings, prompt, config.seed + seed, folder, tools)
            lines = (folder / "metrics.jsonl").read_text().splitlines()
            steps = [json.loads(line) for line in lines]
            summary |= {"opacities": [entry["opacity"] for entry in steps if "opacity" in entry]}
            runs.setdefault(mode, []).append(summary)
    return runs


def states_of(config: Any, run: Path) -> dict[str, text_to_3d.State]:
    """The field of a finished run at its start, half way, and at its end."""
    tools = distill.prepare(config)
    start = text_to_3d.init_state(
        jax.random.key(config.seed),
        tools.field,
        tools.optimiser,
        full_grid(config.grid_resolution, config.field.radius),
    )
    checkpointer = Checkpointer(run / "checkpoints")
    half = max(1, config.steps // 2)
    states = {
        "start": start,
        "half way": checkpointer.load(start, half).tree,
        "end": checkpointer.load(start, config.steps).tree,
    }
    checkpointer.close()
    return states


def study(
    config: Any, prompt: str, run: Path, times: Sequence[int], views: int, batches: int
) -> dict[str, Any]:
    """Statistics of the gradients by stage of the run, name and time step."""
    subject = captions.parse_subject(prompt)
    if subject is None:
        raise ValueError(f"--prompt={prompt!r} names no object of the world, as 'a red mug' does")
    tools = distill.prepare(config)
    seen = orbit(views, np.radians(20.0), 1.45, 1.26, config.large_size, config.large_size)
    # The nearest names of the views: eight azimuths; 20 degrees is nearer to the second elevation.
    count = len(captions.AZIMUTHS)
    suffixes = [captions.view_suffix(round(i * count / views) % count, 1) for i in range(views)]
    article = captions.subject(subject[1], subject[0]).split()[0]
    named = [gradients.captions_of(*subject, article, suffix) for suffix in suffixes]
    measure = gradients.gradients_at(tools.prior, batches)
    stages = {}
    for stage, state in states_of(config, run).items():
        images = np.clip(tools.pictures(state, seen).rgb, 0.0, 1.0)
        pairs = [(images[i : i + 1], named[i]) for i in range(views)]
        stages[stage] = gradients.by_time(tools.prior, measure, pairs, times, config.seed)
        logging.info("gradients at the %s of the run: done", stage)
    return stages


def report(
    runs: dict[str, list[dict[str, Any]]], stages: dict[str, Any], times: Sequence[int]
) -> str:
    """Both tables, to read."""
    rows = [
        [
            f"{mode} {s.get('seed')}",
            number(s.get("opacity"), 3),
            number(s.get("iou"), 3),
            str(s.get("judge_rank")),
            str(s.get("judge_says")),
        ]
        for mode, summaries in runs.items()
        for s in summaries
    ]
    text = [format_table(["run", "opacity", "iou", "judge rank", "judge says"], rows)]
    for stage, names in stages.items():
        rows = [
            [
                name,
                *(f"{snr:.2g} / {cos:.2f}" for snr, cos in zip(f["snr"], f["cosine"], strict=True)),
            ]
            for name, f in names.items()
        ]
        header = [f"{stage}: SNR / cosine", *(f"t={t}" for t in times)]
        text.append(format_table(header, rows))
    return "\n\n".join(text)


def draw(
    runs: dict[str, list[dict[str, Any]]], stages: dict[str, Any], times: Sequence[int], out: Path
) -> None:
    """gradients.png and opacity.png."""
    panels, log = [], []
    for stage, names in stages.items():
        for figure, label in (("snr", "signal / noise of one draw"), ("cosine", "cosine")):
            lines = {name: (list(times), f[figure]) for name, f in names.items()}
            panels.append((f"{stage} of the run", label, lines))
            log.append(figure == "snr")
    plots.draw_lines(out / "gradients.png", panels, "time step", log)
    lines = {
        f"{mode}, seed {s.get('seed')}": (list(range(len(s["opacities"]))), s["opacities"])
        for mode, summaries in runs.items()
        for s in summaries
    }
    plots.draw_lines(
        out / "opacity.png", [("what becomes of it", "mean opacity", lines)], "step", [False]
    )


def main(argv: list[str]) -> None:
    """Check the flags, distil, measure, draw."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; everything is a flag")
    logging.set_verbosity(logging.WARNING)  # orbax says much at INFO
    config, out = FLAGS.config, Path(FLAGS.out)
    times = [int(t) for t in FLAGS.times]
    if not all(0 <= t < 1000 for t in times):
        raise ValueError(f"--times={times} must lie in 0..999")
    distill.check_config(config, FLAGS.prompt)
    if captions.parse_subject(FLAGS.prompt) is None:
        raise ValueError(f"--prompt={FLAGS.prompt!r} names no object of the world")
    if FLAGS.plots:
        plots.pyplot()  # an absent matplotlib is an error now, not at the end
    runs = train(config, FLAGS.prompt, FLAGS.seeds, out)
    first = out / "conditional-0"
    stages = study(config, FLAGS.prompt, first, times, FLAGS.views, FLAGS.batches)
    result = {
        "prompt": FLAGS.prompt,
        "times": times,
        "draws": gradients.BATCH * FLAGS.batches,
        "runs": runs,
        "empty": {
            mode: sum(s.get("opacity", 0.0) < EMPTY for s in summaries)
            for mode, summaries in runs.items()
        },
        "gradients": stages,
    }
    write_json(out / "study.json", result)
    print(report(runs, stages, times))
    if FLAGS.plots:
        draw(runs, stages, times, out)


if __name__ == "__main__":
    with reported("study_gradients"):
        define_flags()
        app.run(main)
