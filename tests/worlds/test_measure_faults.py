"""Faults of a shape that an overlap does not see: separate pieces, two faces."""

import jax.numpy as jnp
import numpy as np
import pytest

from geojax.worlds import solids
from geojax.worlds.measure import grid_points, intersection_over_union, pieces, two_faced

BOUND = 0.55
POINTS = grid_points(48, BOUND)


def solid(kind, points=POINTS):
    return np.asarray(solids.signed_distance(kind, jnp.asarray(points))) < 0.0


@pytest.mark.parametrize("kind", list(solids.KINDS))
def test_an_exact_solid_is_one_piece_and_has_its_own_face(kind):
    assert pieces(solid(kind)) == 1
    assert two_faced(kind, solid(kind), BOUND) == 0.0


def test_a_handle_that_floats_is_a_second_piece_though_little_is_lost():
    mug = solid("mug")
    # The cup is a cylinder of radius 0.27 around y = -0.08; its handle leaves it to the right.
    radius = np.hypot(POINTS[..., 0], POINTS[..., 1] + 0.08)
    cut = mug & ~((radius > 0.27) & (radius < 0.33))
    assert pieces(cut) == 2
    assert intersection_over_union(cut, mug) > 0.85


def test_dust_is_no_piece():
    dusty = solid("cube")
    dusty[0, 0, 0] = dusty[-1, -1, -1] = True
    assert pieces(dusty) == 1
    assert pieces(np.zeros((4, 4, 4), bool)) == 0


@pytest.mark.parametrize("kind", ["house", "chair", "mug"])
def test_what_is_joined_with_its_own_half_turn_has_two_faces(kind):
    exact = solid(kind)
    janus = exact | exact[::-1, ::-1]
    assert two_faced(kind, janus, BOUND) > 0.03
    assert two_faced(kind, janus, BOUND) > two_faced(kind, exact, BOUND)


def test_a_round_solid_cannot_have_two_faces():
    assert abs(two_faced("cone", solid("cone"), BOUND)) < 1e-6
