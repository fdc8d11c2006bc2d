"""At most one keypoint of a cluster in an image (thesis 6.1.2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ray_kplm.schemas import NONE

_SPARSE = 64
"""Slots (image, cluster) for each point up to which a table of all of them is the fastest way."""


def keep_nearest(image: NDArray, cluster: NDArray, distance: NDArray) -> NDArray[np.bool_]:
    """Which keypoints stay: for every (image, cluster), the one nearest to the cluster's centroid.

    image, cluster: int (N,); distance: float (N,). Points with cluster NONE go. Of equally near points the first stays.
    """
    keep = np.zeros(cluster.size, dtype=bool)
    candidates = np.flatnonzero(cluster != NONE)
    if not len(candidates):
        return keep
    clusters = int(cluster.max()) + 1
    slot = image[candidates].astype(np.int64) * clusters + cluster[candidates]
    if slot.max() > _SPARSE * len(slot):
        slot = np.unique(slot, return_inverse=True)[1]
    near = distance[candidates]
    best = np.full(int(slot.max()) + 1, np.inf)
    np.minimum.at(best, slot, near)
    winners = np.flatnonzero(near == best[slot])
    first = np.empty(best.size, np.int64)
    first[slot[winners[::-1]]] = winners[::-1]  # of several the last write stays, which is the first point
    keep[candidates[winners[first[slot[winners]] == winners]]] = True
    return keep
