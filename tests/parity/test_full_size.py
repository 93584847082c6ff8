"""The harness of the parity table on tiny networks; the full ones by name and shape alone."""

import json
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from geojax.weights.folder import abstract_params, named_leaves  # noqa: E402
from geojax.weights.key_tables import KINDS, current_key, file_key, file_shape  # noqa: E402
from tests.parity import full_size  # noqa: E402
from tests.parity.full_size_cases import FULL, TINY  # noqa: E402

pytestmark = pytest.mark.parity
torch.set_num_threads(1)

TINIES = ["unet_sd1", "unet_sd2_depth", "vae", "text_h", "clip_l14"]


@pytest.mark.parametrize("name", FULL)
def test_full_size_names_shapes_and_counts_are_pytorchs(name):
    module, count = FULL[name]
    with torch.device("meta"):
        model = full_size.torch_network(module)
    kind = KINDS[type(module).__name__].class_name
    theirs = {current_key(kind, k): tuple(v.shape) for k, v in model.state_dict().items()}
    leaves = named_leaves(abstract_params(module))
    ours = {file_key(path): file_shape(path, leaf.shape) for path, leaf in leaves.items()}
    theirs.pop(None, None)
    assert theirs == ours
    assert sum(int(np.prod(shape)) for shape in ours.values()) == count


@pytest.mark.parametrize("name", [*TINIES, "dpt_large", "dpt_hybrid", "depth_anything_s"])
def test_a_tiny_stand_in_passes_the_whole_way(name):
    half = name in ("clip_l14", "depth_anything_s")
    row = full_size.measure(name, tiny=True, half=half, side=16)
    print("\n" + full_size.line(row))
    assert row["passed"], row
    assert row["error"] > 0.0
    assert ("gradient_error" in row) == (name in ("vae", "dpt_large", "dpt_hybrid"))


def test_every_network_has_a_stand_in_of_its_kind():
    assert set(TINY) == set(FULL)
    for name, case in FULL.items():
        assert type(case.module) is type(TINY[name].module), name


def test_a_gradient_error_is_found_where_it_is():
    expected = {"latent": np.ones(3), "a": np.ones(4), "b": 1e-9 * np.ones(4)}
    assert full_size.gradient_error(expected, expected) == 0.0
    noise = {**expected, "b": -expected["b"]}
    assert full_size.gradient_error(noise, expected) < 1e-5  # rounding where nothing should be
    wrong = {**expected, "a": 1.01 * np.ones(4)}
    assert full_size.gradient_error(wrong, expected) == pytest.approx(0.01, rel=1e-6)


def test_the_table_is_printed_and_written(tmp_path):
    command = [sys.executable, "-m", "tests.parity.full_size", "--tiny", "--only=text_l"]
    command += [f"--out={tmp_path / 'runs' / 'rows.json'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "text_l" in done.stdout
    assert done.stdout.strip().endswith("ok")
    (row,) = json.loads((tmp_path / "runs" / "rows.json").read_text())
    assert row["passed"]
    unknown = subprocess.run(
        [*command[:4], "--only=resnet"], capture_output=True, text=True, check=False
    )
    assert unknown.returncode == 2
    assert "unknown ['resnet']" in unknown.stderr
