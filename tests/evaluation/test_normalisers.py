"""Normalisers of the error, by hand."""

import numpy as np
import pytest

from ray_kplm.errors import DataError
from ray_kplm.evaluation.normalisers import normaliser

BOXES = np.array([[10.0, 20.0, 14.0, 29.0], [0.0, 0.0, 8.0, 2.0]])
# Left set 0 and 1, right set 2: the means stand (3, 4) apart in image 0, (0, 10) in image 1.
LANDMARKS = np.array([[[0.0, 1.0], [2.0, 1.0], [4.0, 5.0]], [[5.0, 0.0], [5.0, 0.0], [5.0, 10.0]]])
EYES = {"type": "interocular", "left": [0, 1], "right": [2], "definition": "a sentence"}


def test_interocular_is_the_distance_between_the_means_of_both_sets():
    np.testing.assert_allclose(normaliser(EYES, LANDMARKS, BOXES), [5.0, 10.0])


def test_interocular_is_unknown_where_a_point_is_not_annotated():
    landmarks = LANDMARKS.copy()
    landmarks[1, 0] = np.nan
    np.testing.assert_array_equal(normaliser(EYES, landmarks, BOXES), [5.0, np.nan])


def test_interocular_is_unknown_where_both_eyes_coincide():
    assert np.isnan(normaliser(EYES, np.zeros((1, 3, 2)), BOXES[:1])).all()


def test_bbox_sqrt_is_the_geometric_mean_of_the_sides():
    np.testing.assert_allclose(normaliser({"type": "bbox_sqrt"}, LANDMARKS, BOXES), [6.0, 4.0])


@pytest.mark.parametrize(
    "box",
    [
        pytest.param([5.0, 5.0, 5.0, 9.0], id="flat"),
        pytest.param([9.0, 9.0, 5.0, 5.0], id="both sides negative"),
        pytest.param([np.nan] * 4, id="none"),
    ],
)
def test_bbox_sqrt_is_unknown_for_a_box_without_area(box):
    assert np.isnan(normaliser({"type": "bbox_sqrt"}, LANDMARKS[:1], np.array([box]))).all()


def test_fixed_is_the_same_for_every_image():
    np.testing.assert_array_equal(normaliser({"type": "fixed", "pixels": 40}, LANDMARKS, BOXES), [40.0, 40.0])


def test_torso_is_the_mean_of_the_pairs_that_are_annotated():
    landmarks = np.array([[[0.0, 0.0], [4.0, 0.0], [0.0, 3.0], [4.0, 8.0]]]).repeat(3, axis=0)
    torso = {"type": "torso", "pairs": [[0, 2], [1, 3]]}  # 3 and 8 long
    landmarks[1, 3] = np.nan
    landmarks[2, [0, 1]] = np.nan
    np.testing.assert_array_equal(normaliser(torso, landmarks, np.full((3, 4), np.nan)), [5.5, 3.0, np.nan])


@pytest.mark.parametrize(
    ("definition", "named"),
    [
        ({"type": "iris"}, "'iris'"),
        ({}, "None"),
        ({"type": "interocular", "left": [0], "right": []}, "nme.right"),
        ({"type": "interocular", "left": [0], "right": [3]}, "index 3"),
        ({"type": "interocular", "left": [-1], "right": [0]}, "index -1"),
        ({"type": "torso"}, "nme.pairs None"),
        ({"type": "torso", "pairs": [[0, 3]]}, "index 3.*nme.pairs"),
        ({"type": "fixed", "pixels": 0}, "nme.pixels 0"),
        ({"type": "fixed"}, "nme.pixels None"),
    ],
)
def test_a_wrong_definition_is_named(definition, named):
    with pytest.raises(DataError, match=named):
        normaliser(definition, LANDMARKS, BOXES)
