"""Landmarks that stand still while the object moves: repeatable points of the background (thesis 7.1, point 4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ray_kplm.correspondence.reduction import Reducible

STATIC_SPREAD = 0.015
"""A landmark is static when its position spreads less than this over the images, share of the input's side: what a mark at one
place spreads by where it is localised to within 1 % of the side along each axis. Annotated points of objects spread more:
0.026 at least in X-rays of heads that all face one way, 0.06 in faces, 0.07 in cattle, 0.18 in people at sports."""
STATIC_RATIO = 0.2
"""Also when it spreads less than this share of what the median landmark does, of those that are not static by STATIC_SPREAD. In
the same categories the least annotated point reaches 0.27 (cattle) to 0.74 of the median."""
_FEWEST = 5
"""Images that must show a landmark before it can be called static: two places may be close by chance."""
_UNIT = 2.0**-16
"""Positions are summed in whole multiples of this share of the side, so that the sums do not depend on their order."""


@dataclass(frozen=True)
class Positions(Reducible):
    """Where the K landmarks were in the images: counts int64 (K,), sums and sums of squares int64 (K, 2) of positions in the
    network's input, whatever the crops' pixels are."""

    counts: NDArray[np.int64]
    total: NDArray[np.int64]
    squares: NDArray[np.int64]

    def spread(self) -> NDArray[np.float64]:
        """Return the standard deviation of each landmark's position over the images, share of the input's side: (K,); NaN where
        it was never seen."""
        counts = np.where(self.counts > 0, self.counts, np.nan)[:, None]
        mean = self.total * _UNIT / counts
        variance = np.maximum(self.squares * _UNIT**2 / counts - mean**2, 0)
        return np.sqrt(variance.sum(axis=1))

    def is_known(self) -> NDArray[np.bool_]:
        """Return which landmarks are in enough images to tell whether they stand still: (K,)."""
        return self.counts >= _FEWEST

    def static(self) -> NDArray[np.bool_]:
        """Return which landmarks do not move as an object does, by itself or as the others do: (K,)."""
        spread = np.where(self.is_known(), self.spread(), np.nan)
        moving = spread[spread >= STATIC_SPREAD]
        least = max(STATIC_SPREAD, STATIC_RATIO * np.median(moving)) if len(moving) else STATIC_SPREAD
        return spread < least


def positions(landmark: NDArray, xy: NDArray, landmarks: int) -> Positions:
    """Return the sums of keypoints with their landmarks (N,) and places (N, 2), shares of the input's side."""
    steps = np.rint(np.asarray(xy, np.float64) / _UNIT).astype(np.int64)
    counts = np.bincount(landmark, minlength=landmarks)
    total, squares = np.zeros((landmarks, 2), np.int64), np.zeros((landmarks, 2), np.int64)
    np.add.at(total, landmark, steps)
    np.add.at(squares, landmark, steps**2)
    return Positions(counts.astype(np.int64), total, squares)
