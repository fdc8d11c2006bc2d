"""Scores of probabilities against the annotated visibility of points.

N images, K discovered and L annotated landmarks. A discovered landmark stands for the annotated point that it is nearest to on
the training images, and is there where this point is annotated as visible.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from ray_kplm.evaluation.completion import observed_means
from ray_kplm.evaluation.json_numbers import json_number, json_numbers
from ray_kplm.schemas import NONE

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_LEAST_IMAGES = 5
"""A landmark that is hidden, or visible, in fewer images has no area under the curve of its own."""
_BINS = 10
"""Bins of the calibration error, of equal width."""


def nearest_points(discovered: ArrayLike, truth: ArrayLike) -> NDArray[np.intp]:
    """Return the point that each landmark stands for, (K,): the one at the least mean distance; NONE if no image shows both.

    Several landmarks may stand for one point.

    Args:
        discovered: (N, K, 2), NaN where not detected.
        truth: (N, L, 2), NaN where not annotated.
    """
    discovered, truth = np.asarray(discovered, np.float64), np.asarray(truth, np.float64)
    means = np.stack(
        [
            observed_means(np.linalg.norm(truth - discovered[:, landmark, None], axis=-1))
            for landmark in range(discovered.shape[1])
        ]
    )
    known = np.isfinite(means)
    return np.where(known.any(axis=1), np.where(known, means, np.inf).argmin(axis=1), NONE)


def visibility_scores(
    probability: NDArray[np.floating], points: NDArray[np.intp], truth: ArrayLike, visible: Bools
) -> dict[str, Any] | None:
    """Return how well probabilities tell visible from hidden landmarks; None without hidden ones, or without probabilities.

    Args:
        probability: (N, K), NaN where there is none.
        points: (K,), the point that each landmark stands for, or NONE.
        truth: (N, L, 2), NaN where not annotated; such a point is left out.
        visible: (N, L).

    Returns:
        `auc`, the area under the ROC curve of all landmarks together; `auc_per_landmark`, None for a landmark that is hidden,
        or visible, in fewer than five images; `auc_mean` of these; `ece`, the expected calibration error in bins of equal
        width; `brier`, the mean squared difference; `found`, the mean probability; `visible`, the share that is visible;
        `hidden` and `pairs`, counts; and `point_of_landmark`.
    """
    annotated = np.asarray(np.isfinite(np.asarray(truth, np.float64)).all(axis=-1), np.bool_)
    at = np.maximum(points, 0)
    scored: Bools = np.logical_and(np.isfinite(probability) & annotated[:, at], points != NONE)
    there = visible[:, at]
    p, y = probability[scored].astype(np.float64), there[scored]
    if y.all() or not y.any():
        return None
    per_landmark = np.full(len(points), np.nan)
    for k, rows in enumerate(scored.T):
        if _LEAST_IMAGES <= there[rows, k].sum() <= rows.sum() - _LEAST_IMAGES:
            per_landmark[k] = area_under_curve(probability[rows, k], there[rows, k])
    return {
        "auc": json_number(area_under_curve(p, y)),
        "auc_mean": json_number(float(observed_means(per_landmark))),
        "auc_per_landmark": json_numbers(per_landmark),
        "ece": json_number(calibration_error(p, y)),
        "brier": json_number(float(np.square(p - y).mean())),
        "found": json_number(float(p.mean())),
        "visible": json_number(float(y.mean())),
        "hidden": int((~y).sum()),
        "pairs": len(y),
        "point_of_landmark": points.tolist(),
    }


def area_under_curve(score: NDArray[np.floating], positive: Bools) -> float:
    """Return the probability that a positive has a larger score than a negative, ties half; NaN without one of either."""
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return float("nan")
    ranks = rankdata(score)[positive].sum()
    return float((ranks - positives * (positives + 1) / 2) / (positives * negatives))


def calibration_error(probability: NDArray[np.floating], positive: Bools) -> float:
    """Return the expected calibration error: the mean difference of probability and frequency in bins, by their sizes."""
    bins = np.minimum((probability * _BINS).astype(np.int64), _BINS - 1)
    difference = np.bincount(bins, weights=probability - positive, minlength=_BINS)
    return float(np.abs(difference).sum() / len(probability))
