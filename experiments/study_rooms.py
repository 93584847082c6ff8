"""A room from inside, under three rules for its cameras: which of them leave something of it.

    python -m experiments.study_rooms --out=runs/study_rooms [--prompt="a room with red walls and \
a brown wooden floor"] [--seeds=1] [--rules=random,free,schedule] [--config.FIELD=...]

The same prompt, seeds and compute for each rule of configs/distill/rooms.py; then the same held-out
cameras, in the middle of the scene, look at what has become of it, and random cameras tell whether
their gradient takes away the density before their lens or adds to it. Writes study_rooms.json,
rooms.png (a row for each run: what those cameras see, its depth, and the density from above with
the cameras of the rule in red), opacity.png (mean opacity and depth over the steps of training) and
the runs' folders, which resume; runs that are finished are not done again.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from ml_collections import config_flags

from experiments import distill, room_report
from experiments.errors import reported
from experiments.evaluation.objects import mean_and_spread, run_object, with_seed
from experiments.room_recipe import RULES, is_inside
from experiments.scorer_recipe import is_scored
from experiments.studies import outcomes, plots, room_gradients
from experiments.studies.field_gradients import KEY
from experiments.table import format_table, number
from geojax.io.atomic import write_json
from geojax.io.media import color_depth, grid, write_png
from geojax.io.metric_log import read_metrics
from geojax.priors.clip_score import CLIPScore, load_clip
from geojax.worlds.room_captions import floor_words, wall_words
from geojax.worlds.room_materials import Surface

FLAGS = flags.FLAGS

FIGURES = ("opacity", "near", "median_depth", "clip", "clip_rank")
"""Of a run, besides those of its summary."""

_WALLS = (
    ("plaster", "red"), ("plaster", "blue"), ("plaster", "green"), ("plaster", "yellow"),
    ("plaster", "white"), ("brick", "red"), ("stone", "grey"), ("wooden", "brown"),
    ("tiled", "turquoise"), ("marble", "white"),
)  # fmt: skip
_FLOORS = (("wooden", "brown"), ("carpet", "green"))
_SHOWN = 4  # views of each run on the sheet


def prompts_beside(prompt: str) -> list[str]:
    """The prompt, and those of up to 20 rooms that it is not."""
    others = [
        f"a room with {wall_words(Surface(*wall))} and {floor_words(Surface(*floor))}"
        for wall in _WALLS
        for floor in _FLOORS
    ]
    return [prompt, *(other for other in others if other != prompt)]


def define_flags() -> None:
    """The flags of this binary."""
    config_flags.DEFINE_config_file(
        "config", "configs/distill/rooms.py", "Recipe, a file of configs/.", lock_config=True
    )
    flags.DEFINE_string("prompt", "a room with red walls and a brown wooden floor", "A room.")
    flags.DEFINE_string("out", "runs/study_rooms", "Folder of the runs, tables and plots.")
    flags.DEFINE_integer("seeds", 1, "Runs under each rule.", lower_bound=1)
    flags.DEFINE_list("rules", list(RULES), "Rules for the cameras.")
    flags.DEFINE_string(
        "clip", "geojax/assets/worlds-64/clip", "CLIP that judges the views; empty: none."
    )
    flags.DEFINE_integer(
        "draws",
        64,
        "Random cameras whose pull on the density before them is measured.",
        lower_bound=2,
    )
    flags.DEFINE_bool("plots", True, "Draw opacity.png too; needs matplotlib.")


def check(config: Any, prompt: str, rules: Sequence[str], clip: str) -> None:
    """Refuse what could only fail later.

    Raises:
      ValueError: says which flag, and what was expected.
      FileNotFoundError: no such folder.
    """
    if not rules or len(set(rules)) != len(rules) or not set(rules) <= set(RULES):
        raise ValueError(f"--rules={','.join(rules)} must be different ones of {', '.join(RULES)}")
    if not is_inside(config):
        raise ValueError("--config has no fields `inside`: take configs/distill/rooms.py")
    if is_scored(config) or config.loss == "vsd" or config.background.learnt:
        raise ValueError(
            f"config.loss={config.loss!r}, config.background.learnt={config.background.learnt}: "
            "this study is of a denoiser whose weights stay, over plain backgrounds"
        )
    if clip and not Path(clip).is_dir():
        raise FileNotFoundError(f"--clip={clip}: no such folder")
    for rule in rules:
        distill.check_config(settings_of(config, rule), prompt)


def settings_of(config: Any, rule: str) -> Any:
    """The recipe under a rule, all else the same."""
    settings = config.copy_and_resolve_references()
    settings.inside.rule = rule
    return settings


def agreement(clip: CLIPScore, images: np.ndarray, prompt: str) -> dict[str, Any]:
    """Mean cosine of views with the prompt, and its rank (1 is best) among other rooms."""
    cosines = np.asarray(clip.rank(jnp.asarray(images), prompts_beside(prompt))).mean(axis=0)
    best = prompts_beside(prompt)[int(np.argmax(cosines))]
    return {
        "clip": float(cosines[0]),
        "clip_rank": int(np.sum(cosines > cosines[0])) + 1,
        "clip_says": best,
    }


def train(
    config: Any,
    prompt: str,
    rule: str,
    seeds: int,
    out: Path,
    clip: CLIPScore | None,
    draws: int,
) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
    """Distil under a rule with every seed: the summaries, and a row of pictures of each run.

    Besides the figures of a run: "opacities" and "depths" by step, `agreement`, and by stage of the
    run "pulls" of random cameras (`room_gradients`).
    """
    settings = settings_of(config, rule)
    tools = distill.prepare(settings)
    size, end = config.large_size, distill.last_step(settings)
    measure = room_gradients.pulls_at(
        settings_of(config, "random"), tools.field, tools.prior, draws
    )
    views = distill.embed_prompt(settings, prompt, tools.prior)
    summaries, rows = [], []
    for seed in range(config.seed, config.seed + seeds):
        folder = out / f"{rule}-{seed}"
        summary = run_object(settings, prompt, seed, folder, tools)
        log = read_metrics(folder / "metrics.jsonl")
        summary |= {"opacities": [line["opacity"] for line in log]}
        summary |= {"depths": [line["depth"] for line in log]}
        if "failed" not in summary:
            own = with_seed(settings, seed)
            state = outcomes.state_at(own, tools, folder, end)
            key = jax.random.fold_in(jax.random.key(seed), KEY)
            summary["pulls"] = {
                name: room_gradients.summary(*measure(key, at, tools.prior.params, views))
                for name, at in (
                    ("start", outcomes.state_at(own, tools, folder, 0)),
                    ("end", state),
                )
            }
            seen = tools.pictures(state, room_report.held_out_views(config, size))
            images = np.clip(seen.rgb, 0.0, 1.0)
            if clip is not None:
                summary |= agreement(clip, images, prompt)
            first = slice(0, len(images), len(images) // _SHOWN)
            far = 2.0 * config.field.radius
            depth = color_depth(seen.depth, seen.opacity > 0.5, 0.0, 0.5 * far)
            plan = room_report.plan(own, tools.field, tools.pictures, state, size)
            rows.append(np.concatenate([images[first][:_SHOWN], depth[first][:_SHOWN], plan[None]]))
        summaries.append(summary)
    return summaries, rows


def overall(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Mean and spread of every figure over the seeds of a rule."""
    return {
        rule: {name: mean_and_spread([s.get(name) for s in summaries]) for name in FIGURES}
        for rule, summaries in runs.items()
    }


def report(runs: dict[str, list[dict[str, Any]]]) -> str:
    """The table, to read."""
    rows = [
        [
            f"{rule} {s['seed']}",
            *(number(s.get(name), 3) for name in FIGURES),
            *(_pulls(s["pulls"][stage]) if "pulls" in s else "-" for stage in ("start", "end")),
            str(s.get("clip_says", s.get("failed", ""))),
        ]
        for rule, summaries in runs.items()
        for s in summaries
    ]
    pulls = ("pull at the start: within, free", "at the end")
    return format_table(["cameras", *FIGURES, *pulls, "clip says"], rows)


def _pulls(found: dict[str, Any]) -> str:
    parts = [f"{found['within']:.0%} within"]
    for name in ("pull_within", "pull_free"):
        mean, error = found[name]["mean"], found[name]["error"]
        parts.append("-" if mean is None or error is None else f"{mean:.2g} +- {error:.1g}")
    return ", ".join(parts)


def main(argv: list[str]) -> None:
    """Check the flags, distil, measure, draw."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; everything is a flag")
    logging.set_verbosity(logging.WARNING)  # orbax says much at INFO
    config, out, prompt = FLAGS.config, Path(FLAGS.out), FLAGS.prompt
    check(config, prompt, FLAGS.rules, FLAGS.clip)
    for rule, seed in itertools.product(FLAGS.rules, range(FLAGS.seeds)):
        own = with_seed(settings_of(config, rule), config.seed + seed)
        distill.check_object(own, prompt, out / f"{rule}-{own.seed}")
    if FLAGS.plots:
        plots.pyplot()  # an absent matplotlib is an error now, not at the end
    clip = load_clip(FLAGS.clip) if FLAGS.clip else None
    runs, rows, names = {}, [], []
    for rule in FLAGS.rules:
        runs[rule], drawn = train(config, prompt, rule, FLAGS.seeds, out, clip, FLAGS.draws)
        rows += drawn
        names += [f"{rule} {s['seed']}" for s in runs[rule] if "failed" not in s]
        result = {"prompt": prompt, "beside": prompts_beside(prompt)[1:]}
        write_json(out / "study_rooms.json", result | {"overall": overall(runs), "runs": runs})
    if rows:
        columns = ["colour"] * _SHOWN + ["depth"] * _SHOWN + ["above"]
        write_png(out / "rooms.png", grid(np.stack(rows), names, columns))
    print(report(runs))
    if FLAGS.plots:
        lines = outcomes.lines_of
        panels = [
            ("what the cameras of training see", "mean opacity", lines(runs, "opacities")),
            ("how far they see", "mean depth", lines(runs, "depths")),
        ]
        plots.draw_lines(out / "opacity.png", panels, "step", [False, False])


if __name__ == "__main__":
    with reported("study_rooms"):
        define_flags()
        app.run(main)
