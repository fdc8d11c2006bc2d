"""What a detector of K landmarks gives its users: L points with names, of which one may be one landmark or made of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.methods.predicted import Observed, Predicted, Predictor
from ray_kplm.points.layout import Layout
from ray_kplm.points.regressor import PointRegressor, group_shares


@dataclass(frozen=True, eq=False)
class PointSet:
    """L points of a detector.

    Attributes:
        layout: Names, mirror partners and skeleton of the points.
        regressor: Gives them from the landmarks.
        shares: float32 (L, K), how much the confidence and probability of each landmark count for each point; rows sum to 1.
    """

    layout: Layout
    regressor: PointRegressor
    shares: NDArray[np.float32]

    @classmethod
    def of_groups(cls, layout: Layout, groups: Sequence[Sequence[int]], landmarks: int) -> PointSet:
        """Return the points that are the mean of a group of landmarks each."""
        return cls(layout, PointRegressor.of_groups(groups, landmarks), group_shares(groups, landmarks))

    def __len__(self) -> int:
        return len(self.layout)

    @property
    def landmarks(self) -> int:
        """K."""
        return int(self.shares.shape[1])

    def apply(self, seen: Predicted, side: int) -> Predicted:
        """Return the points of predicted landmarks, inputs of `side` pixels a side that were not turned.

        A point is NaN where a landmark that counts for it is. Confidences and probabilities are means, with `shares`.
        """
        xy, is_missing = self.move(seen.xy, side), self._is_missing(seen.xy)
        confidence = np.where(is_missing, 0, seen.confidence @ self.shares.T).astype(np.float32)
        return seen._replace(
            xy=xy, confidence=confidence, probability=(seen.probability @ self.shares.T).astype(np.float32)
        )

    def observe(self, seen: Observed, side: int) -> Observed:
        """Return the points of observed landmarks: see `apply`. Measures are means, with `shares`."""
        separation = None if seen.separation is None else seen.separation @ self.shares.T
        return Observed(
            self.move(seen.xy, side), seen.confidence @ self.shares.T, seen.sharpness @ self.shares.T, separation
        )

    def move(self, xy: NDArray[np.float32], side: float) -> NDArray[np.float32]:
        """Return the points (B, L, 2) of landmarks (B, K, 2), both in pixels of an image of `side` pixels a side."""
        missing = self._is_missing(xy)
        known = np.where(np.isfinite(xy), xy / side, 0)
        points = self.regressor.predict(known) * side
        return np.where(missing[..., None], np.nan, points).astype(np.float32)

    def _is_missing(self, xy: NDArray[np.float32]) -> NDArray[np.bool_]:
        is_lost: NDArray[np.bool_] = np.asarray(~np.isfinite(xy).all(axis=-1))
        return np.asarray((is_lost[:, None] & (self.shares > 0)).any(axis=-1))

    def to_dict(self) -> dict[str, Any]:
        """Return the set as plain values."""
        layout = self.layout
        named = {"names": list(layout.names), "partners": list(layout.partners)}
        named |= {"skeleton": [list(edge) for edge in layout.skeleton]}
        return {**named, "shares": self.shares.tolist(), "regressor": self.regressor.to_dict()}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> PointSet:
        """Return the set of a `to_dict`. Raises KeyError, TypeError or ValueError if it is none."""
        edges = tuple((int(a), int(b)) for a, b in plain["skeleton"])
        layout = Layout("", tuple(plain["names"]), tuple(int(k) for k in plain["partners"]), edges)
        made = cls(layout, PointRegressor.from_dict(plain["regressor"]), np.asarray(plain["shares"], np.float32))
        if made.shares.shape != (len(layout), made.regressor.landmarks) or made.regressor.points != len(layout):
            raise ValueError(f"{len(layout)} names for {made.regressor.points} points, shares {made.shares.shape}")
        return made


class PointPredictor:
    """A predictor of landmarks as one of points."""

    def __init__(self, predictor: Predictor, points: PointSet) -> None:
        """Wrap a predictor of the K landmarks that `points` are made of. It must not turn images."""
        self.predictor, self.points = predictor, points

    def __call__(self, images: NDArray[np.uint8], boxes: NDArray[np.float32] | None = None) -> Predicted:
        """Return the points: see `Predictor`."""
        return self.points.apply(self.predictor(images, boxes), images.shape[2])

    def observe(self, images: NDArray[np.uint8]) -> Observed:
        """Return the points with measures of their quality: see `Predictor` and `PointSet.observe`."""
        return self.points.observe(self.predictor.observe(images), images.shape[2])
