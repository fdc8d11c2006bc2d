"""Agreement of two detectors on the same images: how well the landmarks of one predict those of the other."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ray_kplm.evaluation.completion import observed_means
from ray_kplm.evaluation.json_numbers import json_number
from ray_kplm.evaluation.regression import FORWARD_RIDGE, fit_regressor

Floats = NDArray[np.float64]

MIN_IMAGES = 20
"""Number of images below which no agreement is computed: half of them fit the regressor."""


def agreement(own: Floats, other: Floats) -> dict[str, float | None]:
    """Return how well two detectors' landmarks predict each other, by linear regression on images that were not fitted.

    Each half of the images is predicted by a regressor fitted on the other half. Landmarks that are not detected are filled
    with their mean.

    Args:
        own: (N, K, 2), landmarks of one detector, shares of the input's side; NaN where not detected.
        other: (N, J, 2), landmarks of the other detector on the same images.

    Returns:
        A dictionary for JSON. Errors are mean distances in percent of the side, None for less than `MIN_IMAGES`:

        - `error`: of this detector's landmarks predicted from the other's; `error_of_other` the reverse.
        - `mean_position_error`: of this detector's landmarks predicted as their mean position; `mean_position_error_of_other`:
          likewise of the other's.
        - `agreement`: mean over both directions of 1 - error / mean_position_error: 1 if each determines the other, 0 if
          knowing one does not help.
    """
    if len(own) < MIN_IMAGES:
        names = ("error", "error_of_other", "mean_position_error", "mean_position_error_of_other", "agreement")
        return dict.fromkeys(names)
    error, by_mean = _prediction_errors(other, own)
    error_of_other, other_by_mean = _prediction_errors(own, other)
    directions = ((error, by_mean), (error_of_other, other_by_mean))
    gains = [1 - found / known if known > 0 else math.nan for found, known in directions]
    return {
        "error": json_number(error),
        "error_of_other": json_number(error_of_other),
        "mean_position_error": json_number(by_mean),
        "mean_position_error_of_other": json_number(other_by_mean),
        "agreement": json_number(float(np.mean(gains))),
    }


def _prediction_errors(inputs: Floats, targets: Floats) -> tuple[float, float]:
    """Return the mean error of targets (N, J, 2) predicted from inputs (N, K, 2) and from their mean, % of the side."""
    x, y = (points.reshape(len(points), -1) for points in (inputs, targets))
    x = np.where(np.isfinite(x), x, np.nan_to_num(observed_means(x)))
    even = np.arange(len(x)) % 2 == 0
    errors, by_mean = [], []
    for fitted in (even, ~even):
        predicted = fit_regressor(x[fitted], y[fitted], FORWARD_RIDGE).predict(x[~fitted])
        errors.append(_distances(y[~fitted] - predicted))
        by_mean.append(_distances(y[~fitted] - observed_means(y[fitted])))
    return _mean(np.concatenate(errors)), _mean(np.concatenate(by_mean))


def _distances(differences: Floats) -> Floats:
    distances: Floats = 100 * np.linalg.norm(differences.reshape(len(differences), -1, 2), axis=-1)
    return distances


def _mean(values: Floats) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else math.nan
