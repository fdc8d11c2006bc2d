"""Landmarks of batches of stored images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ray_kplm.imaging import coordinates
from ray_kplm.methods.inputs import Inputs
from ray_kplm.methods.predicted import Predictor


class BatchLandmarks(NamedTuple):
    """The landmarks of N images.

    Attributes:
        ids: of the images.
        xy: (K, 2) of each in its crop frame, NaN where not detected.
        confidence: (N, K).
        probability: (N, K), of being found; NaN if the detector has no `VisibilityModel`.
    """

    ids: list[str]
    xy: list[NDArray[np.float64]]
    confidence: NDArray[np.float32]
    probability: NDArray[np.float32]


def predict_batches(batches: Iterable[Inputs], predictor: Predictor) -> BatchLandmarks:
    """Predict the landmarks of batches of network inputs."""
    ids, points, confidences, probabilities = [], [], [], []
    for images, crop_to_input, image_ids, boxes in batches:
        found = predictor(images, boxes)
        to_crop = [coordinates.invert(affine) for affine in crop_to_input]
        points += [coordinates.apply(back, p) for back, p in zip(to_crop, found.xy, strict=True)]
        confidences.append(found.confidence)
        probabilities.append(found.probability)
        ids += image_ids
    return BatchLandmarks(ids, points, np.concatenate(confidences), np.concatenate(probabilities))


def probability_column(probability: NDArray[np.float32]) -> list[list[float] | None]:
    """Return probabilities (N, K) as a column of a table: None for an image whose landmarks have none."""
    return [None if np.isnan(row).any() else row.tolist() for row in probability.astype(np.float32)]
