"""Points to heatmaps and back, on the device, a whole batch at a time.

Axes in names: B images, P points (padded), K landmarks, h = w heatmap side. Points are in the heatmap frame
(`imaging.frames`): (x, y) cells, fractional.
"""

from __future__ import annotations

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
        columns = _bell(cells - xy_BP2[..., :1], sigma)
        rows = _bell(cells - xy_BP2[..., 1:], sigma)
    return rows[..., :, None] * (columns * valid_BP[..., None])[..., None, :]


def _bell(distance: Tensor, sigma: float) -> Tensor:
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


def decode(heatmaps_BKhw: Tensor, radius: int = 2) -> tuple[Tensor, Tensor]:
    """The landmark of every channel: xy_BK2 (cells, fractional) and its confidence_BK, the peak's height.

    The argmax, refined to the centre of mass of the positive part of its (2 radius + 1)^2 neighbourhood, which
    undoes a Gaussian rendered at a fractional position.
    """
    side = heatmaps_BKhw.shape[-1]
    confidence, cell = heatmaps_BKhw.flatten(2).max(-1)
    padded = F.pad(heatmaps_BKhw.clamp(min=0), [radius] * 4).flatten(2)
    x, y = cell % side, cell // side
    offsets = torch.arange(-radius, radius + 1, device=cell.device)
    dy, dx = torch.meshgrid(offsets, offsets, indexing="ij")
    row = (y + radius)[..., None] + dy.flatten()
    column = (x + radius)[..., None] + dx.flatten()
    weight = padded.gather(2, row * (side + 2 * radius) + column)
    # A window cut by the border would pull the centre inward: weigh only what lies symmetric about the peak.
    reach_x = torch.minimum(x, side - 1 - x).clamp(max=radius)[..., None]
    reach_y = torch.minimum(y, side - 1 - y).clamp(max=radius)[..., None]
    weight = weight * ((dx.flatten().abs() <= reach_x) & (dy.flatten().abs() <= reach_y))
    total = weight.sum(-1).clamp(min=1e-12)
    shift = torch.stack([(weight * dx.flatten()).sum(-1), (weight * dy.flatten()).sum(-1)], dim=-1) / total[..., None]
    return torch.stack([x, y], dim=-1) + shift, confidence


def sample(map_BChw: Tensor, xy_BP2: Tensor) -> Tensor:
    """Bilinear reading of a map at points (heatmap frame), borders replicated: BPC."""
    side = map_BChw.shape[-1]
    grid = (xy_BP2 * 2 + 1) / side - 1  # align_corners=False: -1 is the left border of cell 0, at -0.5
    read = F.grid_sample(map_BChw, grid[:, :, None].to(map_BChw.dtype), padding_mode="border", align_corners=False)
    return read[..., 0].transpose(1, 2)


def sharpness(heatmap_Bhw: Tensor, xy_BP2: Tensor, radius: float = 2.0) -> Tensor:
    """How far a heatmap falls within `radius` cells of points on it: BP, from 0 (flat) to 1 (nothing around them).

    One minus the mean of the positive part on the circle, over the value at the point; 0 where that is not positive.
    """
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
