"""K-means with its points and centroids on a device (a GPU), with the same bits as on a CPU.

Assignments are exact as in `assignment`: Faiss, if its build is one for GPUs, or a matrix product in true float32 proposes, and
float64 decides what is doubtful. Sums are
exact as in `kmeans`, here in whole multiples of 2^-24 as int64, which atomic additions in any order cannot change.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ray_kplm.correspondence.assignment import GRID, error_bound
from ray_kplm.correspondence.faiss_import import faiss
from ray_kplm.correspondence.in_memory import Rows
from ray_kplm.correspondence.kmeans import Partial, PointTotals

_BLOCK = 1 << 16
"""Points that are assigned at a time: scores of 100 centroids and int64 of 256 numbers take 150 MiB."""
_EXACT_SCORES = 1 << 24
"""Float64 scores computed at a time."""


class DeviceAssigner:
    """`assignment.Assigner` on a device."""

    def __init__(self, centroids: NDArray[np.float32], device: torch.device) -> None:
        """Move the centroids (k, d), on the grid, to the device."""
        self.centroids, self.device = centroids, device
        self._wide = torch.from_numpy(np.array(centroids)).to(device).double()
        squares = (self._wide * self._wide).sum(dim=1)
        self._narrow, self._half_squares = self._wide.float(), squares / 2
        self._largest = float(squares.max())

    def __call__(self, points: NDArray[Any]) -> NDArray[np.int32]:
        """Return the nearest centroid of each point, (N,), for points (N, d) float16."""
        blocks = [self.nearest(block).int().cpu().numpy() for block in on_device(points, self.device)]
        return np.concatenate(blocks) if blocks else np.zeros(0, np.int32)

    def nearest(self, points: torch.Tensor) -> torch.Tensor:
        """Return the nearest centroid of each point of a block: int64 (N,), for points float16 (N, d) on the device."""
        wide = points.float()
        cluster, gap = self._two_nearest(wide)
        size = wide.square().sum(dim=1).max() + self._largest
        doubtful = (~(gap > error_bound(1.0, points.shape[1]) * size)).nonzero()[:, 0]
        step = max(1, _EXACT_SCORES // len(self._wide))
        for chosen in (doubtful[start : start + step] for start in range(0, len(doubtful), step)):
            exact = points[chosen].double() @ self._wide.T - self._half_squares
            equal = exact == exact.amax(dim=1, keepdim=True)
            index = torch.arange(len(self._wide), device=self.device)
            cluster[chosen] = torch.where(equal, index, len(index)).amin(dim=1)
        return cluster

    def _two_nearest(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the nearest centroid that float32 finds, int64 (N,), and how much farther the second is, squared, (N,)."""
        if self.device.type == "cuda" and len(self.centroids) > 1 and hasattr(faiss, "StandardGpuResources"):
            squared, index = _faiss_knn(points, self._narrow)
            return index[:, 0].clone(), squared[:, 1] - squared[:, 0]
        with _true_float32():
            scores = (points @ self._narrow.T).sub_(self._half_squares.float())
        best, cluster = scores.max(dim=1)
        second = scores.scatter_(1, cluster[:, None], -torch.inf).amax(dim=1)
        return cluster, 2 * (best - second)


_THREAD = threading.local()
"""Faiss' scratch memory on the GPU, one for each thread: it is for one caller at a time (Faiss issue 2175)."""


def _faiss_knn(points: torch.Tensor, centroids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the squared distances and indices (N, 2) of the two nearest centroids, by Faiss on the tensors' GPU."""
    importlib.import_module("faiss.contrib.torch_utils")  # teaches Faiss tensors

    if not hasattr(_THREAD, "resources"):
        _THREAD.resources = faiss.StandardGpuResources()
    # cuVS computes distances in another way than the one whose error is bounded here.
    found: tuple[torch.Tensor, torch.Tensor] = faiss.knn_gpu(
        _THREAD.resources, points, centroids, 2, device=points.get_device(), use_cuvs=False
    )
    return found


@contextmanager
def _true_float32() -> Iterator[None]:
    """Compute matrix products in float32, not in TF32 or bfloat16, whatever training has set."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def on_device(points: NDArray[Any], device: torch.device) -> Iterator[torch.Tensor]:
    """Yield blocks of points (N, d) float16 on the device."""
    for start in range(0, len(points), _BLOCK):
        yield torch.from_numpy(np.require(points[start : start + _BLOCK], requirements=["C", "W"])).to(device)


def device_partial(blocks: Iterable[torch.Tensor], assign: DeviceAssigner) -> Partial:
    """Assign blocks of points float16 (N, d) on the device and sum them by cluster: `kmeans.partial`."""
    total = _Total(assign)
    for block in blocks:
        total.add(block, assign.nearest(block))
    return total.partial()


class _Total:
    """Sums (k, d), in units of 2^-24, and counts (k,) on the device, int64."""

    def __init__(self, assign: DeviceAssigner) -> None:
        self._sums = torch.zeros(assign.centroids.shape, dtype=torch.int64, device=assign.device)
        self._counts = torch.zeros(len(assign.centroids), dtype=torch.int64, device=assign.device)

    def add(self, points: torch.Tensor, cluster: torch.Tensor, sign: int = 1) -> None:
        """Add points float16 (N, d) to their clusters int64 (N,), or take them away with sign -1."""
        self._sums.index_add_(0, cluster, (points.double() * GRID).long(), alpha=sign)
        self._counts.index_add_(0, cluster, torch.ones_like(cluster), alpha=sign)

    def partial(self) -> Partial:
        """Return the sums and counts, which float64 holds exactly up to 2^29 points."""
        return Partial(self._sums.cpu().numpy() / GRID, self._counts.cpu().numpy())


class DevicePoints:
    """`kmeans.Points` on a device within a budget; the points beyond it are sent in every pass.

    Only points that change their cluster change the sums. Calls must come from one thread at a time.
    """

    def __init__(self, sources: Sequence[Rows], device: torch.device, memory_bytes: int) -> None:
        """Send as many points to the device as the budget holds."""
        self._sources, self._device = sources, device
        self._blocks: list[torch.Tensor] = []
        self._streamed: list[Rows] = []
        for source in sources:
            size = len(source.rows) * (2 * source.descriptors.shape[1] + 8)
            if size <= memory_bytes:
                memory_bytes -= size
                self._blocks += on_device(source.take(), device)
            else:
                self._streamed.append(source)
        self._clusters: list[torch.Tensor] = []
        self._total: _Total | None = None
        self._shape: tuple[int, ...] = ()

    def totals(self) -> PointTotals:
        """Return the totals of all points."""
        return sum((source.totals() for source in self._sources), start=PointTotals(0, 0))

    def partial(self, centroids: NDArray[np.float32]) -> Partial:
        """Return the contribution of all points to an iteration with these centroids."""
        assign = DeviceAssigner(centroids, self._device)
        if self._total is None or self._shape != centroids.shape:
            self._total, self._shape = _Total(assign), centroids.shape
            self._clusters = []
        for number, block in enumerate(self._blocks):
            cluster = assign.nearest(block)
            if number == len(self._clusters):
                self._total.add(block, cluster)
                self._clusters.append(cluster)
                continue
            before, self._clusters[number] = self._clusters[number], cluster
            changed = (cluster != before).nonzero()[:, 0]
            self._total.add(block[changed], cluster[changed])
            self._total.add(block[changed], before[changed], -1)
        streamed = (block for source in self._streamed for block in on_device(source.take(), self._device))
        return self._total.partial() + device_partial(streamed, assign)
