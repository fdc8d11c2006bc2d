"""Counts that the steps of a pseudo-label update return from each shard; they add up over shards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ray_kplm.correspondence.reduction import Reducible
from ray_kplm.correspondence.static import Positions


@dataclass(frozen=True)
class Contents(Reducible):
    """The contents of a shard's parts.

    Attributes:
        images: Number of images.
        keypoints: Number of keypoints.
        unusable: Keypoints without a usable descriptor: not finite, or zero.
    """

    images: int
    keypoints: int
    unusable: int


@dataclass(frozen=True)
class Filtered(Reducible):
    """Counts of the first duplicate filter on a shard.

    Attributes:
        images: Number of images.
        detected: Keypoints before the filter.
        kept: Keypoints after the filter.
        flip_counts: (K, K), see `flip.flip_counts`.
        positions: Positions of the kept keypoints, by landmark.
    """

    images: int
    detected: int
    kept: int
    flip_counts: NDArray[np.int64]
    positions: Positions


@dataclass(frozen=True)
class Labelled(Reducible):
    """Counts of the labels that a shard wrote.

    Attributes:
        trained: Keypoints that the next round trains on.
        usable_images: Images with at least two of them.
        landmark_counts: (K,), keypoints of each landmark.
    """

    trained: int
    usable_images: int
    landmark_counts: NDArray[np.int64]


@dataclass(frozen=True)
class Trial:
    """A short fit from one of several starts.

    Attributes:
        objective: Its final objective.
        start: Number of the start.
        centroids: (k, d).
    """

    objective: float
    start: int
    centroids: NDArray[np.float32]
