"""Merging of channels that follow one point."""

import numpy as np

from ray_kplm.correspondence.merging import CoActivation, co_activation, merge

RNG = np.random.default_rng(0)


def test_co_activation_counts_images_in_which_both_channels_fire_at_one_place():
    xy = np.zeros((4, 3, 2))
    xy[:, 1] = [[0.6, 0.8], [0.61, 0.8], [5, 5], [0, 0]]  # 1, just over 1, far, 0 cells from channel 0
    xy[:, 2] = [9, 9]
    confidence = np.array([[0.9, 0.9, 0.9], [0.9, 0.9, 0.1], [0.9, 0.9, 0.9], [0.9, 0.2, 0.9]])
    found = co_activation(xy, confidence, least=0.2, distance=1.0)
    assert found.images == 4
    assert found.fires.tolist() == [4, 3, 3]
    assert found.together.tolist() == [[4, 1, 0], [1, 3, 0], [0, 0, 3]]
    np.testing.assert_allclose(found.overlap()[0], [1, 1 / 3, 0])


def test_co_activation_adds_up_over_images():
    xy, confidence = RNG.uniform(0, 4, (50, 6, 2)), RNG.random((50, 6))
    whole = co_activation(xy, confidence, least=0.3, distance=1.5)
    halves = [co_activation(xy[h], confidence[h], least=0.3, distance=1.5) for h in (slice(0, 20), slice(20, 50))]
    both = halves[0] + halves[1]
    assert both.images == whole.images
    np.testing.assert_array_equal(both.together, whole.together)
    np.testing.assert_array_equal(both.fires, whole.fires)


def of(overlap: np.ndarray) -> CoActivation:
    """100 images in which every channel fires."""
    return CoActivation(100, np.full(len(overlap), 100), np.rint(100 * overlap).astype(np.int64))


def test_the_smaller_channel_is_merged_into_the_larger():
    overlap = np.array([[1, 0.9, 0.1], [0.9, 1, 0.1], [0.1, 0.1, 1]])
    into, history = merge(of(overlap), np.array([10, 500, 30]), 0.7)
    assert into.tolist() == [1, 1, 2]
    assert [(m.channel, m.into, m.overlap) for m in history] == [(0, 1, 0.9)]


def test_a_channel_is_never_merged_into_a_merged_channel():
    # 0 - 1 - 2 overlap in a chain; 1 goes into 0, so 2 has nothing to go into.
    overlap = np.array([[1, 0.9, 0.2], [0.9, 1, 0.9], [0.2, 0.9, 1]])
    into, _ = merge(of(overlap), np.array([300, 200, 100]), 0.7)
    assert into.tolist() == [0, 0, 2]


def test_overlap_is_a_share_of_the_rarer_channel():
    found = CoActivation(100, np.array([100, 10]), np.array([[100, 8], [8, 10]]))
    assert merge(found, np.array([100, 10]), 0.7)[0].tolist() == [0, 0]
    assert merge(found, np.array([100, 10]), 0.8)[0].tolist() == [0, 1]


def test_channels_that_never_fire_are_kept():
    found = CoActivation(5, np.zeros(2, np.int64), np.zeros((2, 2), np.int64))
    assert merge(found, np.array([3, 3]), 0.7)[0].tolist() == [0, 1]
