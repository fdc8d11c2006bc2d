"""How much one labelling of points tells about another: of clusters about landmarks, of rounds about each other."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ray_kplm.schemas import NONE


def normalised_mutual_information(first: ArrayLike, second: ArrayLike) -> float:
    """Mutual information of two labellings over the mean of their entropies (thesis 5.4.2): 0 none, 1 the same up to names.

    first, second: integers of one shape, of the same points; points that either labels NONE are left out. 1 where both
    put all points under one label, as they then agree; NaN without points. The number of labels need not be the same.
    """
    first, second = np.asarray(first).ravel(), np.asarray(second).ravel()
    both = (first != NONE) & (second != NONE)
    if not both.any():
        return float("nan")
    _, rows = np.unique(first[both], return_inverse=True)
    _, columns = np.unique(second[both], return_inverse=True)
    joint = np.zeros((rows.max() + 1, columns.max() + 1))
    np.add.at(joint, (rows, columns), 1.0)
    joint /= joint.sum()
    entropies = _entropy(joint.sum(axis=1)) + _entropy(joint.sum(axis=0))
    if entropies == 0:
        return 1.0
    return float(np.clip(2 * (entropies - _entropy(joint)) / entropies, 0.0, 1.0))


def nearest_points(detections: ArrayLike, truth: ArrayLike) -> NDArray[np.int16]:
    """(N, K, 2) and (N, L, 2) -> (N, K): the annotated point nearest to each detection, its true label (thesis 5.4.2).

    NaN marks what is not there; NONE for what is not detected, and in images without any annotated point.
    """
    detections = np.asarray(detections, dtype=np.float64)
    truth = np.asarray(truth, dtype=np.float64)
    nearest = np.full(detections.shape[:2], NONE, np.int16)
    closest = np.full(detections.shape[:2], np.inf)
    for point in range(truth.shape[1]):
        apart = np.linalg.norm(detections - truth[:, point, None], axis=-1)
        nearer = apart < closest  # NaN is not
        nearest[nearer], closest[nearer] = point, apart[nearer]
    return nearest


def _entropy(shares: NDArray[np.float64]) -> float:
    present = shares[shares > 0]
    return float(-(present * np.log(present)).sum())
