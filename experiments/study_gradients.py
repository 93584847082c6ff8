"""Why conditioning matters: how much the gradients of an image model agree, and what becomes of it.

    python -m experiments.study_gradients --out=runs/study [--prompt="a red mug"] [--seeds=3] \
        [--uncaptioned=FOLDER] [--config.FIELD=...]

With the same weights, with and without a caption: an object is distilled (guidance of the recipe,
or 0, which leaves the unconditional prediction alone); with --uncaptioned also under a model that
was trained without captions (configs/train_worlds.py:uncaptioned makes one). Gradients are drawn at
the start, half way and at the end of the first conditional run, by time step: in pictures under
captions of growing detail, and in the field over random cameras. Writes study.json, gradients.png,
field_gradients.png (signal to noise, cosine) and outcome.png (opacity, occupied space and CLIP over
the steps) beside the runs' folders; runs that are finished are not done again.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import app, flags, logging
from ml_collections import config_flags

from experiments import distill
from experiments.errors import reported
from experiments.room_recipe import is_inside
from experiments.studies import field_gradients, gradients, outcomes, plots
from experiments.table import format_table, number
from geojax.geometry.camera_sampling import orbit
from geojax.io.atomic import write_json
from geojax.priors.clip_score import load_clip
from geojax.priors.prior import Prior
from geojax.priors.stable_diffusion import load_stable_diffusion
from geojax.worlds import captions

FLAGS = flags.FLAGS

GUIDED = ("sds", "sjc", "sjc_plain")
"""Losses that with a guidance of 0 are of the unconditional prediction alone, and whose residuals
are those that are measured."""


class Counts(NamedTuple):
    """How much is drawn: views around the object, draws at each in 32s, cameras for the field."""

    views: int
    batches: int
    cameras: int


def define_flags() -> None:
    """The flags of this binary."""
    config_flags.DEFINE_config_file(
        "config", "configs/distill/worlds.py", "Recipe, a file of configs/.", lock_config=True
    )
    flags.DEFINE_string("prompt", "a red mug", "An object of the world.")
    flags.DEFINE_string("out", "runs/study", "Folder of the runs, tables and plots.")
    flags.DEFINE_integer("seeds", 3, "Runs with a caption, and as many without.", lower_bound=1)
    flags.DEFINE_string("uncaptioned", "", "Folder of a model trained without captions.")
    flags.DEFINE_string(
        "clip", "geojax/assets/worlds-64/clip", "CLIP that follows the runs; empty: none."
    )
    flags.DEFINE_integer("batches", 8, "Draws at a view and time step, in 32s.", lower_bound=1)
    flags.DEFINE_integer("views", 4, "Views around the object.", lower_bound=1)
    flags.DEFINE_integer("cameras", 24, "Random cameras for the field.", lower_bound=2)
    flags.DEFINE_list("times", ["50", "200", "350", "500", "650", "800", "950"], "Time steps.")
    flags.DEFINE_bool("plots", True, "Draw the PNGs too; needs matplotlib.")


def check(config: Any, prompt: str, times: Sequence[str], uncaptioned: str) -> list[int]:
    """The time steps, once all that was asked for is found sound.

    Raises:
      ValueError: says which flag, and what was expected.
      FileNotFoundError: no such folder.
    """
    if not all(t.isdecimal() and int(t) < 1000 for t in times):
        raise ValueError(f"--times={','.join(times)} must be whole numbers in 0..999")
    distill.check_config(config, prompt)
    if captions.parse_subject(prompt) is None:
        raise ValueError(f"--prompt={prompt!r} names no object of the world, as 'a red mug' does")
    if config.loss not in GUIDED or config.latent or is_inside(config):
        raise ValueError(
            f"config.loss={config.loss!r}: this study is of a denoiser whose weights stay, of an "
            f"object, a field of colours, and of {', '.join(GUIDED)}"
        )
    if config.perp_neg:
        raise ValueError("config.perp_neg=True: prompts of wrong views are captions too")
    if config.stop_after:
        raise ValueError(
            f"config.stop_after={config.stop_after}: gradients are drawn at the end of a run too"
        )
    if uncaptioned and not Path(uncaptioned).is_dir():
        raise FileNotFoundError(f"--uncaptioned={uncaptioned}: no such folder")
    return [int(t) for t in times]


def study(
    config: Any,
    prompt: str,
    run: Path,
    times: Sequence[int],
    counts: Counts,
    uncaptioned: Prior | None,
) -> dict[str, Any]:
    """Statistics of the gradients, of pictures and of the field, by stage of the run and name."""
    subject = captions.parse_subject(prompt)
    assert subject is not None  # `check`
    tools = distill.prepare(config)
    prior, views = tools.prior, counts.views
    seen = orbit(views, np.radians(20.0), 1.45, 1.26, config.large_size, config.large_size)
    # The nearest names of the views: eight azimuths; 20 degrees is nearer to the second elevation.
    count = len(captions.AZIMUTHS)
    suffixes = [captions.view_suffix(round(i * count / views) % count, 1) for i in range(views)]
    article = captions.subject(subject[1], subject[0]).split()[0]
    named = [gradients.captions_of(*subject, article, suffix) for suffix in suffixes]
    measure = gradients.gradients_at(prior, counts.batches)
    of_field = field_gradients.field_gradients_at(config, tools.field, prior, counts.cameras)
    table = distill.embed_prompt(config, prompt, prior)
    other = None if uncaptioned is None else (uncaptioned.params, uncaptioned.embed([""])[0])
    half = max(1, config.steps // 2)
    stages = {}
    for stage, step in (("start", 0), ("half way", half), ("end", config.steps)):
        state = outcomes.state_at(config, tools, run, step)
        images = np.clip(tools.pictures(state, seen).rgb, 0.0, 1.0)
        pairs = [(images[i : i + 1], named[i]) for i in range(views)]
        stages[stage] = {
            "picture": gradients.by_time(prior, measure, pairs, times, config.seed, uncaptioned),
            "field": field_gradients.by_time(
                of_field, (state, prior.params, other), table, times, config.seed
            ),
        }
        print(f"gradients at the {stage} of the run: measured", flush=True)
    return stages


def report(
    runs: dict[str, list[dict[str, Any]]], stages: dict[str, Any], times: Sequence[int]
) -> str:
    """The tables, to read."""
    figures = (("opacity", 3), ("agreement", 2), ("confidence", 2), ("iou", 3))
    rows = [
        [
            f"{mode} {s.get('seed')}",
            *(number(s.get(name), digits) for name, digits in figures),
            *(str(s.get(name)) for name in ("judge_rank", "judge_says", "found")),
        ]
        for mode, summaries in runs.items()
        for s in summaries
    ]
    header = ["run", *(name for name, _ in figures), "judge rank", "judge says", "found"]
    text = [format_table(header, rows)]
    for stage, kinds in stages.items():
        for kind, names in kinds.items():
            rows = [
                [name, *(f"{a:.2g} / {b:.2f}" for a, b in zip(f["snr"], f["cosine"], strict=True))]
                for name, f in names.items()
            ]
            header = [f"{stage}, {kind}: SNR / cosine", *(f"t={t}" for t in times)]
            text.append(format_table(header, rows))
    return "\n\n".join(text)


def draw(
    runs: dict[str, list[dict[str, Any]]], stages: dict[str, Any], times: Sequence[int], out: Path
) -> None:
    """gradients.png, field_gradients.png and outcome.png."""
    for kind, file in (("picture", "gradients.png"), ("field", "field_gradients.png")):
        panels, log = [], []
        for figure, label in (("snr", "signal / noise of one draw"), ("cosine", "cosine")):
            for stage, kinds in stages.items():
                lines = {name: (list(times), f[figure]) for name, f in kinds[kind].items()}
                panels.append((f"{stage} of the run", label, lines))
                log.append(figure == "snr")
        plots.draw_lines(out / file, panels, "time step", log)
    lines_of = outcomes.lines_of
    become = [
        ("what becomes of it", "mean opacity", lines_of(runs, "opacities")),
        ("space not known to be empty", "samples in it", lines_of(runs, "occupied")),
    ]
    if agreement := lines_of(runs, "clip", "picture_steps"):
        become.append(("its pictures", "CLIP: cosine with the prompt", agreement))
    plots.draw_lines(out / "outcome.png", become, "step", [False] * len(become))


def main(argv: list[str]) -> None:
    """Check the flags, distil, measure, draw."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; everything is a flag")
    logging.set_verbosity(logging.WARNING)  # orbax says much at INFO
    config, out, prompt = FLAGS.config, Path(FLAGS.out), FLAGS.prompt
    times = check(config, prompt, FLAGS.times, FLAGS.uncaptioned)
    if FLAGS.plots:
        plots.pyplot()  # an absent matplotlib is an error now, not at the end
    outcomes.check_runs(config, prompt, outcomes.modes(FLAGS.uncaptioned), FLAGS.seeds, out)
    clip = load_clip(FLAGS.clip) if FLAGS.clip else None
    uncaptioned = load_stable_diffusion(FLAGS.uncaptioned) if FLAGS.uncaptioned else None
    counts = Counts(FLAGS.views, FLAGS.batches, FLAGS.cameras)
    result: dict[str, Any] = {
        "prompt": prompt,
        "times": times,
        "draws": gradients.BATCH * counts.batches,
        "cameras": counts.cameras,
        "exact": outcomes.recognition_of_exact(config.model, prompt, config.large_size),
    }
    runs: dict[str, list[dict[str, Any]]] = {}
    for mode in outcomes.modes(FLAGS.uncaptioned):
        runs[mode.name] = outcomes.train(config, prompt, mode, FLAGS.seeds, out, clip)
        result |= {"runs": runs, **outcomes.counts(runs)}
        write_json(out / "study.json", result)
    first = runs["conditional"][0]
    if "failed" in first:
        raise FloatingPointError(f"{out}/conditional-0 has failed: {first['failed']}")
    stages = study(
        outcomes.settings_of(config, outcomes.Mode("conditional")),
        prompt,
        out / "conditional-0",
        times,
        counts,
        uncaptioned,
    )
    write_json(out / "study.json", result | {"gradients": stages})
    print(report(runs, stages, times))
    if FLAGS.plots:
        draw(runs, stages, times, out)


if __name__ == "__main__":
    with reported("study_gradients"):
        define_flags()
        app.run(main)
