"""The frames of a point, and the only conversions between them.

A point is (x, y) with pixel centres at integers: the left border of pixel 0 is x = -0.5. Four frames:

    source    the image file as a viewer shows it: upright, after EXIF rotation
    crop      what `ingest` stored: the object with a margin, upright, RGB; every table on storage
    input     the network's S x S picture: the crop scaled to fit, centred, borders replicated
    heatmap   the network's S/4 x S/4 output; cell i covers input pixels 4i .. 4i+3, so its centre is 4i + 1.5

That cell centre makes mirroring exact: input x -> S-1-x is heatmap x -> S/4-1-x, with no shift to correct.
Affine maps are float64 (2, 3) and act as `A @ (x, y, 1)`; `a_to_b` maps points of frame a to frame b.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

STRIDE = 4
"""Input pixels per heatmap cell (thesis 2.3: the stem halves the resolution twice)."""

Affine = NDArray[np.float64]


def apply(affine: Affine, xy: NDArray) -> NDArray:
    """Map points: (..., 2) in the affine's first frame -> (..., 2) in its second."""
    return xy @ affine[:, :2].T + affine[:, 2]


def compose(second: Affine, first: Affine) -> Affine:
    """The map that applies `first`, then `second`."""
    return np.concatenate([second[:, :2] @ first[:, :2], second[:, :2] @ first[:, 2:] + second[:, 2:]], axis=1)


def invert(affine: Affine) -> Affine:
    """The inverse map."""
    linear = np.linalg.inv(affine[:, :2])
    return np.concatenate([linear, -linear @ affine[:, 2:]], axis=1)


def scaling(scale_x: float, scale_y: float | None = None) -> Affine:
    """Resizing by a factor: borders map to borders, so centres move by half a pixel of each grid."""
    scale_y = scale_x if scale_y is None else scale_y
    return np.array([[scale_x, 0, 0.5 * scale_x - 0.5], [0, scale_y, 0.5 * scale_y - 0.5]], dtype=np.float64)


def translation(dx: float, dy: float) -> Affine:
    return np.array([[1, 0, dx], [0, 1, dy]], dtype=np.float64)


def mirroring(width: int) -> Affine:
    """The mirror image of a picture `width` px wide; its own inverse."""
    return np.array([[-1, 0, width - 1], [0, 1, 0]], dtype=np.float64)


def crop_to_input(width: int, height: int, size: int) -> Affine:
    """Letterbox: the crop's longer side fills the `size` px square, the shorter one is centred."""
    scale = size / max(width, height)
    scaled = scaling(scale)
    return compose(translation((size - width * scale) / 2, (size - height * scale) / 2), scaled)


def in_square(xy: NDArray, sizes: NDArray) -> NDArray[np.float64]:
    """Points (..., 2) of crops of sizes (..., 2), width and height -> shares, 0 to 1, of the square that the letterbox fills.

    Crops of any size compare there, as in the input frame, of which it is the scaled copy: input pixel x is (x + 0.5) / S.
    """
    longer = np.max(sizes, axis=-1, keepdims=True)
    return (np.asarray(xy, np.float64) + 0.5 + (longer - sizes) / 2) / longer


def input_to_heatmap(xy: NDArray) -> NDArray:
    """Input pixels (..., 2) -> heatmap cells (..., 2), fractional. Works on arrays and on tensors."""
    return (xy - (STRIDE - 1) / 2) / STRIDE


def heatmap_to_input(xy: NDArray) -> NDArray:
    """Heatmap cells (..., 2), fractional -> input pixels (..., 2). Works on arrays and on tensors."""
    return xy * STRIDE + (STRIDE - 1) / 2


def mirrored(xy: NDArray, width: int) -> NDArray:
    """Points (..., 2) of a picture `width` cells or pixels wide -> the same places in its mirror image."""
    out = xy.copy()
    out[..., 0] = width - 1 - out[..., 0]
    return out
