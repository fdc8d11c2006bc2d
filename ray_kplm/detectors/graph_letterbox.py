"""The letterbox of `imaging.crops` as tensor operations, so that an exported detector takes pictures of any size.

OpenCV is followed to the grey level: the average by area where a picture shrinks, rounded, then bilinear interpolation with
replicated borders, rounded. Axes in names: N images, H x W their size, S side of the network's input.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_SLIVER = 1e-3
"""A pixel of which less than this share lies in an area does not count (OpenCV's `computeResizeAreaTab`)."""


class Letterboxed(NamedTuple):
    """Pictures as the network sees them.

    Attributes:
        image_N3SS: float32, whole grey levels, 0 to 255.
        scale: float64 scalar, from pixels of the picture to those of the input.
        offset_2: float64, (x, y), position in the input of the picture's pixel (0, 0).
    """

    image_N3SS: Tensor
    scale: Tensor
    offset_2: Tensor

    def to_input(self, xy: Tensor) -> Tensor:
        """Return points (..., 2) of the pictures in the pixels of the input: float32."""
        return (xy.double() * self.scale + self.offset_2).float()

    def to_source(self, xy: Tensor) -> Tensor:
        """Return points (..., 2) of the input in the pixels of the pictures: float32."""
        return ((xy.double() - self.offset_2) / self.scale).float()


def letterbox(image_NHW3: Tensor, size: int) -> Letterboxed:
    """Return uint8 pictures of one size as inputs of `size` pixels a side: see `imaging.crops.letterbox`."""
    length_2 = torch.stack(
        [torch.scalar_tensor(n, dtype=torch.float64) for n in image_NHW3.shape[1:3]]
    )  # height, width
    scale = size / length_2.max()
    small_2 = torch.where(scale < 1, (length_2 * scale).round().clamp(min=1), length_2)
    ratio_2 = length_2 / small_2
    rows_SH, columns_SW = (areas(image_NHW3.shape[1 + axis], ratio_2[axis], size) for axis in range(2))
    sums_N3SW = torch.matmul(rows_SH, image_NHW3.permute(0, 3, 1, 2).float())
    mean_N3SS = torch.matmul(sums_N3SW, columns_SW.T) * (1 / (ratio_2[0] * ratio_2[1])).float()
    is_half = (ratio_2 == 2).all()  # OpenCV has a path of its own for it, which rounds halves up
    mean_N3SS = torch.where(is_half, (mean_N3SS + 0.5).floor(), mean_N3SS.round())
    offset_2 = 0.5 * scale - 0.5 + (size - length_2 * scale) / 2
    slope_2 = scale * ratio_2  # of the map from the small picture to the input
    start_2 = offset_2 - scale * (0.5 - 0.5 * ratio_2)
    across = _lerp(mean_N3SS, 3, *_neighbours(slope_2[1], start_2[1], small_2[1], size), (1, size))
    both = _lerp(across, 2, *_neighbours(slope_2[0], start_2[0], small_2[0], size), (size, 1))
    return Letterboxed(both.round(), scale, offset_2.flip(0))


def areas(length: int, ratio: Tensor, size: int, first: Tensor | float = 0.0) -> Tensor:
    """Return how much of each of `length` pixels lies in each of `size` intervals along one axis: float32 (..., size, length).

    Args:
        length: Pixels.
        ratio: Length of an interval, pixels: float64 (...).
        size: Intervals.
        first: The pixel that the first interval begins with, (...).
    """
    pixel = torch.arange(length, dtype=torch.float64)
    width = ratio[..., None, None]
    start = torch.arange(size, dtype=torch.float64)[:, None] * width
    start = start + (first[..., None, None] if isinstance(first, Tensor) else first)
    overlap = (torch.minimum(pixel + 1, start + width) - torch.maximum(pixel, start)).clamp(0, 1)
    return torch.where(overlap > _SLIVER, overlap, 0.0).float()


def _neighbours(slope: Tensor, start: Tensor, length: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return for each pixel of the input its lower and upper neighbour, int64 (S,), and the share of the upper, float32 (S,).

    Args:
        slope: Of the map from the picture to the input, along one axis.
        start: Of the same map.
        length: Of the picture.
        size: S.
    """
    inverse, back = (1 / slope).float().double(), (-start / slope).float().double()
    place = (torch.arange(size, dtype=torch.float64) * inverse + back).float()
    low = place.floor()
    last = length.float() - 1
    low_S, high_S = (torch.minimum(index.clamp(min=0), last).long() for index in (low, low + 1))
    return low_S, high_S, place - low


def _lerp(image: Tensor, axis: int, low_S: Tensor, high_S: Tensor, share_S: Tensor, shape: tuple[int, ...]) -> Tensor:
    low, high = image.index_select(axis, low_S), image.index_select(axis, high_S)
    return low + share_S.view(shape) * (high - low)
