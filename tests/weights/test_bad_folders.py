import json

import jax
import numpy as np
import pytest
from safetensors import SafetensorError

from geojax.weights import safetensors_io
from geojax.weights.folder import load_component, load_config, save_component

TREE = {"fc1": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}}
SHAPES = jax.eval_shape(lambda: TREE)
FILE = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tmp_path):
    save_component(tmp_path / "dense", TREE, {"_class_name": "Dense", "width": 3})
    return tmp_path / "dense"


def test_a_cut_file_is_named(folder):
    data = (folder / FILE).read_bytes()
    for size in (0, 4, 30, len(data) - 1):
        (folder / FILE).write_bytes(data[:size])
        with pytest.raises(ValueError, match=rf"{FILE} \({size} bytes\) is truncated or damaged"):
            load_component(folder, SHAPES)


def test_a_file_of_something_else_is_named(folder):
    (folder / FILE).write_bytes(b"<!DOCTYPE html>" * 50)
    with pytest.raises(ValueError, match=f"{FILE}.*truncated or damaged"):
        load_component(folder, SHAPES)


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.bin", "model.ckpt", "weights.pt"])
def test_pickles_are_refused(folder, name):
    (folder / FILE).rename(folder / name)
    with pytest.raises(ValueError, match=rf"{name} is not a safetensors file, and pickles"):
        load_component(folder, SHAPES)
    with pytest.raises(ValueError, match="convert it to safetensors"):
        load_component(folder / name, SHAPES)


def test_a_pickle_beside_safetensors_is_ignored(folder):
    (folder / "pytorch_model.bin").write_bytes(b"")
    np.testing.assert_array_equal(
        load_component(folder, SHAPES)["fc1"]["kernel"], TREE["fc1"]["kernel"]
    )


def test_what_is_absent_and_what_is_there_are_named(folder):
    (folder / FILE).rename(folder / "other.txt")
    with pytest.raises(FileNotFoundError, match=rf"looked for {FILE}.*config\.json, .*other\.txt"):
        load_component(folder, SHAPES)
    (folder / "config.json").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"no config\.json in .*found digests\.json, other\.txt"
    ):
        load_component(folder, SHAPES)
    with pytest.raises(FileNotFoundError, match=r"unet is not a folder.*holds dense/"):
        load_component(folder.parent / "unet", SHAPES)
    with pytest.raises(FileNotFoundError, match="not a folder; nor is"):
        load_component(folder.parent / "no" / "unet", SHAPES)


def test_another_class_and_a_whole_pipeline_are_refused(folder):
    with pytest.raises(ValueError, match="holds a Dense, expected a AutoencoderKL"):
        load_component(folder, SHAPES, class_name="AutoencoderKL")
    (folder.parent / "model_index.json").write_text("{}")
    with pytest.raises(ValueError, match=r"whole pipeline, name one of its components: dense/"):
        load_component(folder.parent, SHAPES)


@pytest.mark.parametrize("text", ["{", "[1]", ""])
def test_a_damaged_config_is_named(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json"):
        load_config(folder)


def test_the_same_again_changes_nothing_and_another_is_refused(folder):
    before = (folder / FILE).stat().st_mtime_ns, (folder / FILE).read_bytes()
    save_component(folder, TREE, {"_class_name": "Dense", "width": 3})
    assert (folder / FILE).stat().st_mtime_ns == before[0]
    other = jax.tree.map(lambda x: x + 1, TREE)
    with pytest.raises(FileExistsError, match="dense exists and differs"):
        save_component(folder, other, {"_class_name": "Dense", "width": 3})
    with pytest.raises(FileExistsError):
        save_component(folder, TREE, {"_class_name": "Dense", "width": 4})
    assert (folder / FILE).read_bytes() == before[1]
    save_component(folder, other, {"_class_name": "Dense"}, overwrite=True)
    np.testing.assert_array_equal(
        load_component(folder, SHAPES)["fc1"]["kernel"], other["fc1"]["kernel"]
    )
    assert "width" not in json.loads((folder / "config.json").read_text())
    assert [p.name for p in folder.parent.iterdir()] == ["dense"]


def test_a_full_disk_leaves_nothing_and_keeps_what_was_there(folder, monkeypatch):
    def full(*args, **kwargs):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors_io, "save_file", full)
    before = (folder / FILE).read_bytes()
    for name in ("dense", "new"):
        with pytest.raises(OSError, match=r"could not write .*No space left"):
            save_component(folder.parent / name, TREE, {}, "Dense", overwrite=True)
    assert (folder / FILE).read_bytes() == before
    assert [p.name for p in folder.parent.iterdir()] == ["dense"]


def test_others_may_read_what_is_written(folder):
    """safetensors itself leaves its files to their owner alone."""
    mode = (folder / "config.json").stat().st_mode
    assert (folder / FILE).stat().st_mode == mode


def test_the_class_must_be_known_and_one(tmp_path):
    with pytest.raises(ValueError, match="class_name=None"):
        save_component(tmp_path / "c", TREE, {})
    with pytest.raises(ValueError, match="class_name='A', the config's class is 'B'"):
        save_component(tmp_path / "c", TREE, {"_class_name": "B"}, "A")


def test_components_of_transformers_are_called_as_there(tmp_path):
    save_component(tmp_path / "c", TREE, {"model_type": "clip_text_model"}, "CLIPTextModel")
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == [
        "config.json",
        "digests.json",
        "model.safetensors",
    ]
    assert load_config(tmp_path / "c")["architectures"] == ["CLIPTextModel"]
