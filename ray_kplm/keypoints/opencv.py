"""SIFT and ORB, thinned to an even spread (thesis 6.3.4)."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ray_kplm.keypoints.source import Keypoints, inside_box

_ROBUST = 0.9
"""A point counts as stronger only when it beats another clearly (Brown et al., CVPR 2005)."""


class OpenCVDetector:
    """`sift` or `orb` on an RGB image, followed by adaptive non-maximal suppression."""

    def __init__(self, name: str, limit: int, candidates: int = 1000) -> None:
        self.limit = limit
        self.name = name
        match name:
            case "sift":
                # Crops are small and often soft: OpenCV's thresholds for full photographs leave too few points.
                self._detector: cv2.Feature2D = cv2.SIFT.create(
                    nfeatures=candidates, contrastThreshold=0.01, edgeThreshold=15
                )
            case "orb":
                self._detector = cv2.ORB.create(nfeatures=candidates, edgeThreshold=8, patchSize=16, fastThreshold=5)
            case _:
                raise AssertionError(name)

    def __call__(self, image: NDArray[np.uint8], box: NDArray | None = None) -> Keypoints:
        """image: uint8 (H, W, 3) RGB; box: x0, y0, x1, y1 outside of which nothing counts."""
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        found = self._detector.detect(grey, None)
        xy = np.array([k.pt for k in found], dtype=np.float32).reshape(-1, 2)
        score = np.array([k.response for k in found], dtype=np.float32)
        chosen = np.flatnonzero(inside_box(xy, box))
        chosen = chosen[_one_per_place(xy[chosen], score[chosen])]
        chosen = chosen[spread(xy[chosen], score[chosen], self.limit)]
        described, descriptors = self._detector.compute(grey, [found[int(i)] for i in chosen])
        if descriptors is None:
            return Keypoints.empty(self.descriptor_dim)
        xy = np.array([k.pt for k in described], dtype=np.float32).reshape(-1, 2)  # ORB drops points near the border
        score = np.array([k.response for k in described], dtype=np.float32)
        return Keypoints(xy, score, self._unit(descriptors))

    @property
    def descriptor_dim(self) -> int:
        return 128 if self.name == "sift" else 256

    def _unit(self, descriptors: NDArray) -> NDArray[np.float32]:
        """L2-normalised float descriptors (N, d); ORB's bits become +-1, so that distance is Hamming distance."""
        if self.name == "orb":
            descriptors = np.unpackbits(descriptors, axis=1).astype(np.float32) * 2 - 1
        return descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True).clip(min=1e-12)


def _one_per_place(xy: NDArray, score: NDArray) -> NDArray[np.int64]:
    """SIFT repeats a place for every orientation: keep the strongest at each whole pixel."""
    order = np.argsort(-score, kind="stable")
    _, first = np.unique(np.rint(xy[order]).astype(np.int64), axis=0, return_index=True)
    return order[np.sort(first)]


def spread(xy: NDArray, score: NDArray, limit: int) -> NDArray[np.int64]:
    """Adaptive non-maximal suppression: indices of the `limit` points farthest from any stronger one.

    xy (N, 2), score (N,). Homogeneous in space and bounded in number (Brown et al. 2005; Bailo et al. 2018).
    """
    if len(xy) <= limit:
        return np.arange(len(xy))
    squared = ((xy[:, None] - xy[None]) ** 2).sum(-1)
    stronger = score[None] * _ROBUST > score[:, None]
    radius = np.where(stronger, squared, np.inf).min(axis=1)
    return np.sort(np.lexsort((-score, -radius))[:limit])
