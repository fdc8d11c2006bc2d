"""Precision, recall and F by hand."""

import numpy as np
import pytest

from ray_kplm.evaluation.detection import detection_score, percent_near

GONE = [np.nan, np.nan]


def line(*positions):
    return [[x, 0.0] if x is not None else GONE for x in positions]


def test_counts_are_summed_over_images():
    # Image 1: 0 and 10 hit, 50 does not, 30 is missed. Image 2: 5 hits 4; one place is empty on both sides.
    score = detection_score([line(1, 11, 50), line(5, None, None)], [line(0, 10, 30), line(4, None, None)], 2)
    assert (score.hits, score.detected, score.annotated) == (3, 4, 4)
    score = detection_score([line(1, 50, 60, 70)], [line(0, None, 30, None)], 2)
    assert score.precision == pytest.approx(25.0)
    assert score.recall == pytest.approx(50.0)
    assert score.f_measure == pytest.approx(2 * 25 * 50 / 75)


def test_a_pair_at_exactly_the_distance_is_a_hit():
    assert detection_score([line(2)], [line(0)], 2).hits == 1
    assert detection_score([line(2.001)], [line(0)], 2).hits == 0


def test_two_detections_of_one_point_are_one_hit():
    assert detection_score([line(0, 1)], [line(0, 100)], 2).hits == 1


def test_the_number_of_pairs_is_the_largest_possible():
    # 1 is near both points, 0 only near the first: taking 1 for 0 would lose a pair.
    assert detection_score([line(1, 0)], [line(0, 2)], 1).hits == 2


def test_images_do_not_mix():
    assert detection_score([line(0), line(100)], [line(100), line(0)], 1).hits == 0


def test_an_image_without_annotation_is_left_out():
    score = detection_score([line(0, 3), line(0, 3)], [line(0, 3), line(None, None)], 1)
    assert (score.hits, score.detected, score.annotated) == (2, 2, 2)


def test_scores_without_points_are_nan():
    score = detection_score([line(None)], [line(None)], 1)
    assert np.isnan([score.precision, score.recall, score.f_measure]).all()
    score = detection_score([line(None)], [line(1)], 1)
    assert np.isnan(score.precision)
    assert (score.recall, score.f_measure) == (0, 0)


def test_chunks_of_images_are_summed():
    xy = np.random.default_rng(0).random((5000, 3, 2))
    assert detection_score(xy, xy[:, ::-1], 1e-9).hits == 15000


def test_keypoints_near_any_point_count_each_and_unknown_images_do_not():
    nan = np.nan
    detections = [[[0, 0], [1, 0], [9, 9]], [[0, 0]], [[5, 5]], np.zeros((0, 2))]
    truth = [[[0, 0], [nan, nan]], [[nan, nan], [nan, nan]], [[5, 5], [0, 0]], [[1, 1], [2, 2]]]
    assert percent_near(detections, truth, [1.0, 1.0, nan, 1.0]) == pytest.approx(200 / 3)
    assert np.isnan(percent_near(detections[1:2], truth[1:2], [1.0]))
