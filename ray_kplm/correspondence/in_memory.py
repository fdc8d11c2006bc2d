"""Points of a fit that stay in memory, with what earlier iterations found out about them.

A point whose cluster cannot have changed is not looked at again (Hamerly 2010): it keeps an upper bound of the distance to its
own centroid and a lower bound of that to all others, which grow and shrink by as much as the centroids move. And only a point
that changes its cluster changes the sums. Sums are exact (`kmeans`), and a bound never decides what `assignment` would not: the
result is that of `kmeans.partial`, bit for bit, whatever passes came before.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.correspondence.assignment import BLOCK, Assigner, as_float32, error_bound
from ray_kplm.correspondence.kmeans import SQUARE_UNIT, Partial, PointTotals, add_to_clusters, squares
from ray_kplm.correspondence.parallel import in_threads

_SLACK = 2.0**-21
"""Share of a distance that covers the rounding of a bound in an iteration: a square root, a movement and an addition."""


@dataclass(frozen=True)
class Rows:
    """Some rows of an array of descriptors.

    Attributes:
        descriptors: float16 (N, d).
        rows: int32 (n,), the rows that are used.
        squares: int32 (n,), their squared lengths (`kmeans.squares`).
    """

    descriptors: NDArray[np.float16]
    rows: NDArray[np.int32]
    squares: NDArray[np.int32]

    @classmethod
    def all_of(cls, descriptors: NDArray[np.float16]) -> Rows:
        """Return all rows of an array."""
        return cls(descriptors, np.arange(len(descriptors), dtype=np.int32), np.maximum(squares(descriptors), 0))

    def take(self, chosen: Any = slice(None)) -> NDArray[np.float16]:
        """Return a copy of the chosen ones of the rows."""
        taken: NDArray[np.float16] = self.descriptors.take(self.rows[chosen], axis=0)
        return taken

    def totals(self) -> PointTotals:
        """Return the totals of the rows."""
        return PointTotals(len(self.rows), int(self.squares.sum(dtype=np.int64)))


class _Known:
    """What is known of some rows: cluster int32 (n,) of the last iteration, -1 before, and bounds of distances float32 (n,)."""

    BYTES = 12
    """Memory of a row."""

    def __init__(self, count: int) -> None:
        self.cluster = np.full(count, -1, np.int32)
        self.upper = np.full(count, np.inf, np.float32)
        self.lower = np.full(count, -np.inf, np.float32)


POINT_BYTES = _Known.BYTES + 8
"""Memory of a point besides its descriptor."""


class InMemoryPoints:
    """`kmeans.Points` in this process."""

    def __init__(self, sources: Sequence[Rows], threads: int = 1) -> None:
        """Keep the points; their blocks are assigned by `threads` threads."""
        self._sources, self._threads = sources, threads
        self._largest = max((int(source.squares.max(initial=0)) for source in sources), default=0) * SQUARE_UNIT
        self._known: list[_Known] = []
        self._centroids: NDArray[np.float32] | None = None

    def totals(self) -> PointTotals:
        """Return the totals of all points."""
        return sum((source.totals() for source in self._sources), start=PointTotals(0, 0))

    def partial(self, centroids: NDArray[np.float32]) -> Partial:
        """Return the contribution of all points to an iteration with these centroids."""
        if self._centroids is None or self._centroids.shape != centroids.shape:
            self._known = [_Known(len(source.rows)) for source in self._sources]
            self._centroids, self._total = None, Partial.zero(centroids)
        step = _Step(self._centroids, centroids, self._largest)
        waiting, lock = self._blocks(), threading.Lock()

        def update(thread: int) -> Partial:
            change = Partial.zero(centroids)
            while True:
                with lock:
                    block = next(waiting, None)
                if block is None:
                    return change
                step.update(change, *block)

        for change in in_threads(update, range(self._threads), self._threads):
            self._total += change
        self._centroids = centroids
        return self._total

    def _blocks(self) -> Iterator[tuple[Rows, _Known, slice]]:
        for source, known in zip(self._sources, self._known, strict=True):
            for start in range(0, len(source.rows), BLOCK):
                yield source, known, slice(start, start + BLOCK)


class _Step:
    """An iteration from the previous centroids to new ones, both (k, d)."""

    def __init__(self, previous: NDArray[np.float32] | None, centroids: NDArray[np.float32], largest: float) -> None:
        """Prepare the step, the first one if there are no previous centroids; `largest` is the largest squared length."""
        self._assign, self._largest, self._moving = Assigner(centroids), largest, previous is not None
        self._bound = error_bound(largest + self._assign.largest_square, centroids.shape[1]) + SQUARE_UNIT
        moved = np.zeros(len(centroids))
        if previous is not None:
            moved = np.linalg.norm(centroids.astype(np.float64) - previous, axis=1)
        moved += _SLACK * (2 * np.sqrt(largest) + 2 * np.sqrt(self._assign.largest_square) + moved.max())
        self._moved = moved.astype(np.float32)
        others = np.full(len(moved), moved.max())  # the largest movement of any other centroid
        others[moved.argmax()] = np.partition(moved, -2)[-2] if len(moved) > 1 else 0.0
        self._others_moved = others.astype(np.float32)

    def update(self, change: Partial, source: Rows, known: _Known, piece: slice) -> None:
        """Assign a block again, bring what is known of it up to date and add to `change` what the block changes."""
        cluster, upper, lower = known.cluster[piece], known.upper[piece], known.lower[piece]
        upper += self._moved[cluster]
        lower -= self._others_moved[cluster]
        open_ = np.flatnonzero(~(upper < lower))
        if not len(open_):
            return
        points = as_float32(source.take(piece.start + open_))
        found = self._assign.nearest(points, self._largest)
        bound = np.float32(self._bound)
        upper[open_] = np.sqrt(np.maximum(found.squared, 0) + bound)
        # Where float32 could not tell the two nearest apart, this is at most the upper bound: such a point is looked at again.
        lower[open_] = np.sqrt(np.maximum(found.second_squared - bound, 0))
        before = cluster[open_]
        cluster[open_] = found.cluster
        changed = np.flatnonzero(found.cluster != before)
        if not len(changed):
            return
        wide = points[changed].astype(np.float64)
        add_to_clusters(change, wide, found.cluster[changed], before[changed] if self._moving else None)
