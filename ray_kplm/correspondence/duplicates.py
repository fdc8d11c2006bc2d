"""At most one keypoint of a cluster in an image (thesis 6.1.2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ray_kplm.contracts import NONE


def keep_nearest(image: NDArray, cluster: NDArray, distance: NDArray) -> NDArray[np.bool_]:
    """Which keypoints stay: for every (image, cluster), the one nearest to the cluster's centroid.

    image, cluster: int (N,); distance: float (N,). Points with cluster NONE go. Of equally near points the first stays.
    """
    candidates = np.flatnonzero(cluster != NONE)
    key = image[candidates].astype(np.int64) * (int(cluster.max(initial=0)) + 1) + cluster[candidates]
    order = np.lexsort((distance[candidates], key))
    first = np.ones(order.size, dtype=bool)
    first[1:] = key[order][1:] != key[order][:-1]
    keep = np.zeros(cluster.size, dtype=bool)
    keep[candidates[order[first]]] = True
    return keep
