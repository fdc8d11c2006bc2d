"""Landmarks that stand still."""

import numpy as np

from ray_kplm.correspondence.static import positions


def places(seed=0):
    """Five landmarks of 200 images, in turn: four move by 6 px, landmark 2 by a third of a pixel."""
    rng = np.random.default_rng(seed)
    landmark = np.tile(np.arange(5), 200)
    scale = np.array([6.0, 6.0, 0.3, 6.0, 6.0])[landmark]
    return landmark, 40.0 * landmark[:, None] + rng.normal(size=(1000, 2)) * scale[:, None]


def test_the_one_that_stands_still_is_found():
    found = positions(*places(), 5)
    np.testing.assert_allclose(found.spread(), np.array([6, 6, 0.3, 6, 6]) * np.sqrt(2), rtol=0.1)
    assert found.static().tolist() == [False, False, True, False, False]


def test_landmarks_that_move_alike_are_none_of_them_static():
    landmark, xy = places()
    assert not positions(landmark, np.where(landmark[:, None] == 2, 20 * xy, xy), 5).static().any()
    assert not positions(landmark, np.zeros_like(xy), 5).static().any()  # nothing moves: nothing stands out


def test_the_order_changes_nothing_and_an_unseen_landmark_is_not_static():
    landmark, xy = places()
    whole = positions(landmark, xy, 6)
    parts = positions(landmark[600:], xy[600:], 6) + positions(landmark[:600], xy[:600], 6)
    np.testing.assert_array_equal(whole.squares, parts.squares)
    np.testing.assert_array_equal(whole.total, parts.total)
    assert np.isnan(whole.spread()[5])
    assert whole.static().tolist() == [False, False, True, False, False, False]
