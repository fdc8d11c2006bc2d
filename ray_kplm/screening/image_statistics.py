"""Numbers that describe one image: what `kplm check` and `kplm drift` compare between images and between sets of them."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

STATISTICS = (
    "brightness",
    "contrast",
    "saturation",
    "warmth",
    "sharpness",
    "noise",
    "clipped",
    "aspect",
    "megapixels",
    "border_energy",
)
"""Names of what `image_statistics` returns, in its order."""
_SIDE = 128
"""Longer side, pixels, that images are scaled to for all but their size: so the numbers do not depend on it."""


def image_statistics(
    rgb: NDArray[np.uint8], width: int | None = None, height: int | None = None
) -> NDArray[np.float64]:
    """Return the numbers of an image, `STATISTICS`.

    Brightness, contrast (standard deviation) and saturation are shares of the full range; warmth is the mean of red less blue;
    sharpness is the logarithm of the variance of the Laplacian; noise is the mean size of what a median filter removes;
    clipped is the share of pixels that are black or white; aspect is the logarithm of width over height; megapixels is the
    logarithm of the number of pixels; border_energy is the share of the gradient's energy in the outer eighth of the image.

    Args:
        rgb: (H, W, 3).
        width: Of the picture that the image was cut out of or scaled from, pixels; by default that of the image.
        height: Likewise.
    """
    rows, columns = rgb.shape[:2]
    scale = _SIDE / max(rows, columns)
    small = cv2.resize(rgb, (max(8, round(columns * scale)), max(8, round(rows * scale))), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    hsv = cv2.cvtColor(small, cv2.COLOR_RGB2HSV)
    laplacian = cv2.Laplacian(grey, cv2.CV_64F)
    removed = np.abs(grey.astype(np.float64) - cv2.medianBlur(grey, 3))
    dx, dy = cv2.Sobel(grey, cv2.CV_64F, 1, 0), cv2.Sobel(grey, cv2.CV_64F, 0, 1)
    energy = dx**2 + dy**2
    edge_y, edge_x = max(1, grey.shape[0] // 8), max(1, grey.shape[1] // 8)
    inner = energy[edge_y:-edge_y, edge_x:-edge_x].sum()
    width, height = width or columns, height or rows
    return np.array(
        [
            grey.mean() / 255,
            grey.std() / 255,
            hsv[..., 1].mean() / 255,
            (small[..., 0].astype(np.float64) - small[..., 2]).mean() / 255,
            math.log(laplacian.var() + 1e-3),
            np.mean(removed) / 255,
            ((grey <= 2) | (grey >= 253)).mean(),
            math.log(width / height),
            math.log(width * height / 1e6),
            1 - inner / max(energy.sum(), 1e-9),
        ]
    )
