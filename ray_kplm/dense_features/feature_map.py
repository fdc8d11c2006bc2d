"""Feature maps of images: the interface of the models, values at points, and one descriptor of a whole image.

The cells of a map divide the picture evenly: pixel x of a picture W wide is at (x + 0.5) w / W - 0.5 of a map w wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

GRID = 12
"""Maximum number of cells a side of the map in an image's descriptor."""
_BATCH = 32
"""Images that a model gets at once."""


class DenseFeatures(Protocol):
    """A model that describes every place of an image, and is not trained here."""

    input_size: int
    """Side of the square that an image is resized to for `describe_images`, pixels."""

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the maps (B, h, w, d) of RGB images (B, H, W, 3) of one size."""
        ...


def describe_images(
    features: DenseFeatures, crops: Sequence[NDArray[np.uint8]], mirrored: bool = False
) -> NDArray[np.float32]:
    """Return one descriptor of each image: its map, averaged over a grid of at most `GRID` x `GRID` cells.

    Args:
        features: The model.
        crops: RGB images (H, W, 3) of any sizes, cut to the object. Each is stretched to a square.
        mirrored: Describe the mirror images. The model runs on them: the mirror image of a map is not the map of the mirror
            image, since channels know directions.

    Returns:
        (N, h * w * d), row by row of the grid; neither centred nor of unit norm.
    """
    size = (features.input_size, features.input_size)
    descriptors: list[NDArray[np.float32]] = []
    for start in range(0, len(crops), _BATCH):
        images = [
            cv2.resize(crop, size, interpolation=_interpolation(crop, size)) for crop in crops[start : start + _BATCH]
        ]
        batch = np.stack([image[:, ::-1] for image in images] if mirrored else images)
        maps = pool_maps(features(np.ascontiguousarray(batch)), GRID)
        descriptors.append(maps.reshape(len(maps), -1))
    return np.concatenate(descriptors) if descriptors else np.zeros((0, 0), np.float32)


def _interpolation(crop: NDArray[np.uint8], size: tuple[int, int]) -> int:
    """Return OpenCV's interpolation for a resize: by area where it shrinks."""
    return cv2.INTER_AREA if min(crop.shape[:2]) > size[0] else cv2.INTER_LINEAR


def pool_maps(maps: NDArray[np.float32], grid: int) -> NDArray[np.float32]:
    """Return maps (B, h, w, d) averaged over a grid of at most `grid` cells a side.

    Each cell of the map counts in the cells of the grid that it overlaps, by the share of the overlap.
    """
    rows, columns = (_overlaps(length, min(length, grid)) for length in maps.shape[1:3])
    pooled: NDArray[np.float32] = np.einsum("gh,bhwd,fw->bgfd", rows, maps, columns, optimize=True)
    return pooled


def _overlaps(cells: int, grid: int) -> NDArray[np.float32]:
    """Return the share (grid, cells) of each of `grid` intervals that each of `cells` intervals of the same line covers."""
    edges, grid_edges = np.arange(cells + 1) / cells, np.arange(grid + 1) / grid
    upper = np.minimum(grid_edges[1:, None], edges[None, 1:])
    lower = np.maximum(grid_edges[:-1, None], edges[None, :-1])
    shares: NDArray[np.float32] = (np.maximum(upper - lower, 0) * grid).astype(np.float32)
    return shares


def sample_maps(maps: NDArray[np.float32], xy: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    """Return the maps at points of their images, interpolated bilinearly between the centres of cells.

    Args:
        maps: (B, h, w, d).
        xy: (B, K, 2), pixels of the images. Points beyond the outer centres get the outer cells.
        size: Width and height of the images, pixels.

    Returns:
        (B, K, d).
    """
    height, width = maps.shape[1:3]
    cells = np.array([width, height])
    place = np.clip((xy + 0.5) * cells / np.array(size) - 0.5, 0, cells - 1)
    low = np.minimum(place.astype(np.int64), np.maximum(cells - 2, 0))
    high = np.minimum(low + 1, cells - 1)
    share = (place - low).astype(np.float32)
    image = np.arange(len(maps))[:, None]
    sampled = np.zeros((*xy.shape[:2], maps.shape[3]), np.float32)
    for x, share_x in ((low[..., 0], 1 - share[..., 0]), (high[..., 0], share[..., 0])):
        for y, share_y in ((low[..., 1], 1 - share[..., 1]), (high[..., 1], share[..., 1])):
            sampled += maps[image, y, x] * (share_x * share_y)[..., None]
    return sampled


def normalise(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return maps (..., d) with unit norm at every place; zero stays zero."""
    norms = np.linalg.norm(maps, axis=-1, keepdims=True)
    unit: NDArray[np.float32] = maps / np.maximum(norms, np.finfo(np.float32).tiny)
    return unit
