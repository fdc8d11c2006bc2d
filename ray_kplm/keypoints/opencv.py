"""SIFT and ORB, with adaptive non-maximum suppression for an even spread of points (thesis 6.3.4)."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ray_kplm.keypoints.source import Keypoints, inside_box

_ROBUST = 0.9
"""A point is stronger than another only if this share of its score is larger (Brown et al., CVPR 2005)."""


class OpenCVDetector:
    """`sift` or `orb` on an RGB image, followed by adaptive non-maximum suppression."""

    def __init__(self, name: str, limit: int, candidates: int = 1000) -> None:
        """Build the detector.

        Args:
            name: `sift` or `orb`.
            limit: Most keypoints of an image.
            candidates: Most keypoints before the suppression.
        """
        self.limit = limit
        self.name = name
        match name:
            case "sift":
                # Crops are small and often blurred: OpenCV's defaults, made for full photographs, leave too few points.
                self._detector: cv2.Feature2D = cv2.SIFT.create(
                    nfeatures=candidates, contrastThreshold=0.01, edgeThreshold=15
                )
            case "orb":
                self._detector = cv2.ORB.create(nfeatures=candidates, edgeThreshold=8, patchSize=16, fastThreshold=5)
            case _:
                raise AssertionError(name)

    def __call__(self, image: NDArray[np.uint8], box: NDArray[Any] | None = None) -> Keypoints:
        """Detect the keypoints of an image, see `source.Detector`."""
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        detected = self._detector.detect(grey, None)
        xy = np.array([k.pt for k in detected], dtype=np.float32).reshape(-1, 2)
        score = np.array([k.response for k in detected], dtype=np.float32)
        chosen = np.flatnonzero(inside_box(xy, box))
        chosen = chosen[_strongest_per_pixel(xy[chosen], score[chosen])]
        chosen = chosen[adaptive_non_maximum_suppression(xy[chosen], score[chosen], self.limit)]
        described, descriptors = self._detector.compute(grey, [detected[int(i)] for i in chosen])
        if descriptors is None:
            return Keypoints.empty(self.descriptor_dim)
        xy = np.array([k.pt for k in described], dtype=np.float32).reshape(-1, 2)  # ORB drops points near the border
        score = np.array([k.response for k in described], dtype=np.float32)
        return Keypoints(xy, score, self._unit(descriptors))

    @property
    def descriptor_dim(self) -> int:
        """Width of the descriptors."""
        return 128 if self.name == "sift" else 256

    def _unit(self, descriptors: NDArray[Any]) -> NDArray[np.float32]:
        """Return L2-normalised descriptors (N, d); ORB's bits become +-1, so that distances follow the Hamming distance."""
        if self.name == "orb":
            descriptors = np.unpackbits(descriptors, axis=1).astype(np.float32) * 2 - 1
        unit: NDArray[np.float32] = descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True).clip(min=1e-12)
        return unit


def _strongest_per_pixel(xy: NDArray[Any], score: NDArray[Any]) -> NDArray[np.int64]:
    """Return the index of the strongest point at each whole pixel; SIFT repeats a place for each of its orientations."""
    order = np.argsort(-score, kind="stable")
    _, first = np.unique(np.rint(xy[order]).astype(np.int64), axis=0, return_index=True)
    return order[np.sort(first)]


def adaptive_non_maximum_suppression(xy: NDArray[Any], score: NDArray[Any], limit: int) -> NDArray[np.int64]:
    """Return the indices of the `limit` points that are farthest from any stronger point, in ascending order.

    The points kept are spread evenly over the image and bounded in number (Brown et al. 2005; Bailo et al. 2018).

    Args:
        xy: (N, 2).
        score: (N,).
        limit: Most points to keep.
    """
    if len(xy) <= limit:
        return np.arange(len(xy))
    squared = ((xy[:, None] - xy[None]) ** 2).sum(-1)
    stronger = score[None] * _ROBUST > score[:, None]
    radius = np.where(stronger, squared, np.inf).min(axis=1)
    return np.sort(np.lexsort((-score, -radius))[:limit])
