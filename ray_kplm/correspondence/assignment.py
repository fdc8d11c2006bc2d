"""Exact assignment of descriptors to their nearest centroid, the same on any device and for any split into blocks.

Faiss (or torch) proposes the two nearest centroids in float32. Where their distances differ by more than the float32 error
bound, the proposal stands. The few other descriptors are decided in float64, whose arithmetic is exact here: descriptors are
float16 in [-1, 1], hence multiples of 2^-24, and centroids are rounded to the same grid (`on_grid`). Every product is a
multiple of 2^-48, and a float64 holds the sum of a vector's products in any order of adding (for vectors of norm up to 4).

So an assignment depends on the points and centroids alone: it is equal for any number of shards and threads, any block size,
and on CPUs and GPUs. Of equally near centroids the one with the lower index is chosen.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ray_kplm.correspondence.faiss_import import faiss

BLOCK = 4096
"""Descriptors of a block on a CPU: as many as a core's cache holds. Larger blocks make conversions and sums 3 times slower."""
_DEVICE_BLOCK = 16_384
"""Descriptors of a block on a GPU: 16 MiB at d = 256, whose transfer takes much longer than a kernel launch."""
_GRID = 2.0**24
_ROUNDING = 2.0**-24
_EXACT_SCORES = 1 << 22
"""Float64 scores computed at a time."""

FindTwoNearest = Callable[[NDArray[np.float32]], tuple[NDArray[np.float32], NDArray[np.int64]]]
"""Points (N, d) -> squared distances (N, 2) and indices (N, 2) of the two nearest centroids, in float32."""


class Search:
    """A float32 search for the two nearest centroids: centroids are prepared once, then points are searched block by block."""

    def __init__(
        self, prepare: Callable[[NDArray[np.float32]], FindTwoNearest], *, block: int = BLOCK, parallel: bool = True
    ) -> None:
        """Wrap a search.

        Args:
            prepare: Loads centroids (k, d) onto the device and returns the function that searches them.
            block: Points to search at a time.
            parallel: Whether threads may search at the same time. If not, one thread searches at any time, even if
                the threads have prepared different centroids.
        """
        self.block = block
        self._prepare = prepare
        self._lock: AbstractContextManager[Any] = nullcontext() if parallel else threading.Lock()

    def prepare(self, centroids: NDArray[np.float32]) -> FindTwoNearest:
        """Return the function that finds the two nearest of centroids (k, d), k >= 2; any number of threads may call it."""
        with self._lock:
            find = self._prepare(centroids)

        def find_locked(points: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
            with self._lock:
                return find(points)

        return find_locked


def on_grid(centroids: NDArray[Any]) -> NDArray[np.float32]:
    """Round centroids to multiples of 2^-24, where products with float16 descriptors are exact in float64."""
    return (np.rint(np.asarray(centroids, np.float64) * _GRID) / _GRID).astype(np.float32)


def as_float32(points: NDArray[Any]) -> NDArray[np.float32]:
    """Return points (N, d) as contiguous float32. Torch converts float16 ten times as fast as numpy."""
    if points.dtype == np.float16:
        writable = np.require(points, requirements=["C", "W"])  # torch warns about read-only memory
        return torch.from_numpy(writable).float().numpy()
    return np.ascontiguousarray(points, np.float32)


class Assigner:
    """Assigns points to their nearest centroid; the centroids stay on the device of the search. Threads may share it."""

    def __init__(self, centroids: NDArray[np.float32], search: Search | None = None) -> None:
        """Prepare the centroids.

        Args:
            centroids: (k, d), on the grid (`on_grid`).
            search: The search that proposes the two nearest; default: Faiss on the CPU.
        """
        search = search or faiss_search()
        self.centroids, self._block = centroids, search.block
        self._find = search.prepare(centroids) if len(centroids) > 1 else None
        self._largest = float(np.einsum("kd,kd->k", centroids, centroids).max())

    def __call__(self, points: NDArray[Any]) -> NDArray[np.int32]:
        """Return the nearest centroid of each point, (N,), for points (N, d) float16."""
        if len(points) <= self._block:
            return self._assign_block(as_float32(points))
        starts = range(0, len(points), self._block)
        return np.concatenate([self._assign_block(as_float32(points[i : i + self._block])) for i in starts])

    def _assign_block(self, points: NDArray[np.float32]) -> NDArray[np.int32]:
        """Return the nearest centroid of each point; pairs that float32 cannot order are compared exactly."""
        if not len(points) or self._find is None:
            return np.zeros(len(points), np.int32)
        squared, index = self._find(points)
        cluster = index[:, 0].astype(np.int32)
        gap = squared[:, 1] - squared[:, 0]
        doubtful = np.flatnonzero(~(gap > self._error_bound(points)))
        rows = max(1, _EXACT_SCORES // len(self.centroids))
        for start in range(0, len(doubtful), rows):
            chosen = doubtful[start : start + rows]
            cluster[chosen] = exact_scores(points[chosen], self.centroids).argmax(axis=1)
        return cluster

    def _error_bound(self, points: NDArray[np.float32]) -> float:
        """Return the largest error of the difference of two squared distances in float32.

        Each distance is |x|^2 + |c|^2 - 2 x.c from d products and d + 2 additions. Its error is at most
        (d + 3) u (|x| + |c|)^2, and (a + b)^2 <= 2 (a^2 + b^2) (Higham 2002, section 3.1).
        """
        size = float(np.einsum("nd,nd->n", points, points).max()) + self._largest
        return float(4 * (points.shape[1] + 3) * _ROUNDING * size)


def nearest(points: NDArray[Any], centroids: NDArray[np.float32], search: Search | None = None) -> NDArray[np.int32]:
    """Return the nearest centroid of each point.

    Args:
        points: (N, d) float16.
        centroids: (k, d), on the grid (`on_grid`).
        search: The search that proposes the two nearest; default: Faiss on the CPU.

    Returns:
        (N,).
    """
    return Assigner(centroids, search)(points)


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


def faiss_search() -> Search:
    """Return the search with Faiss on the CPU.

    With two neighbours it runs at 70 % of the speed of a plain matrix product (d 256, k 100), with one neighbour at 77 %.
    """
    return Search(lambda centroids: lambda points: faiss.knn(points, centroids, 2))


def gpu_search() -> Search:
    """Return the search with Faiss on this process's GPU, or with torch, and a warning, if Faiss is the CPU build."""
    if hasattr(faiss, "StandardGpuResources"):
        return _faiss_gpu_search()
    warnings.warn(
        'this node has a GPU, but its faiss is the CPU build: assigning with torch on the GPU; for Faiss install ".[gpu]" '
        '(CUDA 12.6 and later) or ".[gpu-cu12]" in place of ".[cpu]"',
        stacklevel=2,
    )
    return torch_search(torch.device("cuda"))


def _faiss_gpu_search() -> Search:
    """Return a search that is not parallel: GPU resources hold scratch memory for one caller at a time (Faiss issue 2175)."""
    resources, config = faiss.StandardGpuResources(), faiss.GpuIndexFlatConfig()
    config.use_cuvs = False  # cuVS computes distances in another way than the one whose error is bounded here

    def prepare(centroids: NDArray[np.float32]) -> FindTwoNearest:
        index = faiss.GpuIndexFlatL2(resources, centroids.shape[1], config)
        index.add(centroids)
        return lambda points: index.search(points, 2)

    return Search(prepare, block=_DEVICE_BLOCK, parallel=False)


def torch_search(device: torch.device) -> Search:
    """Return the search with a matrix product on a device, in true float32 (no TF32)."""

    def prepare(centroids: NDArray[np.float32]) -> FindTwoNearest:
        c = torch.tensor(centroids, device=device)
        squares = (c * c).sum(1)

        def find(points: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
            x = torch.from_numpy(points).to(device)
            squared = (x * x).sum(1, keepdim=True) + squares - 2 * (x @ c.T)
            distance, index = squared.topk(2, dim=1, largest=False)
            return distance.cpu().numpy(), index.cpu().numpy()

        return find

    on_cpu = device.type == "cpu"
    return Search(prepare, block=BLOCK if on_cpu else _DEVICE_BLOCK, parallel=on_cpu)
