"""Scores of probabilities, in closed form."""

import numpy as np
import pytest

from ray_kplm.evaluation.visibility import area_under_curve, calibration_error, nearest_points, visibility_scores


def test_the_area_under_the_curve_is_the_share_of_pairs_in_order_with_ties_half():
    score, positive = np.array([0.1, 0.4, 0.4, 0.9]), np.array([False, False, True, True])
    assert area_under_curve(score, positive) == pytest.approx((1 + 1 + 1 + 0.5) / 4)
    assert area_under_curve(-score, positive) == pytest.approx(0.5 / 4)
    assert np.isnan(area_under_curve(score, np.ones(4, bool)))


def test_the_calibration_error_is_the_difference_in_each_bin_by_its_size():
    probability = np.array([0.95, 0.95, 0.15, 0.15, 0.15, 0.15, 1.0])
    positive = np.array([True, True, False, False, False, True, True])
    assert calibration_error(probability, positive) == pytest.approx(((0.1 + 0) + 0.4) / 7)


def test_landmarks_stand_for_the_nearest_point_several_for_one_too():
    truth = np.array([[[0, 0], [10, 0], [np.nan, np.nan]]] * 3, float)
    discovered = np.array([[[1, 1], [9, 1], [0, 1], [np.nan, np.nan]]] * 3, float)
    assert nearest_points(discovered, truth).tolist() == [0, 1, 0, -1]


def test_probabilities_are_scored_where_the_point_is_annotated():
    truth = np.zeros((4, 2, 2))
    truth[3, 1] = np.nan
    visible = np.array([[True, True], [True, False], [False, True], [True, False]])
    probability = np.array([[0.9, 0.8], [0.8, 0.2], [0.3, 0.1], [0.7, 0.0]], np.float32)
    scores = visibility_scores(probability, np.array([0, 1]), truth, visible)
    assert scores["pairs"] == 7
    assert scores["hidden"] == 2
    assert scores["auc_per_landmark"] == [None, None]  # of too few images
    often = [np.repeat(values, 5, axis=0) for values in (probability, truth, visible)]
    assert visibility_scores(often[0], np.array([0, 1]), *often[1:])["auc_per_landmark"] == [1, pytest.approx(0.5)]
    assert scores["auc"] == pytest.approx(8 / 10)
    assert scores["brier"] == pytest.approx((0.01 + 0.04 + 0.09 + 0.09 + 0.04 + 0.04 + 0.81) / 7)
    assert scores["visible"] == pytest.approx(5 / 7)


def test_there_are_no_scores_without_hidden_points_probabilities_or_landmarks():
    truth, points = np.zeros((4, 2, 2)), np.array([0, 1])
    hidden = np.array([[True, False]] * 4)
    assert visibility_scores(np.full((4, 2), 0.5), points, truth, np.ones((4, 2), bool)) is None
    assert visibility_scores(np.full((4, 2), np.nan), points, truth, hidden) is None
    assert visibility_scores(np.full((4, 2), 0.5), np.array([-1, -1]), truth, hidden) is None
