"""Whether images show something at a common place: an object in the middle, as its crops do, or a landscape anywhere.

Two images of aligned objects are more alike at the same place than at places that are shifted sideways. Landscapes, textures,
and objects that are anywhere in their images are not: their statistics are the same all along a row. Rows are not compared with
each other, as sky and ground differ in every landscape.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SHIFTS = (0.25, 0.33, 0.42)
"""Sideways shifts, shares of the width, over which the comparison is averaged."""


def common_place(maps: NDArray[np.float32]) -> float:
    """Return the mean cosine of two images at the same place, minus that at places shifted sideways.

    It is 0 where nothing is at a common place. The outermost cells are left out: gradients are weaker there in any image.

    Args:
        maps: (N, h, w, d), feature maps of whole images, such as HOG over a grid; N and w at least 2 and 8.
    """
    inner = maps[:, 1:-1, 1:-1] - maps[:, 1:-1, 1:-1].mean(axis=(0, 1, 2))
    images, _, width, _ = inner.shape
    found = []
    for share in _SHIFTS:
        shift = max(1, round(share * width))
        left, right = (_unit(part.reshape(images, -1)) for part in (inner[:, :, :-shift], inner[:, :, shift:]))
        a, b = left.sum(axis=0, dtype=np.float64), right.sum(axis=0, dtype=np.float64)
        same = (a @ a + b @ b - 2 * images) / 2
        shifted = a @ b - float((left * right).sum())
        found.append((same - shifted) / max(images * (images - 1), 1))
    return float(np.mean(found))


def effective_number(descriptors: NDArray[np.float32]) -> float:
    """Return how many different images there are, by the entropy of the eigenvalues of their similarities.

    This is the Vendi score (Friedman and Dieng, TMLR 2023) of centred descriptors, less the mean; 1 if all are the same.

    Args:
        descriptors: (N, D), one for each image.
    """
    centred = descriptors - descriptors.mean(axis=0)
    if len(descriptors) < 2 or float(np.abs(centred).max()) < 1e-6:
        return 1.0
    unit = _unit(centred).astype(np.float64)
    values = np.linalg.eigvalsh(unit @ unit.T / len(unit))
    shares = values[values > 1e-12]
    shares = shares / shares.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def fixed_background(details: NDArray[np.float32]) -> float:
    """Return how alike the details of two images' borders are at the same place: mean cosine, 1 for a camera that stands still.

    Args:
        details: (N, P), see `border_details`.
    """
    unit = _unit(details)
    total, images = unit.sum(axis=0, dtype=np.float64), len(unit)
    return float((total @ total - (np.linalg.norm(unit, axis=1) ** 2).sum()) / max(images * (images - 1), 1))


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return unit
