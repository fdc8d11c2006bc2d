"""The evidence for the number of landmarks as text."""

from ray_kplm.report.choice_table import choice_line, choice_table

CHOICE = {
    "landmarks": 8, "clusters": 60, "images": 400, "points_per_image": 24.0, "range": [8, 8], "doubts": [],
    "rows": [
        {"landmarks": 6, "agreement": 0.5, "chance": 0.4, "excess": 0.17, "standard_error": 0.01, "found": 0.9},
        {"landmarks": 8, "agreement": 0.6, "chance": 0.4, "excess": 0.33, "standard_error": 0.02, "found": 0.8},
    ],
}  # fmt: skip


def test_the_chosen_row_is_marked_and_the_last_line_has_both_numbers():
    lines = choice_table(CHOICE).splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["K", "6", "8"]
    assert [line.endswith("chosen") for line in lines[:3]] == [False, False, True]
    assert lines[-1] == "K = 8, M = 60, sure: 8 to 8 over other splits of 400 images of 24.0 keypoints"


def test_doubts_follow_and_make_the_choice_unsure():
    lines = choice_table({**CHOICE, "doubts": ["few images"]}).splitlines()
    assert "unsure" in lines[-2]
    assert lines[-1] == "few images"


def test_a_given_number_of_landmarks_has_no_range():
    given = {name: CHOICE[name] for name in ("landmarks", "clusters", "images", "points_per_image")}
    assert choice_line(given) == "K = 8, M = 60, from 400 images of 24.0 keypoints"
