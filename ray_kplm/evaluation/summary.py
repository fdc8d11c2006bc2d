"""All scores of one set of landmarks against the annotation, as a dictionary for JSON."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ray_kplm.errors import ConfigError
from ray_kplm.evaluation import matching, oks
from ray_kplm.evaluation.annotation import LandmarkSet
from ray_kplm.evaluation.buckets import Buckets
from ray_kplm.evaluation.completion import complete_landmarks, observed_means
from ray_kplm.evaluation.detection import detection_score
from ray_kplm.evaluation.json_numbers import json_number, json_numbers
from ray_kplm.evaluation.label_free import landmark_distances
from ray_kplm.evaluation.mutual_information import nearest_points, normalised_mutual_information
from ray_kplm.evaluation.regression import (
    BACKWARD_RIDGE,
    FORWARD_RIDGE,
    NmeResult,
    backward_nme,
    cumulative_curve,
    forward_nme,
    mean_shape_nme,
)
from ray_kplm.schemas import NONE

Floats = NDArray[np.float64]

TRAIN_SIZES = (300, 10, 50, 100, 1000, None)
"""Numbers of annotated images the regressors are fitted on (thesis section 2.6), None for all. The first is the main one."""

REFERENCE_SIDE = 256
"""Side of the image, in pixels, at which distances are given."""
DISTANCES = (8, 10, 12)
"""Pixels at `REFERENCE_SIDE`: thesis section 4.4; section 5.4.2 and Fig. 6.8; Table 5.2. The last is 6 px at a side of 128
(Tables 6.9 to 6.11)."""

PCK_SHARES = (0.1, 0.2)
"""Distances of PCK, as shares of the normaliser."""


# Over 60 lines by its docstring, which lists the measures.
def evaluate_landmarks(
    train: LandmarkSet,
    test: LandmarkSet,
    *,
    train_sizes: tuple[int | None, ...] = TRAIN_SIZES,
    draws: int = 10,
    seed: int = 0,
    forward_ridge: float = FORWARD_RIDGE,
    backward_ridge: float = BACKWARD_RIDGE,
    by: Sequence[Buckets] = (),
    sigmas: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Compute all scores of discovered landmarks.

    Args:
        train: Landmarks of the training images, on which the regressors are fitted.
        test: Landmarks of the test images.
        train_sizes: Numbers of annotated training images the regressors are fitted on. The first is that of `forward_nme`
            and `backward_nme`; each further one adds `forward_nme_<n>`, or `forward_nme_all` for None.
        draws: Number of random draws of training images over which errors are averaged.
        seed: Seed of the draws.
        forward_ridge: Regularisation of the forward regressors.
        backward_ridge: Regularisation of the backward regressors.
        by: Buckets of the test images; each is scored with the same regressors.
        sigmas: (L,), for OKS; without them, without boxes or without pycocotools `oks` is None.

    Returns:
        Errors (percent of the normaliser) and counts as numbers and lists, None where a number is undefined.
        `forward_by_images` and `backward_by_images` hold the mean, the standard deviation and the number of training images
        for each of `train_sizes`.

    Raises:
        ConfigError: `train_sizes` is empty.
    """
    if not train_sizes:
        raise ConfigError("train_sizes (): must hold at least one number of images; give (300, None), for example")
    train, test = train.in_image_sides(), test.in_image_sides()
    completed_train, completed_test, kept = complete_landmarks(train.discovered, test.discovered)
    completed = (completed_train, train.truth, completed_test, test.truth, test.normaliser)
    incomplete = (train.discovered, train.truth, test.discovered, test.truth, test.normaliser)
    forward, backward = {}, {}
    for size in train_sizes:
        options: dict[str, Any] = {"train_images": size, "draws": draws, "seed": seed}
        forward[size] = forward_nme(*completed, **options, ridge=forward_ridge)
        backward[size] = backward_nme(*incomplete, **options, ridge=backward_ridge)
    first, *further = train_sizes
    main, main_backward = forward[first], backward[first]
    images = len(test.discovered)
    detected = np.isfinite(test.discovered).all(axis=-1)
    return {
        "forward_nme": json_number(main.mean),
        "forward_nme_sd": json_number(main.sd),
        **{f"forward_nme_{size or 'all'}": json_number(forward[size].mean) for size in further},
        "forward_per_landmark": json_numbers(main.per_landmark),
        "forward_by_images": _by_images(forward),
        "backward_nme": json_number(main_backward.mean),
        "backward_nme_sd": json_number(main_backward.sd),
        "backward_per_landmark": json_numbers(main_backward.per_landmark),
        "backward_by_images": _by_images(backward),
        "curves": {
            "forward": json_numbers(cumulative_curve(main.per_landmark)),
            "backward": json_numbers(cumulative_curve(main_backward.per_landmark)),
        },
        "mean_shape_nme": json_number(mean_shape_nme(train.truth, test.truth, test.normaliser).mean),
        **_raw(train, test, sigmas),
        "buckets": {buckets.column: _by_bucket(buckets, main, main_backward) for buckets in by},
        "per_image": {"forward_nme": json_numbers(main.per_image)},
        "points_per_image": json_number(detected.sum() / images) if images else None,
        "detection_rate": json_numbers(detected.mean(axis=0)) if images else None,
        "min_landmark_distance": json_number(min_landmark_distance(test.discovered)),
        "landmarks": int(test.discovered.shape[1]),
        "images": images,
        "train_images": main.train_images,
        "left_out": {
            "forward_points": main.left_out,
            "backward_points": main_backward.left_out,
            "images_without_normaliser": int((~np.isfinite(test.normaliser)).sum()),
            "landmarks_never_detected": int((~kept).sum()),
        },
    }


def _by_images(results: dict[int | None, NmeResult]) -> dict[str, dict[str, Any]]:
    """Return mean, standard deviation and number of training images by requested number: `10`, `50`, ..., `all`.

    The number of images is less than requested if there are not enough.
    """
    ordered = sorted(results, key=lambda size: math.inf if size is None else size)
    return {
        str(size or "all"): {
            "mean": json_number(results[size].mean), "sd": json_number(results[size].sd), "images": results[size].train_images
        }
        for size in ordered
    }  # fmt: skip


def _raw(train: LandmarkSet, test: LandmarkSet, sigmas: Sequence[float] | None) -> dict[str, Any]:
    """Return the scores that need no regressor; the sets are in image sides."""
    pairing = matching.match_landmarks(train.discovered, train.truth)
    distance = matching.distances(matching.matched(test.discovered, pairing), test.truth)
    limits = {str(pixels): pixels / REFERENCE_SIDE for pixels in DISTANCES}
    accuracy = {name: matching.percent_within(distance, limit) for name, limit in limits.items()}
    pck = {f"{share:g}": matching.percent_within(distance, share * test.normaliser) for share in PCK_SHARES}
    detection = {name: detection_score(test.discovered, test.truth, limit) for name, limit in limits.items()}
    oks_scores = None
    if sigmas is not None and test.area is not None and oks.available():
        oks_scores = matched_oks(test, pairing, range(len(sigmas)), sigmas)
    labels = np.broadcast_to(np.arange(test.discovered.shape[1]), test.discovered.shape[:2])
    return {
        "raw": {
            "reference_side": REFERENCE_SIDE,
            "landmark_of_point": pairing.landmark.tolist(),
            "distance": json_numbers(pairing.distance * REFERENCE_SIDE),
            "accuracy": {name: json_number(float(observed_means(per_point))) for name, per_point in accuracy.items()},
            "accuracy_per_point": {name: json_numbers(per_point) for name, per_point in accuracy.items()},
            "pck": {name: json_number(float(observed_means(per_point))) for name, per_point in pck.items()},
            "points_without_landmark": int((pairing.landmark == NONE).sum()),
        },
        "oks": oks_scores,
        "detection": {
            name: {
                "precision": json_number(score.precision),
                "recall": json_number(score.recall),
                "f_measure": json_number(score.f_measure),
            }
            for name, score in detection.items()
        },
        "nmi": json_number(normalised_mutual_information(labels, nearest_points(test.discovered, test.truth))),
    }


def matched_oks(
    test: LandmarkSet, pairing: matching.Matching, points: Sequence[int], sigmas: Sequence[float]
) -> dict[str, float]:
    """Return `oks.oks_figures` of the landmarks that are matched to the given points.

    An image's score is the mean confidence of these landmarks, its area that of its box.

    Args:
        test: Landmarks of the test images in image sides, with an area.
        pairing: The landmark of each of the L points.
        points: Indices of the points that are scored.
        sigmas: (L,), of all points.
    """
    assert test.area is not None
    scored = list(points)
    landmarks = pairing.landmark[scored]
    confidence = np.ones(test.discovered.shape[:2]) if test.confidence is None else test.confidence
    xy = matching.matched(test.discovered, pairing)
    return oks.oks_figures(
        xy[:, scored] * REFERENCE_SIDE,
        np.nan_to_num(observed_means(confidence[:, landmarks[landmarks != NONE]].T)),
        test.truth[:, scored] * REFERENCE_SIDE,
        test.area * REFERENCE_SIDE**2,
        np.asarray(sigmas)[scored],
    )


def _by_bucket(buckets: Buckets, forward: NmeResult, backward: NmeResult) -> dict[str, Any]:
    """Return the number of images and the errors of each bucket."""
    ranges: dict[str, Any] = {
        bucket.name: {
            "images": int(bucket.images.sum()),
            "forward_nme": json_number(mean_over(forward, bucket.images)),
            "backward_nme": json_number(mean_over(backward, bucket.images)),
        }
        for bucket in buckets.buckets
    }
    return {"ranges": ranges, "images_in_none": buckets.left_out}


def mean_over(result: NmeResult, images: NDArray[np.bool_]) -> float:
    """Return the error over the selected test images (Nt,): the mean over landmarks of each one's mean over images."""
    return float(observed_means(observed_means(result.errors[images]))) if images.any() else math.nan


def min_landmark_distance(xy: ArrayLike) -> float:
    """Return the mean distance of the two closest landmarks, in percent of the image's side.

    Two landmarks at one place give about 0.

    Args:
        xy: (N, K, 2) in image sides, NaN where not detected.

    Returns:
        The least of all pairs' mean distances over the images that show both; NaN if no image shows two landmarks.
    """
    closest = float(landmark_distances(np.asarray(xy, dtype=np.float64)).min(initial=math.inf))
    return 100.0 * closest if math.isfinite(closest) else math.nan
