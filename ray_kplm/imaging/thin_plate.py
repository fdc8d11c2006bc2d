"""Regularised thin-plate splines: smooth maps of the plane through corresponding points (Bookstein 1989)."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SMOOTHING = 0.1
"""Weight of the bending energy, with points in shares of the picture's side. An exact spline (0) folds where landmarks are off
by a few percent of the side; at 0.1 it follows the affine motion of the landmarks and bends towards them."""


def fit_thin_plate(
    source: NDArray[Any], target: NDArray[Any], places: NDArray[Any], smoothing: float = SMOOTHING
) -> Floats:
    """Fit the spline that maps source points to target points, and evaluate it.

    Args:
        source: (K, 2), in shares of the side; K >= 3, not all on a line.
        target: (K, 2), in any unit.
        places: (P, 2), in the source's frame.
        smoothing: Weight of the bending energy; 0 interpolates.

    Returns:
        (P, 2), the places mapped to the target's frame.
    """
    points = len(source)
    system = np.zeros((points + 3, points + 3))
    system[:points, :points] = _kernel(source, source) + smoothing * np.eye(points)
    system[:points, points:] = _affine_basis(source)
    system[points:, :points] = system[:points, points:].T
    values = np.concatenate([target, np.zeros((3, 2))])
    weights = np.linalg.lstsq(system, values, rcond=None)[0]
    mapped: Floats = _kernel(places, source) @ weights[:points] + _affine_basis(places) @ weights[points:]
    return mapped


def sample_at(picture: NDArray[np.uint8], places: NDArray[Any], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the picture's values at places (h * w, 2), pixels, as a picture of shape (h, w); borders are replicated."""
    grid = np.asarray(places, np.float32).reshape(*shape, 2)
    sampled = cv2.remap(picture, grid[..., 0], grid[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(sampled, np.uint8)


def _kernel(first: NDArray[Any], second: NDArray[Any]) -> Floats:
    """Return r^2 log r of all distances between points (P, 2) and (K, 2): (P, K)."""
    squared = ((first[:, None] - second[None]) ** 2).sum(axis=-1)
    kernel: Floats = 0.5 * squared * np.log(np.maximum(squared, 1e-12))
    return kernel


def _affine_basis(points: NDArray[Any]) -> Floats:
    return np.concatenate([np.ones((len(points), 1)), points], axis=1)
