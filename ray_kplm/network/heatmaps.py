"""Points to heatmaps and back, on the device, a whole batch at a time.

Axes in names: B images, P points (padded), K landmarks, h = w heatmap side. Points are in the heatmap frame
(`imaging.frames`): (x, y) cells, fractional.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


def render(xy_BP2: Tensor, valid_BP: Tensor, side: int, sigma: float) -> Tensor:
    """Heatmaps BPhw with a Gaussian of peak 1 at every valid point, zero where a point is not valid.

    `sigma` in cells; 0 marks the single cell nearest to the point. A Gaussian is sampled at cell centres relative to
    the exact point, so a point between cells keeps its place; it is cut at 3 sigma.
    """
    cells = torch.arange(side, device=xy_BP2.device, dtype=xy_BP2.dtype)
    if sigma == 0:
        nearest = xy_BP2.round()
        columns = (cells == nearest[..., :1]).to(xy_BP2.dtype)
        rows = (cells == nearest[..., 1:]).to(xy_BP2.dtype)
    else:
        columns = gaussian_1d(cells - xy_BP2[..., :1], sigma)
        rows = gaussian_1d(cells - xy_BP2[..., 1:], sigma)
    return rows[..., :, None] * (columns * valid_BP[..., None])[..., None, :]


def gaussian_1d(distance: Tensor, sigma: float) -> Tensor:
    """Return a Gaussian of peak 1 at distances from its centre, cut at 3 sigma."""
    return torch.exp(-0.5 * (distance / sigma) ** 2) * (distance.abs() <= 3 * sigma)


def inside(xy: Tensor, side: int) -> Tensor:
    """Which points (..., 2) fall on a cell of the heatmap: bool (...)."""
    nearest = xy.round()
    return ((nearest >= 0) & (nearest <= side - 1)).all(-1)


@dataclass(frozen=True)
class Peaks:
    """Local maxima of a batch of heatmaps, strongest first, padded to the largest number in an image.

    xy_BN2 (x, y) cells, refined by a quarter cell; score_BN; valid_BN bool.
    """

    xy_BN2: Tensor
    score_BN: Tensor
    valid_BN: Tensor


def peaks(heatmap_Bhw: Tensor, threshold: float, radius: int, limit: int) -> Peaks:
    """Cells above `threshold` that are the maximum of their (2 radius + 1)^2 neighbourhood, at most `limit` an image."""
    side = heatmap_Bhw.shape[-1]
    strongest = F.max_pool2d(heatmap_Bhw[:, None], 2 * radius + 1, stride=1, padding=radius)[:, 0]
    score = torch.where((heatmap_Bhw == strongest) & (heatmap_Bhw > threshold), heatmap_Bhw, 0.0).flatten(1)
    score_BN, cell_BN = score.topk(min(limit, score.shape[1]), dim=1)
    most = int((score_BN > 0).sum(1).max()) if score_BN.numel() else 0
    score_BN, cell_BN = score_BN[:, :most], cell_BN[:, :most]
    xy = torch.stack([cell_BN % side, cell_BN // side], dim=-1)
    return Peaks(xy + 0.25 * _toward_larger(heatmap_Bhw, xy), score_BN, score_BN > 0)


def _toward_larger(heatmap_Bhw: Tensor, xy_BN2: Tensor) -> Tensor:
    """Sign (-1, 0, 1) of the larger of the two neighbours, per axis; 0 at the border and on a tie: BN2."""
    side = heatmap_Bhw.shape[-1]
    flat = heatmap_Bhw.flatten(1)

    def value(dx: int, dy: int) -> Tensor:
        x = (xy_BN2[..., 0] + dx).clamp(0, side - 1)
        y = (xy_BN2[..., 1] + dy).clamp(0, side - 1)
        return flat.gather(1, y * side + x)

    sign = torch.stack([(value(1, 0) - value(-1, 0)).sign(), (value(0, 1) - value(0, -1)).sign()], dim=-1)
    interior = (xy_BN2 > 0) & (xy_BN2 < side - 1)
    return sign * interior


DECODER = 2
"""Raised when decoded places change: predictions on storage are known by it."""


def decode(heatmaps_BKhw: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """Return the landmark of every channel and its confidence.

    It is the mean position of what rises above a share of the peak, in a window around the peak (`decoding_window`). A
    network that is not sure spreads its heatmap over the places that it thinks possible, and their mean errs least. Floor,
    window and border cut off parts of a Gaussian and so move its mean. How far is known for each `sigma` and is undone:
    decoding inverts `render`.

    Args:
        heatmaps_BKhw: of any height. What is negative or low has no say.
        sigma: of the Gaussians that the channels were trained on, cells.

    Returns:
        xy_BK2, (x, y) cells, fractional, and confidence_BK, the height of the peak.
    """
    side = heatmaps_BKhw.shape[-1]
    floor, radius = decoding_window(sigma)
    radius = min(radius, (side - 1) // 2)
    confidence_BK, cell_BK = heatmaps_BKhw.flatten(2).max(-1)
    peak_BK2 = torch.stack([cell_BK % side, cell_BK // side], dim=-1)
    offsets = torch.arange(-radius, radius + 1, device=cell_BK.device)
    column_BKw, row_BKw = ((peak_BK2[..., axis, None] + radius + offsets) for axis in (0, 1))
    padded = F.pad(heatmaps_BKhw, [radius] * 4).flatten(2)
    window = (row_BKw[..., :, None] * (side + 2 * radius) + column_BKw[..., None, :]).flatten(2)
    above = (padded.gather(2, window) - floor * confidence_BK.clamp(min=0)[..., None]).clamp(min=0)
    above_BKww = above.unflatten(2, (2 * radius + 1, 2 * radius + 1))
    total_BK = above_BKww.sum((-2, -1)).clamp(min=1e-12)
    mean_BK2 = torch.stack([(above_BKww.sum(axis) * offsets).sum(-1) / total_BK for axis in (-2, -1)], dim=-1)
    return peak_BK2 + _uncut(mean_BK2, peak_BK2, side, radius, sigma), confidence_BK


_NARROWEST = 0.5
"""Narrower Gaussians, cells, do not tell where in its cell a point is: they are decoded as if they had this sigma."""
_FLOOR = 0.3
"""Share of the peak below which a heatmap says nothing of a landmark's place."""
_RADIUS = 4
"""Cells around its peak in which a heatmap is read, at least.

Chosen on training images of the synthetic category, heatmaps of 24 x 24 cells, by networks trained with sigma 0.5, 0.75, 1.25
and 2: a wider window or a lower floor lowers the backward error and raises the forward one.
"""


def decoding_window(sigma: float) -> tuple[float, int]:
    """Return the floor, a share of the peak, and the radius, cells, with which channels of Gaussians of `sigma` are decoded.

    The floor is below the height of the cell beside the peak's: without that cell a Gaussian does not tell on which side of
    its own it is. The radius holds all of a Gaussian that is above the floor, wherever in its cell it is.
    """
    sigma = max(sigma, _NARROWEST)
    floor = min(_FLOOR, math.exp(-0.5 / sigma**2))
    return floor, max(_RADIUS, math.ceil(sigma * math.sqrt(-2 * math.log(floor)) + 0.5))


def _uncut(mean_BK2: Tensor, peak_BK2: Tensor, side: int, radius: int, sigma: float) -> Tensor:
    """Return the offsets from the peak's cell of the Gaussians whose mean above the floor, in the window, is `mean_BK2`.

    Beyond half a cell, where the peak of a rendered Gaussian cannot be, the correction stays what it is at half a cell.
    """
    low_BK2, high_BK2 = peak_BK2, side - 1 - peak_BK2
    mirrored = high_BK2 < low_BK2
    reach_BK2 = torch.minimum(low_BK2, high_BK2).clamp(max=radius)
    offset_O, mean_RO = (table.to(mean_BK2) for table in _cut_means(sigma, radius))
    value = torch.where(mirrored, -mean_BK2, mean_BK2)
    found = mean_RO[reach_BK2]  # BK2O, ascending
    after = (found <= value[..., None]).sum(-1).clamp(1, len(offset_O) - 1)[..., None]
    left, right = found.gather(-1, after - 1)[..., 0], found.gather(-1, after)[..., 0]
    share = ((value - left) / (right - left).clamp(min=1e-6)).clamp(0, 1)
    corrected = torch.lerp(offset_O[after[..., 0] - 1], offset_O[after[..., 0]], share)
    corrected = corrected + (value - found[..., -1]).clamp(min=0) + (value - found[..., 0]).clamp(max=0)
    return torch.where(mirrored, -corrected, corrected)


@functools.lru_cache(maxsize=16)
def _cut_means(sigma: float, radius: int) -> tuple[Tensor, Tensor]:
    """Return offsets (O,) of Gaussians from the cell of their peak, and their means above the floor (radius + 1, O).

    Row r is for a window that a border cuts off r cells below the peak, column o for offset o along the axis, on average over
    the offsets across it.
    """
    floor, _ = decoding_window(sigma)
    sigma = max(sigma, _NARROWEST)
    offset = torch.linspace(-0.5, 0.5, 21, dtype=torch.float64)
    cells = torch.arange(-radius, radius + 1, dtype=torch.float64)
    bell_Ow = gaussian_1d(cells - offset[:, None], sigma)
    product = bell_Ow[:, None, :, None] * bell_Ow[None, :, None, :]  # OOww: along, across
    above = (product - floor * product.amax((2, 3), keepdim=True)).clamp(min=0)
    along_Ow = above.sum(3).mean(1)
    rows = []
    for reach in range(radius + 1):
        kept = along_Ow * (cells >= -reach)
        rows.append((kept @ cells) / kept.sum(-1))
    mean = torch.stack(rows)
    return offset, mean.cummax(dim=1).values


def sample(map_BChw: Tensor, xy_BP2: Tensor) -> Tensor:
    """Bilinear reading of a map at points (heatmap frame), borders replicated: BPC."""
    side = map_BChw.shape[-1]
    grid = (xy_BP2 * 2 + 1) / side - 1  # align_corners=False: -1 is the left border of cell 0, at -0.5
    read = F.grid_sample(map_BChw, grid[:, :, None].to(map_BChw.dtype), padding_mode="border", align_corners=False)
    return read[..., 0].transpose(1, 2)


def sharpness(heatmap_Bhw: Tensor, xy_BP2: Tensor, sigma: float) -> Tensor:
    """Return how far a heatmap falls around points on it: BP, from 0 (flat) to 1 (nothing around them).

    Looked at is a circle of 2 cells, or of 8/3 of the `sigma` (cells) that the heatmap was trained on if that is more: what was
    learnt perfectly is above 0.95 with any sigma.

    One minus the mean of the positive part on the circle, over the value at the point; 0 where that is not positive.
    """
    radius = max(2.0, sigma * 8 / 3)
    turns = torch.arange(8, device=xy_BP2.device) * (torch.pi / 4)
    circle_C2 = radius * torch.stack([turns.cos(), turns.sin()], dim=-1).to(xy_BP2)
    around_BQ2 = (xy_BP2[:, :, None] + circle_C2).flatten(1, 2)
    around_BP = sample(heatmap_Bhw[:, None], around_BQ2)[..., 0].clamp(min=0).unflatten(1, (-1, len(turns))).mean(-1)
    peak_BP = sample(heatmap_Bhw[:, None], xy_BP2)[..., 0]
    return torch.where(peak_BP > 0, 1 - around_BP / peak_BP.clamp(min=1e-12), 0.0).clamp(min=0)


def read_cells(map_BChw: Tensor, xy_BP2: Tensor) -> Tensor:
    """The map's values at the cells nearest to the points: BPC. Points outside read the border."""
    side = map_BChw.shape[-1]
    cell = xy_BP2.round().clamp(0, side - 1).long()
    index = (cell[..., 1] * side + cell[..., 0])[:, None].expand(-1, map_BChw.shape[1], -1)
    return map_BChw.flatten(2).gather(2, index).transpose(1, 2)
