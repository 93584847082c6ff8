"""Digests: a flipped bit is named, whatever the type; what others wrote is left alone."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import geojax
from geojax.weights.digests import Verifier, tensor_digest, write_digests
from geojax.weights.folder import load_component, save_component
from geojax.weights.safetensors_io import read_entries, read_tensors

FAMILY = Path(geojax.__file__).parent / "assets" / "worlds-64"
FILE = "diffusion_pytorch_model.safetensors"
TREE = {
    "fc1": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.ones(3, np.float32)},
    "gain": np.float32(2.0),
}
SHAPES = jax.eval_shape(lambda: TREE)


@pytest.fixture
def folder(tmp_path):
    save_component(tmp_path / "dense", TREE, {"_class_name": "Dense"})
    return tmp_path / "dense"


def flip(file, place, bit=0):
    data = bytearray(file.read_bytes())
    data[place] ^= 1 << bit
    file.write_bytes(data)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16, jnp.bfloat16])
def test_every_flipped_bit_of_the_data_is_found_and_its_tensor_named(tmp_path, dtype):
    save_component(tmp_path / "d", TREE, {"_class_name": "Dense"}, dtype=dtype)
    file = tmp_path / "d" / FILE
    whole = file.read_bytes()
    size = 10 * np.dtype(dtype).itemsize
    keys = set()
    for place in range(len(whole) - size, len(whole)):
        flip(file, place, place % 8)
        with pytest.raises(ValueError, match=r"weights damaged since .*digests\.json") as error:
            load_component(tmp_path / "d", SHAPES)
        keys |= {line.split(": ")[1].split()[0] for line in str(error.value).splitlines()[1:-1]}
        file.write_bytes(whole)
    assert keys == {"fc1.weight", "fc1.bias", "gain"}
    load_component(tmp_path / "d", SHAPES)


def test_all_damaged_tensors_are_named_at_once(folder):
    tensors = load_file(folder / FILE)
    save_file(
        {**tensors, "fc1.bias": tensors["fc1.bias"] + 1, "gain": np.array(4.0, np.float32)},
        folder / FILE,
    )
    with pytest.raises(ValueError, match=r"\(2 tensors\)") as error:
        load_component(folder, SHAPES)
    assert f"{FILE}: fc1.bias differs" in str(error.value)
    assert f"{FILE}: gain differs" in str(error.value)
    assert "fc1.weight" not in str(error.value)


def test_a_single_file_and_shards_are_checked_too(folder, tmp_path):
    flip(folder / FILE, -1)
    with pytest.raises(ValueError, match="weights damaged"):
        load_component(folder / FILE, SHAPES)
    save_component(tmp_path / "s", TREE, {"_class_name": "Dense"}, max_shard_bytes=12)
    shards = sorted((tmp_path / "s").glob("*.safetensors"))
    assert len(shards) == 3
    load_component(tmp_path / "s", SHAPES)
    flip(shards[1], -1)
    with pytest.raises(ValueError, match=shards[1].name):
        load_component(tmp_path / "s", SHAPES)


def test_another_type_or_shape_of_the_same_bytes_has_another_digest():
    value = np.arange(6, dtype=np.float32)
    digests = {
        tensor_digest(v)
        for v in (value, value.reshape(2, 3), value.view(np.int32), value.reshape(2, 3).T)
    }
    assert len(digests) == 4
    assert tensor_digest(value.reshape(2, 3)) == tensor_digest(
        np.asfortranarray(value.reshape(2, 3))
    )
    assert len(tensor_digest(value.astype(ml_dtypes.bfloat16))) == 64


def test_weights_that_others_wrote_need_no_digests(folder):
    tensors = load_file(folder / FILE)
    save_file(tensors, folder / "diffusion_pytorch_model.fp16.safetensors")
    flip(folder / "diffusion_pytorch_model.fp16.safetensors", -1)
    load_component(folder, SHAPES, variant="fp16")  # not listed, so not compared
    (folder / "digests.json").unlink()
    flip(folder / FILE, -1)
    load_component(folder, SHAPES)


def test_a_tensor_without_a_digest_and_a_damaged_list_are_named(folder):
    file = folder / "digests.json"
    digests = json.loads(file.read_text())
    del digests["sha256"][FILE]["gain"]
    file.write_text(json.dumps(digests))
    with pytest.raises(ValueError, match="gain has no digest"):
        load_component(folder, SHAPES)
    for text in ("{", "{}", '{"sha256": {"a": 1}}'):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"digests\.json"):
            load_component(folder, SHAPES)


def test_digests_of_what_lies_there_are_the_writers(folder, tmp_path):
    family = tmp_path / "family"
    shutil.copytree(folder, family / "unet")
    shutil.copytree(folder, family / "vae")
    written = (folder / "digests.json").read_text()
    for name in ("unet", "vae"):
        (family / name / "digests.json").unlink()
    assert write_digests(family) == [family / "unet", family / "vae"]
    assert (family / "vae" / "digests.json").read_text() == written
    save_file({"scale": np.ones(2, np.float32)}, family / "vae" / FILE)
    write_digests(family)
    assert list(json.loads((family / "vae" / "digests.json").read_text())["sha256"][FILE]) == [
        "scale"
    ]
    with pytest.raises(FileNotFoundError, match="no safetensors files in"):
        write_digests(tmp_path / "none")


def test_the_embedded_familys_digests_are_its_weights():
    for file in sorted(FAMILY.rglob("*.safetensors")):
        verifier = Verifier(file.parent)
        assert set(verifier.expected) >= {file.name}, file
        for key, value in read_tensors(entries := read_entries(file), entries):
            verifier.check(file, key, value)
        verifier.finish()
