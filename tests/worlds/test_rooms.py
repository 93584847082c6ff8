import jax
import numpy as np
import pytest

from geojax.worlds import room_materials, room_recipes, rooms
from geojax.worlds.room_cameras import free_distance
from geojax.worlds.room_scene import MAX_BOXES, Builder, Frame, Space


def test_a_room_follows_from_its_seed():
    first, again, other = (rooms.sample_room(np.random.default_rng(s)) for s in (1, 1, 2))
    assert first.spaces == again.spaces
    assert first.things == again.things
    jax.tree.map(np.testing.assert_array_equal, first.scene, again.scene)
    assert not np.array_equal(first.scene.low, other.scene.low)


@pytest.mark.parametrize("kind", room_recipes.RECIPES)
def test_every_kind_fits_its_capacities(kind):
    for seed in range(6):
        room = rooms.sample_room(np.random.default_rng(seed), kind=kind)
        assert room.spaces[0].kind == kind
        boxes, rounds = room.scene.used
        assert np.all(room.scene.low[:boxes] < room.scene.high[:boxes])
        assert np.all(room.scene.radii[:rounds] > 0.0)
        # Every primitive is of a thing, in a space, of a material that is there.
        assert room.scene.thing[:boxes].max() < len(room.things)
        assert max(t.space for t in room.things) < len(room.spaces)
        rows = room.scene.textures[room.scene.material[:boxes]]
        assert np.all(rows[:, 9:11] > 0.0)
        assert np.all((rows[:, :9] >= 0.0) & (rows[:, :9] <= 1.0))


def test_the_fullest_rooms_fit():
    fullest = 0
    for seed in range(60):
        for kind in ("corridor", "church"):
            room = rooms.sample_room(np.random.default_rng(seed), kind=kind)
            fullest = max(fullest, int(room.scene.used[0]))
    assert MAX_BOXES - 4 < fullest <= MAX_BOXES


def test_a_piece_that_does_not_fit_leaves_nothing_behind():
    builder = Builder(np.random.default_rng(0))
    frame, size = Frame((0.0, 0.0, 0.0), 0), (1.0, 1.0, 1.0)
    assert builder.put(frame, "wall", "", 0, fill(MAX_BOXES - 1))
    assert not builder.place(size, frame, "table", "", 0, fill(2, "red"))
    assert len(builder.boxes) == MAX_BOXES - 1
    assert [t.kind for t in builder.things] == ["wall"]
    assert builder.occupied == []
    assert builder.material(room_materials.paint("blue")) == 1  # where red was
    assert builder.place(size, frame, "chair", "", 0, fill(1))


def fill(count, colour="white"):
    def build(put):
        m = put.builder.material(room_materials.paint(colour))
        for _ in range(count):
            put.box((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), m)

    return build


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match="garage"):
        rooms.sample_room(np.random.default_rng(0), kind="garage")


def test_corridors_are_long_and_free_along_their_middle():
    for seed in range(20):
        room = rooms.sample_room(np.random.default_rng(seed), kind="corridor")
        (x0, _, _), (x1, _, _) = room.spaces[0].low, room.spaces[0].high
        assert x1 - x0 >= 12.0
        x = np.linspace(x0 + 0.5, x1 - 0.5, 60)
        middle = np.stack([x, np.zeros(60), np.full(60, 1.4)], axis=-1)
        assert free_distance(room, middle).min() > 0.35


def test_held_out_pairs_are_held_out():
    for held_out in (False, True):
        for seed in range(25):
            room = rooms.sample_room(np.random.default_rng(seed), held_out=held_out)
            for space in room.spaces:
                pair = (space.wall.material, space.floor.material)
                assert (pair in room_materials.HELD_OUT) == held_out


def test_held_out_pairs_leave_every_material_to_train_on():
    pairs = {(w, f) for w in room_materials.WALLS for f in room_materials.FLOORS}
    assert pairs > room_materials.HELD_OUT
    trained = pairs - room_materials.HELD_OUT
    assert {w for w, _ in trained} == set(room_materials.WALLS)
    assert {f for _, f in trained} == set(room_materials.FLOORS)


def test_unknown_materials_are_named():
    wrong = room_materials.Surface("carpet", "red")
    with pytest.raises(ValueError, match="carpet"):
        room_materials.wall_texture(wrong)
    with pytest.raises(ValueError, match="striped"):
        room_materials.floor_texture(room_materials.Surface("striped", "red"))


def test_a_frame_turns_boxes_by_quarter_turns():
    low, high = Frame((1.0, 2.0, 0.0), 1).box((0.0, -1.0, 0.0), (3.0, 1.0, 2.0))
    np.testing.assert_allclose(low, (0.0, 2.0, 0.0))
    np.testing.assert_allclose(high, (2.0, 5.0, 2.0))


def test_too_many_boxes_are_refused():
    builder = Builder(np.random.default_rng(0))
    paint = builder.material(room_materials.paint("red"))
    for _ in range(MAX_BOXES + 1):
        builder.box((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), paint, 0)
    black = (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match=str(MAX_BOXES + 1)):
        builder.scene(black, (0.0, 0.0, 1.0), black, (black, black))


def test_furniture_never_overlaps_furniture():
    builder = Builder(np.random.default_rng(3))
    surface = room_materials.Surface("plaster", "white")
    space = Space("living room", (0.0, 0.0, 0.0), (5.0, 4.0, 2.6), surface, surface)
    room_recipes.RECIPES["museum"](builder, 0, space)
    taken = builder.occupied
    assert len(taken) >= 4
    for i, (a, b) in enumerate(taken):
        for low, high in taken[:i]:
            assert any(a[k] >= high[k] or low[k] >= b[k] for k in range(3))
