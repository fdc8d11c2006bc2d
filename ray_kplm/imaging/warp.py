"""Smooth random warps: the parts of an image move against each other, as when an object turns or changes its shape.

An affine view keeps the layout of an object, and a network can tell its parts by their layout alone. Under a warp it must use
their appearance (Thewlis et al. 2017 and later equivariance methods; thesis section 3).

A warp is given by random shifts of 4 x 4 nodes with cubic interpolation between them: place p of the warped image shows place
p + shift(p) of the other one. For points it is stored the other way round, as shifts (G, G, 2) in pixels on an even grid over
the image, bilinear in between.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ray_kplm.imaging.view_parameters import WARP_NODES

Floats = NDArray[np.float32]

_LATTICE = 17
"""Grid points along a side at which the shift of points is stored."""
_CELLS = 64
"""Cells along a side of the grid on which a warp is inverted."""
_STEPS = 8
"""Iterations of the fixed point v = p - shift(v); each reduces the error by a factor of the steepest slope of the shift."""
_STACKED = 32
"""Most warps that are inverted together, in one picture for OpenCV; what this takes stays in a core's cache."""
_TO_32NDS = np.float32(1.5 * 2**18)
"""Adding this to a small number in single precision, and subtracting it, rounds to whole 32nds."""
_SHARPNESS = -0.75
"""Parameter of cubic convolution in OpenCV (Keys 1981 has -0.5)."""

IDENTITY_SHIFT = np.zeros((2, 2, 2), np.float32)
"""The shifts of an image that is not warped."""


def node_basis(at: NDArray[Any], side: int) -> Floats:
    """Return the weights of the nodes at places along one axis, as `cv2.resize` with cubic interpolation has them.

    Args:
        at: (P,), pixels.
        side: Of the image, pixels.

    Returns:
        (P, WARP_NODES).
    """
    grid = (np.asarray(at, np.float64) + 0.5) * (WARP_NODES / side) - 0.5
    low = np.floor(grid)
    basis = np.zeros((len(grid), WARP_NODES))
    for step in range(-1, 3):
        index = np.clip(low + step, 0, WARP_NODES - 1).astype(np.int64)
        basis[np.arange(len(grid)), index] += _cubic(np.abs(grid - low - step))
    return basis.astype(np.float32)


def spread(nodes: Floats, basis: Floats) -> Floats:
    """Interpolate nodes (B, K, K, 2) along x, to the places of a basis (P, K): (B, K, P, 2).

    `basis @ spread(...)[b]` interpolates along y, too. The result of one warp does not depend on the others.
    """
    count, k = nodes.shape[:2]
    rows = nodes.transpose(0, 1, 3, 2).reshape(count, 2 * k, k) @ basis.T
    return np.ascontiguousarray(rows.reshape(count, k, 2, -1).transpose(0, 1, 3, 2))


def point_shifts(nodes: NDArray[Any], side: int) -> Floats:
    """Return how warps move the points of images: the inverse maps of what the warped images show.

    Args:
        nodes: (B, WARP_NODES, WARP_NODES, 2), shifts of the nodes, pixels.
        side: Of the images, pixels.

    Returns:
        (B, G, G, 2), pixels.
    """
    return np.concatenate([_inverted(nodes[i : i + _STACKED], side) for i in range(0, len(nodes), _STACKED)])


def _inverted(nodes: NDArray[Any], side: int) -> Floats:
    """Return `point_shifts` of some warps, whose fields are stacked to one picture for OpenCV."""
    count, wide = len(nodes), _CELLS + 1
    basis, places = _inversion_grid(side)
    add = _to_stack(count)
    to_cells = np.float32(_CELLS / (side - 1))
    in_cells = np.asarray(nodes, np.float32) * to_cells
    field = np.matmul(basis, spread(in_cells, basis).reshape(count, WARP_NODES, 2 * wide)).reshape(-1, wide, 2)
    moved = np.repeat(places[None], count, axis=0)
    at, back = np.empty_like(moved), np.empty((count * _LATTICE, _LATTICE, 2), np.float32)
    for _ in range(_STEPS):
        np.clip(moved, 0, _CELLS, out=at)
        at += add
        at -= _TO_32NDS
        cv2.remap(field, at.reshape(back.shape), None, cv2.INTER_LINEAR, back, cv2.BORDER_REPLICATE)
        np.subtract(places, back.reshape(moved.shape), out=moved)
    shifts: Floats = (moved - places) / to_cells
    return shifts


@lru_cache(maxsize=8)
def _inversion_grid(side: int) -> tuple[Floats, Floats]:
    """Return the basis at the places of the inversion's grid, and the stored places in its cells: (G, G, 2)."""
    at = np.linspace(0, _CELLS, _LATTICE, dtype=np.float32)
    return node_basis(np.linspace(0, side - 1, _CELLS + 1), side), np.stack(np.meshgrid(at, at), axis=-1)


@lru_cache(maxsize=2 * _STACKED)
def _to_stack(count: int) -> Floats:
    """Return what is added to places (B, G, G, 2) in the fields of warps, to be places in their stack above `_TO_32NDS`.

    Places are so rounded to whole 32nds of a cell, to which OpenCV rounds them: what a warp gives does not depend on its place
    in the stack.
    """
    add = np.full((count, _LATTICE, _LATTICE, 2), _TO_32NDS, np.float32)
    add[..., 1] += np.arange(count, dtype=np.float32)[:, None, None] * (_CELLS + 1)
    return add


def _cubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the kernel of cubic convolution at distances of 0 to 2 nodes."""
    a, d = _SHARPNESS, distance
    near, far = ((a + 2) * d - (a + 3)) * d * d + 1, ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, far)


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
