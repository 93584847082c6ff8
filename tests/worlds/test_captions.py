import math

import pytest
from transformers import CLIPTokenizer

from geojax.worlds import captions, solids, vocabulary


def test_coarse_views_have_the_thresholds_of_threestudio():
    assert captions.coarse_view(math.radians(44), 0.0) == "front view"
    assert captions.coarse_view(math.radians(-46), 0.0) == "side view"
    assert captions.coarse_view(math.radians(136 + 720), 0.0) == "back view"
    assert captions.coarse_view(0.0, math.radians(61)) == "overhead view"


def test_grid_weights_sum_to_one_and_are_exact_at_nodes():
    for degrees in (-170.0, -1e-7, 0.0, 13.0, 45.0, 359.9):
        nodes = captions.grid_weights(math.radians(degrees), math.radians(20.0))
        assert sum(w for *_, w in nodes) == pytest.approx(1.0)
        assert all(0 <= a < 8 and 0 <= e < 4 and w >= 0.0 for e, a, w in nodes)
    (e, a, w) = max(captions.grid_weights(math.pi, math.radians(60.0)), key=lambda n: n[2])
    assert (e, a) == (2, 4)
    assert w == pytest.approx(1.0)


def test_below_the_horizon_the_lowest_row_is_used():
    nodes = captions.grid_weights(0.0, math.radians(-10.0))
    assert sum(w for e, _, w in nodes if e == 0) == pytest.approx(1.0)


def test_a_subject_is_parsed_back_from_its_caption():
    for kind in solids.KINDS:
        for colour in solids.COLOURS:
            text = captions.subject(colour, kind) + captions.view_suffix(1, 2)
            assert captions.parse_subject(text) == (kind, colour)
    assert captions.parse_subject("a red mug on a red table") is None
    assert captions.parse_subject("a corgi") is None


def test_the_article_agrees():
    assert captions.subject("orange", "mug") == "an orange mug"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    vocabulary.write_tokenizer(folder)
    return CLIPTokenizer.from_pretrained(str(folder))


def test_every_word_of_the_world_is_one_token(tokenizer):
    pieces = {word: tokenizer.tokenize(word) for word in vocabulary.world_words()}
    assert {w: p for w, p in pieces.items() if len(p) != 1} == {}


def test_unknown_words_still_have_tokens_and_survive_a_round_trip(tokenizer):
    ids = tokenizer("a xylophone of zinc")["input_ids"]
    assert tokenizer.unk_token_id not in ids[1:-1]
    assert tokenizer.decode(ids[1:-1]).strip() == "a xylophone of zinc"


def test_the_longest_caption_fits(tokenizer):
    longest = max(
        (
            captions.subject("turquoise", "mushroom", phrase) + captions.view_suffix(a, e)
            for phrase in captions.PHRASES
            for a in range(8)
            for e in range(4)
        ),
        key=lambda text: len(tokenizer(text)["input_ids"]),
    )
    assert len(tokenizer(longest)["input_ids"]) <= vocabulary.MAX_TOKENS
