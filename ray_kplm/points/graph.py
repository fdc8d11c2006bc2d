"""`PointSet.apply` as a module of PyTorch, for detectors that are exported as one file. It needs no complex numbers."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ray_kplm.points.point_set import PointSet
from ray_kplm.points.regressor import SMALLEST


class PointGraph(nn.Module):
    """Landmarks to points in float32, as `PointSet.apply`. Axes in names: B images, K landmarks, L points, N of the support."""

    def __init__(self, points: PointSet) -> None:
        """Wrap a set of points."""
        super().__init__()
        regressor = points.regressor
        self.is_moved, self.is_local = regressor.frame == "similarity", len(regressor.support) > 0
        self.width, self.points = regressor.width, regressor.points
        self.x_mean, self.y_mean = _buffer(regressor.x_mean), _buffer(regressor.y_mean)
        self.weights = _buffer(regressor.weights)
        if self.is_moved:  # a program of `torch.export` with an empty buffer cannot be loaded
            self.reference = _buffer(regressor.reference)
            self.reference_size = max(float((regressor.reference**2).sum()), SMALLEST)
        if self.is_local:
            self.support, self.local = _buffer(regressor.support), _buffer(regressor.local)
        self.shares, self.counts = _buffer(points.shares), _buffer(points.shares > 0)

    def forward(
        self, xy_BK2: Tensor, confidence_BK: Tensor, probability_BK: Tensor, side: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return points (B, L, 2), confidences and probabilities (B, L) of landmarks in inputs of `side` pixels a side."""
        is_lost_BK = ~xy_BK2.isfinite().all(dim=-1)
        known_BK2 = torch.where(is_lost_BK[..., None], 0.0, xy_BK2 / side)
        is_missing_BL = torch.matmul(is_lost_BK.float(), self.counts.T) > 0
        xy_BL2 = torch.where(is_missing_BL[..., None], torch.nan, self.predict(known_BK2) * side)
        confidence_BL = torch.where(is_missing_BL, 0.0, torch.matmul(confidence_BK, self.shares.T))
        return xy_BL2, confidence_BL, torch.matmul(probability_BK, self.shares.T)

    def predict(self, xy_BK2: Tensor) -> Tensor:
        """Return the points (B, L, 2) of landmarks, both shares of the input's side: see `PointRegressor.predict`."""
        if not self.is_moved:
            return self._in_frame(xy_BK2)
        centre_B12 = xy_BK2.mean(dim=1, keepdim=True)
        centred_BK2 = xy_BK2 - centre_B12
        real_B = (centred_BK2 * self.reference).sum(dim=(1, 2)) / self.reference_size
        crossed_BK = centred_BK2[..., 1] * self.reference[:, 0] - centred_BK2[..., 0] * self.reference[:, 1]
        imaginary_B = crossed_BK.sum(dim=1) / self.reference_size
        is_small_B = (real_B * real_B + imaginary_B * imaginary_B).sqrt() < SMALLEST
        real_B, imaginary_B = torch.where(is_small_B, SMALLEST, real_B), torch.where(is_small_B, 0.0, imaginary_B)
        squared_B = real_B * real_B + imaginary_B * imaginary_B
        turned_BK2 = _times(centred_BK2, real_B / squared_B, -imaginary_B / squared_B)
        return centre_B12 + _times(self._in_frame(turned_BK2), real_B, imaginary_B)

    def _in_frame(self, xy_BK2: Tensor) -> Tensor:
        x_BX = xy_BK2.flatten(1)
        y_BY = self.y_mean + torch.matmul(x_BX - self.x_mean, self.weights)
        if self.is_local:
            squared_BN = (x_BX[:, None] - self.support).square().sum(dim=-1)
            y_BY = y_BY + torch.matmul(torch.exp(-squared_BN / (2 * self.width**2)), self.local)
        return y_BY.reshape(-1, self.points, 2)


def _times(point_BP2: Tensor, real_B: Tensor, imaginary_B: Tensor) -> Tensor:
    """Return points, as complex numbers, times a complex number for each image."""
    x_BP, y_BP = point_BP2.unbind(-1)
    real_B1, imaginary_B1 = real_B[:, None], imaginary_B[:, None]
    return torch.stack([x_BP * real_B1 - y_BP * imaginary_B1, x_BP * imaginary_B1 + y_BP * real_B1], dim=-1)


def _buffer(values: NDArray[np.generic]) -> nn.Buffer:
    return nn.Buffer(torch.from_numpy(np.array(values, np.float32)))
