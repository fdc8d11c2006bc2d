"""The stored landmarks of a split of a dataset, read without Ray."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ray_kplm.datasets.dataset import Dataset
from ray_kplm.storage import Folder


class SplitLandmarks(NamedTuple):
    """The landmarks of the N images of a split, in the dataset's order.

    Attributes:
        xy: (N, K, 2) in the crop frame, NaN where not detected.
        confidence: (N, K).
        probability: (N, K), of being there; NaN if the predictor has no `VisibilityModel`.
    """

    xy: NDArray[np.float32]
    confidence: NDArray[np.float32]
    probability: NDArray[np.float32]


def read_predictions(
    folder: Folder, dataset: Dataset, split: str, parts: Sequence[str] | None = None
) -> SplitLandmarks:
    """Read the landmarks of a split, or of some parts of it. Tables of earlier versions have no probabilities."""
    tables = folder.read_tables(dataset.parts(split) if parts is None else parts)
    xy, confidence = (
        np.concatenate([np.array(t[name].to_pylist(), np.float32) for t in tables]) for name in ("xy", "confidence")
    )
    probability = np.full_like(confidence, np.nan)
    known = [row for t in tables if "probability" in t.column_names for row in t["probability"].to_pylist()]
    for image, row in enumerate(known):
        probability[image] = np.nan if row is None else row
    return SplitLandmarks(xy, confidence, probability)
