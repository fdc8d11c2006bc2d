"""Static landmarks: repeatable points of the background, which stay in place while the object moves (thesis 7.1, point 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.correspondence.reduction import Reducible

STATIC_SPREAD = 0.015
"""A landmark is static when its position spreads less than this over the images, as a share of the input's side.

It is the spread of a fixed mark that is localised to within 1 % of the side along each axis. Annotated points of objects spread
more: at least 0.026 in X-rays of heads that all face one way, 0.06 in faces, 0.07 in cattle, 0.18 in people at sports.
"""
STATIC_RATIO = 0.2
"""A landmark is also static when it spreads less than this share of the median landmark's spread.

The median is taken over the landmarks that are not static by STATIC_SPREAD. In the categories above, the annotated point that
spreads least reaches 0.27 (cattle) to 0.74 of the median.
"""
_MIN_IMAGES = 5
"""Images that must show a landmark before it can be called static: a few places may be close by chance."""
_UNIT = 2.0**-16
"""Positions are summed in whole multiples of this share of the side, so that the sums do not depend on their order."""


@dataclass(frozen=True)
class Positions(Reducible):
    """Sums of the positions of K landmarks in the network's input, in units of 2^-16 of its side.

    Attributes:
        counts: int64 (K,), images that show the landmark.
        total: int64 (K, 2), sum of positions.
        squares: int64 (K, 2), sum of squared positions.
    """

    counts: NDArray[np.int64]
    total: NDArray[np.int64]
    squares: NDArray[np.int64]

    def mean(self) -> NDArray[np.float64]:
        """Return the mean position of each landmark, share of the input's side: (K, 2); NaN where unseen."""
        mean: NDArray[np.float64] = self.total * _UNIT / self._counts()
        return mean

    def _counts(self) -> NDArray[np.float64]:
        return np.where(self.counts > 0, self.counts, np.nan)[:, None]

    def spread(self) -> NDArray[np.float64]:
        """Return the standard deviation of each landmark's position, share of the input's side: (K,); NaN where unseen."""
        variance = np.maximum(self.squares * _UNIT**2 / self._counts() - self.mean() ** 2, 0)
        spread: NDArray[np.float64] = np.sqrt(variance.sum(axis=1))
        return spread

    def is_known(self) -> NDArray[np.bool_]:
        """Return which landmarks are in enough images to decide whether they are static: (K,)."""
        return self.counts >= _MIN_IMAGES

    def static(self) -> NDArray[np.bool_]:
        """Return which landmarks are static by STATIC_SPREAD or by STATIC_RATIO: (K,)."""
        spread = np.where(self.is_known(), self.spread(), np.nan)
        moving = spread[spread >= STATIC_SPREAD]
        least = max(STATIC_SPREAD, STATIC_RATIO * np.median(moving)) if len(moving) else STATIC_SPREAD
        return spread < least


def positions(landmark: NDArray[Any], xy: NDArray[Any], landmarks: int) -> Positions:
    """Sum the positions of keypoints by landmark.

    Args:
        landmark: int (N,), the landmark of each keypoint.
        xy: (N, 2), its place, shares of the input's side.
        landmarks: Number of landmarks K.
    """
    steps = np.rint(np.asarray(xy, np.float64) / _UNIT).astype(np.int64)
    counts = np.bincount(landmark, minlength=landmarks)
    total, squares = np.zeros((landmarks, 2), np.int64), np.zeros((landmarks, 2), np.int64)
    np.add.at(total, landmark, steps)
    np.add.at(squares, landmark, steps**2)
    return Positions(counts.astype(np.int64), total, squares)
