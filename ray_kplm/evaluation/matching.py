"""How well single discovered landmarks stand for annotated points, without any regressor (thesis 6.4.1, Table 6.11).

N images, K discovered and L annotated landmarks. Coordinates may be in any unit that is the same for all images; image
sides, say, so that 6 px at 128 are 6 / 128. NaN marks what is not detected or not annotated.
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

    landmark: (L,), NONE for a point that none is left for: there are fewer landmarks than points, or no image shows both.
    distance: (L,), mean over the images that the matching was made on; NaN where there is no landmark.
    """

    landmark: NDArray[np.intp]
    distance: Floats


def match_landmarks(discovered: ArrayLike, truth: ArrayLike) -> Matching:
    """The assignment of least total mean distance (Hungarian algorithm), each landmark at most once.

    discovered: (N, K, 2). truth: (N, L, 2). The mean of a pair is over the images that show both.
    """
    discovered = np.asarray(discovered, dtype=np.float64)
    truth = np.asarray(truth, dtype=np.float64)
    means = np.empty((discovered.shape[1], truth.shape[1]))
    for landmark in range(len(means)):
        means[landmark] = observed_means(np.linalg.norm(truth - discovered[:, landmark, None], axis=-1))
    known = np.isfinite(means)
    # Costs more than any assignment of known pairs, so that such pairs are only taken where nothing else is left.
    unknown = 1.0 + means[known].sum()
    rows, columns = linear_sum_assignment(np.where(known, means, unknown))
    taken = known[rows, columns]
    landmark_of = np.full(truth.shape[1], NONE, dtype=np.intp)
    landmark_of[columns[taken]] = rows[taken]
    distance = np.full(truth.shape[1], np.nan)
    distance[columns[taken]] = means[rows[taken], columns[taken]]
    return Matching(landmark_of, distance)


def matched(discovered: ArrayLike, matching: Matching) -> Floats:
    """(N, K, 2) -> (N, L, 2): where the landmark of each annotated point was found, NaN where not."""
    discovered = np.asarray(discovered, dtype=np.float64)
    found = np.full((len(discovered), len(matching.landmark), 2), np.nan)
    there = matching.landmark != NONE
    found[:, there] = discovered[:, matching.landmark[there]]
    return found


def distances(found: ArrayLike, truth: ArrayLike) -> Floats:
    """(N, L, 2) and (N, L, 2) -> (N, L): NaN where not annotated; infinite where annotated and not found."""
    found, truth = np.asarray(found, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    apart = np.linalg.norm(found - truth, axis=-1)
    annotated = np.isfinite(truth).all(axis=-1)
    return np.where(annotated, np.where(np.isfinite(apart), apart, np.inf), np.nan)


def percent_within(apart: ArrayLike, limit: ArrayLike) -> Floats:
    """Of each annotated point, the percent of images in which it was found within the limit: (L,), NaN for no image.

    apart: (N, L) of `distances`. limit: one number (accuracy), or (N,), one an image (PCK: a share of the torso, say);
        images whose limit is NaN are left out.
    """
    apart = np.asarray(apart, dtype=np.float64)
    limits = np.broadcast_to(np.asarray(limit, dtype=np.float64), len(apart))[:, None]
    scored = ~np.isnan(apart) & ~np.isnan(limits)
    images = scored.sum(axis=0)
    return np.where(images > 0, 100.0 * ((apart <= limits) & scored).sum(axis=0) / np.maximum(images, 1), np.nan)


def by_group(per_point: ArrayLike, groups: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Means over groups of points, as left and right elbow; `average`, the mean of these means, and `points`, that of all.

    The thesis' own averages are of groups; those of Jakab et al. for BBCPose in the same tables are of points.

    per_point: (L,), NaN where nothing was scored. groups: name -> indices of points.
    """
    per_point = np.asarray(per_point, dtype=np.float64)
    means = {name: float(observed_means(per_point[list(points)])) for name, points in groups.items()}
    every = [point for points in groups.values() for point in points]
    return {
        **means,
        "average": float(observed_means(np.array(list(means.values())))),
        "points": float(observed_means(per_point[every])),
    }
