"""Appearance around points in features that no network was trained for: histograms of gradients (HOG) and mean colours."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

CELL = 8
"""Side of a cell, pixels."""
BINS = 9
"""Unsigned orientations of a cell's histogram."""
CELLS = 4
"""Cells along the side of the window around a point."""
CELL_DIMENSIONS = BINS + 3
"""Length of the features of a cell."""
DIMENSIONS = CELLS * CELLS * CELL_DIMENSIONS
"""Length of the descriptor of a window."""
COLOUR = 0.5
"""Weight of the mean colours of a window (CIE Lab, 0 to 1) beside its histograms, whose norm is at most 1."""
_WEAK = 20.0
"""Added to the norm of a cell's histogram, so that weak texture stays weak (grey values of 0 to 255)."""
_OFFSETS = (np.arange(CELLS) - (CELLS - 1) / 2) * CELL


def describe_cells(picture: NDArray[np.uint8]) -> Floats:
    """Return the features of the cells that a picture is divided into.

    Args:
        picture: (S, S, 3), RGB, S a multiple of `CELL`.

    Returns:
        (S / CELL, S / CELL, BINS + 3): the histogram of each cell, divided by its norm, and its mean colour.
    """
    histograms, colours = (cells[CELL // 2 :: CELL, CELL // 2 :: CELL] for cells in _cell_maps(picture))
    gradients = histograms / (np.linalg.norm(histograms, axis=-1, keepdims=True) + _WEAK)
    return np.concatenate([gradients, colours * (2 * COLOUR / 255)], axis=-1)


def describe(picture: NDArray[np.uint8], xy: NDArray[Any]) -> Floats:
    """Return descriptors of the windows around points of a picture.

    A window has `CELLS` x `CELLS` cells; a cell that lies outside of the picture is replaced by the nearest one inside.

    Args:
        picture: (S, S, 3), RGB.
        xy: (P, 2), pixels, finite.

    Returns:
        (P, DIMENSIONS): the histograms of the cells, divided by the window's norm, and the cells' mean colours.
    """
    histograms, colours = _cell_maps(picture)
    offsets = np.stack(np.meshgrid(_OFFSETS, _OFFSETS), axis=-1).reshape(-1, 2)
    at = np.clip(np.rint(xy[:, None] + offsets), 0, len(picture) - 1).astype(np.int64)
    gradients = histograms[at[..., 1], at[..., 0]].reshape(len(xy), -1)
    gradients = gradients / (np.linalg.norm(gradients, axis=1, keepdims=True) + _WEAK * CELLS)
    colour = colours[at[..., 1], at[..., 0]].reshape(len(xy), -1) * (COLOUR / 255 / CELLS)
    return np.concatenate([gradients, colour], axis=1).astype(np.float32)


def _cell_maps(picture: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Return the histogram (S, S, BINS) and the mean Lab colour (S, S, 3) of the cell around each pixel."""
    lab = cv2.cvtColor(picture, cv2.COLOR_RGB2LAB).astype(np.float32)
    grey = cv2.GaussianBlur(lab[..., 0], (0, 0), 0.8)
    dx, dy = (cv2.Sobel(grey, cv2.CV_32F, *order, scale=0.125) for order in ((1, 0), (0, 1)))
    strength = np.hypot(dx, dy)
    turn = np.arctan2(dy, dx) / np.pi * BINS
    low = np.floor(turn)
    share = turn - low  # a gradient counts for the two nearest orientations
    row, column = np.indices(grey.shape)
    histograms = np.zeros((*grey.shape, BINS), np.float32)
    histograms[row, column, low.astype(np.int64) % BINS] = strength * (1 - share)
    histograms[row, column, (low.astype(np.int64) + 1) % BINS] = strength * share
    size = (CELL, CELL)
    return (
        np.asarray(cv2.blur(histograms, size), np.float32) * CELL * CELL,
        np.asarray(cv2.blur(lab, size), np.float32),
    )
