"""What a training becomes with a caption, without one, and under a model that never had captions.

Symbols: p_i the judge's probabilities of the kinds, seen from view i of V.
    (1)  agreement   the largest share of the views that the judge gives the same kind
    (2)  confidence  mean over i of max p_i
    (3)  found       not collapsed, opacity at least `EMPTY`, and (1) and (2) at least `FINDS`

A judge must name one of its kinds, also where there is nothing of them: an object is what it names
alike, and surely, from all sides.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import distill
from experiments.evaluation.looks import exact_pictures
from experiments.evaluation.objects import run_object, with_seed
from experiments.object_report import judge_logits, load_judge
from geojax.geometry.occupancy import full_grid
from geojax.io.checkpoint import Checkpointer
from geojax.io.media import read_image
from geojax.io.metric_log import read_metrics
from geojax.methods import text_to_3d
from geojax.priors.clip_score import CLIPScore
from geojax.worlds import measure

EMPTY = 0.05
"""Mean opacity below which a field counts as empty."""

FINDS = 0.5


class Mode(NamedTuple):
    """One way to train.

    Attributes:
      name: of its folders.
      guidance: None is the recipe's; 0 leaves the unconditional prediction alone.
      model: folder; None is the recipe's.
    """

    name: str
    guidance: float | None = None
    model: str | None = None


def modes(uncaptioned: str) -> tuple[Mode, ...]:
    """With the caption and without, of the same weights; and of a folder's, where one is given."""
    some = (Mode("conditional"), Mode("unconditional", 0.0))
    return (*some, Mode("uncaptioned", 0.0, uncaptioned)) if uncaptioned else some


def settings_of(config: Any, mode: Mode) -> Any:
    """The recipe of a mode; it keeps the state half way."""
    settings = config.copy_and_resolve_references()
    settings.checkpoint_every = max(1, config.steps // 2)
    settings.guidance = settings.guidance if mode.guidance is None else mode.guidance
    settings.model = mode.model or settings.model
    return settings


def check_runs(config: Any, prompt: str, modes: Sequence[Mode], seeds: int, out: Path) -> None:
    """Raise now what could only fail after the first runs.

    Raises:
      FileNotFoundError: the family has no judge.
      ValueError: the folder of a run holds something else.
    """
    load_judge(Path(config.model))
    for mode in modes:
        settings = settings_of(config, mode)
        for seed in range(config.seed, config.seed + seeds):
            distill.check_object(with_seed(settings, seed), prompt, run_of(out, mode, seed, config))


def run_of(out: Path, mode: Mode, seed: int, config: Any) -> Path:
    """The folder of one run."""
    return out / f"{mode.name}-{seed - config.seed}"


def counts(runs: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, int]]:
    """How many runs of each mode end empty, and how many find something; one that failed does
    neither."""
    return {
        "empty": {
            mode: sum(s.get("opacity", 1.0) < EMPTY for s in summaries)
            for mode, summaries in runs.items()
        },
        "found": {
            mode: sum(bool(s.get("found")) for s in summaries) for mode, summaries in runs.items()
        },
    }


def train(
    config: Any, prompt: str, mode: Mode, seeds: int, out: Path, clip: CLIPScore | None
) -> list[dict[str, Any]]:
    """Distil with every seed; the summaries, with what the run was like on its way.

    Besides the figures of a run: "found", "agreement", "confidence"; by step "opacities" and
    "occupied" (samples in space that is not known to be empty); and at "picture_steps" "clip", the
    mean cosine of its four pictures with the prompt.
    """
    settings = settings_of(config, mode)
    tools = distill.prepare(settings)
    summaries = []
    for seed in range(config.seed, config.seed + seeds):
        folder = run_of(out, mode, seed, config)
        summary = run_object(settings, prompt, seed, folder, tools)
        log = read_metrics(folder / "metrics.jsonl")
        summary |= {"opacities": [line["opacity"] for line in log]}
        summary |= {"occupied": [line["occupied"] for line in log]}
        if "failed" not in summary:
            own = with_seed(settings, seed)
            state = state_at(own, tools, folder, config.steps)
            seen = tools.pictures(state, measure.test_views(config.large_size))
            summary |= recognition(config.model, np.clip(seen.rgb, 0.0, 1.0))
            summary |= {"found": is_found(summary)}
        if clip is not None:
            steps, agreement = clip_over_steps(clip, prompt, folder)
            summary |= {"picture_steps": steps, "clip": agreement}
        summaries.append(summary)
    return summaries


def state_at(config: Any, tools: distill.Tools, run: Path, step: int) -> text_to_3d.State:
    """The state of a run at a step that it has kept; at 0, as it began."""
    start = text_to_3d.init_state(
        jax.random.key(config.seed),
        tools.field,
        tools.optimiser,
        full_grid(config.grid_resolution, config.field.radius),
    )
    if step == 0:
        return start
    checkpointer = Checkpointer(run / "checkpoints")
    state = checkpointer.load(start, step).tree
    checkpointer.close()
    return state


def is_found(summary: dict[str, Any]) -> bool:
    """Equation (3) of a run's figures."""
    sure = min(summary["agreement"], summary["confidence"]) >= FINDS
    return bool(sure and summary["opacity"] >= EMPTY and not summary["collapsed"])


def recognition(model: str, images: np.ndarray) -> dict[str, float]:
    """Equations (1) and (2) of pictures [V, S, S, 3] in [0, 1], by the judge of a family."""
    judge, params = load_judge(Path(model))
    kinds = np.asarray(jax.nn.softmax(judge_logits(judge, params, jnp.asarray(images))[0]))
    votes = np.bincount(kinds.argmax(axis=1))
    return {
        "agreement": float(votes.max() / len(images)),
        "confidence": float(kinds.max(axis=1).mean()),
    }


def recognition_of_exact(model: str, prompt: str, size: int) -> dict[str, float]:
    """`recognition` of the solid that the prompt names: what an object can reach."""
    return recognition(model, exact_pictures(prompt, measure.test_views(size))[0])


def clip_over_steps(clip: CLIPScore, prompt: str, folder: Path) -> tuple[list[int], list[float]]:
    """Steps at which a run drew itself, and the mean cosine of its four views with the prompt."""
    files = sorted((folder / "progress").glob("*.png"))
    rows = [read_image(file).rgb for file in files]
    if not rows:
        return [], []
    side = rows[0].shape[0]
    # `progress_picture`: four squares side by side, the rest are gaps.
    starts = [round(k * (rows[0].shape[1] - side) / 3) for k in range(4)]
    views = np.stack([row[:, x : x + side] for row in rows for x in starts])
    cosines = np.asarray(clip.rank(jnp.asarray(views), [prompt]))[:, 0]
    return [int(f.stem) for f in files], cosines.reshape(-1, 4).mean(axis=1).tolist()


def lines_of(
    runs: dict[str, list[dict[str, Any]]], figure: str, steps: str | None = None
) -> dict[str, tuple[Sequence[float], Sequence[float]]]:
    """A figure over the steps of every run, to plot; `steps` names where the steps are."""
    return {
        f"{mode}, seed {s.get('seed')}": (s[steps] if steps else range(len(s[figure])), s[figure])
        for mode, summaries in runs.items()
        for s in summaries
        if s.get(figure)
    }
