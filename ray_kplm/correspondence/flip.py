"""Which cluster a cluster becomes in the mirror (thesis 6.1.8)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from ray_kplm.contracts import NONE

_AGREEMENT = 0.5
"""Share of two clusters' mirrored keypoints that must lie in each other for them to be partners."""


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


def mirror_pairs(counts: NDArray) -> NDArray[np.int16]:
    """The partners, (K,), when a cluster is to have one at most: mirroring twice leads back, and no two share a partner.

    Row-wise maxima of noisy counts can give two clusters the same partner, and then a permutation of channels does not exist:
    averaging the mirror image's heatmaps would draw both to one place. This is the best one-to-one pairing by mutual rates. A
    cluster whose mirrored keypoints mostly lie elsewhere has no partner (NONE): a point on one cheek, where the other cheek's
    was not found. Taken for its own partner it would be trained on both cheeks.
    """
    rates = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    mutual = (rates + rates.T) / 2
    partner = best_involution(mutual)
    agreed = mutual[np.arange(len(counts)), partner] >= _AGREEMENT
    return np.where(agreed, partner, NONE).astype(np.int16)


def best_involution(mutual: NDArray[np.float64]) -> NDArray[np.int64]:
    """Partners (K,) with a large sum of `mutual` (K, K), symmetric: by linear assignment, a cycle longer than two cut into
    pairs."""
    _, follower = linear_sum_assignment(-mutual)
    partner = np.arange(len(mutual))
    seen: set[int] = set()
    for start in range(len(mutual)):
        cycle = []
        while start not in seen:
            seen.add(start)
            cycle.append(start)
            start = int(follower[start])
        for a, b in _best_pairs(cycle, mutual):
            partner[a], partner[b] = b, a
    return partner


def _best_pairs(cycle: list[int], mutual: NDArray) -> list[tuple[int, int]]:
    """Neighbours on a cycle, paired so that the sum is largest; one of an odd cycle stays alone."""
    size = len(cycle)
    choices = [
        [(cycle[(i + offset) % size], cycle[(i + offset + 1) % size]) for i in range(0, size - 1, 2)]
        for offset in range(size)
    ]
    return max(choices, key=lambda pairs: sum(mutual[a, b] for a, b in pairs), default=[])


def is_involution(partner: NDArray) -> bool:
    """Whether mirroring twice leads back wherever there is a partner, as it must when left and right are told apart."""
    paired = np.flatnonzero(partner != NONE)
    return bool((partner[partner[paired]] == paired).all())
