"""The judge, which shares no weights with the prior."""

from pathlib import Path
from typing import Any

from experiments.training.classifier import Draws, train_labels
from experiments.training.worlds import Worlds


def train_judge(config: Any, worlds: Worlds, out: Path) -> None:
    """The judge, on all pairs (it must know the held-out ones to judge them)."""
    draws = Draws(init=6, stream=4, noise=0.08)
    train_labels("judge", config.judge, draws, config, worlds, out, "judge")
