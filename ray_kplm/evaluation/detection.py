"""Precision, recall and F-measure of detections regardless of their identity (thesis sections 4.4 and 5.4.2).

N images, K detections and L annotated points in each, all in one unit. NaN marks points that are not detected or not
annotated.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

NEAR_SHARE = 0.08
"""A generic keypoint is near an annotated point if it is within this share of the normaliser."""
_CHUNK = 4096
"""Number of images whose pairwise distances are held in memory at once."""


@dataclass(frozen=True)
class DetectionScore:
    """Counts over all images that have an annotated point.

    Attributes:
        detected: Number of detections.
        annotated: Number of annotated points.
        hits: Number of pairs of a detection and a point; each is in at most one pair.
    """

    detected: int
    annotated: int
    hits: int

    @property
    def precision(self) -> float:
        """Percentage of the detections that are paired with a point; NaN without detections."""
        return 100.0 * self.hits / self.detected if self.detected else math.nan

    @property
    def recall(self) -> float:
        """Percentage of the points that are paired with a detection; NaN without points."""
        return 100.0 * self.hits / self.annotated if self.annotated else math.nan

    @property
    def f_measure(self) -> float:
        """Harmonic mean of precision and recall in percent; NaN without detections and points."""
        total = self.detected + self.annotated
        return 200.0 * self.hits / total if total else math.nan


def detection_score(detections: ArrayLike, truth: ArrayLike, distance: float) -> DetectionScore:
    """Count the pairs of a maximum one-to-one matching of detections and points at most `distance` apart.

    Images without any annotated point are left out.

    Args:
        detections: (N, K, 2).
        truth: (N, L, 2).
        distance: Largest distance of a pair.
    """
    detections = np.asarray(detections, dtype=np.float64)
    truth = np.asarray(truth, dtype=np.float64)
    detected = np.isfinite(detections).all(axis=-1)
    annotated = np.isfinite(truth).all(axis=-1)
    detected &= annotated.any(axis=1)[:, None]
    hits = 0
    for start in range(0, len(detections), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        distances = np.linalg.norm(detections[chunk, :, None] - truth[chunk, None], axis=-1)
        hits += _matching_size(distances <= distance)  # False for NaN
    return DetectionScore(int(detected.sum()), int(annotated.sum()), hits)


def percent_near(detections: Iterable[ArrayLike], truth: Iterable[ArrayLike], distance: Iterable[float]) -> float:
    """Return the percentage of all detections that are within a distance of any annotated point.

    Several detections may be near the same point. Images without any annotated point or without a distance are left out.

    Args:
        detections: For each image (P, 2).
        truth: For each image (L, 2), NaN where not annotated.
        distance: For each image the largest distance, NaN if it is unknown.

    Returns:
        The percentage; NaN if no detection can be scored.
    """
    near = total = 0
    for xy, points, limit in zip(detections, truth, distance, strict=True):
        xy, points = np.asarray(xy, np.float64).reshape(-1, 2), np.asarray(points, np.float64)
        points = points[np.isfinite(points).all(axis=1)]
        if len(points) and np.isfinite(limit):
            distances = np.linalg.norm(xy[:, None] - points[None], axis=-1)
            near += int((distances.min(axis=1) <= limit).sum())
            total += len(xy)
    return 100.0 * near / total if total else math.nan


def _matching_size(near: NDArray[np.bool_]) -> int:
    """Return the total size of the maximum matchings of all images of (N, K, L): one graph, whose components are images."""
    images, detections, points = near.shape
    image, detection, point = np.nonzero(near)
    edges = (np.ones(len(image), np.int8), (image * detections + detection, image * points + point))
    graph = csr_array(edges, shape=(images * detections, images * points))
    return int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum())
