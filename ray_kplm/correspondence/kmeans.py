"""K-means whose points may lie on any number of shards, with the same answer to the bit.

A fit only ever sees centroids, sums, counts and objectives; where the points are is the business of the `Points` that it is
given. Assignments are exact (`assignment`), and so are the sums: float16 descriptors are multiples of 2^-24, so float64 adds
2^29 of them without rounding. Neither the order nor the grouping of shards, threads and blocks can change the result.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import faiss
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ray_kplm.correspondence.assignment import BLOCK, Assigner, Search, as_float32, on_grid
from ray_kplm.correspondence.reduction import Reducible

_SQUARE_UNIT = 2.0**-20
"""Squared lengths are summed in whole multiples of this."""
_SPLIT = 1.0 / 1024
"""Relative step by which the halves of a split cluster are moved apart (Faiss uses the same)."""


@dataclass(frozen=True)
class Size(Reducible):
    """Of a set of points: how many, and the sum of their squared lengths (whole multiples of 2^-20)."""

    points: int
    squares: int


@dataclass(frozen=True)
class Partial(Reducible):
    """What one set of points contributes to an iteration: sums float64 (k, d), counts int64 (k,)."""

    sums: NDArray[np.float64]
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class Clustering:
    """centroids: float32 (k, d), on the grid. objectives: sum of squared distances before every update. counts: (k,)."""

    centroids: NDArray[np.float32]
    objectives: list[float]
    counts: NDArray[np.int64]

    def reordered(self, order: NDArray[np.int64]) -> Clustering:
        """The same clusters under other numbers: new number i is that of old number order[i]."""
        return Clustering(self.centroids[order], self.objectives, self.counts[order])


class Points(Protocol):
    """All points of a fit, wherever they are."""

    def size(self) -> Size: ...

    def partial(self, centroids: NDArray[np.float32]) -> Partial:
        """The sum of all shards' partials."""
        ...


IterationCallback = Callable[[int, int, float], None]
"""Called after each iteration: the number of the start, the iteration, the objective."""


def size_of(blocks: Iterable[NDArray]) -> Size:
    """Of blocks of points (N, d) float16."""
    total = Size(0, 0)
    for block in blocks:
        wide = as_float32(block)
        lengths = np.einsum("nd,nd->n", wide, wide, dtype=np.float64)
        total += Size(len(block), int(np.rint(lengths / _SQUARE_UNIT).sum()))
    return total


def partial(
    blocks: Iterable[NDArray], centroids: NDArray[np.float32], *, search: Search | None = None, threads: int = 1
) -> Partial:
    """One pass over blocks of points (N, d) float16, of which each thread takes the next when it is free.

    A search that may not run in parallel gets one block at a time; conversions and sums of the others go on beside it.
    """
    waiting, turn, assign = iter(blocks), threading.Lock(), Assigner(centroids, search)

    def work() -> Partial:
        faiss.omp_set_num_threads(1)  # of this thread: the blocks are what is parallel
        sums, counts = np.zeros(centroids.shape), np.zeros(len(centroids), np.int64)
        while True:
            with turn:
                block = next(waiting, None)
            if block is None:
                return Partial(sums, counts)
            _accumulate(sums, counts, block, assign)

    shares = [_pool(threads).submit(work) for _ in range(threads)]
    found = [share.result() for share in shares]
    return sum(found[1:], start=found[0])


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that stay: new ones would have the system hand out their memory again in every pass, 15 % of its time."""
    return ThreadPoolExecutor(threads, thread_name_prefix="kmeans")


def _accumulate(sums: NDArray[np.float64], counts: NDArray[np.int64], block: NDArray, assign: Assigner) -> None:
    """Add a block's points to the sums (k, d) and counts (k,) of their clusters."""
    points = as_float32(block)
    cluster = assign(points)
    for start in range(0, len(block), BLOCK):
        piece = slice(start, start + BLOCK)
        sums += _membership(cluster[piece], len(counts)).T @ points[piece].astype(np.float64)
    counts += np.bincount(cluster, minlength=len(counts))


def _membership(cluster: NDArray[np.int32], clusters: int) -> sparse.csr_matrix:
    """One-hot rows: (N, clusters)."""
    shape = (len(cluster), clusters)
    return sparse.csr_matrix((np.ones(len(cluster)), cluster, np.arange(len(cluster) + 1)), shape=shape)


class InMemory:
    """`Points` (N, d) float16 in this process."""

    def __init__(self, points: NDArray, threads: int = 1) -> None:
        self._points, self._threads = points, threads

    def size(self) -> Size:
        return size_of(self._blocks())

    def partial(self, centroids: NDArray[np.float32]) -> Partial:
        return partial(self._blocks(), centroids, threads=self._threads)

    def _blocks(self) -> Iterator[NDArray]:
        for start in range(0, len(self._points), BLOCK):
            yield self._points[start : start + BLOCK]


def plus_plus(sample: NDArray, k: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Greedy k-means++ start on a sample (N, d) float16, N >= k (Arthur & Vassilvitskii 2007).

    Each centre is the best of a few candidates that are drawn by their squared distance to the centres before: noise lies far
    from everything and is drawn often, but it is never the best. Exact like everything here, so that the same sample and seed
    give the same start on any machine.
    """
    points = as_float32(sample).astype(np.float64)
    squares = np.einsum("nd,nd->n", points, points)
    chosen = [int(rng.integers(len(points)))]
    closest = _to_points(points, squares, np.array(chosen))[:, 0]
    for _ in range(1, k):
        cumulative = closest.cumsum()
        drawn = rng.random(2 + int(np.log(k))) * cumulative[-1]
        # Where all points coincide with a centre any will do: the empty-cluster rule sorts it out.
        candidates = np.minimum(np.searchsorted(cumulative, drawn), len(points) - 1)
        left = np.minimum(closest[:, None], _to_points(points, squares, candidates))
        best = int(left.sum(axis=0).argmin())
        chosen.append(int(candidates[best]))
        closest = left[:, best]
    return on_grid(points[chosen])


def _to_points(points: NDArray[np.float64], squares: NDArray[np.float64], chosen: NDArray) -> NDArray[np.float64]:
    """Squared distances of all points to some of them: (N, chosen)."""
    return np.maximum(squares[:, None] + squares[chosen] - 2 * (points @ points[chosen].T), 0)


def fit(
    points: Points,
    starts: Iterable[NDArray[np.float32]],
    *,
    iterations: int,
    tolerance: float,
    spherical: bool = False,
    on_iteration: IterationCallback = lambda start, iteration, objective: None,
) -> Clustering:
    """Lloyd's algorithm from each start; the clustering of the lowest final objective (the first of equals).

    spherical: centroids have unit length. Another start costs another (k, d) array and nothing else.
    """
    size = points.size()
    best: Clustering | None = None
    for number, start in enumerate(starts):
        found = _lloyd(
            points,
            size,
            _placed(start, spherical),
            iterations,
            tolerance,
            spherical,
            functools.partial(on_iteration, number),
        )
        if best is None or found.objectives[-1] < best.objectives[-1]:
            best = found
    assert best is not None, "no start was given"
    return best


def _lloyd(
    points: Points,
    size: Size,
    centroids: NDArray[np.float32],
    iterations: int,
    tolerance: float,
    spherical: bool,
    on_iteration: Callable[[int, float], None],
) -> Clustering:
    """Until the objective falls by less than `tolerance` of itself, at most `iterations` passes."""
    total = points.partial(centroids)
    objectives = [_objective(size, total, centroids)]
    for iteration in range(1, iterations + 1):
        split = not total.counts.all()
        centroids = _placed(_means(total, centroids), spherical)
        total = points.partial(centroids)
        objectives.append(_objective(size, total, centroids))
        on_iteration(iteration, objectives[-1])
        # Halves of a split cluster are a hair apart: what the split gains shows one pass later.
        if not split and objectives[-2] - objectives[-1] <= tolerance * objectives[-2]:
            break
    return Clustering(centroids, objectives, total.counts)


def _objective(size: Size, total: Partial, centroids: NDArray[np.float32]) -> float:
    """The sum of squared distances, from lengths, sums and counts: no point is looked at again."""
    wide = centroids.astype(np.float64)
    squares = total.counts @ np.einsum("kd,kd->k", wide, wide)
    return float(max(size.squares * _SQUARE_UNIT - 2 * np.einsum("kd,kd->", wide, total.sums) + squares, 0.0))


def _placed(centroids: NDArray, spherical: bool) -> NDArray[np.float32]:
    """Centroids where assignments to them are exact, and on the unit sphere if that is asked for."""
    if spherical:
        centroids = centroids / np.maximum(np.linalg.norm(centroids, axis=1, keepdims=True), 1e-12)
    return on_grid(centroids)


def _means(total: Partial, previous: NDArray[np.float32]) -> NDArray[np.float64]:
    """New centroids; an empty cluster takes half of the largest one's place, moved apart by a hair."""
    counts = total.counts.astype(np.float64)
    centroids = np.where(counts[:, None] > 0, total.sums / np.maximum(counts, 1)[:, None], previous)
    for empty in np.flatnonzero(total.counts == 0):
        largest = int(counts.argmax())
        sign = np.where(np.arange(centroids.shape[1]) % 2 == 0, 1.0, -1.0)
        centroids[empty] = centroids[largest] * (1 + sign * _SPLIT)
        centroids[largest] = centroids[largest] * (1 - sign * _SPLIT)
        counts[empty] = counts[largest] = counts[largest] / 2
    return centroids
