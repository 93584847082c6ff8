"""Which model scores the renderings of a recipe, and where in a family it lies."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from geojax.methods.scorer_critic import Transmittance
from geojax.priors import image_scorer
from geojax.priors.image_scorer import ImageScorer


class Scorer(NamedTuple):
    """A folder of a family, and what makes a scorer of it."""

    part: str
    load: Callable[[Path], ImageScorer]


SCORERS = {
    "classifier": Scorer("scorers/classifier", image_scorer.load_classifier_scorer),
    "elbo": Scorer("vae", image_scorer.load_elbo_scorer),
    "discriminator": Scorer("scorers/discriminator", image_scorer.load_discriminator_scorer),
    "clip": Scorer("clip", image_scorer.load_clip_scorer),
}


def is_scored(config: Any) -> bool:
    """Whether renderings are scored, in place of distilled from a denoiser."""
    return config.loss in SCORERS


def scorer_folder(config: Any) -> Path:
    """Where the scorer of a recipe lies.

    Raises:
      FileNotFoundError: it is absent; says which command makes it.
    """
    part = SCORERS[config.loss].part
    folder = Path(config.model) / part
    if not folder.is_dir():
        made = (
            f"; python -m experiments.train_worlds --config=configs/train_worlds.py "
            f"--out=runs/worlds-64 --stage={config.loss} trains it, in "
            f"runs/worlds-64/family/{part}"
            if part.startswith("scorers/")
            else ""
        )
        raise FileNotFoundError(f"config.loss={config.loss!r} needs the folder {folder}{made}")
    return folder


def load_scorer(config: Any) -> ImageScorer:
    """The scorer of a recipe; raises as `scorer_folder` and the loader of its files."""
    return SCORERS[config.loss].load(scorer_folder(config))


def choose_transmittance(config: Any) -> Transmittance | None:
    """Dream Fields' loss of a recipe, or None where its weight is 0.

    Raises:
      ValueError: numbers that make no schedule.
    """
    s = config.scorer
    between = tuple(s.transmittance_range)
    if len(between) != 2 or not 0.0 <= between[0] <= between[1] <= 1.0:
        raise ValueError(
            f"config.scorer.transmittance_range must be 0 <= first <= last <= 1, got {between}"
        )
    if not 0.0 < s.transmittance_over <= 1.0:
        raise ValueError(
            f"config.scorer.transmittance_over={s.transmittance_over} must be a share of the run "
            "in (0, 1]"
        )
    if s.transmittance == 0.0:
        return None
    return Transmittance(
        s.transmittance, *between, max(1, round(s.transmittance_over * config.steps))
    )
