"""Greedy k-means++ (Arthur & Vassilvitskii 2007): initial centroids of many starts at once, on a CPU or a GPU.

Each centre is the best of a few candidates, which are drawn in proportion to their squared distance to the centres before.
Outliers are far from all centres and are drawn often, but they are never the best candidate. Distances are exact in float64
(`assignment`), and they are summed in whole multiples of 2^-32: the same sample and numbers give the same starts on any
machine, for any number of threads, one by one or together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ray_kplm.correspondence.assignment import on_grid
from ray_kplm.correspondence.parallel import in_threads

_UNITS = 2.0**32
"""Squared distances are summed in units of 1 / _UNITS."""
_CPU_ROWS, _DEVICE_ROWS = 1024, 1 << 16
"""Points whose distances to all candidates are computed at a time: on a CPU as many as its cache holds."""


@dataclass(frozen=True)
class Draws:
    """The random numbers of a start.

    Attributes:
        first: Index of the first centre.
        shares: float64 (k - 1, candidates), in [0, 1): where each candidate of a further centre lies.
    """

    first: int
    shares: NDArray[np.float64]


def draw(points: int, k: int, rng: np.random.Generator) -> Draws:
    """Draw the numbers of a start with k centroids among `points` points."""
    return Draws(int(rng.integers(points)), rng.random((k - 1, 2 + int(np.log(k)))))


def plus_plus(
    sample: NDArray[Any], draws: Sequence[Draws], device: torch.device | None = None, threads: int = 1
) -> NDArray[np.float32]:
    """Return the initial centroids (k, d) of all starts: (starts, k, d).

    Args:
        sample: (N, d) float16, N >= k.
        draws: The random numbers of each start, for the same k.
        device: Where to compute; default: the CPU.
        threads: Number of threads on a CPU.
    """
    distances = _Distances(torch.from_numpy(np.array(sample)).to(device or "cpu").double(), len(draws), threads)
    chosen = [torch.tensor([one.first for one in draws], device=distances.points.device)]
    distances.add(chosen[0])
    shares = torch.from_numpy(np.stack([one.shares for one in draws])).to(distances.points.device)
    for centre in range(shares.shape[1]):
        candidates = distances.at(shares[:, centre])
        best = distances.gains(candidates).argmax(dim=1, keepdim=True)
        chosen.append(candidates.gather(1, best)[:, 0])
        distances.add(chosen[-1])
    centres = distances.points[torch.stack(chosen, dim=1)]
    return on_grid(centres.cpu().numpy())


class _Distances:
    """The squared distance of each point to the nearest centre of each start."""

    def __init__(self, points: torch.Tensor, starts: int, threads: int) -> None:
        """Begin without centres; points: float64 (N, d)."""
        self.points, self._threads = points, threads
        self._squares = (points * points).sum(dim=1)
        self._closest = torch.full((starts, len(points)), torch.inf, dtype=torch.float64, device=points.device)
        rows = _CPU_ROWS if points.device.type == "cpu" else _DEVICE_ROWS
        self._blocks = [slice(i, i + rows) for i in range(0, len(points), rows)]

    def at(self, shares: torch.Tensor) -> torch.Tensor:
        """Return the points at shares (starts, candidates) of the sum of all squared distances: (starts, candidates).

        Where every point coincides with a centre, any candidate will do: K-means splits clusters for the empty ones.
        """
        cumulative = (self._closest * _UNITS).round_().long().cumsum(dim=1)
        targets = (shares * cumulative[:, -1:]).long()
        return torch.searchsorted(cumulative, targets, right=True).clamp_max_(len(self.points) - 1)

    def gains(self, candidates: torch.Tensor) -> torch.Tensor:
        """Return by how much each candidate (starts, candidates) lowers the sum of squared distances: int64, same shape."""
        twice, squares = self._centres(candidates.flatten())

        def gains_of(block: slice) -> torch.Tensor:
            gain = (twice @ self.points[block].T).sub_(squares).view(*candidates.shape, -1)
            gain += (self._closest[:, block] - self._squares[block])[:, None]
            return gain.clamp_min_(0).mul_(_UNITS).round_().sum(dim=2).long()

        return torch.stack(in_threads(gains_of, self._blocks, self._threads)).sum(dim=0)

    def add(self, centres: torch.Tensor) -> None:
        """Add the points of these indices (starts,), one centre to each start."""
        twice, squares = self._centres(centres)

        def add_to(block: slice) -> None:
            distance = (squares - twice @ self.points[block].T).add_(self._squares[block])
            torch.minimum(self._closest[:, block], distance, out=self._closest[:, block])

        in_threads(add_to, self._blocks, self._threads)

    def _centres(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return 2 c (n, d) and |c|^2 (n, 1) of the points c of these indices (n,)."""
        return 2 * self.points[indices], self._squares[indices, None]
