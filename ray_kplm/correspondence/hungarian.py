"""One keypoint a cluster and one cluster a keypoint, chosen together for each image (thesis 5.2.1, docs/method.md 5)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from ray_kplm.correspondence.assignment import exact_scores
from ray_kplm.correspondence.reduction import Reducible
from ray_kplm.schemas import NONE

_UNIT = 2.0**-20
"""Distances are summed in whole multiples of this."""


@dataclass(frozen=True)
class Spread(Reducible):
    """Distances of points to their nearest centroid, cluster by cluster: counts int64 (M,), sum and sum of squares (M,).

    Both sums are whole multiples of 2^-20, so that they add up to the same in any order.
    """

    counts: NDArray[np.int64]
    total: NDArray[np.int64]
    squares: NDArray[np.int64]

    def cutoff(self) -> NDArray[np.float64]:
        """Mean + 1 standard deviation of each cluster, (M,): what lies beyond is no member. Infinite where nothing was."""
        counts = np.maximum(self.counts, 1)
        mean = self.total * _UNIT / counts
        variance = np.maximum(self.squares * _UNIT / counts - mean**2, 0)
        return np.where(self.counts > 0, mean + np.sqrt(variance), np.inf)


def spread(cluster: NDArray, squared_distance: NDArray[np.float64], clusters: int) -> Spread:
    """Of points with their nearest clusters (N,) and squared distances (N,)."""
    distance = np.rint(np.sqrt(squared_distance) / _UNIT)
    square = np.rint(squared_distance / _UNIT)
    count, total, squares = (np.bincount(cluster, w, clusters) for w in (None, distance, square))
    return Spread(count.astype(np.int64), total.astype(np.int64), squares.astype(np.int64))


def match(
    counts: NDArray[np.int64], descriptors: NDArray, centroids: NDArray[np.float32], cutoff: NDArray[np.float64]
) -> NDArray[np.int16]:
    """The cluster of every keypoint, (N,): in each image the assignment of least total squared distance; NONE beyond the
    cut-off, and for the keypoints that are left over where an image has more of them than there are clusters.

    counts (images,): keypoints of each image, in a row in `descriptors` (N, d). centroids (M, d). cutoff (M,): distances.
    """
    found = np.full(len(descriptors), NONE, np.int16)
    ends = np.cumsum(counts)
    for start, end in zip(ends - counts, ends, strict=True):
        if start == end:
            continue
        points = descriptors[start:end].astype(np.float64)
        squares = np.einsum("nd,nd->n", points, points)
        squared = np.maximum(squares[:, None] - 2 * exact_scores(points, centroids), 0)
        keypoint, cluster = linear_sum_assignment(squared)
        near = np.sqrt(squared[keypoint, cluster]) <= cutoff[cluster]
        found[start + keypoint[near]] = cluster[near]
    return found


def match_to_previous(previous: NDArray[np.float32], centroids: NDArray[np.float32]) -> NDArray[np.int64]:
    """The order (k,) in which `centroids` (k, d) correspond to the previous ones: least total squared distance."""
    squared = ((previous[:, None].astype(np.float64) - centroids[None]) ** 2).sum(axis=-1)
    return linear_sum_assignment(squared)[1].astype(np.int64)
