"""K-means over points on any number of shards, with bit-identical results.

A fit only handles centroids, sums, counts and objectives; the points are behind the interface `Points`.
Assignments are exact (`assignment`), and so are the sums: float16 descriptors are multiples of 2^-24, so float64 adds 2^29 of
them without rounding. The order and the grouping of shards, threads and blocks cannot change the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ray_kplm.correspondence.assignment import BLOCK, Assigner, as_float32, on_grid
from ray_kplm.correspondence.reduction import Reducible

SQUARE_UNIT = 2.0**-20
"""Squared lengths are summed in whole multiples of this."""
_SPLIT = 1.0 / 1024
"""Relative step by which the halves of a split cluster are moved apart (Faiss uses the same)."""


@dataclass(frozen=True)
class PointTotals(Reducible):
    """The number of points of a set and the sum of their squared lengths.

    Attributes:
        points: Number of points.
        squares: Sum of squared lengths, in units of 2^-20.
    """

    points: int
    squares: int


@dataclass(frozen=True)
class Partial(Reducible):
    """The contribution of a set of points to an iteration.

    Attributes:
        sums: (k, d), sum of each cluster's points.
        counts: (k,), number of each cluster's points.
    """

    sums: NDArray[np.float64]
    counts: NDArray[np.int64]

    @classmethod
    def zero(cls, centroids: NDArray[np.float32]) -> Partial:
        """Return the contribution of no points, for centroids (k, d)."""
        return cls(np.zeros(centroids.shape), np.zeros(len(centroids), np.int64))


@dataclass(frozen=True)
class Clustering:
    """The result of a fit.

    Attributes:
        centroids: (k, d), on the grid (`assignment.on_grid`).
        objectives: Sum of squared distances before each update, and at the end.
        counts: (k,), points of each cluster.
    """

    centroids: NDArray[np.float32]
    objectives: list[float]
    counts: NDArray[np.int64]

    def reordered(self, order: NDArray[np.int64]) -> Clustering:
        """Return the same clusters in another order: new cluster i is old cluster order[i]."""
        return Clustering(self.centroids[order], self.objectives, self.counts[order])


class Points(Protocol):
    """All points of a fit, on one shard or on many."""

    def totals(self) -> PointTotals:
        """Return the totals of all points."""
        ...

    def partial(self, centroids: NDArray[np.float32]) -> Partial:
        """Return the contribution of all points to an iteration with these centroids."""
        ...


IterationCallback = Callable[[int, float], None]
"""Called after each iteration of a start with its number, from 1, and the objective."""


def squares(points: NDArray[Any]) -> NDArray[np.int32]:
    """Return the squared lengths of points (N, d) float16, in units of 2^-20: (N,); -1 if one is zero or not finite."""
    lengths = np.empty(len(points))
    for start in range(0, len(points), BLOCK):
        wide = as_float32(points[start : start + BLOCK])
        lengths[start : start + BLOCK] = np.einsum("nd,nd->n", wide, wide, dtype=np.float64)
    usable = np.isfinite(lengths) & (lengths > 0)
    return np.where(usable, np.rint(np.where(usable, lengths, 0) / SQUARE_UNIT), -1).astype(np.int32)


def point_totals(points: NDArray[Any]) -> PointTotals:
    """Return the totals of points (N, d) float16."""
    return PointTotals(len(points), int(np.maximum(squares(points), 0).sum(dtype=np.int64)))


def partial(points: NDArray[Any], centroids: NDArray[np.float32], assign: Assigner | None = None) -> Partial:
    """Assign points and sum them by cluster, in a plain pass over all of them.

    Args:
        points: (N, d) float16.
        centroids: (k, d), on the grid.
        assign: The prepared centroids, for calls on many blocks.
    """
    total, assign = Partial.zero(centroids), assign or Assigner(centroids)
    for start in range(0, len(points), BLOCK):
        block = points[start : start + BLOCK]
        add_to_clusters(total, as_float32(block).astype(np.float64), assign(block))
    return total


def add_to_clusters(
    total: Partial, points: NDArray[np.float64], cluster: NDArray[np.int32], before: NDArray[np.int32] | None = None
) -> None:
    """Add points (N, d) to their clusters (N,) in place, and take them from those where they were before. Sums are exact."""
    clusters, steps = len(total.counts), [cluster] if before is None else [cluster, before]
    total.sums[:] += _membership(np.stack(steps, axis=1), clusters) @ points
    total.counts[:] += np.bincount(cluster, minlength=clusters)
    if before is not None:
        total.counts[:] -= np.bincount(before, minlength=clusters)


def _membership(clusters: NDArray[np.int32], count: int) -> sparse.csc_matrix:
    """Return a matrix (count, N) with 1 in the row of each point's first cluster and -1 in that of its second, (N, 1 or 2)."""
    points, each = clusters.shape
    values = np.tile([1.0, -1.0][:each], points)
    return sparse.csc_matrix((values, clusters.ravel(), np.arange(0, points * each + 1, each)), shape=(count, points))


def fit(
    points: Points,
    starts: Iterable[NDArray[np.float32]],
    *,
    iterations: int,
    tolerance: float,
    spherical: bool = False,
    on_iteration: IterationCallback = lambda iteration, objective: None,
) -> Clustering:
    """Run Lloyd's algorithm from each start and return the clustering of the lowest final objective, the first of equals.

    Args:
        points: The points.
        starts: Initial centroids (k, d). One start is in memory at a time.
        iterations: Greatest number of iterations.
        tolerance: A fit ends when the objective falls by no more than this share of itself.
        spherical: Whether centroids are scaled to unit length.
        on_iteration: Called after each iteration.
    """
    totals = points.totals()
    best: Clustering | None = None
    for start in starts:
        begin = _normalized(start, spherical)
        clustering = _lloyd(points, totals, begin, iterations, tolerance, spherical, on_iteration)
        if best is None or clustering.objectives[-1] < best.objectives[-1]:
            best = clustering
    assert best is not None, "no start was given"
    return best


def _lloyd(
    points: Points,
    totals: PointTotals,
    centroids: NDArray[np.float32],
    iterations: int,
    tolerance: float,
    spherical: bool,
    on_iteration: IterationCallback,
) -> Clustering:
    """Run Lloyd's algorithm until the objective falls by no more than `tolerance` of itself, for `iterations` at most."""
    total = points.partial(centroids)
    objectives = [_objective(totals, total, centroids)]
    for iteration in range(1, iterations + 1):
        split = not total.counts.all()
        centroids = _normalized(_means(total, centroids), spherical)
        total = points.partial(centroids)
        objectives.append(_objective(totals, total, centroids))
        on_iteration(iteration, objectives[-1])
        # The halves of a split cluster are very close together: the gain of a split shows one iteration later.
        if not split and objectives[-2] - objectives[-1] <= tolerance * objectives[-2]:
            break
    return Clustering(centroids, objectives, total.counts)


def _objective(totals: PointTotals, total: Partial, centroids: NDArray[np.float32]) -> float:
    """Return the sum of squared distances, from lengths, sums and counts, without another pass over the points."""
    wide = centroids.astype(np.float64)
    squares = total.counts @ np.einsum("kd,kd->k", wide, wide)
    return float(max(totals.squares * SQUARE_UNIT - 2 * np.einsum("kd,kd->", wide, total.sums) + squares, 0.0))


def _normalized(centroids: NDArray[Any], spherical: bool) -> NDArray[np.float32]:
    """Return centroids on the grid, where assignments are exact; with `spherical`, scaled to unit length before."""
    if spherical:
        centroids = centroids / np.maximum(np.linalg.norm(centroids, axis=1, keepdims=True), 1e-12)
    return on_grid(centroids)


def _means(total: Partial, previous: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the new centroids (k, d): the means of the clusters; an empty cluster takes half of the largest cluster.

    The two halves of a split cluster are moved apart by a small step (_SPLIT).
    """
    counts = total.counts.astype(np.float64)
    centroids = np.where(counts[:, None] > 0, total.sums / np.maximum(counts, 1)[:, None], previous)
    for empty in np.flatnonzero(total.counts == 0):
        largest = int(counts.argmax())
        sign = np.where(np.arange(centroids.shape[1]) % 2 == 0, 1.0, -1.0)
        centroids[empty] = centroids[largest] * (1 + sign * _SPLIT)
        centroids[largest] = centroids[largest] * (1 - sign * _SPLIT)
        counts[empty] = counts[largest] = counts[largest] / 2
    return centroids
