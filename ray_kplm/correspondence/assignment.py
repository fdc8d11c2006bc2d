"""Exact assignment of descriptors to their nearest centroid, the same on any device and for any split into blocks.

Faiss (on a device maybe torch) proposes the two nearest centroids in float32. Where their distances differ by more than the
float32 error bound, the proposal stands. The few other descriptors are decided in float64, whose arithmetic is exact here:
descriptors are float16 in [-1, 1], hence multiples of 2^-24, and centroids are rounded to the same grid (`on_grid`). Every
product is a multiple of 2^-48, and a float64 holds the sum of a vector's products in any order of adding (for vectors of norm
up to 4).

So an assignment depends on the points and centroids alone: it is equal for any number of shards and threads, any block size,
and on CPUs and GPUs (`device_kmeans`). Of equally near centroids the one with the lower index is chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ray_kplm.correspondence.faiss_import import faiss
from ray_kplm.correspondence.parallel import in_threads

BLOCK = 4096
"""Descriptors of a block on a CPU: as many as a core's cache holds. Larger blocks make conversions and sums 3 times slower."""
GRID = 2.0**24
"""Descriptors and centroids are multiples of 1 / GRID."""
_ROUNDING = 2.0**-24
_EXACT_SCORES = 1 << 22
"""Float64 scores computed at a time."""


def on_grid(centroids: NDArray[Any]) -> NDArray[np.float32]:
    """Round centroids to multiples of 2^-24, where products with float16 descriptors are exact in float64."""
    return (np.rint(np.asarray(centroids, np.float64) * GRID) / GRID).astype(np.float32)


def as_float32(points: NDArray[Any]) -> NDArray[np.float32]:
    """Return points (N, d) as contiguous float32. Torch converts float16 ten times as fast as numpy."""
    if points.dtype == np.float16:
        writable = np.require(points, requirements=["C", "W"])  # torch warns about read-only memory
        return torch.from_numpy(writable).float().numpy()
    return np.ascontiguousarray(points, np.float32)


def error_bound(size: float, dim: int) -> float:
    """Return the largest error of the difference of two squared distances in float32.

    Each distance is |x|^2 + |c|^2 - 2 x.c from d products and d + 2 additions. Its error is at most
    (d + 3) u (|x| + |c|)^2, and (a + b)^2 <= 2 (a^2 + b^2) (Higham 2002, section 3.1).

    Args:
        size: Largest squared length of a point and that of a centroid, together.
        dim: Length of a vector, d.
    """
    return 4 * (dim + 3) * _ROUNDING * size


@dataclass(frozen=True)
class Nearest:
    """The nearest centroid of some points.

    Attributes:
        cluster: int32 (N,), exact.
        squared: float32 (N,), squared distance to the centroid that float32 found nearest.
        second_squared: float32 (N,), to the one that it found second; infinite if there is no second.
    """

    cluster: NDArray[np.int32]
    squared: NDArray[np.float32]
    second_squared: NDArray[np.float32]


class Assigner:
    """Assigns points to their nearest centroid. Threads may share it."""

    def __init__(self, centroids: NDArray[np.float32], threads: int = 1) -> None:
        """Prepare the centroids.

        Args:
            centroids: (k, d), on the grid (`on_grid`).
            threads: Number of threads that assign the blocks of a call.
        """
        self.centroids, self._threads = centroids, threads
        self.largest_square = float(np.einsum("kd,kd->k", centroids, centroids, dtype=np.float64).max())

    def __call__(self, points: NDArray[Any]) -> NDArray[np.int32]:
        """Return the nearest centroid of each point, (N,), for points (N, d) float16."""
        if len(points) <= BLOCK:
            return self._assign(points)
        blocks = (points[i : i + BLOCK] for i in range(0, len(points), BLOCK))
        return np.concatenate(in_threads(self._assign, blocks, self._threads))

    def _assign(self, points: NDArray[Any]) -> NDArray[np.int32]:
        wide = as_float32(points)
        return self.nearest(wide, float(np.einsum("nd,nd->n", wide, wide).max(initial=0.0))).cluster

    def nearest(self, points: NDArray[np.float32], largest_square: float) -> Nearest:
        """Return the nearest centroid of each point of a block; pairs that float32 cannot order are compared exactly.

        Args:
            points: (N, d), float16 values.
            largest_square: At least the largest squared length of a point.
        """
        if len(self.centroids) == 1:
            only = squared_distance(points, self.centroids, np.zeros(len(points), np.int32)).astype(np.float32)
            return Nearest(np.zeros(len(points), np.int32), only, np.full(len(points), np.inf, np.float32))
        squared, index = faiss.knn(points, self.centroids, 2)
        cluster = index[:, 0].astype(np.int32)
        bound = error_bound(largest_square + self.largest_square, points.shape[1])
        doubtful = np.flatnonzero(~(squared[:, 1] - squared[:, 0] > bound))
        step = max(1, _EXACT_SCORES // len(self.centroids))
        for start in range(0, len(doubtful), step):
            chosen = doubtful[start : start + step]
            cluster[chosen] = exact_scores(points[chosen], self.centroids).argmax(axis=1)
        return Nearest(cluster, squared[:, 0], squared[:, 1])


def nearest(points: NDArray[Any], centroids: NDArray[np.float32]) -> NDArray[np.int32]:
    """Return the nearest centroid of each point.

    Args:
        points: (N, d) float16.
        centroids: (k, d), on the grid (`on_grid`).

    Returns:
        (N,).
    """
    return Assigner(centroids)(points)


def exact_scores(points: NDArray[Any], centroids: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return x.c - |c|^2 / 2, which is largest for the nearest centroid: (N, k), exact."""
    wide = centroids.astype(np.float64)
    scores: NDArray[np.float64] = points.astype(np.float64) @ wide.T - 0.5 * np.einsum("kd,kd->k", wide, wide)
    return scores


def squared_distance(
    points: NDArray[Any], centroids: NDArray[np.float32], cluster: NDArray[Any]
) -> NDArray[np.float64]:
    """Return the squared distance of each point to the centroid of its cluster: (N,), exact up to one rounding."""
    wide = centroids.astype(np.float64)
    squared = np.empty(len(points))
    for start in range(0, len(points), BLOCK):
        block = slice(start, start + BLOCK)
        difference = as_float32(points[block]).astype(np.float64) - wide[cluster[block]]
        squared[block] = np.einsum("nd,nd->n", difference, difference)
    return squared
