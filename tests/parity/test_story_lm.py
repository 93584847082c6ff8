"""A local causal language model is asked through PyTorch; a tiny one with random weights."""

import pytest

torch = pytest.importorskip("torch")

from transformers import GPT2Config, GPT2LMHeadModel  # noqa: E402

from experiments.painting import story_models  # noqa: E402
from tests.weights.tiny_family import write_tokenizer  # noqa: E402

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = write_tokenizer(tmp_path_factory.mktemp("talker"))
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=200, n_positions=4096, n_embd=8, n_layer=1, n_head=1)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def test_a_model_answers_the_same_for_a_seed_and_babble_is_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(story_models, "MAX_NEW_TOKENS", 12)
    messages = story_models.instructions("a walk", 2, 3)
    answers = [story_models.local_model(str(folder), seed=seed)(messages) for seed in (1, 1, 2)]
    assert answers[0] == answers[1] != answers[2]
    with pytest.raises(ValueError, match="3 answers of the model were no schedule"):
        story_models.told_story(
            lambda: story_models.local_model(str(folder), seed=1),
            {"story_lm": str(folder)},
            "a walk",
            2,
            3,
            tmp_path,
        )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no causal language model"):
        story_models.local_model(str(tmp_path), seed=0)
