"""Warnings about a run."""

from ray_kplm.report.run_warnings import run_warnings

GOOD = {
    "forward_nme": 5.0,
    "mean_shape_nme": 20.0,
    "backward_per_landmark": [4.0, 5.0, 6.0],
    "min_landmark_distance": 6.0,
}


def test_a_good_run_has_no_warning():
    assert run_warnings({"warnings": []}, GOOD, images=500) == []
    assert run_warnings(None, None, images=500) == []


def test_warnings_of_the_quality_come_first_and_begin_with_a_capital():
    texts = run_warnings({"warnings": ["landmark 3 is rare"]}, {**GOOD, "forward_nme": 19.0}, images=10, rejected=4)
    assert texts[0] == "Landmark 3 is rare"
    assert "hardly better than the mean shape's 20.0 %" in texts[1]
    [worse] = run_warnings(None, {**GOOD, "forward_nme": 21.0}, images=500)
    assert "no better than the mean shape's 20.0 %" in worse
    assert texts[2] == "There are only 10 images: all measures are imprecise"
    assert texts[3].startswith("4 files could not be used")


def test_landmarks_far_off_the_median_are_named():
    [texts] = run_warnings(None, {**GOOD, "backward_per_landmark": [4.0, 9.0, None, 4.0, 9.5, 4.0]}, images=500)
    assert texts.startswith("Landmarks 1 and 4 have a backward error more than twice")


def test_landmarks_at_one_place_are_reported_once():
    close = {**GOOD, "min_landmark_distance": 0.4}
    assert run_warnings(None, close, images=500) == [
        "Two landmarks lie at one place: they are 0.4 % of the side apart on average"
    ]
    assert run_warnings({"warnings": []}, close, images=500) == []  # the quality has its own warning
