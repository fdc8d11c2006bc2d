"""Histograms of oriented gradients (Dalal and Triggs 2005): a descriptor of a whole crop that needs no training."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

CELLS, CELL, BINS = 12, 8, 9
"""Cells a side, pixels of a cell's side, unsigned orientations."""
LENGTH = CELLS * CELLS * BINS
"""Numbers in a descriptor."""
_SIDE = CELLS * CELL
_BLUR = 0.8
"""Sigma of the Gaussian before the gradient, pixels."""
_NOISE = 20.0
"""Added to each cell's norm, grey levels: cells without contrast stay near zero."""
_ROW, _COLUMN = np.mgrid[0:_SIDE, 0:_SIDE] // CELL
_CELL_OF_PIXEL = (_ROW * CELLS + _COLUMN) * BINS


def hog(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the descriptor of a picture, which is resized to a square of CELLS x CELL pixels whatever its shape.

    Args:
        rgb: (H, W, 3).

    Returns:
        (LENGTH,): for each cell, row by row, a histogram of gradient orientations. Each cell is normalised by itself.
    """
    grey = cv2.resize(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    dy, dx = np.gradient(cv2.GaussianBlur(grey.astype(np.float32), (0, 0), _BLUR))
    orientation = np.minimum(np.arctan2(dy, dx) % np.pi * (BINS / np.pi), BINS - 1).astype(np.int64)
    counts = np.bincount((_CELL_OF_PIXEL + orientation).ravel(), np.hypot(dx, dy).ravel(), LENGTH)
    cells = counts.reshape(-1, BINS)
    normalised: NDArray[np.float32] = (cells / (np.linalg.norm(cells, axis=1, keepdims=True) + _NOISE)).astype(
        np.float32
    )
    return normalised.ravel()


def hog_both_ways(rgb: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the descriptors of a picture and of its mirror image."""
    return hog(rgb), hog(np.ascontiguousarray(rgb[:, ::-1]))
