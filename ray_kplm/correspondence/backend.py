"""Where a shard computes K-means: on threads of the CPU or on a device. Both give the same bits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ray_kplm.config import ClusteringConfig
from ray_kplm.correspondence import kmeans
from ray_kplm.correspondence.assignment import BLOCK, Assigner
from ray_kplm.correspondence.device_kmeans import DeviceAssigner, DevicePoints, device_partial, on_device
from ray_kplm.correspondence.in_memory import InMemoryPoints, Rows
from ray_kplm.correspondence.parallel import in_threads
from ray_kplm.correspondence.starts import Draws, plus_plus

_TRIAL_ITERATIONS = 10
"""Iterations of K-means from one of several starts, on a sample: enough to tell a good start from a bad one."""


class Assign(Protocol):
    """Prepared centroids."""

    centroids: NDArray[np.float32]

    def __call__(self, points: NDArray[Any]) -> NDArray[np.int32]:
        """Return the nearest centroid of each point, (N,), for points (N, d) float16."""
        ...


class Backend(Protocol):
    """What a shard needs of K-means."""

    def assigner(self, centroids: NDArray[np.float32]) -> Assign:
        """Prepare centroids (k, d), on the grid."""
        ...

    def hold(self, sources: Sequence[Rows]) -> kmeans.Points:
        """Return the points of a fit, which stay in memory."""
        ...

    def partial(self, sources: Iterable[Rows], centroids: NDArray[np.float32]) -> kmeans.Partial:
        """Return the contribution of points that are not kept."""
        ...

    def try_starts(self, sample: Rows, draws: Sequence[Draws], options: ClusteringConfig) -> list[kmeans.Clustering]:
        """Return a short fit to the sample from each start."""
        ...


class CpuBackend:
    """K-means on threads of the CPU."""

    def __init__(self, threads: int = 1) -> None:
        """Use a number of threads."""
        self._threads = threads

    def assigner(self, centroids: NDArray[np.float32]) -> Assigner:
        """Prepare centroids (k, d), on the grid."""
        return Assigner(centroids, self._threads)

    def hold(self, sources: Sequence[Rows]) -> InMemoryPoints:
        """Return the points of a fit, which stay in memory."""
        return InMemoryPoints(sources, self._threads)

    def partial(self, sources: Iterable[Rows], centroids: NDArray[np.float32]) -> kmeans.Partial:
        """Return the contribution of points that are not kept; each thread takes the next block."""
        total, assign = kmeans.Partial.zero(centroids), Assigner(centroids)
        for rows in sources:
            blocks = [rows.take(slice(i, i + BLOCK)) for i in range(0, len(rows.rows), BLOCK)]
            for block in in_threads(lambda points: kmeans.partial(points, centroids, assign), blocks, self._threads):
                total += block
        return total

    def try_starts(self, sample: Rows, draws: Sequence[Draws], options: ClusteringConfig) -> list[kmeans.Clustering]:
        """Return a short fit to the sample from each start; each thread takes the next start."""
        starts = plus_plus(sample.take(), draws, threads=self._threads)
        return in_threads(lambda start: _trial(InMemoryPoints([sample]), start, options), starts, self._threads)


class DeviceBackend:
    """K-means on a device."""

    def __init__(self, device: torch.device, memory_bytes: int) -> None:
        """Use a device and, for points, this much of its memory."""
        self._device, self._memory_bytes = device, memory_bytes

    def assigner(self, centroids: NDArray[np.float32]) -> DeviceAssigner:
        """Prepare centroids (k, d), on the grid."""
        return DeviceAssigner(centroids, self._device)

    def hold(self, sources: Sequence[Rows]) -> DevicePoints:
        """Return the points of a fit, on the device as far as its budget goes."""
        return DevicePoints(sources, self._device, self._memory_bytes)

    def partial(self, sources: Iterable[Rows], centroids: NDArray[np.float32]) -> kmeans.Partial:
        """Return the contribution of points that are not kept."""
        blocks = (block for rows in sources for block in on_device(rows.take(), self._device))
        return device_partial(blocks, DeviceAssigner(centroids, self._device))

    def try_starts(self, sample: Rows, draws: Sequence[Draws], options: ClusteringConfig) -> list[kmeans.Clustering]:
        """Return a short fit to the sample from each start, one after the other."""
        starts = plus_plus(sample.take(), draws, self._device)
        points = self.hold([sample])
        return [_trial(points, start, options) for start in starts]


def _trial(points: kmeans.Points, start: NDArray[np.float32], options: ClusteringConfig) -> kmeans.Clustering:
    return kmeans.fit(
        points,
        [start],
        iterations=min(_TRIAL_ITERATIONS, options.iterations),
        tolerance=options.tolerance,
        spherical=options.spherical,
    )
