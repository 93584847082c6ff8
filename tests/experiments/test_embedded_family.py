"""The committed weights, as they lie in the repository."""

from experiments.evaluation.pictures import evaluate_pictures
from experiments.painting.inputs import EMBEDDED


def test_the_family_draws_what_it_was_never_shown(tmp_path):
    """Kind and colour as the judge sees them, of held-out pairs; by chance one of 96 is right."""
    found = evaluate_pictures(str(EMBEDDED), 12, 0, tmp_path, sampler="dpm", steps=10, guidance=4.0)
    assert found["right"] >= 10 / 12
