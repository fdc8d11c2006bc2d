"""Landmarks that stand still while the object moves: repeatable points of the background (thesis 7.1, point 4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ray_kplm.correspondence.sums import Summed

STILL = 0.2
"""A landmark is static when its position spreads less than this share of what the median landmark's does."""
_UNIT = 2.0**-6
"""Positions are summed in whole multiples of this, pixels, so that the sums do not depend on their order."""


@dataclass(frozen=True)
class Positions(Summed):
    """Where the K landmarks were in the images, crop frame: counts int64 (K,), sums and sums of squares int64 (K, 2)."""

    counts: NDArray[np.int64]
    total: NDArray[np.int64]
    squares: NDArray[np.int64]

    def spread(self) -> NDArray[np.float64]:
        """Standard deviation of each landmark's position over the images, pixels: (K,); NaN where it was never seen."""
        counts = np.where(self.counts > 0, self.counts, np.nan)[:, None]
        mean = self.total * _UNIT / counts
        variance = np.maximum(self.squares * _UNIT**2 / counts - mean**2, 0)
        return np.sqrt(variance.sum(axis=1))

    def static(self) -> NDArray[np.bool_]:
        """Which landmarks do not move as the others do: (K,)."""
        spread = self.spread()
        return spread < STILL * np.nanmedian(spread)


def positions(landmark: NDArray, xy: NDArray, landmarks: int) -> Positions:
    """Of keypoints with their landmarks (N,) and places (N, 2)."""
    steps = np.rint(np.asarray(xy, np.float64) / _UNIT).astype(np.int64)
    counts = np.bincount(landmark, minlength=landmarks)
    total, squares = np.zeros((landmarks, 2), np.int64), np.zeros((landmarks, 2), np.int64)
    np.add.at(total, landmark, steps)
    np.add.at(squares, landmark, steps**2)
    return Positions(counts.astype(np.int64), total, squares)
