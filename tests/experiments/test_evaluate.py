import json

import pytest

from experiments.evaluation import objects, pictures
from geojax.worlds import captions, solids
from tests.experiments.binaries import run, strict_json, tiny_flags

ASYMMETRIC = {"chair", "mug", "house", "table"}


def test_every_prompt_is_held_out_and_half_of_any_even_number_is_asymmetric():
    subjects = [captions.parse_subject(prompt) for prompt in objects.PROMPTS]
    assert len(set(subjects)) == len(subjects) >= 12
    assert set(subjects) <= solids.HELD_OUT
    for (kind, colour), prompt in zip(subjects, objects.PROMPTS, strict=True):
        assert prompt == captions.subject(colour, kind)
    for count in range(2, len(subjects) + 1, 2):
        assert sum(kind in ASYMMETRIC for kind, _ in subjects[:count]) == count // 2
    assert {kind for kind, _ in subjects[:12]} >= ASYMMETRIC


def test_captions_go_through_all_held_out_pairs_and_many_views():
    asked = pictures.held_out_captions(96)
    pairs = [(kind, colour) for kind, colour, _ in asked]
    assert set(pairs) == solids.HELD_OUT
    assert all(pairs.count(pair) == 4 for pair in solids.HELD_OUT)
    assert len({caption for *_, caption in asked}) == 96
    views = {caption.split(", ", 1)[1] for *_, caption in asked}
    assert len(views) == 24
    for kind, colour, caption in asked:
        assert captions.parse_subject(caption) == (kind, colour)


def summary(rank, iou, depth_error=0.1, **more):
    figures = {"judge_rank": rank, "iou": iou, "silhouette_iou": 0.9, "opacity": 0.2}
    return figures | {"depth_error": depth_error, "seconds": 10.0, "seed": 0} | more


def test_means_and_spreads():
    runs = {
        "a": [summary(1, 0.8), summary(3, 0.6)],
        "b": [summary(1, 0.4, None), {"failed": "diverged", "seed": 1}],
    }
    result = objects.summarise(runs)
    a, b = result["prompts"]
    assert a["r_precision"] == 0.5
    assert a["iou"]["mean"] == pytest.approx(0.7)
    assert a["iou"]["std"] == pytest.approx(0.1 * 2**0.5)
    assert b["r_precision"] == 0.5
    assert b["iou"] == {"mean": 0.4, "std": None}
    assert b["depth_error"] == {"mean": None, "std": None}
    overall = result["overall"]
    # Seed 0: both right; seed 1: neither, the failed one being a miss.
    assert overall["r_precision"]["mean"] == 0.5
    assert overall["r_precision"]["std"] == pytest.approx(0.5**0.5)
    assert overall["iou"]["mean"] == pytest.approx(0.6)
    assert result["failed"] == 1
    assert result["collapsed"] == 0
    text = objects.object_table(result)
    assert "50 %" in text and "failed: 1" in text
    json.dumps(result, allow_nan=False)


@pytest.mark.end_to_end
def test_objects_are_distilled_judged_and_not_made_twice(family, tmp_path):
    out = tmp_path / "evaluate"
    flags = ["--suite=text_to_3d", "--prompts=2", "--seeds=1", f"--out={out}"]
    # One kind of step: each takes seconds to compile.
    flags += tiny_flags(family, steps=4, large_from=1.0, shaded_share=0.0)
    done = run("evaluate", *flags)
    assert done.returncode == 0, done.stderr[-3000:]
    result = strict_json((out / "table.json").read_text())
    assert [p["prompt"] for p in result["prompts"]] == list(objects.PROMPTS[:2])
    assert 0.0 <= result["overall"]["iou"]["mean"] <= 1.0
    assert (out / "objects.png").is_file()
    assert (out / "red_mug-0" / "mesh.glb").is_file()
    assert "a red mug" in done.stdout and "judge right" in done.stdout

    again = run("evaluate", *flags)
    assert again.returncode == 0, again.stderr[-3000:]
    assert again.stdout.count("finished before") == 2
    assert strict_json((out / "table.json").read_text()) == result


@pytest.mark.end_to_end
def test_pictures_are_sampled_and_judged(family, tmp_path):
    out = tmp_path / "evaluate"
    flags = ["--suite=generate", "--count=16", "--steps=2", f"--out={out}"]
    done = run("evaluate", *flags, f"--config.model={family}")
    assert done.returncode == 0, done.stderr[-3000:]
    result = strict_json((out / "generate.json").read_text())
    assert result["count"] == 16
    assert len(result["wrong"]) == round((1.0 - result["right"]) * 16)
    assert result["right"] <= min(result["kind_right"], result["colour_right"])
    assert (out / "generate.png").is_file()


@pytest.mark.end_to_end
def test_too_many_prompts_are_refused(tmp_path):
    out = tmp_path / "evaluate"
    done = run("evaluate", "--prompts=99", f"--out={out}")
    assert done.returncode != 0
    assert "--prompts=99 must be in 1.." in done.stderr
    assert not out.exists()
