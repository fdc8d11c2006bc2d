"""Which cluster a cluster becomes in the mirror (thesis 6.1.8)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def flip_counts(cluster: NDArray, cluster_flipped: NDArray, clusters: int) -> NDArray[np.int64]:
    """How often a keypoint of cluster i has a mirrored descriptor of cluster j: (clusters, clusters).

    cluster, cluster_flipped: int (N,), none of them NONE. Counts of disjoint sets of keypoints add up.
    """
    pair = cluster.astype(np.int64) * clusters + cluster_flipped
    return np.bincount(pair, minlength=clusters * clusters).reshape(clusters, clusters)


def flip_map(counts: NDArray) -> NDArray[np.int16]:
    """The mirror partner of every cluster, (K,): the row's largest count; a cluster never seen is its own partner."""
    partner = counts.argmax(axis=1)
    unseen = counts.sum(axis=1) == 0
    partner[unseen] = np.flatnonzero(unseen)
    return partner.astype(np.int16)


def is_involution(partner: NDArray) -> bool:
    """Whether mirroring twice leads back, as it must when left and right are told apart consistently."""
    return bool((partner[partner] == np.arange(partner.size)).all())
