"""The canonical frame of a category: its mean landmark shape, and the similarity that maps it to each image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Complex = NDArray[np.complex128]

_ITERATIONS = 5
"""Iterations of the generalised Procrustes analysis; later ones change the mean shape by less than a pixel."""
_SCALES = (0.5, 2.0)
"""Range of the similarity's scale. Landmarks at random places fit best when shrunk to a point."""


def mean_shape(xy: NDArray[Any], *, mirrored: bool) -> Floats:
    """Return the mean shape (K, 2) of landmarks (N, K, 2), by generalised Procrustes analysis (Gower 1975).

    It has the mean position, orientation and size of the landmarks over the images. NaN marks landmarks that are not
    detected; one that no image shows has the mean position of the others.

    Args:
        xy: (N, K, 2).
        mirrored: Whether an image may show the shape mirrored.
    """
    points = _complex(xy)
    known = np.isfinite(points)
    filled = np.where(known, points, 0)
    counts = np.maximum(known.sum(axis=0), 1)
    plain = np.where(known.any(axis=0), filled.sum(axis=0) / counts, 0)
    plain = np.where(known.any(axis=0), plain, plain[known.any(axis=0)].mean() if known.any() else 0)
    richest = int(known.sum(axis=1).argmax())
    mean = np.where(known[richest], points[richest], plain) if mirrored else plain
    for _ in range(_ITERATIONS):
        linear, shift, turned = _fit(mean, points, mirrored=mirrored)
        back = (points - shift[:, None]) / linear[:, None]
        aligned = np.where(turned[:, None], back.conj(), back)
        total = np.where(known, aligned, 0).sum(axis=0)
        mean = np.where(known.any(axis=0), total / counts, mean)
        mean = _resized(mean, points)
    shape: Floats = np.stack([mean.real, mean.imag], axis=-1)
    return shape


def fit_to_images(shape: NDArray[Any], xy: NDArray[Any], *, mirrored: bool) -> Floats:
    """Return the similarities (N, 2, 3) that map the shape (K, 2) best to the landmarks (N, K, 2) of each image.

    NaN is left out. An image with less than two landmarks has the identity, moved to its landmark.

    Args:
        shape: (K, 2).
        xy: (N, K, 2).
        mirrored: Whether the similarity may mirror.
    """
    linear, shift, turned = _fit(_complex(shape), _complex(xy), mirrored=mirrored)
    sign = np.where(turned, -1.0, 1.0)
    rows = (
        np.stack([linear.real, -sign * linear.imag, shift.real], axis=-1),
        np.stack([linear.imag, sign * linear.real, shift.imag], axis=-1),
    )
    return np.stack(rows, axis=1)


def to_canonical(similarities: Floats, xy: NDArray[Any]) -> Floats:
    """Map points (N, P, 2) of the images to the canonical frame by the inverses of the similarities (N, 2, 3)."""
    inverse = np.linalg.inv(similarities[:, :, :2])
    mapped: Floats = np.einsum("nij,npj->npi", inverse, xy - similarities[:, None, :, 2])
    return mapped


def _complex(xy: NDArray[Any]) -> Complex:
    xy = np.asarray(xy, np.float64)
    points: Complex = xy[..., 0] + 1j * xy[..., 1]
    return points


def _fit(shape: Complex, points: Complex, *, mirrored: bool) -> tuple[Complex, Complex, NDArray[np.bool_]]:
    """Return a (N,), b (N,) and whether the image is mirrored (N,), for points ~ a shape + b, or a conj(shape) + b."""
    weight = np.isfinite(points).astype(np.float64)
    count = np.maximum(weight.sum(axis=1), 1)
    shape_centre = weight @ shape / count
    centre = np.where(weight > 0, points, 0).sum(axis=1) / count
    own = weight * (shape[None] - shape_centre[:, None])
    other = np.where(weight > 0, points - centre[:, None], 0)
    straight, turned = (own.conj() * other).sum(axis=1), (own * other).sum(axis=1)
    is_turned = (np.abs(turned) > np.abs(straight)) & mirrored
    linear = np.where(is_turned, turned, straight) / np.maximum((np.abs(own) ** 2).sum(axis=1), 1e-12)
    size = np.abs(linear)
    linear = np.where(size > 1e-9, linear / np.maximum(size, 1e-12) * np.clip(size, *_SCALES), 1.0)
    shift = centre - linear * np.where(is_turned, shape_centre.conj(), shape_centre)
    return linear, shift, is_turned


def _resized(mean: Complex, points: Complex) -> Complex:
    """Return the mean shape with the mean centre, and the root mean square radius, of the images' landmarks."""
    known = np.isfinite(points)
    enough = known.sum(axis=1) >= 2
    if not enough.any():
        return mean
    points, known = points[enough], known[enough]
    count = known.sum(axis=1)
    centres = np.where(known, points, 0).sum(axis=1) / count
    radius = np.sqrt((np.where(known, np.abs(points - centres[:, None]), 0) ** 2).sum(axis=1) / count).mean()
    centred = mean - mean.mean()
    own = np.sqrt((np.abs(centred) ** 2).mean())
    resized: Complex = centred * (radius / max(own, 1e-9)) + centres.mean()
    return resized
