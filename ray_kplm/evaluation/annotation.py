"""Selection of the annotation to score, and the sets of landmarks that the metrics take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.datasets.landmark_arrays import LandmarkArrays
from ray_kplm.evaluation.normalisers import normaliser

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scoring:
    """Selection of what is scored, in indices of a dataset's landmarks.

    Attributes:
        normaliser: Definition of the normaliser, see `normalisers.normaliser`. It may use points that are not scored.
        points: The landmarks that are scored; None for all.
        visible_only: Whether to leave out points that are annotated as hidden.
        torso: Definition of the torso's length, likewise; None if the dataset has none.
        sigmas: Standard deviations for OKS, one for each scored point; None if they are unknown, which disables OKS.
    """

    normaliser: Mapping[str, Any]
    points: Sequence[int] | None = None
    visible_only: bool = False
    torso: Mapping[str, Any] | None = None
    sigmas: Sequence[float] | None = None


@dataclass(frozen=True)
class LandmarkSet:
    """Discovered and annotated landmarks of the N images of a split, in crop pixels.

    Attributes:
        discovered: (N, K, 2), NaN where not detected.
        truth: (N, L, 2), NaN where not annotated or left out.
        normaliser: (N,), see `normalisers.normaliser`.
        image_size: (N,), longer side of the crop.
        confidence: (N, K), confidence of the discovered landmarks; ranks images for OKS.
        area: (N,), area of the box in square pixels, NaN where it is unknown.
        torso: (N,), length of the torso, NaN where it is unknown.
    """

    discovered: Floats
    truth: Floats
    normaliser: Floats
    image_size: Floats
    confidence: Floats | None = None
    area: Floats | None = None
    torso: Floats | None = None

    def in_image_sides(self) -> LandmarkSet:
        """Return the set in units of the crop's side, so that crops of all sizes share a regressor and a threshold."""
        sides = np.asarray(self.image_size, dtype=np.float64)
        return replace(
            self,
            discovered=np.asarray(self.discovered, dtype=np.float64) / sides[:, None, None],
            truth=np.asarray(self.truth, dtype=np.float64) / sides[:, None, None],
            normaliser=np.asarray(self.normaliser, dtype=np.float64) / sides,
            image_size=np.ones_like(sides),
            area=None if self.area is None else self.area / sides**2,
            torso=None if self.torso is None else self.torso / sides,
        )


def annotated_set(arrays: LandmarkArrays, scoring: Scoring) -> LandmarkSet:
    """Return the annotation of a split as it is scored, with no discovered landmarks (N, 0, 2) yet.

    An image without a box gets the bounding box of its annotated points.

    Raises:
        DataError: The definition of a normaliser is invalid.
    """
    landmarks = arrays.landmarks.astype(np.float64)
    boxes = np.where(np.isnan(arrays.boxes), _extent(landmarks), arrays.boxes)
    points = slice(None) if scoring.points is None else np.asarray(scoring.points, dtype=np.intp)
    truth = landmarks[:, points]
    if scoring.visible_only:
        truth = np.where(arrays.visible[:, points, None], truth, np.nan)
    return LandmarkSet(
        discovered=np.zeros((len(landmarks), 0, 2)),
        truth=truth,
        normaliser=normaliser(scoring.normaliser, landmarks, boxes),
        image_size=arrays.sizes.max(axis=1).astype(np.float64),
        area=normaliser({"type": "bbox_sqrt"}, landmarks, boxes) ** 2,
        torso=None if scoring.torso is None else normaliser(scoring.torso, landmarks, boxes),
    )


def count_points(arrays: LandmarkArrays, scoring: Scoring) -> dict[str, int]:
    """Count the selected points that are annotated, hidden among these, scored, and not annotated."""
    points = slice(None) if scoring.points is None else np.asarray(scoring.points, dtype=np.intp)
    annotated = np.isfinite(arrays.landmarks[:, points]).all(axis=-1)
    hidden = annotated & ~arrays.visible[:, points]
    scored = annotated & ~hidden if scoring.visible_only else annotated
    return {
        "annotated": int(annotated.sum()),
        "hidden": int(hidden.sum()),
        "scored": int(scored.sum()),
        "not_annotated": int((~annotated).sum()),
    }


def _extent(landmarks: Floats) -> Floats:
    """Return the bounding box (N, 4) of each image's annotated points, of negative size for an image without any."""
    low = np.where(np.isnan(landmarks), np.inf, landmarks).min(axis=1)
    high = np.where(np.isnan(landmarks), -np.inf, landmarks).max(axis=1)
    return np.concatenate([low, high], axis=1)
