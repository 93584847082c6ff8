import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.distill import rooms, worlds
from experiments import recipe, room_recipe, room_report
from experiments.recipe_checks import check_config
from geojax.geometry.occupancy import full_grid
from geojax.methods.radiance import Rendering
from geojax.methods.text_to_3d import State
from geojax.models.fields import Field

PROMPT = "a room with red walls and a brown wooden floor"

# Solid but for a ball of this radius about the parameter.
HOLLOW = Field(
    lambda key: jnp.zeros(3),
    lambda centre, p: (
        jnp.where(jnp.linalg.norm(p - centre[None], axis=-1) < 0.4, 0.0, 50.0),
        jnp.zeros((len(p), 3)),
    ),
)


def state_of(centre, step=0):
    grid, step = full_grid(4, 1.0), jnp.asarray(step, jnp.int32)
    return State(jnp.asarray(centre), (), grid, step, jax.random.key(7))


def positions(rule, state, count=16, **fields):
    config = rooms.get_config(rule)
    config.inside.update(fields)
    draw = jax.jit(recipe.choose_cameras(config, HOLLOW), static_argnums=(1, 2))
    seen = draw(jax.random.key(0), count, 8, state)
    assert seen.camera.width == 8 and seen.azimuth.shape == (count,)
    return np.asarray(seen.camera.position)


def test_free_cameras_follow_the_field_and_random_ones_do_not():
    away = {}
    for rule in ("random", "free"):
        for centre in ((0.2, 0.2, 0.0), (-0.2, -0.2, 0.0)):
            found = positions(rule, state_of(centre))
            away[rule, centre] = np.linalg.norm(found - np.asarray(centre), axis=1)
            assert (np.abs(found) <= rooms.get_config().inside.half).all()
    assert max(away["free", c].max() for c in ((0.2, 0.2, 0.0), (-0.2, -0.2, 0.0))) < 0.4
    assert away["random", (0.2, 0.2, 0.0)].max() > 0.5


def test_scheduled_cameras_set_out_together():
    config = rooms.get_config("schedule")
    whole = round(config.inside.open_at * config.steps)
    start = {"start": (0.1, 0.0, 0.0), "first_share": 0.1}
    first = positions("schedule", state_of((0.1, 0.0, 0.0)), **start)
    last = positions("schedule", state_of((0.1, 0.0, 0.0), whole), **start)
    # A tenth of the way from the start to the walls of the box, the farther of which is at -half.
    farthest = 0.1 * (config.inside.half[0] + 0.1)
    assert np.abs(first - [0.1, 0.0, 0.0]).max() <= farthest + 1e-6
    assert np.ptp(last[:, 0]) > 0.3
    # Also then not in the walls.
    assert np.linalg.norm(last - [0.1, 0.0, 0.0], axis=1).max() < 0.4


def test_outside_of_the_field_nothing_is_free():
    """Nothing is anywhere: all of the box is free but its corners, which lie beyond the ball."""
    nothing = Field(lambda key: jnp.zeros(3), lambda _, p: (jnp.zeros(len(p)), jnp.zeros_like(p)))
    config = rooms.get_config("free")
    state = state_of((0.0, 0.0, 0.0))
    assert np.linalg.norm(config.inside.half) > 1.2 * config.field.radius
    seen = recipe.choose_cameras(config, nothing)(jax.random.key(0), 64, 8, state)
    apart = np.linalg.norm(seen.camera.position, axis=-1)
    # Whose clearance lies within it too.
    assert 0.8 < apart.max() < config.field.radius - 0.5 * config.inside.free.clearance


def test_objects_are_seen_as_before():
    config = worlds.get_config()
    seen = recipe.choose_cameras(config, HOLLOW)(jax.random.key(0), 4, 8, state_of((0.0, 0.0, 0.0)))
    assert not room_recipe.is_inside(config)
    assert np.linalg.norm(seen.camera.position, axis=-1).min() > 1.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"inside.rule": "somewhere"}, "config.inside.rule='somewhere' is not one of random, free"),
        ({"inside.half": (0.6, 0.0, 0.2)}, "three positive half sides"),
        ({"inside.hollow": (0.6, -0.1, 0.2)}, "three positive half sides"),
        ({"inside.start": (1.0, 0.0, 0.0)}, "config.inside.start=.* must be a point of the box"),
        ({"inside.first_share": 0.0}, "first_share must be in"),
        ({"inside.open_at": 1.5}, "open_at in .0, 1."),
        ({"inside.pitch": (5.0, -5.0)}, "pitch must be"),
        ({"inside.pitch": (-5.0, 0.0, 5.0)}, "config.inside.pitch must be .low, high."),
        ({"inside.focal": (0.9,)}, "config.inside.focal must be .low, high."),
        ({"perp_neg": True}, "no prompt of config.view_suffixes names a view"),
        ({"inside.free.sight": 2.0}, "reach=1.0 must be over sight=2.0"),
        ({"inside.free.candidates": 0}, "candidates must be at least 1"),
        ({"latent": True, "background.learnt": True}, "config.latent=True: a room"),
    ],
)
def test_recipes_that_cannot_be_are_refused(fields, message):
    config = rooms.get_config()
    config.update_from_flattened_dict(fields)
    with pytest.raises(ValueError, match=message):
        check_config(config, PROMPT)


def test_variants_differ_in_the_rule_alone():
    fields = {rule: rooms.get_config(rule).to_dict() for rule in room_recipe.RULES}
    for rule, entries in fields.items():
        assert entries["inside"].pop("rule") == rule
    assert fields["random"] == fields["free"] == fields["schedule"]
    with pytest.raises(ValueError, match="no variant 'best'"):
        rooms.get_config("best")


def test_figures_of_pixels_with_known_answers():
    config = rooms.get_config()
    opacity = np.asarray([[[1.0, 1.0], [0.6, 0.4]]])
    depth = np.asarray([[[0.05, 0.5], [0.9, 0.01]]])  # near is under 0.12
    other = [None] * (len(Rendering._fields) - 3)
    figures = room_report.room_figures(config, Rendering(None, opacity, depth, *other))
    assert figures["opacity"] == pytest.approx(0.75) and figures["near"] == 0.25
    assert figures["median_depth"] == 0.5 and not figures["collapsed"]
    empty = room_report.room_figures(config, Rendering(None, 0.0 * opacity, depth, *other))
    assert empty["median_depth"] is None and empty["collapse"].startswith("empty")


def test_held_out_cameras_stand_in_the_middle_and_look_all_round():
    config = rooms.get_config()
    seen = room_report.held_out_views(config, 8)
    position = np.asarray(seen.camera.position)
    assert (np.abs(position) <= 0.35 * np.asarray(config.inside.half) + 1e-6).all()
    assert len(np.unique(position, axis=0)) == 5 and len(position) == 20
    gaps = np.diff(np.sort(np.asarray(seen.azimuth)))
    np.testing.assert_allclose(gaps, 2.0 * np.pi / 20, atol=1e-5)
