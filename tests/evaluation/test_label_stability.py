"""Agreement of two rounds' labels, from cases with known answers."""

import numpy as np
import pytest

from ray_kplm.evaluation.label_stability import dense, label_stability


def places(images=6, labels=4, seed=0):
    """Labels far apart, elsewhere in every image."""
    grid = np.stack(np.meshgrid(np.arange(labels) * 20.0, [0.0, 50.0]), axis=-1)[0]
    return grid[None] + np.random.default_rng(seed).uniform(0, 5, (images, 1, 2))


SIDES = np.full(6, 100.0)


def test_the_same_labels_by_other_names_agree_fully():
    last = places()
    assert label_stability(last[:, [2, 0, 3, 1]] + 1, last, SIDES) == (pytest.approx(100), 100)


def test_points_that_are_elsewhere_are_not_found_again():
    last = places()
    earlier = last.copy()
    earlier[:, 1] += 300
    earlier[:3, 2] = np.nan
    agreement, again = label_stability(earlier, last, SIDES)
    assert again == pytest.approx(100 * (24 - 6 - 3) / 24)
    assert agreement == pytest.approx(100)


def test_labels_that_change_from_image_to_image_tell_little():
    last, rng = places(400), np.random.default_rng(1)
    earlier = np.stack([image[rng.permutation(4)] for image in last])
    agreement, again = label_stability(earlier, last, np.full(400, 100.0))
    assert again == 100
    assert agreement < 2


def test_two_clusters_in_one_agree_by_half():
    """Labels 0 and 1 of the last round are one label before, and 2 and 3 another: I = H(before) = 1 bit, H(last) = 2 bits, so
    the NMI by the mean of the entropies is 2 / 3."""
    last = places()
    earlier = np.full((6, 2, 2), np.nan)
    for image in range(6):  # each label is in an image once: even images show one half, odd ones the other
        earlier[image] = last[image, [0, 2]] if image % 2 else last[image, [1, 3]]
    agreement, again = label_stability(earlier, last, SIDES)
    assert agreement == pytest.approx(100 * 2 / 3)
    assert again == 50


def test_rounds_without_common_points_have_no_agreement():
    last = places()
    assert label_stability(last + 500, last, SIDES) == (None, 0)
    assert label_stability(last, np.full_like(last, np.nan), SIDES) == (None, None)


def test_points_are_arranged_by_image_and_label():
    table = dense(2, 3, np.array([0, 1, 1]), np.array([2, 0, 1]), np.array([[1, 2], [3, 4], [5, 6]]))
    np.testing.assert_array_equal(table[0], [[np.nan] * 2, [np.nan] * 2, [1, 2]])
    np.testing.assert_array_equal(table[1], [[3, 4], [5, 6], [np.nan] * 2])
