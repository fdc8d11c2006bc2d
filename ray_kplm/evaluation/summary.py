"""All figures of one set of landmarks, ready for JSON."""

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
from ray_kplm.evaluation.label_free import landmark_distances
from ray_kplm.evaluation.regression import (
    BACKWARD_RIDGE,
    FORWARD_RIDGE,
    NmeResult,
    backward_nme,
    cumulative_curve,
    forward_nme,
    mean_shape_nme,
)
from ray_kplm.evaluation.stability import nearest_points, normalised_mutual_information
from ray_kplm.schemas import NONE

Floats = NDArray[np.float64]

TRAIN_SIZES = (300, 10, 50, 100, 1000, None)
"""Annotated images of the regressors (thesis 2.6); the first one's figures are the main ones."""

REFERENCE_SIDE = 256
DISTANCES = (8, 10, 12)
"""Pixels at REFERENCE_SIDE: thesis 4.4; 5.4.2 and Fig. 6.8; Table 5.2, which are 6 px at 128 (Tables 6.9 to 6.11)."""

PCK_SHARES = (0.1, 0.2)
"""Of the normaliser."""


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
    """Errors (% of the normaliser) and counts as plain numbers and lists; None where there is no number.

    train_sizes: annotated training images the regressors are fitted on. The first is that of `forward_nme`
        and of the backward errors; each further one adds `forward_nme_<n>`, `forward_nme_all` for None.
        `forward_by_images` and `backward_by_images` have the mean, the deviation and the images of each.
    by: buckets of the test images; the errors of each are those of the same regressors.
    sigmas: (L,), of OKS; without them, without boxes or without pycocotools there is no `oks`.
    """
    if not train_sizes:
        raise ConfigError("train_sizes (): must name at least one number of images; give (300, None)")
    train, test = train.in_image_sides(), test.in_image_sides()
    completed_train, completed_test, kept = complete_landmarks(train.discovered, test.discovered)
    whole = (completed_train, train.truth, completed_test, test.truth, test.normaliser)
    detected_only = (train.discovered, train.truth, test.discovered, test.truth, test.normaliser)
    forward, backward = {}, {}
    for size in train_sizes:
        options: dict[str, Any] = {"train_images": size, "draws": draws, "seed": seed}
        forward[size] = forward_nme(*whole, **options, ridge=forward_ridge)
        backward[size] = backward_nme(*detected_only, **options, ridge=backward_ridge)
    first, *further = train_sizes
    main, main_backward = forward[first], backward[first]
    images = len(test.discovered)
    detected = np.isfinite(test.discovered).all(axis=-1)
    return {
        "forward_nme": number(main.mean),
        "forward_nme_sd": number(main.sd),
        **{f"forward_nme_{size or 'all'}": number(forward[size].mean) for size in further},
        "forward_per_landmark": numbers(main.per_landmark),
        "forward_by_images": _by_images(forward),
        "backward_nme": number(main_backward.mean),
        "backward_nme_sd": number(main_backward.sd),
        "backward_per_landmark": numbers(main_backward.per_landmark),
        "backward_by_images": _by_images(backward),
        "curves": {
            "forward": numbers(cumulative_curve(main.per_landmark)),
            "backward": numbers(cumulative_curve(main_backward.per_landmark)),
        },
        "mean_shape_nme": number(mean_shape_nme(train.truth, test.truth, test.normaliser).mean),
        **_raw(train, test, sigmas),
        "buckets": {buckets.column: _by_bucket(buckets, main, main_backward) for buckets in by},
        "per_image": {"forward_nme": numbers(main.per_image)},
        "points_per_image": number(detected.sum() / images) if images else None,
        "detection_rate": numbers(detected.mean(axis=0)) if images else None,
        "min_landmark_distance": number(min_landmark_distance(test.discovered)),
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
    """`10`, `50`, ..., `all` -> mean, sd, and on how many images: fewer than asked for where there are no more."""
    ordered = sorted(results, key=lambda size: math.inf if size is None else size)
    return {
        str(size or "all"): {
            "mean": number(results[size].mean), "sd": number(results[size].sd), "images": results[size].train_images
        }
        for size in ordered
    }  # fmt: skip


def _raw(train: LandmarkSet, test: LandmarkSet, sigmas: Sequence[float] | None) -> dict[str, Any]:
    """What needs no regressor; in image sides."""
    pairing = matching.match_landmarks(train.discovered, train.truth)
    apart = matching.distances(matching.matched(test.discovered, pairing), test.truth)
    limits = {str(pixels): pixels / REFERENCE_SIDE for pixels in DISTANCES}
    within = {name: matching.percent_within(apart, limit) for name, limit in limits.items()}
    shares = {f"{share:g}": matching.percent_within(apart, share * test.normaliser) for share in PCK_SHARES}
    found = {name: detection_score(test.discovered, test.truth, limit) for name, limit in limits.items()}
    similarity = None
    if sigmas is not None and test.area is not None and oks.available():
        similarity = matched_oks(test, pairing, range(len(sigmas)), sigmas)
    labels = np.broadcast_to(np.arange(test.discovered.shape[1]), test.discovered.shape[:2])
    return {
        "raw": {
            "reference_side": REFERENCE_SIDE,
            "landmark_of_point": pairing.landmark.tolist(),
            "distance": numbers(pairing.distance * REFERENCE_SIDE),
            "accuracy": {name: number(float(observed_means(per_point))) for name, per_point in within.items()},
            "accuracy_per_point": {name: numbers(per_point) for name, per_point in within.items()},
            "pck": {name: number(float(observed_means(per_point))) for name, per_point in shares.items()},
            "points_without_landmark": int((pairing.landmark == NONE).sum()),
        },
        "oks": similarity,
        "detection": {
            name: {
                "precision": number(score.precision), "recall": number(score.recall), "f_measure": number(score.f_measure)
            }
            for name, score in found.items()
        },
        "nmi": number(normalised_mutual_information(labels, nearest_points(test.discovered, test.truth))),
    }  # fmt: skip


def matched_oks(
    test: LandmarkSet, pairing: matching.Matching, points: Sequence[int], sigmas: Sequence[float]
) -> dict[str, float]:
    """`oks.oks_figures` of the landmarks that stand for some of the points; in image sides.

    sigmas: (L,), of all points. An image's score is the mean confidence of its landmarks, its area that of its box.
    """
    assert test.area is not None
    taken = list(points)
    of_points = pairing.landmark[taken]
    confidence = np.ones(test.discovered.shape[:2]) if test.confidence is None else test.confidence
    found = matching.matched(test.discovered, pairing)
    return oks.oks_figures(
        found[:, taken] * REFERENCE_SIDE,
        np.nan_to_num(observed_means(confidence[:, of_points[of_points != NONE]].T)),
        test.truth[:, taken] * REFERENCE_SIDE,
        test.area * REFERENCE_SIDE**2,
        np.asarray(sigmas)[taken],
    )


def _by_bucket(buckets: Buckets, forward: NmeResult, backward: NmeResult) -> dict[str, Any]:
    """Errors over the images of each bucket: the mean over landmarks of each one's mean."""
    found: dict[str, Any] = {
        bucket.name: {
            "images": int(bucket.images.sum()),
            "forward_nme": number(mean_over(forward, bucket.images)),
            "backward_nme": number(mean_over(backward, bucket.images)),
        }
        for bucket in buckets.buckets
    }
    return {"ranges": found, "images_in_none": buckets.left_out}


def mean_over(result: NmeResult, images: NDArray[np.bool_]) -> float:
    """The error over some of the test images, (Nt,): the mean over landmarks of each one's mean."""
    return float(observed_means(observed_means(result.errors[images]))) if images.any() else math.nan


def min_landmark_distance(xy: ArrayLike) -> float:
    """How close the two closest landmarks stand, percent of the image's side; two on one place give about 0.

    xy: (N, K, 2) in image sides, NaN where not detected. The distance of a pair is the mean over images that
    show both; NaN if there is no such pair.
    """
    closest = float(landmark_distances(np.asarray(xy, dtype=np.float64)).min(initial=math.inf))
    return 100.0 * closest if math.isfinite(closest) else math.nan


def number(value: float) -> float | None:
    """For JSON: None where there is no number."""
    return float(value) if math.isfinite(value) else None


def numbers(values: ArrayLike) -> list[float | None]:
    """For JSON: None where there is no number."""
    return [number(value) for value in np.asarray(values, dtype=np.float64)]
