import json

import numpy as np
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.utils import filter_repo_objects
from transformers import CLIPTokenizer

from geojax.weights import hub
from geojax.weights.folder import save_component
from geojax.weights.pipeline_folder import copy_tokenizer, read_pipeline_index, save_pipeline
from tests.weights.tiny_family import write_family, write_tokenizer


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_family(folder)
    return folder


def test_the_index_names_library_and_class_of_every_part(family):
    (family / "judge").mkdir(exist_ok=True)  # a network of geojax alone is not in it
    index = read_pipeline_index(family)
    assert index["_class_name"] == "StableDiffusionPipeline"
    assert index["unet"] == ["diffusers", "UNet2DConditionModel"]
    assert index["vae"] == ["diffusers", "AutoencoderKL"]
    assert index["text_encoder"] == ["transformers", "CLIPTextModel"]
    assert index["tokenizer"] == ["transformers", "CLIPTokenizer"]
    assert index["scheduler"] == ["diffusers", "DDIMScheduler"]
    # An absent part is [null, null] in the file.
    assert "safety_checker" not in index
    assert json.loads((family / "model_index.json").read_text())["safety_checker"] == [None, None]


def test_folders_that_are_no_pipeline_are_refused(family, tmp_path):
    with pytest.raises(ValueError, match=r"is a component \(UNet2DConditionModel\)"):
        read_pipeline_index(family / "unet")
    with pytest.raises(ValueError, match="is a file"):
        read_pipeline_index(family / "model_index.json")
    with pytest.raises(FileNotFoundError, match=r"no model_index\.json in .*found nothing"):
        read_pipeline_index(tmp_path)
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        read_pipeline_index(tmp_path / "none")


def test_a_pipeline_that_cannot_be_finished_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no tokenizer in .*no such folder"):
        save_pipeline(tmp_path / "new", {}, tokenizer=tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_vocabulary_and_merges_come_out_of_a_tokenizer_json(tmp_path):
    """transformers 5 saves tokenizer.json alone, older readers want the two files."""
    source = write_tokenizer(tmp_path / "source")
    tokenizer = CLIPTokenizer.from_pretrained(str(source))
    tokenizer.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved" / "vocab.json").exists()
    copy_tokenizer(tmp_path / "saved", tmp_path / "copy")
    assert json.loads((tmp_path / "copy" / "vocab.json").read_text()) == json.loads(
        (source / "vocab.json").read_text()
    )
    assert (tmp_path / "copy" / "merges.txt").read_text() == (source / "merges.txt").read_text()


def test_a_local_folder_wins_over_the_hub(family, monkeypatch):
    monkeypatch.chdir(family.parent.parent)
    name = f"{family.parent.name}/{family.name}"  # looks like owner/name
    assert hub.resolve_folder(name).resolve() == family.resolve()
    with pytest.raises(ValueError, match="revision='main' is for a hub id"):
        hub.resolve_folder(name, revision="main")


def test_the_hub_is_asked_for_what_is_read_and_no_more(family, monkeypatch):
    asked = {}

    def download(repo_id, **options):
        asked.update(options, repo_id=repo_id)
        return str(family)

    monkeypatch.setattr(hub, "snapshot_download", download)
    assert hub.resolve_folder("owner/name", revision="abc123") == family
    assert asked["repo_id"] == "owner/name"
    assert asked["revision"] == "abc123"
    assert "unet/*.safetensors" in asked["allow_patterns"]
    # `*.safetensors` alone would match, and fetch, the single-file copies of several gigabytes.
    assert not any(pattern.startswith("*") for pattern in asked["allow_patterns"])
    assert not any("bin" in pattern for pattern in asked["allow_patterns"])
    assert "*.fp16*" in asked["ignore_patterns"]
    hub.resolve_folder("owner/name", variant="fp16")
    assert "unet/*.fp16*.safetensors" in asked["allow_patterns"]
    assert "unet/*.safetensors" not in asked["allow_patterns"]


def test_of_a_repository_that_is_one_component_no_other_copies_are_fetched(family, monkeypatch):
    """CLIP's: beside model.safetensors lie the same weights for other libraries."""
    asked = {}
    monkeypatch.setattr(hub, "snapshot_download", lambda _, **o: asked.update(o) or str(family))
    hub.resolve_folder("owner/name", components=(".",))
    files = ["config.json", "model.safetensors", "merges.txt", "model-00001-of-00002.safetensors"]
    others = ["open_clip_pytorch_model.safetensors", "pytorch_model.bin", "model.fp16.safetensors"]
    found = filter_repo_objects(
        [*files, *others],
        allow_patterns=asked["allow_patterns"],
        ignore_patterns=asked["ignore_patterns"],
    )
    assert list(found) == files


def test_a_missing_hub_entry_is_a_clear_message(monkeypatch):
    def offline(repo_id, **options):
        raise LocalEntryNotFoundError("outgoing traffic has been disabled")

    monkeypatch.setattr(hub, "snapshot_download", offline)
    message = r"no folder owner/name here.*at revision v1 is not in the local cache.*cannot be reac"
    with pytest.raises(FileNotFoundError, match=message) as error:
        hub.resolve_folder("owner/name", revision="v1")
    assert "hf download owner/name" in str(error.value)


@pytest.mark.parametrize("name", ["runs/my/model", "./model", "model", "a b/c", "/none/such"])
def test_what_is_neither_folder_nor_hub_id_asks_no_network(name, monkeypatch):
    monkeypatch.setattr(hub, "snapshot_download", None)
    with pytest.raises(FileNotFoundError, match="neither a folder nor a hub id"):
        hub.resolve_folder(name)


def test_a_component_added_to_a_pipeline_leaves_the_rest(family):
    before = {p: p.read_bytes() for p in family.rglob("*") if p.is_file()}
    save_component(family / "extra", {"fc": {"bias": np.ones(2)}}, {}, "Extra")
    assert all(p.read_bytes() == data for p, data in before.items())
