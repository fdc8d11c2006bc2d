"""Smooth random warps: parts of a picture move against each other, as they do when an object turns or changes its shape.

An affine view keeps the layout of an object, and a network can know its parts by their layout alone; under a warp it has to
look at them (Thewlis et al. 2017 and all later equivariance methods; thesis section 3).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_NODES = 4
"""Random shifts a side; between them the picture bends."""
_LATTICE = 17
"""Places a side at which the shift of points is told; linear between them."""
_STEPS = 8
"""Of the fixed point v = p - shift(v); each brings it closer by the steepest slope of the shift."""

IDENTITY_SHIFT = np.zeros((2, 2, 2), np.float32)
"""The shifts of a picture that was not warped."""


def random_warp(
    picture: NDArray[np.uint8], share: float, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Bend a picture (S, S, 3): nodes move by up to `share` of the side, each way.

    Returns the warped picture, and by how much its points moved: (G, G, 2) pixels, at places evenly over the picture.
    """
    side = len(picture)
    nodes = rng.uniform(-share * side, share * side, (_NODES, _NODES, 2)).astype(np.float32)
    back = cv2.resize(nodes, (side, side), interpolation=cv2.INTER_CUBIC)  # warped place -> where it came from
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
    """The shifts of both together, at the places of the first (G, G, 2)."""
    at = np.linspace(0, side - 1, len(first), dtype=np.float32)
    places = np.stack(np.meshgrid(at, at), axis=-1)
    moved = displaced((places + first).reshape(1, -1, 2), second[None], side).reshape(places.shape)
    return (moved - places).astype(np.float32)


def displaced(xy: NDArray, shifts: NDArray, side: int) -> NDArray:
    """Points (B, P, 2) of pictures of a side of pixels, moved by the pictures' shifts (B, G, G, 2)."""
    cells = shifts.shape[1] - 1
    grid = np.clip(xy * (cells / (side - 1)), 0, cells)
    low = np.minimum(grid.astype(np.int64), cells - 1)
    x, y = low[..., 0], low[..., 1]
    across, down = ((grid - low)[..., i, None] for i in range(2))
    picture = np.arange(len(xy))[:, None]
    top = shifts[picture, y, x] * (1 - across) + shifts[picture, y, x + 1] * across
    bottom = shifts[picture, y + 1, x] * (1 - across) + shifts[picture, y + 1, x + 1] * across
    return xy + top * (1 - down) + bottom * down
