"""What is refused in labels, and what is said of them."""

import numpy as np
import pytest

from ray_kplm.errors import DataError
from ray_kplm.points.label_faults import check_names, check_places, confused_points, enough_labels

NAMES = ["nose", "left_eye", "right_eye"]
PLACES = np.random.default_rng(0).uniform(0.2, 0.8, (6, 3, 2))
SIZES = np.full(6, 0.5)


def test_names_are_different():
    check_names(NAMES)
    with pytest.raises(DataError, match="nose: several points have this name"):
        check_names([*NAMES, "nose"])
    with pytest.raises(DataError, match="no name"):
        check_names(["a", " "])


def test_points_of_few_images_are_left_out_with_a_line():
    targets = PLACES.copy()
    targets[2:, 1] = np.nan
    enough, lines = enough_labels(targets, np.arange(6), NAMES)
    assert enough.tolist() == [True, False, True]
    assert lines == ["left_eye: labelled in 2 images, 2 of them different, and 3 are needed: left out"]
    with pytest.raises(
        DataError, match="no point is labelled in more than 6 images, 2 of them different: 3 are needed"
    ):
        enough_labels(PLACES, np.array([0, 0, 0, 1, 1, 1]), NAMES)


def test_two_points_at_one_place_are_refused():
    check_places(PLACES, SIZES, NAMES)
    same = PLACES.copy()
    same[:, 2] = same[:, 0]
    same[3, 2] = np.nan
    with pytest.raises(DataError, match="nose and right_eye: are at the same place in all 5 images that have both"):
        check_places(same, SIZES, NAMES)
    same[0, 2] += 0.01
    check_places(same, SIZES, NAMES)


def test_points_whose_labels_are_swapped_at_random_are_hardly_told_apart():
    middle = PLACES.mean(axis=0)
    targets = middle + np.random.default_rng(1).normal(size=(40, 3, 2)) * 0.01
    targets[::2, [1, 2]] = targets[::2, [2, 1]]
    predicted = np.broadcast_to(targets.mean(axis=0), targets.shape)
    assert confused_points(predicted, targets, np.full(40, 0.5)) == [(1, 2)]
