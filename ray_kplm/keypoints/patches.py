"""Descriptors of the surroundings of any points: gradient histograms of an upright window of fixed size."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

WINDOW = 0.5
"""Side of the window, share of the longer side of the object's box or of the image. Detectors describe a few pixels; a
landmark is told from others by what lies around it."""
PATCH_DIM = 128
"""Width of a descriptor: 4 x 4 cells of 8 directions."""
_WINDOW_SIZES = 6.0
"""OpenCV's SIFT window is 4 cells of 1.5 times the keypoint's size."""


def describe_patches(image: NDArray[np.uint8], xy: NDArray[Any], side: float) -> NDArray[np.float32]:
    """Return the SIFT descriptors of upright windows around points: (N, 128), unit norm.

    They are those of Lowe (2004) without scale and orientation, which the window fixes.

    Args:
        image: (H, W, 3), RGB.
        xy: (N, 2), pixels of the image.
        side: Longer side of the object, pixels.
    """
    if not len(xy):
        return np.zeros((0, PATCH_DIM), np.float32)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    size = WINDOW * side / _WINDOW_SIZES
    places = [cv2.KeyPoint(float(x), float(y), size, 0.0) for x, y in xy]
    described, descriptors = cv2.SIFT.create().compute(grey, places)
    assert len(described) == len(xy), "SIFT drops no point whose size and direction are given"
    unit: NDArray[np.float32] = descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True).clip(min=1e-12)
    return unit
