"""K-means over points on any number of shards, with bit-identical results.

A fit only handles centroids, sums, counts and objectives; the points are behind the interface `Points`.
Assignments are exact (`assignment`), and so are the sums: float16 descriptors are multiples of 2^-24, so float64 adds 2^29 of
them without rounding. The order and the grouping of shards, threads and blocks cannot change the result.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ray_kplm.correspondence.assignment import BLOCK, Assigner, Search, as_float32, on_grid
from ray_kplm.correspondence.faiss_import import faiss
from ray_kplm.correspondence.reduction import Reducible

_SQUARE_UNIT = 2.0**-20
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


IterationCallback = Callable[[int, int, float], None]
"""Called after each iteration with the index of the start, the iteration and the objective."""


def point_totals(blocks: Iterable[NDArray[Any]]) -> PointTotals:
    """Return the totals of blocks of points (N, d) float16."""
    total = PointTotals(0, 0)
    for block in blocks:
        wide = as_float32(block)
        lengths = np.einsum("nd,nd->n", wide, wide, dtype=np.float64)
        total += PointTotals(len(block), int(np.rint(lengths / _SQUARE_UNIT).sum()))
    return total


def partial(
    blocks: Iterable[NDArray[Any]], centroids: NDArray[np.float32], *, search: Search | None = None, threads: int = 1
) -> Partial:
    """Assign blocks of points and sum them by cluster; each free thread takes the next block.

    A search that is not parallel gets one block at a time; other threads convert and sum their blocks meanwhile.

    Args:
        blocks: Points (N, d) float16.
        centroids: (k, d), on the grid.
        search: As in `assignment.Assigner`.
        threads: Number of threads.
    """
    waiting, lock, assign = iter(blocks), threading.Lock(), Assigner(centroids, search)

    def sum_blocks() -> Partial:
        faiss.omp_set_num_threads(1)  # in this thread: blocks run in parallel, a single block does not
        sums, counts = np.zeros(centroids.shape), np.zeros(len(centroids), np.int64)
        while True:
            with lock:
                block = next(waiting, None)
            if block is None:
                return Partial(sums, counts)
            _accumulate(sums, counts, block, assign)

    futures = [_pool(threads).submit(sum_blocks) for _ in range(threads)]
    partials = [future.result() for future in futures]
    return sum(partials[1:], start=partials[0])


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Return a pool of threads that is kept: new threads allocate their memory again in every pass, 15 % of its time."""
    return ThreadPoolExecutor(threads, thread_name_prefix="kmeans")


def _accumulate(sums: NDArray[np.float64], counts: NDArray[np.int64], block: NDArray[Any], assign: Assigner) -> None:
    """Add a block's points to the sums (k, d) and counts (k,) of their clusters."""
    points = as_float32(block)
    cluster = assign(points)
    for start in range(0, len(block), BLOCK):
        piece = slice(start, start + BLOCK)
        sums += _membership(cluster[piece], len(counts)).T @ points[piece].astype(np.float64)
    counts += np.bincount(cluster, minlength=len(counts))


def _membership(cluster: NDArray[np.int32], clusters: int) -> sparse.csr_matrix:
    """Return the one-hot rows of cluster indices: (N, clusters)."""
    shape = (len(cluster), clusters)
    return sparse.csr_matrix((np.ones(len(cluster)), cluster, np.arange(len(cluster) + 1)), shape=shape)


class InMemoryPoints:
    """`Points` (N, d) float16 in this process."""

    def __init__(self, points: NDArray[Any], threads: int = 1) -> None:
        """Keep the points; their blocks are assigned by `threads` threads."""
        self._points, self._threads = points, threads

    def totals(self) -> PointTotals:
        """Return the totals of all points."""
        return point_totals(self._blocks())

    def partial(self, centroids: NDArray[np.float32]) -> Partial:
        """Return the contribution of all points to an iteration with these centroids."""
        return partial(self._blocks(), centroids, threads=self._threads)

    def _blocks(self) -> Iterator[NDArray[Any]]:
        for start in range(0, len(self._points), BLOCK):
            yield self._points[start : start + BLOCK]


def plus_plus(sample: NDArray[Any], k: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the initial centroids (k, d) of greedy k-means++ (Arthur & Vassilvitskii 2007).

    Each centre is the best of a few candidates, which are drawn in proportion to their squared distance to the centres before.
    Outliers are far from all centres and are drawn often, but they are never the best candidate. All arithmetic is exact, so
    the same sample and generator give the same start on any machine.

    Args:
        sample: (N, d) float16, N >= k.
        k: Number of centroids.
        rng: Draws the candidates.
    """
    points = as_float32(sample).astype(np.float64)
    squares = np.einsum("nd,nd->n", points, points)
    chosen = [int(rng.integers(len(points)))]
    closest = _squared_distances(points, squares, np.array(chosen))[:, 0]
    for _ in range(1, k):
        cumulative = closest.cumsum()
        drawn = rng.random(2 + int(np.log(k))) * cumulative[-1]
        # Where every point coincides with a centre, any candidate will do: `_means` splits clusters for the empty ones.
        candidates = np.minimum(np.searchsorted(cumulative, drawn), len(points) - 1)
        remaining = np.minimum(closest[:, None], _squared_distances(points, squares, candidates))
        best = int(remaining.sum(axis=0).argmin())
        chosen.append(int(candidates[best]))
        closest = remaining[:, best]
    return on_grid(points[chosen])


def _squared_distances(
    points: NDArray[np.float64], squares: NDArray[np.float64], chosen: NDArray[Any]
) -> NDArray[np.float64]:
    """Return the squared distances of all points to the chosen ones: (N, chosen)."""
    distances: NDArray[np.float64] = np.maximum(squares[:, None] + squares[chosen] - 2 * (points @ points[chosen].T), 0)
    return distances


def fit(
    points: Points,
    starts: Iterable[NDArray[np.float32]],
    *,
    iterations: int,
    tolerance: float,
    spherical: bool = False,
    on_iteration: IterationCallback = lambda start, iteration, objective: None,
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
    for number, start in enumerate(starts):
        clustering = _lloyd(
            points,
            totals,
            _normalized(start, spherical),
            iterations,
            tolerance,
            spherical,
            functools.partial(on_iteration, number),
        )
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
    on_iteration: Callable[[int, float], None],
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
    return float(max(totals.squares * _SQUARE_UNIT - 2 * np.einsum("kd,kd->", wide, total.sums) + squares, 0.0))


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
