"""Static landmarks."""

import numpy as np
import pytest

from ray_kplm.correspondence.static import STATIC_SPREAD, positions

IMAGES = 200


def places(spread, seed=0):
    """Landmarks of IMAGES images, one after the other, that spread by so much, shares of the side."""
    rng = np.random.default_rng(seed)
    landmark = np.tile(np.arange(len(spread)), IMAGES)
    home = rng.uniform(0.2, 0.8, (len(spread), 2))
    axis = np.asarray(spread) / np.sqrt(2)
    return landmark, (home + rng.normal(size=(IMAGES, len(spread), 2)) * axis[:, None]).reshape(-1, 2)


def static(spread, seed=0):
    return np.flatnonzero(positions(*places(spread, seed), len(spread)).static()).tolist()


def test_the_spread_is_a_share_of_the_side():
    found = positions(*places([0.06, 0.005, 0.3]), 3)
    np.testing.assert_allclose(found.spread(), [0.06, 0.005, 0.3], rtol=0.1)


@pytest.mark.parametrize("fixed", [0, 1, 3, 6, 8, 10])
@pytest.mark.parametrize("noise", [0.0, 0.002, 0.006])  # along each axis; 0.006 is 1.5 px of 256
def test_any_number_of_fixed_landmarks_is_found_and_no_other(fixed, noise):
    spread = np.linspace(0.08, 0.2, 10)
    spread[:fixed] = noise * np.sqrt(2)
    assert static(spread) == list(range(fixed))


def test_a_landmark_that_moves_much_less_than_the_others_is_static():
    assert static([0.15, 0.02, 0.14, 0.16, 0.13]) == [1]


# Of the annotated points of X-rays of heads (ISBI 2015), the best aligned category at hand: 2.6 to 5.1 % of the side.
ALIGNED = [0.026, 0.028, 0.030, 0.031, 0.033, 0.036, 0.040, 0.044, 0.047, 0.051]


@pytest.mark.parametrize("seed", range(5))
def test_an_aligned_category_has_no_static_landmark(seed):
    assert static(ALIGNED, seed) == []


@pytest.mark.parametrize("moving", [1, 4])
def test_a_landmark_that_moves_a_lot_is_not_static_and_makes_no_other_static(moving):
    assert static([*ALIGNED, *[0.4] * moving]) == []
    assert static([0.005, *ALIGNED, *[0.4] * moving]) == [0]


def test_all_landmarks_can_be_static():
    assert static(np.full(5, 0.9 * STATIC_SPREAD)) == [0, 1, 2, 3, 4]
    assert static(np.full(5, 1.1 * STATIC_SPREAD)) == []


def test_two_images_are_too_few_for_a_static_landmark():
    landmark, xy = np.repeat([0, 1], [2, 40]), np.full((42, 2), 0.5)
    assert positions(landmark, xy, 2).static().tolist() == [False, True]


def test_the_order_changes_nothing_and_an_unseen_landmark_is_not_static():
    landmark, xy = places([0.06, 0.06, 0.003, 0.06, 0.06])
    whole = positions(landmark, xy, 6)
    parts = positions(landmark[600:], xy[600:], 6) + positions(landmark[:600], xy[:600], 6)
    np.testing.assert_array_equal(whole.squares, parts.squares)
    np.testing.assert_array_equal(whole.total, parts.total)
    assert np.isnan(whole.spread()[5])
    assert whole.static().tolist() == [False, False, True, False, False, False]
