"""Precision, recall and F-measure of detections without identity (thesis 4.4, 5.4.2).

N images, K detections and L annotated points an image, in one unit; NaN marks what is not there.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

NEAR_SHARE = 0.08
"""A generic keypoint is near an annotated point within this share of the normaliser."""
_CHUNK = 4096
"""Images whose distances are held at once."""


@dataclass(frozen=True)
class DetectionScore:
    """Counts over all images that have an annotated point.

    detected: detections. annotated: annotated points. hits: pairs of both, each in at most one pair.
    """

    detected: int
    annotated: int
    hits: int

    @property
    def precision(self) -> float:
        """Percent of the detections that have a point; NaN without detections."""
        return 100.0 * self.hits / self.detected if self.detected else math.nan

    @property
    def recall(self) -> float:
        """Percent of the points that have a detection; NaN without points."""
        return 100.0 * self.hits / self.annotated if self.annotated else math.nan

    @property
    def f_measure(self) -> float:
        """Harmonic mean of both, percent; NaN where there is neither."""
        total = self.detected + self.annotated
        return 200.0 * self.hits / total if total else math.nan


def detection_score(detections: ArrayLike, truth: ArrayLike, distance: float) -> DetectionScore:
    """Hits are as many pairs at most `distance` apart as there can be in each image, one-to-one.

    detections: (N, K, 2). truth: (N, L, 2). Images without any annotated point are left out.
    """
    detections = np.asarray(detections, dtype=np.float64)
    truth = np.asarray(truth, dtype=np.float64)
    there = np.isfinite(detections).all(axis=-1)
    annotated = np.isfinite(truth).all(axis=-1)
    there &= annotated.any(axis=1)[:, None]
    hits = 0
    for start in range(0, len(detections), _CHUNK):
        part = slice(start, start + _CHUNK)
        apart = np.linalg.norm(detections[part, :, None] - truth[part, None], axis=-1)
        hits += _pairs(apart <= distance)  # NaN is not
    return DetectionScore(int(there.sum()), int(annotated.sum()), hits)


def percent_near(detections: Iterable[ArrayLike], truth: Iterable[ArrayLike], distance: Iterable[float]) -> float:
    """Of all detections, the percent that lie within a distance of some annotated point; several may be at the same one.

    An image each: detections (P, 2), truth (L, 2), the distance; NaN marks what is not known, and an image without any
    annotated point or without a distance is left out. NaN where nothing is left.
    """
    near = total = 0
    for found, points, limit in zip(detections, truth, distance, strict=True):
        found, points = np.asarray(found, np.float64).reshape(-1, 2), np.asarray(points, np.float64)
        points = points[np.isfinite(points).all(axis=1)]
        if len(points) and np.isfinite(limit):
            apart = np.linalg.norm(found[:, None] - points[None], axis=-1)
            near += int((apart.min(axis=1) <= limit).sum())
            total += len(found)
    return 100.0 * near / total if total else math.nan


def _pairs(near: NDArray[np.bool_]) -> int:
    """(N, K, L) -> the size of a maximum matching in every image, summed: one graph, whose components are the images."""
    images, detections, points = near.shape
    image, detection, point = np.nonzero(near)
    edges = (np.ones(len(image), np.int8), (image * detections + detection, image * points + point))
    graph = csr_array(edges, shape=(images * detections, images * points))
    return int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum())
