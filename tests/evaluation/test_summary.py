"""All figures of one set of landmarks."""

import json
from dataclasses import replace

import numpy as np
import pytest

from ray_kplm.errors import ConfigError
from ray_kplm.evaluation.annotation import LandmarkSet
from ray_kplm.evaluation.buckets import bucketed
from ray_kplm.evaluation.regression import backward_nme, forward_nme, mean_shape_nme
from ray_kplm.evaluation.summary import evaluate_landmarks, min_landmark_distance


def landmark_set(seed, images, side=128.0, noise=2.0):
    """Faces of 6 points that move and turn; the first 4 are discovered, with noise in pixels at 128."""
    generator = np.random.default_rng(seed)
    shape = np.array([[30, 30], [90, 30], [60, 60], [40, 95], [80, 95], [60, 110]]) / 128
    angle = generator.normal(scale=0.2, size=images)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]).transpose(2, 0, 1)
    truth = (shape - 0.5) @ turn + 0.5 + generator.normal(scale=0.03, size=(images, 1, 2))
    discovered = truth[:, :4] + generator.normal(scale=noise / 128, size=(images, 4, 2))
    return LandmarkSet(
        discovered=discovered * side,
        truth=truth * side,
        normaliser=np.full(images, 60 / 128 * side),
        image_size=np.full(images, side),
    )


FIELDS = ("discovered", "truth", "normaliser", "image_size")


@pytest.fixture
def parts():
    return landmark_set(0, 400), landmark_set(1, 50)


def test_the_summary_holds_the_scores_of_the_metrics(parts):
    train, test = parts
    result = evaluate_landmarks(train, test, train_sizes=(100, 30, None), draws=3, seed=4)
    arguments = (train.discovered, train.truth, test.discovered, test.truth, test.normaliser)
    main = forward_nme(*arguments, train_images=100, draws=3, seed=4)
    backward = backward_nme(*arguments, train_images=100, draws=3, seed=4)
    assert result["forward_nme"] == pytest.approx(main.mean)
    assert result["forward_nme_sd"] == pytest.approx(main.sd)
    assert result["forward_nme_30"] == pytest.approx(forward_nme(*arguments, train_images=30, draws=3, seed=4).mean)
    assert result["forward_nme_all"] == pytest.approx(forward_nme(*arguments).mean)
    np.testing.assert_allclose(result["forward_per_landmark"], main.per_landmark)
    assert result["backward_nme"] == pytest.approx(backward.mean)
    np.testing.assert_allclose(result["backward_per_landmark"], backward.per_landmark)
    baseline = mean_shape_nme(train.truth, test.truth, test.normaliser).mean
    assert result["mean_shape_nme"] == pytest.approx(baseline)
    assert result["forward_nme"] < baseline / 2
    assert (result["landmarks"], result["images"], result["train_images"]) == (4, 50, 100)
    assert result["points_per_image"] == 4.0


def test_each_number_of_training_images_has_its_scores(parts):
    result = evaluate_landmarks(*parts, draws=3, seed=4)
    assert list(result["forward_by_images"]) == ["10", "50", "100", "300", "1000", "all"]
    assert [found["images"] for found in result["forward_by_images"].values()] == [10, 50, 100, 300, 400, 400]
    assert result["forward_by_images"]["300"] == {
        "mean": result["forward_nme"], "sd": result["forward_nme_sd"], "images": 300
    }  # fmt: skip
    assert result["backward_by_images"]["300"]["mean"] == result["backward_nme"]
    assert result["forward_by_images"]["10"]["mean"] > result["forward_by_images"]["100"]["mean"]
    assert result["forward_by_images"]["all"]["sd"] == 0


def test_curves_end_at_the_mean(parts):
    result = evaluate_landmarks(*parts)
    for direction, points in (("forward", 6), ("backward", 4)):
        curve = result["curves"][direction]
        assert len(curve) == points
        assert curve == sorted(curve)
        assert curve[-1] == pytest.approx(result[f"{direction}_nme"])


def test_scores_without_a_regressor_equal_the_metrics():
    train, test = landmark_set(0, 400, noise=0.5), landmark_set(1, 50, noise=0.5)
    test.discovered[:25, 0] = 1e4  # half of the images: far from everything
    test.discovered[:5, 1] = np.nan
    result = evaluate_landmarks(train, test)
    raw = result["raw"]
    assert raw["landmark_of_point"] == [0, 1, 2, 3, -1, -1]  # four landmarks are the first four points
    assert raw["accuracy_per_point"]["12"] == [50, 90, 100, 100, 0, 0]
    assert raw["accuracy"]["12"] == pytest.approx(340 / 6)
    assert raw["points_without_landmark"] == 2
    # Noise of 1 px at 256 in x and in y is a distance of sqrt(pi / 2), the mean of a Rayleigh distribution.
    assert raw["distance"][0] == pytest.approx(np.sqrt(np.pi / 2), rel=0.1)
    assert result["detection"]["12"]["precision"] == pytest.approx(100 * 170 / 195)
    assert result["detection"]["12"]["recall"] == pytest.approx(100 * 170 / 300)
    assert result["detection_rate"] == [1, 0.9, 1, 1]
    assert raw["pck"]["0.2"] == pytest.approx(340 / 6)
    assert 0.5 < result["nmi"] < 1


def test_buckets_split_the_test_images(parts):
    train, test = parts
    yaw = np.linspace(0, 98, 50)
    test.truth[yaw >= 60] += 30.0
    by = bucketed("yaw=0,60,90", {"yaw": yaw})
    result = evaluate_landmarks(train, test, by=[by])
    found = result["buckets"]["yaw"]
    assert [b["images"] for b in found["ranges"].values()] == [30, 16]
    assert found["images_in_none"] == 4
    near, far = found["ranges"].values()
    alone = evaluate_landmarks(train, LandmarkSet(*(getattr(test, name)[:30] for name in FIELDS)))
    assert near["forward_nme"] == pytest.approx(alone["forward_nme"])
    assert near["backward_nme"] == pytest.approx(alone["backward_nme"])
    assert far["forward_nme"] > 5 * near["forward_nme"]


def test_each_image_has_its_error(parts):
    train, test = parts
    test.truth[7] += 20.0
    result = evaluate_landmarks(train, test)
    errors = np.array(result["per_image"]["forward_nme"])
    assert errors.argmax() == 7
    assert errors.mean() == pytest.approx(result["forward_nme"])


def test_crops_of_different_sizes_share_a_regressor(parts):
    train, test = parts
    expected = evaluate_landmarks(train, test)
    result = evaluate_landmarks(train, landmark_set(1, 50, side=512.0))
    assert result["forward_nme"] == pytest.approx(expected["forward_nme"])
    assert result["backward_nme"] == pytest.approx(expected["backward_nme"])
    assert result["min_landmark_distance"] == pytest.approx(expected["min_landmark_distance"])


def test_missing_detections_are_completed_forward_and_left_out_backward(parts):
    train, test = parts
    train.discovered[:100, 2] = np.nan
    test.discovered[:10, 2] = np.nan
    whole = evaluate_landmarks(*(landmark_set(0, 400), landmark_set(1, 50)))
    result = evaluate_landmarks(train, test)
    assert result["points_per_image"] == pytest.approx((50 * 4 - 10) / 50)
    assert whole["forward_nme"] < result["forward_nme"] < 1.5 * whole["forward_nme"]
    counts = result["left_out"]
    assert (counts["forward_points"], counts["backward_points"]) == (0, 10)


def test_counts_name_what_is_left_out(parts):
    train, test = parts
    train.discovered[:, 3] = np.nan
    test.truth[:4, 5] = np.nan
    test.normaliser[0] = np.nan
    result = evaluate_landmarks(train, test)
    assert result["left_out"] == {
        "forward_points": 6 + 3,
        "backward_points": 50 + 3,
        "images_without_normaliser": 1,
        "landmarks_never_detected": 1,
    }
    assert result["backward_per_landmark"][3] is None
    assert np.isfinite(result["forward_nme"])


def test_without_any_detection_the_forward_error_is_the_mean_shape(parts):
    nothing = [replace(part, discovered=np.full_like(part.discovered, np.nan)) for part in parts]
    result = evaluate_landmarks(*nothing)
    assert result["forward_nme_all"] == pytest.approx(result["mean_shape_nme"])
    assert result["backward_nme"] is None
    assert result["min_landmark_distance"] is None
    assert result["points_per_image"] == 0
    json.dumps(result, allow_nan=False)


def test_the_result_can_be_written_as_json(parts):
    result = evaluate_landmarks(*parts)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_no_training_size_is_refused(parts):
    with pytest.raises(ConfigError, match="train_sizes"):
        evaluate_landmarks(*parts, train_sizes=())


def test_the_closest_pair_equals_a_hand_computed_one():
    # Pair (0, 1) is 0.1 and 0.3 apart, mean 0.2; pair (1, 2) 0.05 in the one image that shows both.
    gone = [np.nan, np.nan]
    xy = np.array(
        [
            [[0.0, 0.0], [0.1, 0.0], gone],
            [[0.0, 0.0], [0.0, 0.3], [0.0, 0.35]],
            [gone, [0.0, 0.0], gone],
            [[0.5, 0.5], gone, [0.9, 0.9]],
        ]
    )
    assert min_landmark_distance(xy) == pytest.approx(5.0)
    assert min_landmark_distance(xy[:, :2]) == pytest.approx(20.0)
    assert np.isnan(min_landmark_distance(xy[:, :1]))
