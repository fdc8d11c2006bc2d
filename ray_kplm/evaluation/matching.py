"""Accuracy of single discovered landmarks matched to annotated points, without a regressor (thesis 6.4.1, Table 6.11).

N images, K discovered and L annotated landmarks. Coordinates may be in any unit that is the same for all images, for
example image sides, where 6 px at a side of 128 px are 6 / 128. NaN marks points that are not detected or not annotated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from ray_kplm.evaluation.completion import observed_means
from ray_kplm.schemas import NONE

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Matching:
    """One discovered landmark for each annotated point.

    Attributes:
        landmark: (L,), `NONE` for a point without a landmark: there are fewer landmarks than points, or no image shows both.
        distance: (L,), mean distance over the images that the matching was made on; NaN for a point without a landmark.
    """

    landmark: NDArray[np.intp]
    distance: Floats


def match_landmarks(discovered: ArrayLike, truth: ArrayLike) -> Matching:
    """Assign landmarks to points one-to-one with the least total mean distance (Hungarian algorithm).

    Args:
        discovered: (N, K, 2).
        truth: (N, L, 2). The mean distance of a pair is over the images that show both.
    """
    discovered = np.asarray(discovered, dtype=np.float64)
    truth = np.asarray(truth, dtype=np.float64)
    means = np.empty((discovered.shape[1], truth.shape[1]))
    for landmark in range(len(means)):
        means[landmark] = observed_means(np.linalg.norm(truth - discovered[:, landmark, None], axis=-1))
    known = np.isfinite(means)
    # Costs more than any assignment of known pairs, so that unknown pairs are chosen only where no known pair remains.
    unknown = 1.0 + means[known].sum()
    rows, columns = linear_sum_assignment(np.where(known, means, unknown))
    assigned = known[rows, columns]
    landmark_of = np.full(truth.shape[1], NONE, dtype=np.intp)
    landmark_of[columns[assigned]] = rows[assigned]
    distance = np.full(truth.shape[1], np.nan)
    distance[columns[assigned]] = means[rows[assigned], columns[assigned]]
    return Matching(landmark_of, distance)


def matched(discovered: ArrayLike, matching: Matching) -> Floats:
    """Return the position (N, L, 2) of each point's landmark from landmarks (N, K, 2); NaN where there is none."""
    discovered = np.asarray(discovered, dtype=np.float64)
    xy = np.full((len(discovered), len(matching.landmark), 2), np.nan)
    has_landmark = matching.landmark != NONE
    xy[:, has_landmark] = discovered[:, matching.landmark[has_landmark]]
    return xy


def distances(found: ArrayLike, truth: ArrayLike) -> Floats:
    """Return the distance of each point (N, L, 2) to its annotation (N, L, 2).

    Returns:
        (N, L), NaN where the point is not annotated, infinite where it is annotated but not found.
    """
    found, truth = np.asarray(found, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    distance = np.linalg.norm(found - truth, axis=-1)
    annotated = np.isfinite(truth).all(axis=-1)
    return np.where(annotated, np.where(np.isfinite(distance), distance, np.inf), np.nan)


def percent_within(distance: ArrayLike, limit: ArrayLike) -> Floats:
    """Return for each point the percentage of images in which it was found within the limit.

    Args:
        distance: (N, L), from `distances`.
        limit: One number (accuracy), or (N,), one for each image (PCK: a share of the torso's length, for example); images
            whose limit is NaN are left out.

    Returns:
        (L,), NaN for a point that is annotated in no image.
    """
    distance = np.asarray(distance, dtype=np.float64)
    limits = np.broadcast_to(np.asarray(limit, dtype=np.float64), len(distance))[:, None]
    scored = ~np.isnan(distance) & ~np.isnan(limits)
    images = scored.sum(axis=0)
    return np.where(images > 0, 100.0 * ((distance <= limits) & scored).sum(axis=0) / np.maximum(images, 1), np.nan)


def by_group(per_point: ArrayLike, groups: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Return the mean over each group of points, as left and right elbow, and two means over all groups.

    `average` is the mean of the groups' means, as in the thesis. `points` is the mean over the points of all groups, as in
    the figures of Jakab et al. for BBCPose that the same tables quote.

    Args:
        per_point: (L,), NaN where nothing was scored.
        groups: Name -> indices of points.
    """
    per_point = np.asarray(per_point, dtype=np.float64)
    means = {name: float(observed_means(per_point[list(points)])) for name, points in groups.items()}
    grouped = [point for points in groups.values() for point in points]
    return {
        **means,
        "average": float(observed_means(np.array(list(means.values())))),
        "points": float(observed_means(per_point[grouped])),
    }
