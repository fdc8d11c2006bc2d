"""The nearest centroid of every descriptor, exactly, on any device and however the descriptors are cut into blocks.

Faiss (or torch) proposes the two nearest centroids in float32. Where their distances differ by more than float32 can be wrong
the proposal stands; the few other descriptors are decided in float64, whose arithmetic is exact here: descriptors are float16
in [-1, 1], hence multiples of 2^-24, and centroids are kept on the same grid (`on_grid`), so that every product is a multiple
of 2^-48 and a float64 holds the sum of a vector's products whatever the order of adding (for vectors of norm up to 4).
So an assignment is a property of the points alone: equal for 1 or N shards, threads, block sizes, CPUs and GPUs. Of equally
near centroids the lower index wins.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

BLOCK = 4096
"""Descriptors at a time: what a core's cache holds. Conversions and sums outside of it took three times as long."""
_DEVICE_BLOCK = 16_384
"""Points that a GPU gets at a time: 16 MiB at d = 256, beside whose transfer the start of a kernel is nothing."""
_GRID = 2.0**24
_ROUNDING = 2.0**-24
_EXACT_SCORES = 1 << 22
"""Float64 scores at a time."""

Find = Callable[[NDArray[np.float32]], tuple[NDArray[np.float32], NDArray[np.int64]]]
"""Points (N, d) -> squared distances (N, 2) and indices (N, 2) of the two nearest centroids, in float32."""


class Search:
    """A way to propose the two nearest centroids of points, in two acts: centroids are prepared once, then points are sent."""

    def __init__(
        self, prepare: Callable[[NDArray[np.float32]], Find], *, block: int = BLOCK, parallel: bool = True
    ) -> None:
        """prepare: takes centroids (k, d) to where the search runs. block: points at a time. parallel: whether threads may
        search at once; otherwise one does at any time, whichever centroids each has prepared."""
        self.block = block
        self._prepare = prepare
        self._turn: AbstractContextManager = nullcontext() if parallel else threading.Lock()

    def prepare(self, centroids: NDArray[np.float32]) -> Find:
        """Centroids (k, d), k >= 2 -> what finds the two nearest of them. Any number of threads may call it."""
        with self._turn:
            find = self._prepare(centroids)

        def in_turn(points: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
            with self._turn:
                return find(points)

        return in_turn


def on_grid(centroids: NDArray) -> NDArray[np.float32]:
    """Centroids rounded to multiples of 2^-24, where products with float16 descriptors are exact in float64."""
    return (np.rint(np.asarray(centroids, np.float64) * _GRID) / _GRID).astype(np.float32)


def as_float32(points: NDArray) -> NDArray[np.float32]:
    """(N, d) as contiguous float32. Torch converts float16 ten times as fast as numpy."""
    if points.dtype == np.float16:
        own = np.require(points, requirements=["C", "W"])  # torch warns of memory that it must not write to
        return torch.from_numpy(own).float().numpy()
    return np.ascontiguousarray(points, np.float32)


class Assigner:
    """Assigns points to the nearest of its centroids, which stay where the search runs. Threads may share it."""

    def __init__(self, centroids: NDArray[np.float32], search: Search | None = None) -> None:
        """centroids: (k, d) float32, on the grid. search: faiss on the CPU where none is given."""
        search = search or faiss_search()
        self.centroids, self._block = centroids, search.block
        self._find = search.prepare(centroids) if len(centroids) > 1 else None
        self._largest = float(np.einsum("kd,kd->k", centroids, centroids).max())

    def __call__(self, points: NDArray) -> NDArray[np.int32]:
        """Return the nearest centroid of every point: int32 (N,). points: (N, d) float16."""
        if len(points) <= self._block:
            return self._of_block(as_float32(points))
        starts = range(0, len(points), self._block)
        return np.concatenate([self._of_block(as_float32(points[start : start + self._block])) for start in starts])

    def _of_block(self, points: NDArray[np.float32]) -> NDArray[np.int32]:
        if not len(points) or self._find is None:
            return np.zeros(len(points), np.int32)
        squared, index = self._find(points)
        cluster = index[:, 0].astype(np.int32)
        gap = squared[:, 1] - squared[:, 0]
        doubtful = np.flatnonzero(~(gap > self._error(points)))
        rows = max(1, _EXACT_SCORES // len(self.centroids))
        for start in range(0, len(doubtful), rows):
            chosen = doubtful[start : start + rows]
            cluster[chosen] = exact_scores(points[chosen], self.centroids).argmax(axis=1)
        return cluster

    def _error(self, points: NDArray[np.float32]) -> float:
        """How far the difference of two squared distances can be off in float32.

        Each is |x|^2 + |c|^2 - 2 x.c from d products and d + 2 additions: wrong by at most (d + 3) u (|x| + |c|)^2, and
        (a + b)^2 <= 2 (a^2 + b^2) (Higham 2002, section 3.1).
        """
        size = float(np.einsum("nd,nd->n", points, points).max()) + self._largest
        return 4 * (points.shape[1] + 3) * _ROUNDING * size


def nearest(points: NDArray, centroids: NDArray[np.float32], search: Search | None = None) -> NDArray[np.int32]:
    """Return the nearest centroid of every point: int32 (N,). points: (N, d) float16; centroids: (k, d), on the grid."""
    return Assigner(centroids, search)(points)


def exact_scores(points: NDArray, centroids: NDArray[np.float32]) -> NDArray[np.float64]:
    """x.c - |c|^2 / 2, which is largest for the nearest centroid: (N, k), exact."""
    wide = centroids.astype(np.float64)
    return points.astype(np.float64) @ wide.T - 0.5 * np.einsum("kd,kd->k", wide, wide)


def squared_distance(points: NDArray, centroids: NDArray[np.float32], cluster: NDArray) -> NDArray[np.float64]:
    """Of every point to the centroid of its cluster: (N,), exact but for one rounding."""
    wide = centroids.astype(np.float64)
    found = np.empty(len(points))
    for start in range(0, len(points), BLOCK):
        piece = slice(start, start + BLOCK)
        apart = as_float32(points[piece]).astype(np.float64) - wide[cluster[piece]]
        found[piece] = np.einsum("nd,nd->n", apart, apart)
    return found


def faiss_search() -> Search:
    """Faiss on the CPU. With two neighbours it runs at 70 % of a plain matrix product (d 256, k 100), with one at 77 %."""
    return Search(lambda centroids: lambda points: faiss.knn(points, centroids, 2))


def gpu_search() -> Search:
    """Faiss on this process's GPU; without GPU Faiss a warning, and torch on that GPU."""
    if hasattr(faiss, "StandardGpuResources"):
        return _faiss_gpu_search()
    warnings.warn(
        'this node has a GPU, but its faiss is the CPU build: install ".[gpu]" (CUDA 12.6 and later) or ".[gpu-cu12]" in '
        'place of ".[cpu]"; assigning with torch on the GPU',
        stacklevel=2,
    )
    return torch_search(torch.device("cuda"))


def _faiss_gpu_search() -> Search:
    """One search at a time: GPU resources hold scratch memory for one user; sharing them is a race (faiss issue 2175)."""
    resources, config = faiss.StandardGpuResources(), faiss.GpuIndexFlatConfig()
    config.use_cuvs = False  # its distances come from another arithmetic than the one whose error is bounded here

    def prepare(centroids: NDArray[np.float32]) -> Find:
        index = faiss.GpuIndexFlatL2(resources, centroids.shape[1], config)
        index.add(centroids)
        return lambda points: index.search(points, 2)

    return Search(prepare, block=_DEVICE_BLOCK, parallel=False)


def torch_search(device: torch.device) -> Search:
    """A matrix product on a device, in true float32 (no TF32)."""

    def prepare(centroids: NDArray[np.float32]) -> Find:
        c = torch.tensor(centroids, device=device)
        squares = (c * c).sum(1)

        def find(points: NDArray[np.float32]) -> tuple[NDArray, NDArray]:
            x = torch.from_numpy(points).to(device)
            squared = (x * x).sum(1, keepdim=True) + squares - 2 * (x @ c.T)
            distance, index = squared.topk(2, dim=1, largest=False)
            return distance.cpu().numpy(), index.cpu().numpy()

        return find

    on_cpu = device.type == "cpu"
    return Search(prepare, block=BLOCK if on_cpu else _DEVICE_BLOCK, parallel=on_cpu)
