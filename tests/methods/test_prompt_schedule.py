import itertools
import json
import re

import jax.numpy as jnp
import numpy as np
import pytest

from geojax.methods.prompt_schedule import (
    blend_at,
    condition_at,
    constant_schedule,
    loads_schedule,
    parse_schedule,
    prompt_at,
)
from geojax.methods.world_story import object_story, room_story
from geojax.worlds.captions import parse_subject
from geojax.worlds.vocabulary import world_words

GOOD = {"frames": [0, 4, 10], "prompts": ["a room", " a hall ", "a cellar"]}


def test_a_schedule_is_read_and_written():
    schedule = loads_schedule(json.dumps(GOOD))
    assert schedule.prompts == ("a room", "a hall", "a cellar")
    assert parse_schedule(schedule.to_dict()) == schedule
    assert constant_schedule("a room").to_dict() == {"frames": [0], "prompts": ["a room"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": [0, 4]}, "2 frames for 3 prompts"),
        ({"frames": [1, 4, 10]}, "frames must start at 0, got 1"),
        ({"frames": [0, 4, 4]}, r"frames\[2\] is 4 after 4"),
        ({"frames": [0, 10, 4]}, r"frames\[2\] is 4 after 10"),
        ({"frames": [0, 4.5, 10]}, r"frames\[1\] must be a whole number, got 4.5"),
        ({"frames": [0, True, 10]}, r"frames\[1\] must be a whole number, got True"),
        ({"frames": [0, "4", 10]}, r"frames\[1\] must be a whole number, got '4'"),
        ({"frames": "0 4 10"}, "frames must be a list of at least one entry"),
        ({"frames": [], "prompts": []}, "frames must be a list of at least one entry"),
        ({"prompts": ["a", " ", "c"]}, r"prompts\[1\] must be a text that is not blank, got ' '"),
        ({"prompts": ["a", None, "c"]}, r"prompts\[1\] must be a text that is not blank, got None"),
        ({"prompts": ["a", "b\nc", "d"]}, r"prompts\[1\] must be one line"),
        ({"prompts": ["a", "b" * 2000, "d"]}, r"prompts\[1\] must be one line of at most 1000"),
        ({"speed": 1}, r"got \['frames', 'prompts', 'speed'\]"),
    ],
)
def test_each_fault_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        parse_schedule({**GOOD, **change})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frames: 0", "not JSON.*begins 'frames: 0'"),
        ('{"frames": [0], "frames": [0], "prompts": ["a"]}', "given twice"),
        ("[0, 1]", "got list"),
        ('{"frames": [0]}', r"got \['frames'\]"),
        ("[" * 100_000, "nested too deeply|not JSON"),
        ("__import__('os').abort()", "not JSON"),
    ],
)
def test_texts_that_are_no_schedule_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        loads_schedule(text)


def test_prompts_are_held_or_blended():
    schedule = parse_schedule(GOOD)
    assert [prompt_at(schedule, n) for n in (0, 3, 4, 9, 10, 99)] == [
        *["a room"] * 2,
        *["a hall"] * 2,
        *["a cellar"] * 2,
    ]
    assert blend_at(schedule, 7) == (1, 2, 0.5)
    assert blend_at(schedule, 10) == blend_at(schedule, 50) == (2, 2, 0.0)
    with pytest.raises(ValueError, match="got -1"):
        prompt_at(schedule, -1)
    y = jnp.asarray(np.random.default_rng(0).standard_normal((3, 2, 4)), jnp.float32)
    np.testing.assert_array_equal(condition_at(schedule, y, 7, blend=False), y[1:2])
    np.testing.assert_allclose(condition_at(schedule, y, 7, blend=True), 0.5 * (y[1:2] + y[2:3]))
    np.testing.assert_allclose(
        condition_at(schedule, y, 1, blend=True), 0.75 * y[:1] + 0.25 * y[1:2]
    )
    for blend in (False, True):
        np.testing.assert_array_equal(condition_at(schedule, y, 4, blend=blend), y[1:2])
        np.testing.assert_array_equal(condition_at(schedule, y, 40, blend=blend), y[2:])
    with pytest.raises(ValueError, match="2 embeddings for 3 prompts"):
        condition_at(schedule, y[:2], 0, blend=False)


@pytest.mark.parametrize("story", [object_story, room_story])
def test_a_story_speaks_the_worlds_words_and_changes_one_thing_at_a_time(story):
    words = set(world_words())
    for seed in range(5):
        told = story(seed, 8, 3)
        assert parse_schedule(told.to_dict()) == told
        assert told.frames == tuple(range(0, 24, 3))
        assert told == story(seed, 8, 3)
        for prompt in told.prompts:
            assert set(prompt.replace(",", " ,").split()) <= words
        for before, after in itertools.pairwise(told.prompts):
            assert before != after
            # "a corridor", "brick walls", "a wooden floor", "two windows"; or "a red", "mug"
            parts = [set(re.split(r" with | and |, ", text)) for text in (before, after)]
            if story is object_story:
                parts = [set(text.replace("an ", "a ").split()) for text in (before, after)]
            assert all(len(one - other) <= 1 for one, other in (parts, parts[::-1]))
    assert len({story(seed, 8, 3) for seed in range(5)}) == 5
    for bad in ((0, 0, 1), (0, 1, 0)):
        with pytest.raises(ValueError, match="at least 1, got 0"):
            story(*bad)


def test_objects_of_a_story_are_objects_of_the_world():
    assert all(parse_subject(prompt) for prompt in object_story(3, 20, 1).prompts)
