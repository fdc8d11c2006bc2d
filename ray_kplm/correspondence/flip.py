"""Which cluster a cluster becomes in the mirror (thesis 6.1.8)."""

from __future__ import annotations

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from ray_kplm.schemas import NONE

_AGREEMENT = 0.5
"""Share of two clusters' mirrored keypoints that must lie in each other for them to be partners."""
_UNITS = 2**40
"""Integer units of a rate of 1 when pairs are compared."""


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
    """Return the partners (K,), pairs or oneself, with the largest sum of `mutual` (K, K), symmetric, entries within 0 and 1.

    Two clusters gain 2 mutual[i, j] - mutual[i, i] - mutual[j, j] by being partners, so the best pairs are a matching of
    largest weight in the graph of positive gains (Edmonds 1965; cubic in K). A pair that gains nothing stays apart.
    """
    alone = np.diag(mutual)
    # In integers, which the matching is exact in: equal sums of rates that float rounding tells apart are equal.
    gain = np.rint((2 * mutual - alone[:, None] - alone) * _UNITS).astype(np.int64)
    one, other = np.nonzero(np.triu(gain, 1) > 0)
    graph = nx.Graph()
    graph.add_weighted_edges_from(zip(one.tolist(), other.tolist(), gain[one, other].tolist(), strict=True))
    partner = np.arange(len(mutual))
    for a, b in nx.max_weight_matching(graph):
        partner[a], partner[b] = b, a
    return partner


def is_involution(partner: NDArray) -> bool:
    """Whether mirroring twice leads back wherever there is a partner, as it must when left and right are told apart."""
    paired = np.flatnonzero(partner != NONE)
    return bool((partner[partner[paired]] == paired).all())
