"""Figures that tell losses of score distillation apart: colours, diversity, reach, cost.

Symbols: c_i(p), O_i(p) colour in [0, 1] and opacity at pixel p of the pictures of run i, from 8
sides on grey; F_i = {p: O_i(p) > 1/2} its foreground, S* (1) of the exact solid, unlit; V_i the
cells that it fills, in the frame of the prompt's view names.
    (1)  S_i = mean over F_i of (max_k c_k - min_k c_k) / max_k c_k      saturation; excess S_i - S*
    (2)  D = mean over prompts and pairs of seeds i < j of               diversity
             1 - |V_i and V_j| / |V_i or V_j|                            of shape, plus
             mean over F_i and F_j of |c_i - c_j|_2 / sqrt(3)            of colour
    (3)  a run reaches an object where the judge ranks its prompt first and its opacity has not
         collapsed; a prompt is reached where one of its runs does
    (4)  seconds a step: mean over the steps without the slowest 5 %, which compile or draw

Source of (1): HSV, A. R. Smith, "Color gamut transform pairs" (1978); the shade that a white light
makes does not change it. (1) is of runs that did not collapse, (2) of pairs of such that both fill
something; what misses its prompt is diverse too: D says little where R-Precision is low.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from experiments.evaluation.looks import VIEWS, Look
from experiments.evaluation.objects import mean_and_spread, summarise
from experiments.table import format_table, number
from geojax.io.media import grid
from geojax.worlds.measure import intersection_over_union

Runs = dict[str, list[dict[str, Any]]]
"""Prompt -> summaries, one a seed."""

_SHEET = (0, 1, 4)  # of the views: front, between front and side, back
_SLOWEST = 0.05  # of the steps


def saturation(rgb: Float[np.ndarray, "V S S 3"], opacity: Float[np.ndarray, "V S S"]) -> float:
    """S of equation (1); nan without a foreground."""
    colours = rgb[opacity > 0.5]
    if not len(colours):
        return math.nan
    high, low = colours.max(axis=-1), colours.min(axis=-1)
    return float(np.mean((high - low) / np.maximum(high, 1e-6)))


def diversity(looks: Sequence[Look]) -> list[tuple[float, float]]:
    """The parts of D, equation (2), of each pair of runs of one prompt: of shape and of colour.

    A pair counts where both fill something; its colour differs by 0 where they share no pixel.
    """
    pairs = []
    for a, b in itertools.combinations([x for x in looks if x.occupied.any()], 2):
        shape = 1.0 - intersection_over_union(a.occupied, b.occupied)
        both = (a.opacity > 0.5) & (b.opacity > 0.5)
        apart = np.linalg.norm(a.rgb[both] - b.rgb[both], axis=-1) / math.sqrt(3.0)
        pairs.append((shape, float(apart.mean()) if len(apart) else 0.0))
    return pairs


def seconds_a_step(seconds: Sequence[float]) -> float | None:
    """Equation (4) of the seconds at the end of every step; None without steps."""
    each = sorted(np.diff(seconds, prepend=0.0))
    kept = each[: len(each) - int(_SLOWEST * len(each))]
    return float(np.mean(kept)) if kept else None


def reached(summary: Mapping[str, Any]) -> bool:
    """Equation (3)."""
    return summary.get("judge_rank") == 1 and not summary.get("collapsed")


def loss_row(
    runs: Runs, looks: Mapping[str, Sequence[Look | None]], steps: Sequence[Sequence[float]]
) -> dict[str, Any]:
    """What the runs of one loss come to.

    Args:
      runs: the summaries.
      looks: beside them; None where a run failed.
      steps: of each run the seconds at the end of every step.

    Returns:
      figures as `objects.summarise` has them, (1) to (4), and the summary of each prompt.
    """
    colours, excess, pairs = [], [], []
    for prompt, summaries in runs.items():
        both = zip(looks[prompt], summaries, strict=True)
        sound = [look for look, s in both if look is not None and not s.get("collapsed")]
        mine = [saturation(look.rgb, look.opacity) for look in sound]
        exact = [saturation(look.exact_rgb, look.exact_opacity) for look in sound]
        colours += mine
        excess += [a - b for a, b in zip(mine, exact, strict=True)]
        pairs += diversity(sound)
    parts = np.mean(pairs, axis=0) if pairs else None
    result = summarise(runs)
    reach = [[reached(s) for s in summaries] for summaries in runs.values()]
    device = [look.device_bytes for views in looks.values() for look in views if look is not None]
    return {
        **result["overall"],
        "saturation": mean_and_spread(colours),
        "saturation_excess": mean_and_spread(excess),
        "diversity": None if parts is None else float(parts.sum()),
        "diversity_of_shape": None if parts is None else float(parts[0]),
        "diversity_of_colour": None if parts is None else float(parts[1]),
        "runs": sum(map(len, reach)),
        "runs_reached": sum(map(sum, reach)),
        "prompts_reached": sum(map(any, reach)),
        "collapsed": result["collapsed"],
        "failed": result["failed"],
        "seconds_a_step": mean_and_spread([seconds_a_step(s) for s in steps])["mean"],
        "peak_memory_bytes": result["peak_memory_bytes"],
        "peak_device_bytes": max(device, default=0) or None,
        "prompts": result["prompts"],
    }


def loss_table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Loss -> `loss_row`, to read."""
    header = ["loss", "judge right", "IoU", "silhouette", "depth error", "saturation", "excess"]
    header += [
        "diversity",
        "prompts",
        "runs",
        "collapsed",
        "failed",
        "seconds",
        "a step",
        "x",
        "GB",
    ]
    first = next(iter(rows.values()))["seconds_a_step"]
    lines = []
    for loss, row in rows.items():
        step, memory = row["seconds_a_step"], row["peak_device_bytes"] or row["peak_memory_bytes"]
        lines.append(
            [
                loss,
                f"{100 * row['r_precision']['mean']:.0f} %",
                f"{number(row['iou']['mean'])} +- {number(row['iou']['std'])}",
                *(number(row[n]["mean"]) for n in ("silhouette_iou", "depth_error")),
                *(number(row[n]["mean"], 2) for n in ("saturation", "saturation_excess")),
                number(row["diversity"], 2),
                f"{row['prompts_reached']}/{len(row['prompts'])}",
                f"{row['runs_reached']}/{row['runs']}",
                *(str(row[n]) for n in ("collapsed", "failed")),
                *(number(row["seconds"]["mean"], 0), number(step)),
                number(step / first if step and first else None, 2),
                number(memory / 1e9 if memory else None, 2),
            ]
        )
    text = [format_table(header, lines)]
    text.append("prompts, runs: that reach an object (judge's first, not collapsed)")
    text.append(f"a step: seconds; x: of a step of {next(iter(rows))}; same steps and views")
    return "\n".join(text)


def loss_sheet(looks: Mapping[str, Mapping[str, Sequence[Look | None]]]) -> np.ndarray:
    """A row a loss below the exact solids; columns are prompts, each from some sides, seed 0."""
    firsts = {loss: [views[0] for views in of.values()] for loss, of in looks.items()}
    some = next(x for of in firsts.values() for x in of if x is not None)
    blank = np.ones_like(some.rgb)
    exact = [
        next((x.exact_rgb for x in of if x is not None), blank)
        for of in zip(*firsts.values(), strict=True)
    ]
    rows = [exact, *([blank if x is None else x.rgb for x in of] for of in firsts.values())]
    pictures = np.stack([np.concatenate([views[list(_SHEET)] for views in row]) for row in rows])
    columns = [
        prompt.split(" ", 1)[1] if k == _SHEET[0] else f"{360 * k // VIEWS} deg"
        for prompt in next(iter(looks.values()))
        for k in _SHEET
    ]
    return grid(pictures, ["exact", *firsts], columns, gap=4)
