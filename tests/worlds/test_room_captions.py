import dataclasses

import numpy as np
import pytest
from transformers import CLIPTokenizer

from geojax.worlds import room_captions, rooms, vocabulary
from geojax.worlds.room_captions import RoomView, Seen
from geojax.worlds.room_materials import FLOORS, WALLS, Surface
from geojax.worlds.room_recipes import RECIPES

RED_BRICK, OAK = Surface("brick", "red"), Surface("wooden", "brown")


def random_view(rng):
    def pick(names):
        return names[rng.integers(len(names))]

    wall, floor = pick(list(WALLS)), pick(list(FLOORS))
    things = tuple(
        Seen(
            kind, pick(("red", "orange", "")), pick(("left", "", "right")), int(rng.integers(1, 5))
        )
        for kind in rng.permutation(room_captions.THINGS)[: rng.integers(0, 7)].tolist()
    )
    return RoomView(
        kind=pick(list(RECIPES)),
        wall=Surface(wall, pick(WALLS[wall])) if rng.uniform() < 0.9 else None,
        floor=Surface(floor, pick(FLOORS[floor])) if rng.uniform() < 0.9 else None,
        light=pick(room_captions.LIGHTS),
        width=pick(room_captions.WIDTHS),
        things=things,
    )


def test_known_captions():
    view = RoomView("corridor", RED_BRICK, OAK, "", "", (Seen("door", "orange", "left", 1),))
    assert room_captions.describe(view) == (
        "a corridor with red brick walls and a brown wooden floor, an orange door on the left"
    )
    bare = RoomView("office", None, None, "", "", (Seen("window", "", "", 3),))
    assert room_captions.describe(bare) == "an office, three windows"
    assert room_captions.floor_words(Surface("carpet", "red")) == "a red carpet"
    assert room_captions.wall_words(Surface("plaster", "blue")) == "blue walls"


def test_captions_are_short_and_speak_the_vocabulary(tmp_path):
    vocabulary.write_tokenizer(tmp_path)
    tokenizer = CLIPTokenizer.from_pretrained(str(tmp_path))
    rng, words = np.random.default_rng(0), set(vocabulary.world_words())
    for _ in range(200):
        view = random_view(rng)
        for text in (
            room_captions.describe(view, 6),
            room_captions.random_caption(rng, view),
        ):
            assert set(text.replace(",", " ,").split()) <= words
            ids = tokenizer(text)["input_ids"]
            assert len(ids) == room_captions.count_words(text) + 2
            assert len(ids) <= vocabulary.MAX_TOKENS


def test_a_view_survives_being_stored():
    rng = np.random.default_rng(1)
    for _ in range(50):
        view = random_view(rng)
        row = room_captions.to_row(view)
        assert row.shape == (room_captions.FACTS,)
        assert room_captions.from_row(row) == view


def test_a_mirrored_view_has_left_and_right_exchanged():
    view = RoomView(
        "church", None, OAK, "", "", (Seen("bed", "red", "left", 1), Seen("door", "", "", 1))
    )
    rows = room_captions.to_row(view)[None]
    turned = room_captions.from_row(room_captions.mirrored(rows)[0])
    assert turned.things == (Seen("bed", "red", "right", 1), Seen("door", "", "", 1))
    np.testing.assert_array_equal(room_captions.mirrored(room_captions.mirrored(rows)), rows)


def test_phrasings_differ():
    view = RoomView("corridor", RED_BRICK, OAK, "dark", "narrow", (Seen("tree", "", "right", 1),))
    rng = np.random.default_rng(0)
    assert len({room_captions.random_caption(rng, view) for _ in range(60)}) > 25


@pytest.fixture(scope="module")
def room():
    return rooms.sample_room(np.random.default_rng(3), kind="living room")


def index_of(room, kind):
    return next(i for i, t in enumerate(room.things) if t.kind == kind and t.space == 0)


def test_what_is_seen_is_named_with_its_side(room):
    seen = np.full((32, 32), index_of(room, "wall"))
    seen[20:] = index_of(room, "floor")
    seen[14:26, 2:9] = index_of(room, "sofa")
    view = room_captions.observe(room, seen)
    colour = room.things[index_of(room, "sofa")].colour
    assert view.kind == "living room"
    assert (view.wall, view.floor) == (room.spaces[0].wall, room.spaces[0].floor)
    assert view.things == (Seen("sofa", colour, "left", 1),)


def test_what_is_not_seen_is_not_named(room):
    seen = np.full((32, 32), index_of(room, "wall"))
    seen[0, 0] = index_of(room, "sofa")
    view = room_captions.observe(dataclasses.replace(room, dark=True, sunny=False), seen)
    assert view.floor is None
    assert view.things == ()
    assert view.light == "dark"
