"""Warnings from label-free measures."""

import pytest

from ray_kplm.evaluation.label_free_warnings import listed, warnings_of


def quality(landmarks=8, **changes):
    """Return measures of landmarks without any problem, half of which have a mirror partner."""
    good = {
        "landmarks": landmarks,
        "static_landmarks": [],
        "coverage": 25.0,
        "detection_rate_per_landmark": [0.9] * landmarks,
        "equivariance_per_landmark": [2.0] * landmarks,
        "view_motion_per_landmark": [6.0] * landmarks,
        "flip_per_landmark": [3.0] * landmarks,
        "partners": [1, 0, 3, 2, *range(4, landmarks)],
        "landmarks_on_one_place": [],
        "transfer_per_landmark": [0.65] * landmarks,
        "shift_lag": 0.05,
        "inside_box_per_landmark": [0.95] * landmarks,
    }
    assert not changes.keys() - good.keys()
    return good | changes


def changed(values, **by_number):
    return [by_number.get(f"_{number}", value) for number, value in enumerate(values)]


def test_good_landmarks_give_no_warning():
    assert warnings_of(quality()) == []
    assert warnings_of(quality(partners=[-1] * 8, flip_per_landmark=[None] * 8)) == []  # a method without mirror images


@pytest.mark.parametrize(
    ("static", "text"),
    [
        ([3], "landmark 3 does not move"),
        ([3, 7], "landmarks 3 and 7 do not move"),
        ([0, 3, 7], "landmarks 0, 3 and 7 do"),
    ],
)
def test_static_landmarks_are_named(static, text):
    (warning,) = warnings_of(quality(static_landmarks=static))
    assert warning.startswith(text)
    assert "with the object" in warning


def test_dropping_static_landmarks_is_not_advised_if_all_are_static():
    (warning,) = warnings_of(quality(static_landmarks=list(range(8)), coverage=None))
    assert warning.startswith("no landmark moves with the object")
    assert "drop_static" not in warning


def test_landmarks_in_one_patch_give_a_warning():
    (warning,) = warnings_of(quality(coverage=4.26))
    assert warning.startswith("the landmarks lie in one patch, 4.3 % of the side about their mean")
    assert warnings_of(quality(coverage=10.0)) == warnings_of(quality(coverage=None)) == []


def test_rare_and_missing_landmarks_are_listed():
    rates = [0.1, 0.19, 0.2, 0.15, 0.0, 0.05, 0.9, 0.9]
    never, rare = warnings_of(
        quality(detection_rate_per_landmark=rates, equivariance_per_landmark=[2.0] * 4 + [None] * 4)
    )
    assert never == "landmark 4 is detected in no image"
    assert rare == "4 of 8 landmarks are detected in under 20 % of images: 0, 1, 3 and 5"


def test_a_landmark_that_ignores_the_view_is_called_unstable():
    (warning,) = warnings_of(quality(equivariance_per_landmark=changed([2.0] * 8, _2=7.0, _5=9.0)))
    assert warning.startswith("landmarks 2 and 5 are unstable")
    assert "8 % of its side" in warning


def test_landmarks_that_look_alike_by_chance_only_are_called_no_part():
    shares = changed([0.65] * 8, _1=0.49, _4=0.51, _6=0.5)
    (warning,) = warnings_of(quality(transfer_per_landmark=shares))
    assert "no more alike at landmarks 1, 4 and 6" in warning
    assert "not the same part" in warning
    static, wrong = warnings_of(quality(transfer_per_landmark=shares, static_landmarks=[6]))
    assert static.startswith("landmark 6 does not move")
    assert "at landmarks 1 and 4" in wrong


def test_landmarks_that_stay_behind_a_moved_object_give_a_warning():
    (warning,) = warnings_of(quality(shift_lag=0.62))
    assert warning.startswith("landmarks do not follow the object")
    assert "62 % of the way" in warning
    assert warnings_of(quality(shift_lag=None)) == []


def test_landmarks_beside_the_box_are_named():
    (warning,) = warnings_of(quality(inside_box_per_landmark=changed([0.9] * 8, _3=0.1)))
    assert warning == "landmark 3 lies outside of the object's box in most images"
    assert warnings_of(quality(inside_box_per_landmark=None, transfer_per_landmark=None)) == []


def test_confusion_of_left_and_right_gives_a_warning():
    assert warnings_of(quality(flip_per_landmark=changed([3.0] * 8, _0=25.0, _1=25.0))) == [
        "left and right are confused at landmarks 0 and 1"
    ]
    (warning,) = warnings_of(quality(flip_per_landmark=changed([3.0] * 8, _0=25.0, _1=25.0, _2=25.0, _3=25.0)))
    assert warning.startswith("left and right are confused: 0 of 8 landmarks have no partner")
    partners, errors = [1, 0, -1, -1, -1, -1, -1, 7], [3.0, 3.0, *[None] * 5, 3.0]
    (warning,) = warnings_of(quality(partners=partners, flip_per_landmark=errors))
    assert warning.startswith("left and right are confused: 5 of 8 landmarks have no partner")
    (warning,) = warnings_of(quality(partners=[1, 2, 0, 3, 4, 5, 6, 7]))  # mirrored twice, 0 is 2
    assert warning.startswith("left and right are confused")


def test_each_pair_at_one_place_gives_a_warning():
    assert warnings_of(quality(landmarks_on_one_place=[[2, 5], [3, 4]])) == [
        "landmarks 2 and 5 lie at one place",
        "landmarks 3 and 4 lie at one place",
    ]


def test_numbers_are_listed_with_commas_and_a_final_and():
    assert [listed(numbers) for numbers in ([3], [3, 7], [2, 3, 7])] == ["3", "3 and 7", "2, 3 and 7"]
