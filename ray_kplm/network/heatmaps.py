"""Conversion of points to heatmaps and back, on the device, for a whole batch at a time.

Axes in names: B images, P points (padded), N peaks (padded), K landmarks, C channels, h = w heatmap side. Points are in the
heatmap frame (`imaging.coordinates`): (x, y) cells, fractional.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


def render(xy_BP2: Tensor, valid_BP: Tensor, side: int, sigma: float) -> Tensor:
    """Render a heatmap for each point: a Gaussian of peak 1 at a valid point, zero for an invalid one.

    The Gaussian is sampled at cell centres relative to the exact point, so that sub-cell positions are kept. It is cut at
    3 sigma.

    Args:
        xy_BP2: Points.
        valid_BP: 1 or True for valid points, 0 or False for others.
        side: Side of the heatmaps, cells.
        sigma: Of the Gaussian, cells; 0 marks the single cell nearest to the point.

    Returns:
        BPhw.
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
    """Return which points (..., 2) lie in a cell of the heatmap: bool (...)."""
    nearest = xy.round()
    return ((nearest >= 0) & (nearest <= side - 1)).all(-1)


@dataclass(frozen=True)
class Peaks:
    """Local maxima of a batch of heatmaps, strongest first, padded to the same number for all images: see `peaks`.

    Attributes:
        xy_BN2: Cells, refined by a quarter cell.
        score_BN: Values at the maxima.
        valid_BN: bool, False for padding.
    """

    xy_BN2: Tensor
    score_BN: Tensor
    valid_BN: Tensor


def peaks(heatmap_Bhw: Tensor, threshold: float, radius: int, limit: int) -> Peaks:
    """Find the local maxima of heatmaps.

    On a CPU they are padded to the largest number in an image. Elsewhere this number is known to the device alone, and asking
    for it would wait for all work that was given to the device: there they are padded to `limit`.

    Args:
        heatmap_Bhw: One heatmap for each image.
        threshold: Maxima are above this value.
        radius: A maximum is the largest value of its neighbourhood of (2 radius + 1)^2 cells.
        limit: Most maxima of an image; the strongest are returned.
    """
    side = heatmap_Bhw.shape[-1]
    strongest = F.max_pool2d(heatmap_Bhw[:, None], 2 * radius + 1, stride=1, padding=radius)[:, 0]
    score = torch.where((heatmap_Bhw == strongest) & (heatmap_Bhw > threshold), heatmap_Bhw, 0.0).flatten(1)
    score_BN, cell_BN = score.topk(min(limit, score.shape[1]), dim=1)
    if score_BN.device.type == "cpu":
        most = int((score_BN > 0).sum(1).max()) if score_BN.numel() else 0
        score_BN, cell_BN = score_BN[:, :most], cell_BN[:, :most]
    xy = torch.stack([cell_BN % side, cell_BN // side], dim=-1)
    return Peaks(xy + 0.25 * _toward_larger(heatmap_Bhw, xy), score_BN, score_BN > 0)


def _toward_larger(heatmap_Bhw: Tensor, xy_BN2: Tensor) -> Tensor:
    """Return the direction (-1, 0, 1) of the larger of the two neighbours on each axis, 0 at the border and on a tie: BN2."""
    side = heatmap_Bhw.shape[-1]
    flat = heatmap_Bhw.flatten(1)

    def value(dx: int, dy: int) -> Tensor:
        x = (xy_BN2[..., 0] + dx).clamp(0, side - 1)
        y = (xy_BN2[..., 1] + dy).clamp(0, side - 1)
        return flat.gather(1, y * side + x)

    sign = torch.stack([(value(1, 0) - value(-1, 0)).sign(), (value(0, 1) - value(0, -1)).sign()], dim=-1)
    interior = (xy_BN2 > 0) & (xy_BN2 < side - 1)
    return sign * interior


DECODER_VERSION = 2
"""Version of `decode`, increased when decoded positions change; it is part of the fingerprint of stored predictions."""


def decode(heatmaps_BKhw: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """Return the landmark of each channel and its confidence.

    The landmark is the mean position of the part of the heatmap above a share of the peak, in a window around the peak
    (`decoding_window`). An uncertain network spreads its heatmap over all plausible places, and their mean has the least
    expected error. The floor, the window and the border cut off parts of a Gaussian and so shift its mean. This shift is known
    for each `sigma` and is corrected, so that `decode` inverts `render`.

    Args:
        heatmaps_BKhw: Of any peak height. Values that are negative or below the floor are ignored.
        sigma: Of the Gaussians that the channels were trained on, cells.

    Returns:
        xy_BK2, cells, fractional, and confidence_BK, the height of the peak.
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
    above_BKww = torch.unflatten(above, 2, (2 * radius + 1, 2 * radius + 1))
    total_BK = above_BKww.sum((-2, -1)).clamp(min=1e-12)
    mean_BK2 = torch.stack([(above_BKww.sum(axis) * offsets).sum(-1) / total_BK for axis in (-2, -1)], dim=-1)
    return peak_BK2 + _correct_truncation(mean_BK2, peak_BK2, side, radius, sigma), confidence_BK


_MIN_SIGMA = 0.5
"""Cells. Narrower Gaussians carry no sub-cell position; they are decoded as if they had this sigma."""
_MAX_FLOOR = 0.3
"""Share of the peak below which a heatmap is ignored, at most."""
_MIN_RADIUS = 4
"""Radius of the window around the peak, cells, at least.

Floor and radius were chosen on training images of the synthetic category, with heatmaps of 24 x 24 cells and networks trained
with sigma 0.5, 0.75, 1.25 and 2. A wider window or a lower floor lowers the backward error and raises the forward error.
"""


def decoding_window(sigma: float) -> tuple[float, int]:
    """Return the floor, a share of the peak, and the radius, cells, with which channels of Gaussians of `sigma` are decoded.

    The floor is below the height of a Gaussian one cell from its peak: without the neighbouring cells its sub-cell position is
    lost. The radius covers all of a Gaussian that is above the floor, for any position in its cell.
    """
    sigma = max(sigma, _MIN_SIGMA)
    floor = min(_MAX_FLOOR, math.exp(-0.5 / sigma**2))
    return floor, max(_MIN_RADIUS, math.ceil(sigma * math.sqrt(-2 * math.log(floor)) + 0.5))


def _correct_truncation(mean_BK2: Tensor, peak_BK2: Tensor, side: int, radius: int, sigma: float) -> Tensor:
    """Return the offsets from the peak's cell of the Gaussians whose mean above the floor, in the window, is `mean_BK2`.

    Beyond half a cell, where the peak of a rendered Gaussian cannot be, the correction is that of half a cell.
    """
    low_BK2, high_BK2 = peak_BK2, side - 1 - peak_BK2
    mirrored = high_BK2 < low_BK2
    reach_BK2 = torch.minimum(low_BK2, high_BK2).clamp(max=radius)
    offset_O, mean_RO = (table.to(mean_BK2) for table in _truncated_means(sigma, radius))
    value = torch.where(mirrored, -mean_BK2, mean_BK2)
    mean_BK2O = mean_RO[reach_BK2]  # ascending along O
    after = (mean_BK2O <= value[..., None]).sum(-1).clamp(1, len(offset_O) - 1)[..., None]
    below, above = mean_BK2O.gather(-1, after - 1)[..., 0], mean_BK2O.gather(-1, after)[..., 0]
    share = ((value - below) / (above - below).clamp(min=1e-6)).clamp(0, 1)
    corrected = torch.lerp(offset_O[after[..., 0] - 1], offset_O[after[..., 0]], share)
    corrected = corrected + (value - mean_BK2O[..., -1]).clamp(min=0) + (value - mean_BK2O[..., 0]).clamp(max=0)
    return torch.where(mirrored, -corrected, corrected)


@functools.lru_cache(maxsize=16)
def _truncated_means(sigma: float, radius: int) -> tuple[Tensor, Tensor]:
    """Return offsets (O,) of Gaussians from the cell of their peak, and their means above the floor (radius + 1, O).

    Row r is for a border r cells below the peak, which cuts off the window. Column o is for offset o along the axis, averaged
    over the offsets across it.
    """
    floor, _ = decoding_window(sigma)
    sigma = max(sigma, _MIN_SIGMA)
    offset = torch.linspace(-0.5, 0.5, 21, dtype=torch.float64)
    cells = torch.arange(-radius, radius + 1, dtype=torch.float64)
    gaussian_Ow = gaussian_1d(cells - offset[:, None], sigma)
    product = gaussian_Ow[:, None, :, None] * gaussian_Ow[None, :, None, :]  # OOww: along, across
    above = (product - floor * product.amax((2, 3), keepdim=True)).clamp(min=0)
    along_Ow = above.sum(3).mean(1)
    rows = []
    for reach in range(radius + 1):
        kept = along_Ow * (cells >= -reach)
        rows.append((kept @ cells) / kept.sum(-1))
    mean = torch.stack(rows)
    return offset, mean.cummax(dim=1).values


def sample(map_BChw: Tensor, xy_BP2: Tensor) -> Tensor:
    """Sample a map at points (heatmap frame) bilinearly, with replicated borders: BPC."""
    side = map_BChw.shape[-1]
    grid = (xy_BP2 * 2 + 1) / side - 1  # align_corners=False: -1 is the left border of cell 0, at -0.5
    sampled = F.grid_sample(map_BChw, grid[:, :, None].to(map_BChw.dtype), padding_mode="border", align_corners=False)
    return sampled[..., 0].transpose(1, 2)


def sharpness(heatmap_Bhw: Tensor, xy_BP2: Tensor, sigma: float) -> Tensor:
    """Return how far a heatmap falls around points: BP, from 0 (flat) to 1 (nothing around the point).

    It is one minus the mean of the heatmap's positive part on a circle around the point, divided by the value at the point; 0
    where that value is not positive. The circle has a radius of 2 cells, or of 8/3 sigma if that is larger, so that a perfect
    Gaussian has a sharpness above 0.95 for any sigma.

    Args:
        heatmap_Bhw: One heatmap for each image.
        xy_BP2: Points on it.
        sigma: Of the Gaussians that the heatmap was trained on, cells.
    """
    radius = max(2.0, sigma * 8 / 3)
    turns = torch.arange(8, device=xy_BP2.device) * (torch.pi / 4)
    circle_C2 = radius * torch.stack([turns.cos(), turns.sin()], dim=-1).to(xy_BP2)
    around_BQ2 = (xy_BP2[:, :, None] + circle_C2).flatten(1, 2)
    around_BQ = sample(heatmap_Bhw[:, None], around_BQ2)[..., 0].clamp(min=0)
    around_BP = torch.unflatten(around_BQ, 1, (-1, len(turns))).mean(-1)
    peak_BP = sample(heatmap_Bhw[:, None], xy_BP2)[..., 0]
    return torch.where(peak_BP > 0, 1 - around_BP / peak_BP.clamp(min=1e-12), 0.0).clamp(min=0)


def read_cells(map_BChw: Tensor, xy_BP2: Tensor) -> Tensor:
    """Read a map's values at the cells nearest to the points: BPC. Points outside read the border."""
    side = map_BChw.shape[-1]
    cell = xy_BP2.round().clamp(0, side - 1).long()
    index = (cell[..., 1] * side + cell[..., 0])[:, None].expand(-1, map_BChw.shape[1], -1)
    return map_BChw.flatten(2).gather(2, index).transpose(1, 2)
