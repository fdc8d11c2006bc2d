"""The duplicate filter: at most one keypoint of a cluster in each image (thesis 6.1.2)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.schemas import NONE

_MAX_SLOTS_PER_POINT = 64
"""Up to this many slots (image, cluster) for each point, one dense table of all slots is the fastest way."""


def keep_nearest(image: NDArray[Any], cluster: NDArray[Any], distance: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which keypoints stay: of each cluster in each image, the one nearest to the cluster's centroid.

    Args:
        image: int (N,), the image of each keypoint.
        cluster: int (N,), its cluster. Keypoints with NONE are dropped.
        distance: float (N,), its distance to the centroid, plain or squared.

    Returns:
        (N,). Of equally near keypoints the first one stays.
    """
    keep = np.zeros(cluster.size, dtype=bool)
    candidates = np.flatnonzero(cluster != NONE)
    if not len(candidates):
        return keep
    clusters = int(cluster.max()) + 1
    slot = image[candidates].astype(np.int64) * clusters + cluster[candidates]
    if slot.max() > _MAX_SLOTS_PER_POINT * len(slot):
        slot = np.unique(slot, return_inverse=True)[1]
    near = distance[candidates]
    best = np.full(int(slot.max()) + 1, np.inf)
    np.minimum.at(best, slot, near)
    winners = np.flatnonzero(near == best[slot])
    first = np.empty(best.size, np.int64)
    first[slot[winners[::-1]]] = winners[
        ::-1
    ]  # the last write of a slot counts: in reverse order it is the first point
    keep[candidates[winners[first[slot[winners]] == winners]]] = True
    return keep
