"""Mirror partners: which cluster a cluster's keypoints have in the mirror image (thesis 6.1.8)."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from ray_kplm.schemas import NONE

_MIN_MUTUAL_RATE = 0.5
"""Two clusters are partners only if this share of their mirrored keypoints, on average over both, lies in the other cluster."""
_UNITS = 2**40
"""Integer units of a rate of 1 when pairs are compared."""


def flip_counts(cluster: NDArray[Any], cluster_flipped: NDArray[Any], clusters: int) -> NDArray[np.int64]:
    """Count how often a keypoint of cluster i has a mirrored descriptor of cluster j.

    Args:
        cluster: int (N,), each keypoint's cluster, never NONE.
        cluster_flipped: int (N,), the cluster of its mirrored descriptor, never NONE.
        clusters: Number of clusters.

    Returns:
        (clusters, clusters). Counts of disjoint sets of keypoints add up.
    """
    pair = cluster.astype(np.int64) * clusters + cluster_flipped
    return np.bincount(pair, minlength=clusters * clusters).reshape(clusters, clusters)


def flip_map(counts: NDArray[Any]) -> NDArray[np.int16]:
    """Return the mirror partner of each cluster by the largest count of its row: (K,).

    A cluster without counts is its own partner. Two clusters may have the same partner (thesis 6.1.8).
    """
    partner = counts.argmax(axis=1)
    unseen = counts.sum(axis=1) == 0
    partner[unseen] = np.flatnonzero(unseen)
    return np.asarray(partner, np.int16)


def mirror_pairs(counts: NDArray[Any]) -> NDArray[np.int16]:
    """Return the mirror partner of each cluster, one to one: (K,), NONE for a cluster without a partner.

    It is the best one-to-one pairing by mutual rates. Row-wise maxima of noisy counts (`flip_map`) can give two clusters the
    same partner. No permutation of channels exists then, and averaging the mirror image's heatmaps would draw both landmarks to
    one place. A cluster whose mirrored keypoints mostly lie in other clusters has no partner, for example a point on one cheek
    whose counterpart on the other cheek was not found. As its own partner it would be trained on both cheeks.
    """
    rates = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    mutual = (rates + rates.T) / 2
    partner = best_involution(mutual)
    agreed = mutual[np.arange(len(counts)), partner] >= _MIN_MUTUAL_RATE
    return np.where(agreed, partner, NONE).astype(np.int16)


def best_involution(mutual: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the pairing of clusters, each with another or itself, that has the largest sum of mutual rates: (K,).

    Two clusters gain 2 mutual[i, j] - mutual[i, i] - mutual[j, j] by being partners, so the best pairs are a matching of
    largest weight in the graph of positive gains (Edmonds 1965; cubic in K). Clusters that gain nothing are their own partners.

    Args:
        mutual: (K, K), symmetric, entries from 0 to 1.
    """
    alone = np.diag(mutual)
    # The matching is exact in integers: sums of rates that differ by float rounding alone become equal.
    gain = np.rint((2 * mutual - alone[:, None] - alone) * _UNITS).astype(np.int64)
    one, other = np.nonzero(np.triu(gain, 1) > 0)
    graph = nx.Graph()
    graph.add_weighted_edges_from(zip(one.tolist(), other.tolist(), gain[one, other].tolist(), strict=True))
    partner = np.arange(len(mutual))
    for a, b in nx.max_weight_matching(graph):
        partner[a], partner[b] = b, a
    return partner


def is_involution(partner: NDArray[Any]) -> bool:
    """Return whether each cluster that has a partner is the partner of its partner, as left and right must be."""
    paired = np.flatnonzero(partner != NONE)
    return bool((partner[partner[paired]] == paired).all())
