"""Cutting a box out of each input and resizing it as `describe_images` does, as tensor operations.

OpenCV is followed to the grey level: bilinear interpolation of bytes in integers of 11 bits, and the average by area where both
sides shrink. Axes in names: N images, S side of the network's input, T side of the result.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ray_kplm.detectors.graph_letterbox import areas

_ONE = 2048.0
"""Weights of the bilinear interpolation are counted in this share (OpenCV's `INTER_RESIZE_COEF_SCALE`)."""


def cut_and_resize(image_N3SS: Tensor, box_N4: Tensor, side: int) -> Tensor:
    """Return the part of each input in its box, stretched to a square: see `methods.facing.cut` and `describe_images`.

    Args:
        image_N3SS: Float32, whole grey levels.
        box_N4: x0, y0, x1, y1, pixels.
        side: T.

    Returns:
        float32 (N, 3, T, T), whole grey levels.
    """
    size = image_N3SS.shape[-1]
    whole_N4 = box_N4.double().round()
    first_N2 = whole_N4[:, :2].clamp(min=0)
    length_N2 = whole_N4[:, 2:].clamp(max=size - 1) + 1 - first_N2
    is_seen = (length_N2 >= 2).all(dim=1, keepdim=True)
    first_N2, length_N2 = torch.where(is_seen, first_N2, 0.0), torch.where(is_seen, length_N2, float(size))
    linear = _bilinear(image_N3SS, first_N2, length_N2, side)
    if size <= side:
        return linear
    shrinks = (length_N2 > side).all(dim=1)[:, None, None, None]
    return torch.where(shrinks, _by_area(image_N3SS, first_N2, length_N2, side), linear)


def _by_area(image_N3SS: Tensor, first_N2: Tensor, length_N2: Tensor, side: int) -> Tensor:
    size = image_N3SS.shape[-1]
    ratio_N2 = length_N2 / side
    columns_NTS, rows_NTS = (
        (areas(size, ratio_N2[:, axis], side, first_N2[:, axis]).double() / ratio_N2[:, axis, None, None]).float()
        for axis in range(2)
    )
    across_N3ST = torch.matmul(image_N3SS, columns_NTS.transpose(1, 2)[:, None])
    mean_N3TT = torch.matmul(rows_NTS[:, None], across_N3ST)
    is_half = (ratio_N2 == 2).all(dim=1)[:, None, None, None]  # OpenCV has a path of its own, which rounds halves up
    return torch.where(is_half, (mean_N3TT + 0.5).floor(), mean_N3TT.round())


def _bilinear(image_N3SS: Tensor, first_N2: Tensor, length_N2: Tensor, side: int) -> Tensor:
    """Interpolate first along x, then along y, in integers, which float64 holds exactly."""
    image = image_N3SS.double()
    low, high, lower, upper = _neighbours(first_N2[:, 0], length_N2[:, 0], side, weigh_border=False)
    across = [
        image.gather(3, index_NT[:, None, None].repeat(1, 3, image.shape[2], 1)) * weight_NT[:, None, None]
        for index_NT, weight_NT in ((low, lower), (high, upper))
    ]
    rows_N3ST = ((across[0] + across[1]) / 16).floor()
    low, high, lower, upper = _neighbours(first_N2[:, 1], length_N2[:, 1], side, weigh_border=True)
    down = [
        (
            rows_N3ST.gather(2, index_NT[:, None, :, None].repeat(1, 3, 1, side)) * weight_NT[:, None, :, None] / 65536
        ).floor()
        for index_NT, weight_NT in ((low, lower), (high, upper))
    ]
    return ((down[0] + down[1] + 2) / 4).floor().float()


def _neighbours(
    first_N: Tensor, length_N: Tensor, side: int, *, weigh_border: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return for each of T pixels its lower and upper neighbour, int64 (N, T), and their weights, float64 (N, T).

    Args:
        first_N: First pixel of the part that is stretched.
        length_N: Its pixels.
        side: T.
        weigh_border: Whether a neighbour beyond the border has a share of its own. OpenCV does so along y and not along x; the
            rounding differs.
    """
    scale_N1 = (1 / (side / length_N))[:, None]
    place = ((torch.arange(side, dtype=torch.float64) + 0.5) * scale_N1 - 0.5).float()
    low = place.floor()
    share = place - low
    last = length_N[:, None].float() - 1
    if not weigh_border:
        share = torch.where((low < 0) | (low >= last), 0.0, share)
    origin = first_N[:, None].long()
    neighbours = [torch.minimum(index.clamp(min=0), last).long() + origin for index in (low, low + 1)]
    weights = [(part * _ONE).round().double() for part in (1 - share, share)]
    return neighbours[0], neighbours[1], weights[0], weights[1]
