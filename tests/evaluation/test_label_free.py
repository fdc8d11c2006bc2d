"""Label-free measures of detectors whose behaviour is known."""

import json
from dataclasses import replace

import numpy as np
import pytest

from ray_kplm.evaluation.label_free import (
    NOWHERE,
    ONE_PATCH,
    PER_LANDMARK,
    Observations,
    box_coverage,
    coverage,
    expected_distance,
    flip_error,
    inside_box,
    is_detected,
    landmark_distances,
    mean_distance,
    measure,
    separation,
    usual_peak,
)
from ray_kplm.evaluation.label_free_warnings import warnings_of
from ray_kplm.schemas import NONE

SIDE, IMAGES, VIEWS, LANDMARKS = 200, 40, 3, 4
SHIFT = np.array([[6.0, 8.0], [-3.0, 4.0], [0.0, 15.0]])
"""Of the views: by 10, 5 and 15 pixels, which are 5, 2.5 and 7.5 % of the side, 5 % on average."""


def observations(seed=0, **changes) -> Observations:
    """A perfect detector of four landmarks; 0 and 1 are partners, 2 and 3 are their own."""
    rng = np.random.default_rng(seed)
    home = np.array([[60, 60], [140, 60], [100, 100], [100, 150]])
    xy = home + rng.uniform(-20, 20, (IMAGES, 1, 2)) + rng.uniform(-5, 5, (IMAGES, LANDMARKS, 2))
    partners = np.array([1, 0, 2, 3], np.int16)
    seen = xy[:, None] + SHIFT[:, None]
    ones = np.ones((IMAGES, LANDMARKS))
    made = Observations(
        side=SIDE, xy=xy, confidence=ones, sharpness=ones, separation=ones, expected=seen, found=seen,
        view_confidence=np.ones((IMAGES, VIEWS, LANDMARKS)), alone=xy, mirrored=xy[:, partners], partners=partners,
        always=False,
    )  # fmt: skip
    return replace(made, **changes)


def test_a_perfect_detector_has_perfect_measures():
    found = measure(observations())
    assert found["images"] == IMAGES
    assert found["landmarks"] == LANDMARKS
    for name, perfect in {"equivariance_error": 0, "flip_error": 0, "detection_rate": 1, "repeatability": 1,
                          "peak_sharpness": 1, "cluster_compactness": 1, "view_motion": 5}.items():  # fmt: skip
        assert found[name] == pytest.approx(perfect, abs=1e-9)
        assert found[PER_LANDMARK[name]] == pytest.approx([perfect] * LANDMARKS, abs=1e-9)
    assert found["expected_distance"] == pytest.approx(0)
    assert found["static_landmarks"] == []
    assert found["static_share"] == 0
    assert found["landmarks_on_one_place"] == []
    assert found["partners"] == [1, 0, 2, 3]
    json.dumps(found, allow_nan=False)


def test_a_detector_that_ignores_the_image_is_off_by_the_motion_of_the_views():
    seen = observations()
    found = measure(replace(seen, found=np.broadcast_to(seen.xy[:, None], seen.found.shape)))
    assert found["equivariance_error"] == pytest.approx(5)
    assert found["equivariance_per_landmark"] == pytest.approx([5] * LANDMARKS)
    assert found["view_motion"] == pytest.approx(5)


def test_an_unstable_landmark_raises_only_its_own_error():
    seen = observations()
    wandering = seen.found.copy()
    wandering[:, :, 2] += [12, 16]  # 20 of 200 pixels
    found = measure(replace(seen, found=wandering))
    assert found["equivariance_per_landmark"] == pytest.approx([0, 0, 10, 0], abs=1e-9)
    assert found["equivariance_error"] == pytest.approx(2.5)


def test_points_outside_of_a_view_do_not_count_and_missed_ones_are_not_repeated():
    seen = observations()
    expected, there = seen.expected.copy(), seen.found.copy()
    expected[:, 0, 0] = np.nan  # outside of the first view, where something is found far away
    there[:, 0, 0] = 0
    there[:, 1, 1] = np.nan  # not detected in the second
    found = measure(replace(seen, expected=expected, found=there))
    assert found["equivariance_per_landmark"] == pytest.approx([0] * LANDMARKS, abs=1e-9)
    assert found["repeatability_per_landmark"] == pytest.approx([1, 2 / 3, 1, 1])


def test_a_landmark_of_some_images_counts_in_these_alone():
    seen = observations()
    xy, sharpness = seen.xy.copy(), seen.sharpness.copy()
    xy[::4, 3] = np.nan
    sharpness[::4, 3], sharpness[1::4, 3] = np.nan, 0.5
    found = measure(replace(seen, xy=xy, sharpness=sharpness))
    assert found["detection_rate_per_landmark"] == pytest.approx([1, 1, 1, 0.75])
    assert found["sharpness_per_landmark"] == pytest.approx([1, 1, 1, 2.5 / 3])
    assert found["detection_rate"] == pytest.approx(3.75 / 4)


def test_an_argmax_is_detected_where_its_peak_is_half_of_its_usual_one():
    confidence = np.tile([1.0, 0.05, 1.0, 1.0], (IMAGES, 1))
    confidence[: IMAGES * 3 // 4, 2] = 0.3  # three images of four hide it
    confidence[0, 3] = 0.6
    seen = observations(always=True, confidence=confidence, view_confidence=np.repeat(confidence[:, None], VIEWS, 1))
    assert measure(seen)["detection_rate_per_landmark"] == pytest.approx([1, 1, 0.25, 1])  # low, but as ever: detected
    assert measure(replace(seen, always=False))["detection_rate_per_landmark"] == pytest.approx([1] * LANDMARKS)
    faint = np.where(np.arange(VIEWS)[:, None] == 0, 0.1 * seen.view_confidence, seen.view_confidence)
    assert measure(replace(seen, view_confidence=faint))["repeatability"] == pytest.approx(2 / 3)


def test_the_usual_peak_is_exceeded_in_one_image_of_ten():
    peaks = np.linspace(0, 1, 101)[:, None]
    assert usual_peak(peaks) == pytest.approx([0.9])
    points = np.zeros((101, 1, 2))
    points[-1] = np.nan
    assert is_detected(points, peaks, np.array([0.45])).sum() == 55  # 0.45 to 0.99


def test_exchanging_left_and_right_in_the_mirror_image_is_a_flip_error():
    seen = observations()
    exchanged = replace(seen, partners=np.arange(4, dtype=np.int16))  # an eye is held to be its own partner
    apart = np.linalg.norm(seen.xy[:, 0] - seen.xy[:, 1], axis=-1).mean() / SIDE * 100
    assert measure(exchanged)["flip_per_landmark"] == pytest.approx([apart, apart, 0, 0], abs=1e-9)


def test_a_landmark_without_partner_has_no_flip_error():
    seen = observations()
    some = measure(replace(seen, partners=np.array([1, 0, NONE, 3], np.int16)))
    assert some["flip_per_landmark"][2] is None
    assert some["flip_error"] == pytest.approx(0)
    none = measure(replace(seen, partners=np.full(4, NONE, np.int16)))
    assert none["flip_error"] is None
    assert none["flip_per_landmark"] == [None] * 4


def test_flip_error_is_of_images_in_which_both_partners_are_detected():
    xy = np.zeros((3, 2, 2))
    mirrored = np.array([[[3.0, 4.0], [0.0, 0.0]], [[np.nan] * 2, [0.0, 0.0]], [[6.0, 8.0], [0.0, 0.0]]])
    np.testing.assert_allclose(flip_error(xy, mirrored, np.array([1, 0])), [0, 7.5])


def test_a_landmark_that_stands_still_among_moving_ones_is_static():
    seen = observations()
    still = seen.xy.copy()
    still[:, 3] = [30, 170]
    found = measure(replace(seen, xy=still))
    assert found["static_landmarks"] == [3]
    assert found["static_share"] == 0.25
    assert found["spread_per_landmark"][3] == pytest.approx(0)


def test_spread_is_the_standard_deviation_of_the_place():
    seen = observations()
    found = measure(seen)
    expected = np.sqrt(seen.xy.var(axis=0).sum(axis=-1)) / SIDE * 100
    np.testing.assert_allclose(found["spread_per_landmark"], expected, rtol=1e-3)  # places are summed in 1/64 pixel
    assert found["positional_spread"] == pytest.approx(expected.mean(), rel=1e-3)


def test_landmarks_at_one_place_are_listed():
    seen = observations()
    xy = seen.xy.copy()
    xy[:, 3] = xy[:, 1] + [0, 2]  # 1 % of the side
    found = measure(replace(seen, xy=xy))
    assert found["landmarks_on_one_place"] == [[1, 3]]
    assert found["min_landmark_distance"] == pytest.approx(1)


def test_distances_are_means_over_the_images_that_show_both():
    xy = np.zeros((3, 3, 2))
    xy[:, 1, 0] = [10, 20, np.nan]
    xy[:, 2] = np.nan
    distances = landmark_distances(xy)
    assert distances[0, 1] == distances[1, 0] == 15
    assert np.isinf(distances[[0, 1, 2, 0, 1], [0, 1, 2, 2, 2]]).all()


def test_nothing_detected_gives_no_numbers_and_no_failure():
    seen = observations()
    found = measure(
        replace(seen, xy=np.full_like(seen.xy, np.nan), expected=np.full_like(seen.expected, np.nan), separation=None,
                alone=np.full_like(seen.xy, np.nan))
    )  # fmt: skip
    assert found["detection_rate"] == 0
    for name in (
        "equivariance_error",
        "flip_error",
        "positional_spread",
        "cluster_compactness",
        "min_landmark_distance",
    ):
        assert found[name] is None
    assert found["compactness_per_landmark"] is None
    assert found["static_landmarks"] == []
    json.dumps(found, allow_nan=False)


def test_mean_distance_is_over_the_chosen_points():
    first, second = np.zeros((2, 3, 2)), np.array([[[3, 4], [0, 1], [9, 9]], [[6, 8], [0, 3], [9, 9]]], float)
    chosen = np.array([[True, True, False], [True, False, False]])
    np.testing.assert_allclose(mean_distance(first, second, chosen), [7.5, 1, np.nan])


def test_separation_is_one_on_the_centroid_nought_half_way_and_negative_beyond():
    centroids = np.array([[0.0, 0.0], [1.0, 0.0], [5.0, 0.0]])
    points = np.array([[0.0, 0.0], [0.25, 0.0], [0.5, 0.0], [0.75, 0.0]], np.float16)
    found = separation(points, centroids, np.zeros(4, np.int64))
    np.testing.assert_allclose(found, [1, 1 - 0.25 / 0.75, 0, 0.25 / 0.75 - 1], atol=1e-6)
    assert separation(points[:0], centroids, np.zeros(0, np.int64)).shape == (0,)


NONE_USELESS = np.zeros(3, bool)


def test_the_score_is_the_error_where_a_landmark_is_found_and_the_spread_elsewhere():
    error, spread = np.array([2.0, 4.0, 6.0]), np.array([10.0, 12.0, 14.0])
    assert expected_distance(error, np.ones(3), spread, NONE_USELESS, 25) == pytest.approx(4)
    assert expected_distance(error, np.array([1, 0.5, 1]), spread, NONE_USELESS, 25) == pytest.approx(
        (2 + 0.5 * 4 + 0.5 * 12 + 6) / 3
    )
    never = expected_distance(
        np.array([2.0, np.nan, 6.0]), np.array([1, np.nan, 1]), np.array([10.0, np.nan, 14.0]), NONE_USELESS, np.nan
    )
    assert never == pytest.approx((2 + 12 + 6) / 3)


def test_the_score_without_useful_landmarks_is_that_of_a_random_place():
    nothing = np.full(3, np.nan)
    assert expected_distance(nothing, np.zeros(3), nothing, NONE_USELESS, np.nan) == pytest.approx(NOWHERE)
    assert expected_distance(np.ones(3), np.ones(3), np.ones(3), ~NONE_USELESS, np.nan) == pytest.approx(NOWHERE)
    anywhere = np.random.default_rng(0).uniform(0, 100, (100_000, 2))
    assert np.sqrt(anywhere.var(axis=0).sum()) == pytest.approx(NOWHERE, rel=0.01)


def test_a_patch_counts_by_its_area_and_a_whole_object_for_all():
    error, spread = np.full(3, 2.0), np.full(3, 12.0)
    assert expected_distance(error, np.ones(3), spread, NONE_USELESS, ONE_PATCH / 2) == pytest.approx(
        0.25 * 2 + 0.75 * 12
    )
    assert expected_distance(error, np.ones(3), spread, NONE_USELESS, ONE_PATCH) == 2
    assert expected_distance(error, np.ones(3), spread, NONE_USELESS, 3 * ONE_PATCH) == 2


def test_marks_on_the_background_and_twins_do_not_improve_the_score():
    seen = observations()
    good = measure(seen)["expected_distance"]
    still, twins = seen.xy.copy(), seen.xy.copy()
    still[:, 3] = [30, 170]
    twins[:, 3] = twins[:, 1] + [0, 2]
    for xy in (still, twins):
        perfect = xy[:, None] + SHIFT[:, None]
        found = measure(replace(seen, xy=xy, expected=perfect, found=perfect))
        assert found["equivariance_error"] == pytest.approx(0)
        others = np.mean(found["spread_per_landmark"][:3])
        assert found["expected_distance"] == pytest.approx(others / 4)
        assert found["expected_distance"] > good


WHOLE = np.array([[x, y] for x in (0.2, 0.35, 0.5, 0.65, 0.8) for y in (0.3, 0.7)])
"""Ten places over the image, shares of its side."""
PATCH = np.array([0.5, 0.5]) + 0.2 * (WHOLE - 0.5)
"""The same in a fifth of the room, 3 and 8 % of the side from one another."""


def detector(spread, noise=0.005, home=WHOLE, images=64, seed=0) -> Observations:
    """Ten landmarks whose points on the object move over the images by `spread`, most of it together, and that are found with
    `noise` along each axis, in images and views alike; shares of the side."""
    rng = np.random.default_rng(seed)
    spread, noise = (np.broadcast_to(values, 10)[:, None] for values in (spread, noise))
    moves = 0.9 * rng.normal(size=(images, 1, 2)) + np.sqrt(1 - 0.9**2) * rng.normal(size=(images, 10, 2))
    truth = home + moves * spread / np.sqrt(2)
    shift = rng.normal(size=(images, VIEWS, 1, 2)) * 0.05
    xy = SIDE * (truth + rng.normal(size=truth.shape) * noise)
    found = SIDE * (truth[:, None] + shift + rng.normal(size=(images, VIEWS, 10, 2)) * noise)
    ones, partners = np.ones((images, 10)), np.full(10, NONE, np.int16)
    return Observations(
        side=SIDE, xy=xy, confidence=ones, sharpness=ones, separation=None, expected=xy[:, None] + SIDE * shift, found=found,
        view_confidence=np.ones((images, VIEWS, 10)), alone=xy, mirrored=xy, partners=partners, always=True,
    )  # fmt: skip


@pytest.mark.parametrize("noise", [0.0, 0.005, 0.02])
@pytest.mark.parametrize("fixed", [0, 1, 3, 6, 8, 10])
def test_any_number_of_fixed_landmarks_is_found_and_costs(fixed, noise):
    of = np.where(np.arange(10) < fixed, 0, 0.12)
    found, good = measure(detector(of, np.where(of, 0.005, noise))), measure(detector(0.12))
    assert found["static_landmarks"] == list(range(fixed))
    unknown = NOWHERE if fixed == 10 else np.mean(found["spread_per_landmark"][fixed:])
    known = sum(found["equivariance_per_landmark"][fixed:])
    assert found["expected_distance"] == pytest.approx((fixed * unknown + known) / 10)
    assert fixed == 0 or found["expected_distance"] > good["expected_distance"] + fixed
    assert any("with the object" in text for text in warnings_of(found)) == (fixed > 0)


def test_all_on_a_fixed_background_is_worse_than_any_good_detector():
    background = measure(detector(0, 0.001))["expected_distance"]
    assert all(measure(detector(0.3, noise))["expected_distance"] < 0.5 * background for noise in (0.005, 0.02, 0.05))


def test_all_in_one_patch_is_worse_than_the_whole_object_and_is_warned_of():
    whole, patch = (measure(detector(0.12, home=home)) for home in (WHOLE, PATCH))
    assert whole["coverage"] > 2 * ONE_PATCH
    assert patch["coverage"] < ONE_PATCH
    assert patch["landmarks_on_one_place"] == patch["static_landmarks"] == []
    assert patch["expected_distance"] > 2 * whole["expected_distance"]
    assert warnings_of(whole) == []
    assert [text for text in warnings_of(patch) if text.startswith("the landmarks lie in one patch")]


def test_an_aligned_category_gives_no_false_alarm():
    """Spreads of the annotated points in X-rays of heads (ISBI 2015), which all face one way, 2.6 to 5.1 % of the side."""
    for seed in range(5):
        found = measure(detector(np.linspace(0.026, 0.051, 10), 0.01, images=256, seed=seed))
        assert warnings_of(found) == []
        assert found["expected_distance"] == pytest.approx(found["equivariance_error"])


def test_an_unstable_landmark_is_not_static_and_does_not_count_for_coverage():
    noise = np.where(np.arange(10) == 4, 0.25, 0.005)
    found = measure(detector(0.12, noise))
    assert found["static_landmarks"] == []
    assert found["expected_distance"] == pytest.approx(
        found["equivariance_error"]
    )  # its own error costs more than a guess would
    patch = measure(detector(0.12, noise, home=PATCH))
    assert patch["coverage"] < ONE_PATCH


def test_static_landmarks_around_a_patch_do_not_count_for_coverage():
    home = np.concatenate([WHOLE[:5], PATCH[5:]])
    found = measure(detector(np.where(np.arange(10) < 5, 0, 0.12), home=home))
    assert found["static_landmarks"] == [0, 1, 2, 3, 4]
    assert found["coverage"] < ONE_PATCH


def test_coverage_is_the_standard_deviation_about_the_middle_of_an_image():
    square = np.array([[0, 0], [0, 6], [6, 0], [6, 6]], float)
    pair = np.where(np.arange(4)[:, None] < 2, square, np.nan)
    one = np.where(np.arange(4)[:, None] < 1, square, np.nan)
    assert coverage(np.stack([square, pair, one])) == pytest.approx((np.sqrt(4 * 18 / 3) + np.sqrt(2 * 9)) / 2)
    assert np.isnan(coverage(one[None]))
    assert np.isnan(coverage(square[None, :0]))


def test_no_landmark_is_static_on_a_few_images():
    assert measure(detector(0, 0.001, images=4))["static_landmarks"] == []


def test_landmarks_beside_the_box_are_counted_and_what_they_span_of_it():
    boxes = np.tile([40.0, 40.0, 140.0, 90.0], (2, 1))
    xy = np.array([[[40, 40], [140, 90], [20, 60]], [[40, 40], [90, 65], [np.nan, np.nan]]], float)
    assert inside_box(xy, boxes, 0.1) == pytest.approx([1, 1, 0])
    assert inside_box(xy, boxes, 0.2) == pytest.approx([1, 1, 1])
    assert box_coverage(xy, boxes) == pytest.approx((1 + 0.5) / 2)  # all of the box, and half of its sides
    assert box_coverage(xy[:, :0], boxes) == 0
    boxes[0] = np.nan
    assert box_coverage(xy, boxes) == pytest.approx(0.5)
    assert np.isnan(inside_box(xy, boxes, 0.1)[2])
    seen = observations(boxes=np.tile([0.0, 0.0, 199.0, 199.0], (IMAGES, 1)))
    assert measure(seen)["inside_box"] == 1
    assert measure(observations())["inside_box"] is None
