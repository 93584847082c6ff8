import numpy as np
import pytest

from geojax.worlds import room_captions, room_holes, room_materials, room_pictures
from geojax.worlds.room_captions import FACTS

SIZE = 24


@pytest.fixture(scope="module")
def pool():
    return room_pictures.trace_rooms(0, range(3), SIZE)


def test_a_pool_has_its_views_in_order_whatever_is_traced_together(pool):
    n = 3 * room_pictures.VIEWS_PER_ROOM
    assert pool.rgb.shape == (n, SIZE, SIZE, 3)
    assert pool.depth.dtype == np.float16
    assert pool.facts.shape == (n, FACTS)
    np.testing.assert_array_equal(pool.room, np.repeat([0, 1, 2], room_pictures.VIEWS_PER_ROOM))
    alone = room_pictures.trace_rooms(0, [1], SIZE)
    middle = slice(room_pictures.VIEWS_PER_ROOM, 2 * room_pictures.VIEWS_PER_ROOM)
    np.testing.assert_array_equal(alone.pose, pool.pose[middle])
    np.testing.assert_array_equal(alone.depth, pool.depth[middle])
    assert np.abs(alone.rgb.astype(int) - pool.rgb[middle]).mean() < 0.1


def test_an_interrupted_trace_goes_on(tmp_path, monkeypatch, pool):
    monkeypatch.setattr(room_pictures, "ROOMS_PER_FILE", 2)
    calls = []
    trace = room_pictures.trace_rooms

    def counted(seed, numbers, size, *, held_out):
        calls.append(list(numbers))
        return trace(seed, numbers, size, held_out=held_out)

    monkeypatch.setattr(room_pictures, "trace_rooms", counted)
    parts = room_pictures.load_or_trace(tmp_path, 0, 3, SIZE)
    first = next(parts)
    parts.close()
    rest = list(room_pictures.load_or_trace(tmp_path, 0, 3, SIZE))
    assert calls == [[0, 1], [2]]
    np.testing.assert_array_equal(rest[0].rgb, first.rgb)
    whole = room_pictures.concatenate(rest)
    np.testing.assert_array_equal(whole.facts, pool.facts)
    assert not list(tmp_path.glob("*.part.npz"))


def test_held_out_rooms_are_other_rooms():
    room = room_pictures.room_of(0, 0, held_out=True)
    pair = (room.spaces[0].wall.material, room.spaces[0].floor.material)
    assert pair in room_materials.HELD_OUT


def test_unseen_pictures_are_of_rooms_that_training_cannot_draw(tmp_path, pool):
    unseen = room_pictures.trace_unseen(0, 3, SIZE)
    np.testing.assert_array_equal(unseen.room, [0, 1, 2])
    assert unseen.rgb.shape == (3, SIZE, SIZE, 3)
    for i in range(3):
        same_number = pool.rgb[i * room_pictures.VIEWS_PER_ROOM]
        assert np.abs(unseen.rgb[i].astype(int) - same_number).mean() > 5.0
    with pytest.raises(ValueError, match=str(room_pictures.UNSEEN_SEED)):
        next(room_pictures.load_or_trace(tmp_path, room_pictures.UNSEEN_SEED, 1, SIZE))


def test_draws_mirror_picture_depth_and_facts_together(pool):
    straight = room_pictures.take(pool, np.arange(12))
    turned = room_pictures.take(pool, np.arange(12), np.random.default_rng(0))
    mirrored = room_captions.mirrored(straight.facts)
    flips = 0
    for i in range(12):
        if np.array_equal(turned.image[i], straight.image[i]):
            np.testing.assert_array_equal(turned.depth[i], straight.depth[i])
            np.testing.assert_array_equal(turned.facts[i], straight.facts[i])
        else:
            flips += 1
            np.testing.assert_array_equal(turned.image[i], straight.image[i, :, ::-1])
            np.testing.assert_array_equal(turned.depth[i], straight.depth[i, :, ::-1])
            np.testing.assert_array_equal(turned.facts[i], mirrored[i])
    assert 0 < flips < 12
    assert straight.image.dtype == np.float32
    assert straight.image.max() <= 1.0


def test_captions_are_dropped_as_often_as_asked(pool):
    batch = room_pictures.draw(np.random.default_rng(0), pool, 200)
    texts = room_pictures.captions(np.random.default_rng(1), batch, dropped=0.3)
    assert 0.2 < np.mean([t == "" for t in texts]) < 0.4
    assert len({t for t in texts if t}) > 20


def test_holes_cover_what_they_should(pool):
    batch = room_pictures.draw(np.random.default_rng(0), pool, 100)
    holes = room_pictures.holes(np.random.default_rng(2), batch)
    share = holes.mean(axis=(1, 2))
    low, high = room_holes.COVERAGE
    assert holes.dtype == bool
    assert low <= share.min() < 0.25
    assert 0.45 < share.max() <= high


def test_holes_without_depth_need_no_focal_length_and_with_it_do():
    rng = np.random.default_rng(0)
    assert room_holes.random_hole(rng, 16).shape == (16, 16)
    with pytest.raises(ValueError, match="focal"):
        room_holes.random_hole(rng, 16, np.ones((16, 16), np.float32))


def test_a_step_back_from_a_wall_leaves_a_border():
    """A wall at 2 m, seen from .5 m nearer: a quarter of the picture's width is new, all around."""
    hole = room_holes.unseen(np.full((32, 32), 2.0), 30.0, np.asarray([0.0, 0.0, 0.5]))
    expected = np.ones((32, 32), bool)
    expected[4:-4, 4:-4] = False
    np.testing.assert_array_equal(hole, expected)


def test_a_step_aside_leaves_what_the_nearer_thing_hid():
    depth = np.full((32, 32), 4.0)
    depth[:, 12:20] = 2.0
    # The other camera is .4 m to the right: there the box shifts left by 6 pixels, the wall by 3.
    hole = room_holes.unseen(depth, 30.0, np.asarray([0.4, 0.0, 0.0]))
    assert hole[:, :3].all()  # the wall that was out of its picture, on the left
    assert hole[16, 9:12].any()  # what the box hid from it
    assert not hole[:, 12:20].any()
    assert not hole[:, 24:].any()


def test_no_step_leaves_no_hole():
    rng = np.random.default_rng(0)
    depth = rng.uniform(1.0, 1.02, (32, 32))
    assert not room_holes.unseen(depth, 30.0, np.zeros(3)).any()
