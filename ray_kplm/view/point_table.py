"""What is known of the gallery's images by one set of points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ray_kplm.methods.visibility import visibility_flags
from ray_kplm.points.layout import Layout


class Points(NamedTuple):
    """The L points of an image.

    Attributes:
        xy: (L, 2), pixels of the picture; NaN where not detected.
        confidence: (L,).
        probability: (L,), NaN of a detector without a `VisibilityModel`.
        flags: (L,), `visibility_flags`.
    """

    xy: NDArray[np.float32]
    confidence: NDArray[np.float32]
    probability: NDArray[np.float32]
    flags: NDArray[np.int8]

    @property
    def likelihood(self) -> NDArray[np.float32]:
        """(L,), the probability, or the confidence where there is none."""
        return np.where(np.isnan(self.probability), self.confidence, self.probability)


@dataclass(eq=False)
class PointTable:
    """The L points of N images, as far as they are known. One thread writes, any may read.

    Attributes:
        layout: Of the points.
        least: Least probability of a point that is found.
        xy: (N, L, 2), pixels of the pictures.
        confidence: (N, L).
        probability: (N, L).
        is_known: (N,).
    """

    layout: Layout
    least: float
    xy: NDArray[np.float32]
    confidence: NDArray[np.float32]
    probability: NDArray[np.float32]
    is_known: NDArray[np.bool_]

    @classmethod
    def empty(cls, layout: Layout, images: int, least: float) -> PointTable:
        """Return a table in which nothing is known."""
        shape = (images, len(layout))
        xy, number = np.full((*shape, 2), np.nan, np.float32), np.full(shape, np.nan, np.float32)
        return cls(layout, least, xy, number, number.copy(), np.zeros(images, bool))

    def get(self, index: int) -> Points | None:
        """Return the points of an image; None if they are not known."""
        if not self.is_known[index]:
            return None
        xy, probability = self.xy[index], self.probability[index]
        return Points(xy, self.confidence[index], probability, visibility_flags(xy, probability, self.least))

    def likelihood(self, point: int | None) -> NDArray[np.float64]:
        """Return how sure one point of each image is, or all on average: (N,), NaN where not known.

        It is the probability, or the confidence of a detector without probabilities.
        """
        sure = np.where(np.isnan(self.probability), self.confidence, self.probability).astype(np.float64)
        sure[~self.is_known] = np.nan
        return sure.mean(axis=1) if point is None else sure[:, point]
