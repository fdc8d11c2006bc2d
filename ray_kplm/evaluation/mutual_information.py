"""Normalised mutual information of two labellings of the same points."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ray_kplm.schemas import NONE


def normalised_mutual_information(first: ArrayLike, second: ArrayLike) -> float:
    """Return the mutual information of two labellings, divided by the arithmetic mean of their entropies.

    This is the NMI of thesis section 5.4.2 and of Manning, Raghavan and Schuetze, "Introduction to Information Retrieval",
    2008, section 16.3. scikit-learn's `normalized_mutual_info_score` with `average_method="arithmetic"`, its default, is the
    same up to rounding (1e-15 in version 1.7), but has no notion of missing labels.

    Args:
        first: Integer labels of the points, of any shape; `NONE` marks a point without a label.
        second: Labels of the same points, of the same shape. The number of different labels may differ.

    Returns:
        A value from 0 (independent) to 1 (equal up to renaming), over the points that have both labels. It is 1 if both
        labellings have a single label, and NaN if no point has both labels.
    """
    first, second = np.asarray(first).ravel(), np.asarray(second).ravel()
    labelled = (first != NONE) & (second != NONE)
    if not labelled.any():
        return float("nan")
    _, rows = np.unique(first[labelled], return_inverse=True)
    _, columns = np.unique(second[labelled], return_inverse=True)
    joint = np.zeros((rows.max() + 1, columns.max() + 1))
    np.add.at(joint, (rows, columns), 1.0)
    joint /= joint.sum()
    entropies = _entropy(joint.sum(axis=1)) + _entropy(joint.sum(axis=0))
    if entropies == 0:
        return 1.0
    return float(np.clip(2 * (entropies - _entropy(joint)) / entropies, 0.0, 1.0))


def nearest_points(detections: ArrayLike, truth: ArrayLike) -> NDArray[np.int16]:
    """Return the index of the annotated point nearest to each detection: its true label (thesis section 5.4.2).

    Args:
        detections: (N, K, 2), NaN where not detected.
        truth: (N, L, 2) in the same unit, NaN where not annotated.

    Returns:
        (N, K), `NONE` where nothing was detected and in images without any annotated point.
    """
    detections = np.asarray(detections, dtype=np.float64)
    truth = np.asarray(truth, dtype=np.float64)
    nearest = np.full(detections.shape[:2], NONE, np.int16)
    least_distance = np.full(detections.shape[:2], np.inf)
    for point in range(truth.shape[1]):
        distance = np.linalg.norm(detections - truth[:, point, None], axis=-1)
        nearer = distance < least_distance  # False for NaN
        nearest[nearer], least_distance[nearer] = point, distance[nearer]
    return nearest


def _entropy(probabilities: NDArray[np.float64]) -> float:
    """Return the entropy of a distribution in nats."""
    positive = probabilities[probabilities > 0]
    return float(-(positive * np.log(positive)).sum())
