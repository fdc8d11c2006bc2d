"""Matched landmarks by hand."""

import numpy as np
import pytest

from ray_kplm.evaluation.matching import by_group, distances, match_landmarks, matched, percent_within

GONE = [np.nan, np.nan]


def on_a_line(*positions):
    """One image of points (x, 0)."""
    return np.array([[[x, 0.0] if x is not None else GONE for x in positions]])


def test_the_assignment_is_of_least_total_distance_and_not_each_ones_nearest():
    # Landmark 0 at 1 is nearest to both points (distances 1 and 2), landmark 1 at -4 is 4 and 7 away: 0-0, 1-1 is 1 + 7 = 8,
    # 0-1, 1-0 is 2 + 4 = 6.
    matching = match_landmarks(on_a_line(1, -4), on_a_line(0, 3))
    assert matching.landmark.tolist() == [1, 0]
    assert matching.distance.tolist() == [4, 2]


def test_the_cost_is_the_mean_over_images_that_show_both():
    discovered = np.concatenate([on_a_line(0, 5), on_a_line(2, None), on_a_line(None, 9)])
    truth = np.concatenate([on_a_line(0, 4), on_a_line(0, 4), on_a_line(None, 6)])
    matching = match_landmarks(discovered, truth)
    assert matching.landmark.tolist() == [0, 1]
    assert matching.distance.tolist() == [(0 + 2) / 2, (1 + 3) / 2]


def test_more_points_than_landmarks_leave_points_without():
    matching = match_landmarks(on_a_line(10), on_a_line(0, 9, 20))
    assert matching.landmark.tolist() == [-1, 0, -1]
    np.testing.assert_array_equal(matching.distance, [np.nan, 1, np.nan])
    found = matched(on_a_line(10), matching)
    np.testing.assert_array_equal(found, on_a_line(None, 10, None))
    np.testing.assert_array_equal(distances(found, on_a_line(0, 9, None)), [[np.inf, 1, np.nan]])


def test_a_landmark_that_is_never_seen_with_a_point_does_not_stand_for_it():
    discovered = np.concatenate([on_a_line(None, 1), on_a_line(None, 1)])
    matching = match_landmarks(discovered, np.concatenate([on_a_line(0, 3), on_a_line(0, 3)]))
    assert matching.landmark.tolist() == [1, -1]


def test_matching_without_landmarks_or_points_is_empty():
    assert match_landmarks(np.zeros((3, 0, 2)), np.zeros((3, 2, 2))).landmark.tolist() == [-1, -1]
    assert match_landmarks(np.zeros((3, 2, 2)), np.zeros((3, 0, 2))).landmark.tolist() == []


def test_accuracy_is_the_share_of_annotated_points_found_within_the_distance():
    apart = np.array([[6.0, np.nan], [6.1, np.nan], [0.0, np.nan], [np.inf, np.nan]])
    np.testing.assert_array_equal(percent_within(apart, 6), [50.0, np.nan])


def test_pck_has_a_limit_for_each_image():
    # 0.3 of torsos 100, 100, 200 and of an unknown one: limits 30, 30, 60.
    apart = np.array([[30.0], [31.0], [59.0], [0.0]])
    torso = np.array([100.0, 100.0, 200.0, np.nan])
    np.testing.assert_allclose(percent_within(apart, 0.3 * torso), [200 / 3])


def test_the_average_is_over_groups_as_in_the_thesis():
    # Table 6.9, the thesis' own row: 97.89, 49.65, 71.26, 84.90, average 75.93; head is one point, the others two each.
    per_point = [97.89, 40.0, 59.3, 71.26, 71.26, 84.90, 84.90]
    groups = {"Head": [0], "Shoulders": [1, 2], "Elbows": [3, 4], "Hands": [5, 6]}
    found = by_group(per_point, groups)
    assert found["Shoulders"] == pytest.approx(49.65)
    assert round(found["average"], 2) == pytest.approx(75.93, abs=0.011)
    assert np.isnan(by_group([np.nan], {"Head": [0]})["average"])
