"""What of a dataset's annotation is scored, and the sets of landmarks that the metrics take."""

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
    """What is scored, in indices of a dataset's landmarks.

    normaliser, torso: definitions of `normalisers.normaliser`; they read all annotated points, scored or not.
    points: the landmarks that are scored; None: all.
    visible_only: whether points that are annotated though hidden are left out.
    sigmas: of OKS, one a scored point; None: they are not known, and there is no OKS.
    """

    normaliser: Mapping[str, Any]
    points: Sequence[int] | None = None
    visible_only: bool = False
    torso: Mapping[str, Any] | None = None
    sigmas: Sequence[float] | None = None


@dataclass(frozen=True)
class LandmarkSet:
    """Discovered and annotated landmarks of one part of a dataset; N images, crop pixels.

    discovered: (N, K, 2), NaN where not detected.
    truth: (N, L, 2), NaN where not annotated, or left out.
    normaliser: (N,), NaN where it cannot be computed (normalisers.normaliser).
    image_size: (N,), side of the crop.
    confidence: (N, K), of the discovered; ranks images for OKS.
    area: (N,), square pixels, of the box; NaN where there is none.
    torso: (N,), length of the torso, NaN where not known.
    """

    discovered: Floats
    truth: Floats
    normaliser: Floats
    image_size: Floats
    confidence: Floats | None = None
    area: Floats | None = None
    torso: Floats | None = None

    def in_image_sides(self) -> LandmarkSet:
        """The same in units of the crop's side, so that crops of different sizes can share a regressor and a threshold."""
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
    """The annotation of a split as it is scored; `discovered` (N, 0, 2) and `confidence` are to be filled in.

    Where an image has no box, that of its annotated points stands in. Raises DataError for a wrong normaliser.
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
        normaliser=normaliser(dict(scoring.normaliser), landmarks, boxes),
        image_size=arrays.sizes.max(axis=1).astype(np.float64),
        area=normaliser({"type": "bbox_sqrt"}, landmarks, boxes) ** 2,
        torso=None if scoring.torso is None else normaliser(dict(scoring.torso), landmarks, boxes),
    )


def count_points(arrays: LandmarkArrays, scoring: Scoring) -> dict[str, int]:
    """Of the points to score: how many are annotated, hidden among these, scored, and not annotated."""
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
    """The bounding box (N, 4) of each image's annotated points; without area where there are none."""
    low = np.where(np.isnan(landmarks), np.inf, landmarks).min(axis=1)
    high = np.where(np.isnan(landmarks), -np.inf, landmarks).max(axis=1)
    return np.concatenate([low, high], axis=1)
