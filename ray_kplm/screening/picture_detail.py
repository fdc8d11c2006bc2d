"""How much detail a picture has, whatever its number of pixels, and the details of its border."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

SIDES = (16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 224, 256)
"""Longer sides, pixels, to which a picture is scaled down to see whether it loses anything."""
_LOSS = 0.1
"""A side is enough if the picture, scaled down to it and up again, differs by less than this share of its contrast."""
_BORDER_SIDE, _BORDER = 48, 8
"""Side of the picture whose border is compared, and the border's width, pixels."""
_DETAIL = 2.0
"""Sigma, pixels, of the blur that is taken from a picture to leave its details."""


def detail_side(rgb: NDArray[np.uint8]) -> int:
    """Return the longer side that holds the picture's detail, pixels: its own for a sharp one, less for a blurred one.

    Args:
        rgb: (H, W, 3).
    """
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    height, width = grey.shape
    longer, contrast = max(height, width), max(float(grey.std()), 1.0)
    for side in SIDES:
        if side >= longer:
            break
        scale = side / longer
        small = (max(1, round(width * scale)), max(1, round(height * scale)))
        down = cv2.resize(grey, small, interpolation=cv2.INTER_AREA)
        up = cv2.resize(down, (width, height), interpolation=cv2.INTER_CUBIC)
        if float(np.sqrt(np.mean((up - grey) ** 2))) < _LOSS * contrast:
            return side
    return longer


def border_details(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the details of a picture's border, what a blur removes: (P,)."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_BORDER_SIDE, _BORDER_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    details = small - cv2.GaussianBlur(small, (0, 0), _DETAIL)
    outer = np.ones(details.shape, bool)
    outer[_BORDER:-_BORDER, _BORDER:-_BORDER] = False
    return np.asarray(details[outer], np.float32)
