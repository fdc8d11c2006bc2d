"""The nearest centroid of every descriptor, exactly, on any device and however the descriptors are cut into blocks.

Faiss (or torch) proposes the two nearest centroids in float32. Where their distances differ by more than float32 can be wrong
the proposal stands; the few other descriptors are decided in float64, whose arithmetic is exact here: descriptors are float16
in [-1, 1], hence multiples of 2^-24, and centroids are kept on the same grid (`on_grid`), so that every product is a multiple
of 2^-48 and a float64 holds the sum of a vector's products whatever the order of adding (for vectors of norm up to 4).
So an assignment is a property of the points alone: equal for 1 or N shards, threads, block sizes, CPUs and GPUs. Of equally
near centroids the lower index wins.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

BLOCK = 4096
"""Descriptors at a time: what a core's cache holds. Conversions and sums outside of it took three times as long."""
_GRID = 2.0**24
_ROUNDING = 2.0**-24
_EXACT_SCORES = 1 << 22
"""Float64 scores at a time."""

Search = Callable[[NDArray[np.float32], NDArray[np.float32]], tuple[NDArray[np.float32], NDArray[np.int64]]]
"""Points (N, d), centroids (k, d) -> squared distances (N, 2) and indices (N, 2) of the two nearest centroids, in float32."""


def on_grid(centroids: NDArray) -> NDArray[np.float32]:
    """Centroids rounded to multiples of 2^-24, where products with float16 descriptors are exact in float64."""
    return (np.rint(np.asarray(centroids, np.float64) * _GRID) / _GRID).astype(np.float32)


def as_float32(points: NDArray) -> NDArray[np.float32]:
    """(N, d) as contiguous float32. Torch converts float16 ten times as fast as numpy."""
    if points.dtype == np.float16:
        own = np.require(points, requirements=["C", "W"])  # torch warns of memory that it must not write to
        return torch.from_numpy(own).float().numpy()
    return np.ascontiguousarray(points, np.float32)


def nearest(points: NDArray, centroids: NDArray[np.float32], search: Search | None = None) -> NDArray[np.int32]:
    """The nearest centroid of every point: int32 (N,). points: (N, d) float16; centroids: (k, d) float32, on the grid."""
    if len(points) <= BLOCK:
        return _nearest(as_float32(points), centroids, search or faiss_search)
    blocks = (points[start : start + BLOCK] for start in range(0, len(points), BLOCK))
    return np.concatenate([_nearest(as_float32(block), centroids, search or faiss_search) for block in blocks])


def _nearest(points: NDArray[np.float32], centroids: NDArray[np.float32], search: Search) -> NDArray[np.int32]:
    """Of one block."""
    if not len(points) or len(centroids) == 1:
        return np.zeros(len(points), np.int32)
    squared, index = search(points, centroids)
    cluster = index[:, 0].astype(np.int32)
    gap = squared[:, 1] - squared[:, 0]
    doubtful = np.flatnonzero(~(gap > _error(points, centroids)))
    rows = max(1, _EXACT_SCORES // len(centroids))
    for start in range(0, len(doubtful), rows):
        chosen = doubtful[start : start + rows]
        cluster[chosen] = exact_scores(points[chosen], centroids).argmax(axis=1)
    return cluster


def _error(points: NDArray[np.float32], centroids: NDArray[np.float32]) -> float:
    """How far the difference of two squared distances can be off in float32.

    Each is |x|^2 + |c|^2 - 2 x.c from d products and d + 2 additions: wrong by at most (d + 3) u (|x| + |c|)^2, and
    (a + b)^2 <= 2 (a^2 + b^2) (Higham 2002, section 3.1).
    """
    size = np.einsum("nd,nd->n", points, points).max() + np.einsum("kd,kd->k", centroids, centroids).max()
    return 4 * (points.shape[1] + 3) * _ROUNDING * float(size)


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


def faiss_search(points: NDArray[np.float32], centroids: NDArray[np.float32]) -> tuple[NDArray, NDArray]:
    """Faiss on the CPU. With two neighbours it runs at 70 % of a plain matrix product (d 256, k 100), with one at 77 %."""
    squared, index = faiss.knn(points, centroids, 2)
    return squared, index


def gpu_search() -> Search:
    """Faiss on this process's GPU; without GPU Faiss a warning, and torch on that GPU."""
    if hasattr(faiss, "StandardGpuResources"):
        resources = faiss.StandardGpuResources()
        return lambda points, centroids: faiss.knn_gpu(resources, points, centroids, 2)
    warnings.warn(
        'this node has a GPU, but its faiss is the CPU build: install ".[gpu]" (CUDA 12.6 and later) or ".[gpu-cu12]" in '
        'place of ".[cpu]"; assigning with torch on the GPU',
        stacklevel=2,
    )
    return torch_search(torch.device("cuda"))


def torch_search(device: torch.device) -> Search:
    """A matrix product on a device, in true float32 (no TF32)."""

    def search(points: NDArray[np.float32], centroids: NDArray[np.float32]) -> tuple[NDArray, NDArray]:
        x, c = torch.from_numpy(points).to(device), torch.from_numpy(centroids).to(device)
        squared = (x * x).sum(1, keepdim=True) + (c * c).sum(1) - 2 * (x @ c.T)
        distance, index = squared.topk(2, dim=1, largest=False)
        return distance.cpu().numpy(), index.cpu().numpy()

    return search
