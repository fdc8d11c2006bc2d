"""K-means whose points may lie on any number of shards.

A fit only ever sees centroids, sums, counts and objectives; where the points are is the business of the `reduce` that
it is given. Descriptors are float16, so their sums in float64 are exact below 2^29 points (a float16 in [-1, 1] is a
multiple of 2^-24), and so are the objectives, which are summed as whole numbers: the order and the grouping of shards
cannot change a bit of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

_OBJECTIVE_UNIT = 2.0**-20
"""Squared distances are summed in whole multiples of this."""
_SPLIT = 1.0 / 1024
"""Relative step by which the halves of a split cluster are moved apart (Faiss uses the same)."""


@dataclass(frozen=True)
class Partial:
    """What one set of points contributes to an iteration: sums float64 (k, d), counts int64 (k,), objective (units)."""

    sums: NDArray[np.float64]
    counts: NDArray[np.int64]
    objective: int

    def __add__(self, other: Partial) -> Partial:
        return Partial(self.sums + other.sums, self.counts + other.counts, self.objective + other.objective)


@dataclass(frozen=True)
class Clustering:
    """centroids: float32 (k, d). objectives: sum of squared distances before every update. counts: points a cluster."""

    centroids: NDArray[np.float32]
    objectives: list[float]
    counts: NDArray[np.int64]


Reduce = Callable[[NDArray[np.float32]], Partial]
"""Centroids (k, d) -> the sum of all shards' partials."""


def assign(points: NDArray, centroids: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The nearest centroid of every point: cluster int32 (N,), squared distance float32 (N,).

    points: (N, d) float16 or float32.
    """
    if not len(points):
        return np.zeros(0, np.int32), np.zeros(0, np.float32)
    squared, cluster = faiss.knn(np.ascontiguousarray(points, np.float32), centroids, 1)
    return cluster[:, 0].astype(np.int32), np.maximum(squared[:, 0], 0)


def partial(blocks: Iterable[NDArray], centroids: NDArray[np.float32]) -> Partial:
    """One pass over blocks of points (N, d) float16."""
    k, dim = centroids.shape
    total = Partial(np.zeros((k, dim)), np.zeros(k, np.int64), 0)
    for block in blocks:
        cluster, squared = assign(block, centroids)
        membership = sparse.csr_matrix((np.ones(len(block)), cluster, np.arange(len(block) + 1)), shape=(len(block), k))
        total += Partial(
            np.asarray(membership.T @ block.astype(np.float64)),
            np.bincount(cluster, minlength=k),
            int(np.rint(squared.astype(np.float64) / _OBJECTIVE_UNIT).sum()),
        )
    return total


def plus_plus(sample: NDArray, k: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """k-means++ start on a sample (N, d), N >= k: each centre drawn by its squared distance to those before it."""
    points = np.ascontiguousarray(sample, np.float32)
    chosen = [int(rng.integers(len(points)))]
    nearest = ((points - points[chosen[0]]) ** 2).sum(1, dtype=np.float64)
    for _ in range(1, k):
        total = nearest.sum()
        # All points coincide with a centre: any will do, the empty-cluster rule sorts it out.
        pick = (
            int(np.searchsorted(nearest.cumsum(), rng.random() * total))
            if total > 0
            else int(rng.integers(len(points)))
        )
        chosen.append(min(pick, len(points) - 1))
        nearest = np.minimum(nearest, ((points - points[chosen[-1]]) ** 2).sum(1, dtype=np.float64))
    return points[chosen]


def fit(
    reduce: Reduce,
    starts: Iterable[NDArray[np.float32]],
    *,
    iterations: int,
    tolerance: float,
) -> Clustering:
    """Lloyd's algorithm from each start; the clustering of the lowest final objective (the first of equals)."""
    results = [_lloyd(reduce, start, iterations, tolerance) for start in starts]
    return min(results, key=lambda result: result.objectives[-1])


def _lloyd(reduce: Reduce, centroids: NDArray[np.float32], iterations: int, tolerance: float) -> Clustering:
    """Until the objective falls by less than `tolerance` of itself, at most `iterations` passes."""
    objectives: list[float] = []
    total = reduce(centroids)
    objectives.append(total.objective * _OBJECTIVE_UNIT)
    for _ in range(iterations):
        split = not total.counts.all()
        moved = _means(total, centroids)
        total_after = reduce(moved)
        objective = total_after.objective * _OBJECTIVE_UNIT
        centroids, total = moved, total_after
        objectives.append(objective)
        # Halves of a split cluster are a hair apart: what the split gains shows one pass later.
        if not split and objectives[-2] - objective <= tolerance * objectives[-2]:
            break
    return Clustering(centroids, objectives, total.counts)


def _means(total: Partial, previous: NDArray[np.float32]) -> NDArray[np.float32]:
    """New centroids; an empty cluster takes half of the largest one's place, moved apart by a hair."""
    counts = total.counts.astype(np.float64)
    centroids = np.where(counts[:, None] > 0, total.sums / np.maximum(counts, 1)[:, None], previous)
    for empty in np.flatnonzero(total.counts == 0):
        largest = int(counts.argmax())
        sign = np.where(np.arange(centroids.shape[1]) % 2 == 0, 1.0, -1.0)
        centroids[empty] = centroids[largest] * (1 + sign * _SPLIT)
        centroids[largest] = centroids[largest] * (1 - sign * _SPLIT)
        counts[empty] = counts[largest] = counts[largest] / 2
    return centroids.astype(np.float32)
