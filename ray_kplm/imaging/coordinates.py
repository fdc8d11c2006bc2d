"""Coordinate frames of points, and all conversions between them.

A point is (x, y) with pixel centres at integers: the left border of pixel 0 is x = -0.5. There are four frames:

    source    the image file as a viewer shows it: upright, after EXIF rotation
    crop      the image that `ingest` stored: the object with a margin, upright, RGB; the frame of all tables on storage
    input     the network's S x S picture: the crop scaled to fit, centred, borders replicated
    heatmap   the network's S/4 x S/4 output; cell i covers input pixels 4i .. 4i+3, so its centre is 4i + 1.5

That cell centre makes mirroring exact: input x -> S-1-x is heatmap x -> S/4-1-x, with no shift to correct.
Affine maps are float64 (2, 3) and act as `A @ (x, y, 1)`; `a_to_b` maps points of frame a to frame b.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

STRIDE = 4
"""Input pixels per heatmap cell (thesis 2.3: the stem halves the resolution twice)."""

Affine = NDArray[np.float64]
"""An affine map (2, 3)."""


def apply(affine: Affine, xy: NDArray[Any]) -> NDArray[Any]:
    """Map points (..., 2) from the affine map's first frame to its second."""
    mapped: NDArray[Any] = xy @ affine[:, :2].T + affine[:, 2]
    return mapped


def compose(second: Affine, first: Affine) -> Affine:
    """Return the map that applies `first`, then `second`. Both may be many maps, (..., 2, 3)."""
    linear = second[..., :2]
    return np.concatenate([linear @ first[..., :2], linear @ first[..., 2:] + second[..., 2:]], axis=-1)


def invert(affine: Affine) -> Affine:
    """Return the inverse map, or those of many maps (..., 2, 3)."""
    linear = np.linalg.inv(affine[..., :2])
    return np.concatenate([linear, -linear @ affine[..., 2:]], axis=-1)


def scaling(scale_x: float, scale_y: float | None = None) -> Affine:
    """Return the map of a resize by a factor: borders map to borders, so that centres move by half a pixel of each grid."""
    scale_y = scale_x if scale_y is None else scale_y
    return np.array([[scale_x, 0, 0.5 * scale_x - 0.5], [0, scale_y, 0.5 * scale_y - 0.5]], dtype=np.float64)


def translation(dx: float, dy: float) -> Affine:
    """Return the map that moves points by (dx, dy)."""
    return np.array([[1, 0, dx], [0, 1, dy]], dtype=np.float64)


def mirroring(width: int) -> Affine:
    """Return the map to the mirror image of a picture `width` pixels wide; it is its own inverse."""
    return np.array([[-1, 0, width - 1], [0, 1, 0]], dtype=np.float64)


def crop_to_input(width: int, height: int, size: int) -> Affine:
    """Return the letterbox map: the crop's longer side fills the square of `size` pixels, the shorter side is centred."""
    scale = size / max(width, height)
    scaled = scaling(scale)
    return compose(translation((size - width * scale) / 2, (size - height * scale) / 2), scaled)


def in_square(xy: NDArray[Any], sizes: NDArray[Any]) -> NDArray[np.float64]:
    """Return points of crops as shares, 0 to 1, of the square that the letterbox fills.

    Points of crops of different sizes are comparable there, as in the input frame: input pixel x is (x + 0.5) / S.

    Args:
        xy: (..., 2), crop frame.
        sizes: (..., 2), width and height of the crops.

    Returns:
        (..., 2).
    """
    longer = np.max(sizes, axis=-1, keepdims=True)
    shares: NDArray[np.float64] = (np.asarray(xy, np.float64) + 0.5 + (longer - sizes) / 2) / longer
    return shares


def input_to_heatmap(xy: NDArray[Any]) -> NDArray[Any]:
    """Convert input pixels (..., 2) to heatmap cells (..., 2), fractional. It works on arrays and on tensors."""
    return (xy - (STRIDE - 1) / 2) / STRIDE


def heatmap_to_input(xy: NDArray[Any]) -> NDArray[Any]:
    """Convert heatmap cells (..., 2), fractional, to input pixels (..., 2). It works on arrays and on tensors."""
    return xy * STRIDE + (STRIDE - 1) / 2


def mirrored(xy: NDArray[Any], width: int) -> NDArray[Any]:
    """Return points (..., 2) of a picture or heatmap `width` pixels or cells wide in its mirror image."""
    out = xy.copy()
    out[..., 0] = width - 1 - out[..., 0]
    return out
