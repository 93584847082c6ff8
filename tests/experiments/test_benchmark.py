import time

import jax
import numpy as np
import pytest

from configs.distill.worlds import get_config
from experiments.benchmarks import distill_step, field, rasterizer, rays, timing
from experiments.table import format_table, number
from tests.experiments.binaries import TINY, run, strict_json, tiny_flags


def tiny_config():
    config = get_config()
    config.update_from_flattened_dict(TINY)
    return config


def test_functions_are_timed_in_turn_and_the_first_round_is_not_counted():
    calls = []
    slow = iter([0.3, 0.0, 0.0])

    def first():
        calls.append("a")
        time.sleep(next(slow))

    seconds = timing.interleaved({"a": first, "b": lambda: calls.append("b")}, 2)
    assert calls == ["a", "b"] * 3
    assert seconds["a"] < 0.1


def test_memory_of_a_picture_does_not_grow_with_its_rays():
    config = tiny_config()
    config.samples = 48
    found = rays.measure(config, 1, sizes=(64, 128))
    small, large = (f["temporary_bytes"] for f in found)
    assert [f["rays"] for f in found] == [64 * 64, 128 * 128]
    # 4 times the rays; what grows is the picture, not its samples.
    assert large < 1.5 * small
    assert "128 px" in rays.table(found)


@pytest.mark.parity
def test_the_pytorch_field_is_the_same_field():
    torch = pytest.importorskip("torch")
    from experiments.benchmarks import hash_grid_torch

    config = tiny_config()
    config.field.table_size = 2**9  # the finest level is hashed, the coarsest is not
    params, points, weights = field.make_problem(config, 500)
    ours = field.gradient_program(config)(params, points, weights)
    network = hash_grid_torch.HashGridField(config.field, jax.device_get(params))
    theirs = network.gradient(*hash_grid_torch.tensors(points, weights))
    levels = [theirs[f"tables.{i}"] for i in range(2)]
    pairs = [(ours["grid"]["table"].T, torch.cat(levels))]
    names = ("density_0", "density_1", "feature_0", "feature_1")
    pairs += [(ours[name]["kernel"], theirs[f"layers.{name}"]) for name in names]
    for mine, other in pairs:
        other = torch.as_tensor(other).numpy()
        np.testing.assert_allclose(mine, other, atol=1e-5 * np.abs(other).max())


def test_the_rasteriser_sees_what_embree_sees():
    pytest.importorskip("embreex")
    found = rasterizer.measure(None, 1, cells=40, size=64)
    assert found["faces"] == 2 * 40 * 40
    assert found["faces_seen"] > 1000 and 0.7 < found["pixels_covered"] / 64**2 < 1.0
    assert found["covered_by_one_only"] == 0 and found["depth_differs"] == 0
    assert found["ratio"] == found["geojax"] / found["embree_cast"]
    assert "embree, cast" in rasterizer.table(found) and "3200 faces" in rasterizer.title(found)


def test_without_embree_the_rasteriser_is_measured_alone(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = rasterizer.measure(None, 1, cells=40, size=64)
    assert found["geojax"] > 0.0 and "embree" not in rasterizer.table(found)
    assert "Embree" not in rasterizer.title(found)


def test_a_table_is_aligned():
    text = format_table(["name", "ms"], [["a", "1.0"], ["longer", number(None)]])
    assert text == "name     ms\n------  ---\na       1.0\nlonger    -"
    with pytest.raises(ValueError, match="expected 2 cells"):
        format_table(["a", "b"], [["x"]])


def test_the_kinds_of_step_are_those_of_the_recipe():
    small, large = [(False, False), (False, True)], [(True, False), (True, True)]
    kinds = lambda name: distill_step.kinds_of_step(get_config(name))  # noqa: E731
    assert kinds("sds") == [small[0], *large]  # lit from where it is large on, every other step
    assert kinds("sjc") == [small[0], large[0]]  # never lit
    config = get_config("sds")
    config.shaded_from, config.shaded_share = 0.0, 1.0
    assert distill_step.kinds_of_step(config) == [small[1], large[1]]


@pytest.mark.end_to_end
def test_the_binary_measures_the_parts_of_a_step(family, tmp_path):
    file = tmp_path / "benchmark.json"
    done = run("benchmark", "--suite=distill", "--repeats=1", f"--json={file}", *tiny_flags(family))
    assert done.returncode == 0, done.stderr[-3000:]
    figures = strict_json(file.read_text())
    # TINY is small and unlit at first, then large and lit.
    assert [(f["size"], f["shaded"]) for f in figures["distill"]] == [(8, False), (16, True)]
    for f in figures["distill"]:
        parts = ("render", "encode", "denoise", "backward", "rest")
        assert sum(f[part] for part in parts) == pytest.approx(f["whole"])
        assert min(f[part] for part in ("render", "encode", "denoise", "whole")) > 0.0
    assert "backward" in done.stdout
