"""The Hungarian assignment of keypoints to clusters, one to one in each image (thesis 5.2.1, docs/method.md 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.correspondence.assignment import exact_scores
from ray_kplm.correspondence.reduction import Reducible
from ray_kplm.schemas import NONE

_UNIT = 2.0**-20
"""Distances are summed in whole multiples of this."""


@dataclass(frozen=True)
class Spread(Reducible):
    """Sums of the distances of keypoints to their nearest centroid, for each of M clusters.

    Both sums are whole multiples of 2^-20, so that they add up to the same in any order.

    Attributes:
        counts: int64 (M,), keypoints.
        total: int64 (M,), sum of distances, in units of 2^-20.
        squares: int64 (M,), sum of squared distances, in units of 2^-20.
    """

    counts: NDArray[np.int64]
    total: NDArray[np.int64]
    squares: NDArray[np.int64]

    def cutoff(self) -> NDArray[np.float64]:
        """Return the largest distance of a cluster's members, mean + 1 standard deviation: (M,); infinite without keypoints."""
        counts = np.maximum(self.counts, 1)
        mean = self.total * _UNIT / counts
        variance = np.maximum(self.squares * _UNIT / counts - mean**2, 0)
        return np.where(self.counts > 0, mean + np.sqrt(variance), np.inf)


def spread(cluster: NDArray[Any], squared_distance: NDArray[np.float64], clusters: int) -> Spread:
    """Sum the distances of keypoints by cluster.

    Args:
        cluster: int (N,), the nearest cluster of each keypoint.
        squared_distance: (N,), to its centroid.
        clusters: Number of clusters M.
    """
    distance = np.rint(np.sqrt(squared_distance) / _UNIT)
    square = np.rint(squared_distance / _UNIT)
    count, total, squares = (np.bincount(cluster, w, clusters) for w in (None, distance, square))
    return Spread(count.astype(np.int64), total.astype(np.int64), squares.astype(np.int64))


def match(
    counts: NDArray[np.int64], descriptors: NDArray[Any], centroids: NDArray[np.float32], cutoff: NDArray[np.float64]
) -> NDArray[np.int16]:
    """Assign the keypoints of each image to clusters, one to one, at the least total squared distance.

    Args:
        counts: (images,), keypoints of each image.
        descriptors: (N, d), of all images' keypoints, image after image.
        centroids: (M, d).
        cutoff: (M,), the largest distance of each cluster's members.

    Returns:
        The cluster of each keypoint, (N,). NONE for a keypoint beyond the cluster's cut-off, and for those that remain where an
        image has more keypoints than there are clusters.
    """
    from scipy.optimize import linear_sum_assignment  # not needed to predict

    assigned = np.full(len(descriptors), NONE, np.int16)
    ends = np.cumsum(counts)
    for start, end in zip(ends - counts, ends, strict=True):
        if start == end:
            continue
        points = descriptors[start:end].astype(np.float64)
        squares = np.einsum("nd,nd->n", points, points)
        squared = np.maximum(squares[:, None] - 2 * exact_scores(points, centroids), 0)
        keypoint, cluster = linear_sum_assignment(squared)
        near = np.sqrt(squared[keypoint, cluster]) <= cutoff[cluster]
        assigned[start + keypoint[near]] = cluster[near]
    return assigned


def match_to_previous(previous: NDArray[np.float32], centroids: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the order (k,) in which centroids (k, d) match the previous ones at the least total squared distance.

    Cluster i of the previous round corresponds to centroids[order[i]].
    """
    from scipy.optimize import linear_sum_assignment  # not needed to predict

    squared = ((previous[:, None].astype(np.float64) - centroids[None]) ** 2).sum(axis=-1)
    return np.asarray(linear_sum_assignment(squared)[1], np.int64)
