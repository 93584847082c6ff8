"""The benchmark of the losses: its figures have known answers, its runs are made once."""

import json
import math
import shutil

import numpy as np
import pytest

from experiments.evaluation import loss_figures, losses
from experiments.evaluation.looks import VIEWS, Look, exact_pictures, read_look, write_look
from geojax.geometry.camera_sampling import orbit
from geojax.io.media import read_image
from geojax.worlds import solids
from tests.experiments.binaries import TINY, run, strict_json, tiny_flags

WORLDS = "configs/distill/worlds.py"


def look(colour=(1.0, 0.0, 0.0), cells=4, opacity=1.0, size=4):
    """A plain picture whose left half is the object, and a box of `cells` of 8 x 8 x 8 cells."""
    seen = np.zeros((VIEWS, size, size), np.float32)
    seen[:, :, : size // 2] = opacity
    rgb = np.where(seen[..., None] > 0.0, np.asarray(colour, np.float32), np.float32(0.85))
    pink = np.asarray((1.0, 0.5, 0.5), np.float32)
    exact = np.where(seen[..., None] > 0.0, pink, np.float32(0.85))
    occupied = np.zeros((8, 8, 8), bool)
    occupied[:cells] = True
    return Look(rgb, seen, exact, np.sign(seen), occupied, 10, 0)


def summary(rank=1, **more):
    figures = {"judge_rank": rank, "iou": 0.5, "silhouette_iou": 0.9, "depth_error": 0.1}
    figures |= {"opacity": 0.2, "collapsed": False, "seconds": 10.0, "seed": 0, "steps": 10}
    return figures | {"peak_memory_bytes": 2_000_000_000} | more


@pytest.mark.parametrize(
    ("colour", "expected"),
    [((1.0, 0.0, 0.0), 1.0), ((0.8, 0.4, 0.6), 0.5), ((0.3, 0.3, 0.3), 0.0), ((0, 0, 0), 0.0)],
)
def test_saturation_is_of_the_foreground_whatever_the_shade(colour, expected):
    one = look(colour)
    assert loss_figures.saturation(one.rgb, one.opacity) == pytest.approx(expected, abs=1e-6)
    shade = np.linspace(0.2, 1.0, 4, dtype=np.float32)[:, None, None]
    assert loss_figures.saturation(one.rgb * shade, one.opacity) == pytest.approx(
        expected, abs=1e-6
    )
    assert math.isnan(loss_figures.saturation(one.rgb, np.zeros_like(one.opacity)))


def test_an_exact_solid_has_its_own_saturation():
    rgb, opacity = exact_pictures("a blue ball", orbit(2, 0.3, 1.45, 1.26, 32, 32))
    blue = np.asarray(solids.COLOURS["blue"])
    expected = (blue.max() - blue.min()) / blue.max()
    inside = opacity > 0.999
    assert loss_figures.saturation(rgb, np.where(inside, 1.0, 0.0)) == pytest.approx(
        expected, abs=1e-3
    )
    assert 0.1 < opacity.mean() < 0.6
    np.testing.assert_allclose(rgb[opacity == 0.0], 0.85, atol=1e-6)
    with pytest.raises(ValueError, match="'a squirrel' names no object"):
        exact_pictures("a squirrel", orbit(1, 0.3, 1.45, 1.26, 8, 8))


def test_diversity_of_shape_and_colour():
    red, black, empty = look(), look((0.0, 0.0, 0.0), cells=8), look(cells=0)
    assert loss_figures.diversity([red, red]) == [(0.0, 0.0)]
    # Half of the cells, and as far apart as a channel goes.
    assert loss_figures.diversity([red, black]) == [
        pytest.approx((0.5, 1.0 / math.sqrt(3.0)), rel=1e-6)
    ]
    white = look((1.0, 1.0, 1.0), cells=8)
    assert loss_figures.diversity([white, black]) == [pytest.approx((0.0, 1.0), rel=1e-6)]
    assert len(loss_figures.diversity([red, black, white])) == 3
    assert loss_figures.diversity([red, empty]) == [] == loss_figures.diversity([red])


def test_seconds_a_step_are_without_what_compiles():
    seconds = np.cumsum([20.0] + [0.5] * 38 + [7.0]).tolist()
    assert loss_figures.seconds_a_step(seconds) == pytest.approx(0.5)
    assert loss_figures.seconds_a_step([2.0, 3.0]) == pytest.approx(1.5)
    assert loss_figures.seconds_a_step([]) is None


def test_a_row_and_the_table():
    runs = {
        "a red mug": [summary(), summary(2)],
        "a red ball": [summary(collapsed=True), {"failed": "diverged", "seed": 1}],
    }
    seen = {
        "a red mug": [look(), look((0.0, 0.0, 0.0), cells=8)],
        "a red ball": [look((0.5, 0.5, 0.5)), None],
    }
    row = loss_figures.loss_row(runs, seen, [[1.0, 2.0], [2.0, 4.0], [], []])
    # The judge is right about the collapsed one too, which is no object all the same.
    assert row["r_precision"]["mean"] == 0.5
    assert (row["runs"], row["runs_reached"], row["prompts_reached"]) == (4, 1, 1)
    assert (row["collapsed"], row["failed"]) == (1, 1)
    assert row["saturation"]["mean"] == pytest.approx(0.5)
    assert row["saturation_excess"]["mean"] == pytest.approx(0.0)
    assert row["diversity_of_shape"] == pytest.approx(0.5)
    assert row["diversity"] == pytest.approx(0.5 + 1.0 / math.sqrt(3.0))
    assert row["seconds_a_step"] == pytest.approx(1.5)
    assert row["peak_memory_bytes"] == 2_000_000_000 and row["peak_device_bytes"] is None
    json.dumps(row, allow_nan=False)
    none = loss_figures.loss_row({"a red mug": [{"failed": "x"}]}, {"a red mug": [None]}, [[]])
    json.dumps(none, allow_nan=False)
    assert none["diversity"] is None and none["runs_reached"] == 0
    text = loss_figures.loss_table({"sds": row, "vsd": row | {"seconds_a_step": 3.0}, "csd": none})
    head, _, sds, vsd, csd = text.splitlines()[:5]
    assert "diversity" in head and "50 %" in sds and "1/2" in sds and "1/4" in sds
    assert vsd.split()[-3:] == ["3.000", "2.00", "2.00"] and csd.split()[-3:] == ["-", "-", "-"]


def test_a_look_is_kept_for_its_step(tmp_path):
    before = look()
    write_look(tmp_path, before)
    found = read_look(tmp_path, 10)
    assert found is not None and found.steps == 10
    for a, b in zip(before, found, strict=True):
        np.testing.assert_array_equal(a, b)
    assert read_look(tmp_path, 11) is None and read_look(tmp_path / "none", 10) is None


def test_variants_share_changes_and_compute(tmp_path):
    configs = losses.loss_configs(WORLDS, None, {"field.levels": 3, "seed": 5})
    assert tuple(configs)[:2] == ("sds", "sjc") and len(configs) >= 9
    assert {c.field.levels for c in configs.values()} == {3}
    assert {c.seed for c in configs.values()} == {5}
    assert list(losses.loss_configs(WORLDS, ["vsd", "sds", "vsd"], {})) == ["vsd", "sds"]
    # What scores images has the same compute, and is compared where it is asked for.
    assert "clip" not in configs and list(losses.loss_configs(WORLDS, ["clip"], {})) == ["clip"]
    uneven = tmp_path / "uneven.py"
    uneven.write_text(
        "from configs.distill import worlds\n"
        "VARIANTS = ('sds', 'csd')\n"
        "def get_config(variant):\n"
        "    config = worlds.get_config(variant)\n"
        "    config.steps = 300 if variant == 'csd' else 200\n"
        "    return config\n"
    )
    with pytest.raises(ValueError, match=r"differ in steps, .*'csd': 300.*--config\.steps"):
        losses.loss_configs(str(uneven), None, {})
    assert len(losses.loss_configs(str(uneven), None, {"steps": 10})) == 2
    for recipe, names, changes, message in (
        (f"{WORLDS}:csd", None, {}, "without :csd"),
        ("configs/distill/stable_diffusion.py", None, {}, "VARIANTS"),
        (WORLDS, ["sds", "sdz"], {}, "--losses=sdz is none of sds, "),
        (WORLDS, [], {}, "--losses= is none of sds, .*, clip"),
        (WORLDS, None, {"loss": "csd"}, r"varies --config\.loss"),
    ):
        with pytest.raises(ValueError, match=message):
            losses.loss_configs(recipe, names, changes)


@pytest.mark.end_to_end
def test_losses_are_compared_and_no_run_is_made_twice(family, tmp_path):
    out = tmp_path / "losses"
    # One small unlit step: each kind of step takes seconds to compile.
    changes = {"steps": 1, "large_from": 1.0, "shaded_share": 0.0}
    flags = ["--suite=losses", "--prompts=1", "--seeds=1", f"--out={out}"]
    flags += tiny_flags(family, **changes)
    done = run("evaluate", *flags, "--losses=sds")
    assert done.returncode == 0, done.stderr[-3000:]
    made = out / "sds" / "red_mug-0"
    assert (made / "mesh.glb").is_file() and "judge right" in done.stdout

    # A finished run of another loss, which is no further from it than its config.
    fields = {"model": str(family), **TINY, **changes}
    configs = losses.loss_configs(WORLDS, ["sds", "csd"], fields)
    other = out / "csd" / "red_mug-0"
    shutil.copytree(made, other)
    (other / "config.json").write_text(
        json.dumps({"prompt": "a red mug", **configs["csd"].to_dict()})
    )
    files = sorted(path for path in out.rglob("*") if path.is_file() and path.parent != out)
    before = [path.stat().st_mtime_ns for path in files]
    again = run("evaluate", *flags, "--losses=sds,csd")
    assert again.returncode == 0, again.stderr[-3000:]
    assert again.stdout.count("finished before") == 2
    assert [path.stat().st_mtime_ns for path in files] == before

    text = (out / "losses.json").read_text()
    strict_json(text)
    result = json.loads(text)
    assert list(result["losses"]) == ["sds", "csd"] and result["prompts"] == ["a red mug"]
    for name, row in result["losses"].items():
        assert row["config"]["loss"] == name and row["runs"] == 1
        assert 0.0 <= row["iou"]["mean"] <= 1.0 and row["diversity"] is None  # of one seed
        assert row["seconds_a_step"] > 0.0 and row["peak_memory_bytes"] > 1e7
    sheet = read_image(out / "losses.png").rgb
    assert sheet.shape[0] > 3 * 16  # exact, sds, csd
    assert np.ptp(sheet, axis=-1).max() > 0.5  # the exact mug is red

    configs["csd"].guidance = 3.0
    with pytest.raises(ValueError, match=r"guidance: the run has 5\.0, this command 3\.0"):
        losses.evaluate_losses(configs, ["a red mug"], 1, out)


@pytest.mark.end_to_end
def test_losses_are_of_their_suite_alone(tmp_path):
    out = tmp_path / "out"
    done = run("evaluate", "--losses=sds", f"--out={out}")
    assert done.returncode == 1
    assert "--suite=text_to_3d does not take --losses" in done.stderr
    assert not out.exists()
