"""Smooth random warps: the parts of an image move against each other, as when an object turns or changes its shape.

An affine view keeps the layout of an object, and a network can tell its parts by their layout alone. Under a warp it must use
their appearance (Thewlis et al. 2017 and later equivariance methods; thesis section 3).

A warp is stored as shifts (G, G, 2) in pixels, on an even grid over the image, bilinear in between.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_NODES = 4
"""Random shifts along a side, with cubic interpolation between them."""
_LATTICE = 17
"""Grid points along a side at which the shift of points is stored."""
_STEPS = 8
"""Iterations of the fixed point v = p - shift(v); each reduces the error by a factor of the steepest slope of the shift."""

IDENTITY_SHIFT = np.zeros((2, 2, 2), np.float32)
"""The shifts of an image that is not warped."""


def random_warp(
    picture: NDArray[np.uint8], share: float, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Warp an image at random.

    Args:
        picture: (S, S, 3).
        share: Largest shift of a node along each axis, share of the side.
        rng: Draws the shifts of the nodes.

    Returns:
        The warped image, and the shifts of its points, (G, G, 2).
    """
    side = len(picture)
    nodes = rng.uniform(-share * side, share * side, (_NODES, _NODES, 2)).astype(np.float32)
    back = cv2.resize(nodes, (side, side), interpolation=cv2.INTER_CUBIC)  # warped place -> its source
    rows, columns = np.indices((side, side), dtype=np.float32)
    source = columns + back[..., 0], rows + back[..., 1]
    warped = cv2.remap(picture, *source, interpolation=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    at = np.linspace(0, side - 1, _LATTICE, dtype=np.float32)
    places = np.stack(np.meshgrid(at, at), axis=-1)
    moved = places
    for _ in range(_STEPS):
        moved = places - cv2.remap(
            back, moved[..., 0], moved[..., 1], interpolation=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
    return warped, moved - places


def compose_shifts(first: NDArray[np.float32], second: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Return the shifts (G, G, 2) of the first warp followed by the second, on the grid of the first.

    Args:
        first: (G, G, 2).
        second: (H, H, 2).
        side: Of the image, pixels.
    """
    at = np.linspace(0, side - 1, len(first), dtype=np.float32)
    places = np.stack(np.meshgrid(at, at), axis=-1)
    moved = displace((places + first).reshape(1, -1, 2), second[None], side).reshape(places.shape)
    return (moved - places).astype(np.float32)


def displace(xy: NDArray[Any], shifts: NDArray[Any], side: int) -> NDArray[Any]:
    """Move points by the shifts of their images.

    Args:
        xy: (B, P, 2), pixels.
        shifts: (B, G, G, 2), pixels.
        side: Of the images, pixels.

    Returns:
        (B, P, 2).
    """
    cells = shifts.shape[1] - 1
    grid = np.clip(xy * (cells / (side - 1)), 0, cells)
    low = np.minimum(grid.astype(np.int64), cells - 1)
    x, y = low[..., 0], low[..., 1]
    across, down = ((grid - low)[..., i, None] for i in range(2))
    picture = np.arange(len(xy))[:, None]
    top = shifts[picture, y, x] * (1 - across) + shifts[picture, y, x + 1] * across
    bottom = shifts[picture, y + 1, x] * (1 - across) + shifts[picture, y + 1, x + 1] * across
    displaced: NDArray[Any] = xy + top * (1 - down) + bottom * down
    return displaced
