"""What is said of a run, and when nothing is."""

from ray_kplm.report.run_warnings import listed, warnings

GOOD = {
    "forward_nme": 5.0,
    "mean_shape_nme": 20.0,
    "backward_per_landmark": [4.0, 5.0, 6.0],
    "min_landmark_distance": 6.0,
}


def test_a_good_run_has_none():
    assert warnings({"warnings": []}, GOOD, images=500) == []
    assert warnings(None, None, images=500) == []


def test_those_of_the_quality_come_first_and_begin_with_a_capital():
    said = warnings({"warnings": ["landmark 3 is rare"]}, {**GOOD, "forward_nme": 19.0}, images=10, rejected=4)
    assert said[0] == "Landmark 3 is rare"
    assert "hardly better than the mean shape's 20.0 %" in said[1]
    [worse] = warnings(None, {**GOOD, "forward_nme": 21.0}, images=500)
    assert "no better than the mean shape's 20.0 %" in worse
    assert said[2] == "10 images only: the figures are rough"
    assert said[3].startswith("4 files could not be used")


def test_landmarks_far_off_the_median_are_named():
    [said] = warnings(None, {**GOOD, "backward_per_landmark": [4.0, 9.0, None, 4.0, 9.5, 4.0]}, images=500)
    assert said.startswith("Landmarks 1 and 4 have a backward error more than twice")


def test_landmarks_on_one_place_are_said_once():
    close = {**GOOD, "min_landmark_distance": 0.4}
    assert warnings(None, close, images=500) == ["Two landmarks lie on one place: 0.4 % of the side apart on average"]
    assert warnings({"warnings": []}, close, images=500) == []  # the quality looks for them itself


def test_lists_are_read_aloud():
    assert [listed(numbers) for numbers in ([3], [3, 7], [2, 3, 7])] == ["3", "3 and 7", "2, 3 and 7"]
