"""The rule of `methods.facing` as tensor operations: an exported detector turns images as the detector of a run does.

OpenCV's arithmetic is followed in float32, its approximation of the arc tangent included. Axes in names: N images, S side of
the network's input, T side of the features' input, P points, C cells along a side.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ray_kplm.dense_features.feature_map import GRID
from ray_kplm.dense_features.hog import BINS, CELL, DAMPING, SIGMA, Hog
from ray_kplm.detectors.graph_crops import cut_and_resize
from ray_kplm.methods.facing import ENLARGED, MOST, FacingRule

_GREY, _GREY_BITS = (9798.0, 19235.0, 3735.0), 15
"""Shares of red, green and blue in OpenCV's grey level, counted in 1 / 2^15."""
_ARC_TANGENT = (0.9997878412794807, -0.3258083974640975, 0.1555786518463281, -0.04432655554792128)
"""Coefficients of the odd powers in OpenCV's `fastAtan2`."""
_DEGREES = np.float32(180 / math.pi)
_EPSILON = 2.0**-52


class GraphFacing(nn.Module):
    """Gives the facing of each image from its pixels: a `FacingRule` whose features are HOG."""

    def __init__(self, rule: FacingRule) -> None:
        """Wrap a rule, whose configuration must have `features: hog`."""
        super().__init__()
        assert Hog.input_size == GRID * CELL  # so that each cell of the features is one of the descriptor
        template = rule.template
        self.sharpness = template.sharpness
        self.mean = nn.Buffer(torch.from_numpy(template.mean))
        self.direction = nn.Buffer(torch.from_numpy(template.direction))
        self.box = nn.Buffer(torch.from_numpy(rule.box))

    def forward(self, image_N3SS: Tensor, box_N4: Tensor, point_NP2: Tensor) -> Tensor:
        """Return the facings, float32 (N,): what `FacingRule` does.

        Args:
            image_N3SS: Float32, whole grey levels.
            box_N4: The objects, pixels of the input; NaN where unknown.
            point_NP2: Points of the objects, pixels of the input.
        """
        is_unknown_N = box_N4.isnan().any(dim=1)
        box_N4 = torch.where(is_unknown_N[:, None], self.box * image_N3SS.shape[-1], box_N4)
        odds_M = self._half_log_odds(image_N3SS.repeat(2, 1, 1, 1), torch.cat([box_N4, _box_around(point_NP2)]))
        number = image_N3SS.shape[0]
        odds_N, around_N = odds_M[:number], odds_M[number:]
        facing_N: Tensor = torch.tanh(torch.where(is_unknown_N, odds_N + around_N, odds_N))
        return facing_N

    def _half_log_odds(self, image_M3SS: Tensor, box_M4: Tensor) -> Tensor:
        object_M3TT = cut_and_resize(image_M3SS, box_M4, Hog.input_size)
        described = hog(torch.cat([object_M3TT, object_M3TT.flip(-1)])).flatten(1)
        unit, number = functional.normalize(described - self.mean, eps=1e-12), image_M3SS.shape[0]
        odds_M: Tensor = self.sharpness * torch.matmul(unit[:number] - unit[number:], self.direction)
        return odds_M


def hog(image_N3TT: Tensor) -> Tensor:
    """Return the maps of images whose sides are whole cells, as `Hog` does: float32 (N, C, C, bins).

    Args:
        image_N3TT: Float32, whole grey levels.
    """
    red, green, blue = (share * image_N3TT[:, channel] for channel, share in enumerate(_GREY))
    one = 2.0**_GREY_BITS
    grey_NTT = _blurred(((red + green + blue + one / 2) / one).floor())
    dy_NTT, dx_NTT = (_slope(grey_NTT, axis) for axis in (1, 2))
    length_NTT = (dx_NTT * dx_NTT + dy_NTT * dy_NTT).sqrt()
    bin_NTT = (_half_turn(dx_NTT, dy_NTT) * (BINS / math.pi)).floor().clamp(max=BINS - 1)
    is_bin_NBTT = bin_NTT[:, None] == torch.arange(BINS, dtype=torch.float32)[:, None, None]
    by_bin_NBTT = torch.where(is_bin_NBTT, length_NTT[:, None], 0.0)
    sums_NBCC = functional.avg_pool2d(by_bin_NBTT, CELL) * float(CELL * CELL)
    sums_NCCB = sums_NBCC.permute(0, 2, 3, 1)
    maps: Tensor = sums_NCCB / (torch.linalg.vector_norm(sums_NCCB, dim=-1, keepdim=True) + DAMPING)
    return maps


def _blurred(grey_NTT: Tensor) -> Tensor:
    """Return the Gaussian blur of OpenCV, of images reflected at their borders.

    It is exact to the last bit: where a gradient is level, the rounding decides whether it is in the first or in the last bin.
    """
    taps = round(8 * SIGMA + 1) | 1
    weights = cv2.getGaussianKernel(taps, SIGMA, cv2.CV_32F).ravel().tolist()
    half, side = taps // 2, grey_NTT.shape[-1]
    padded = functional.pad(grey_NTT[:, None], (half, half, half, half), mode="reflect")[:, 0]
    across = weights[0] * padded[:, :, :side]
    for tap in range(1, taps):
        across = _multiply_add(padded[:, :, tap : tap + side], weights[tap], across)
    down: Tensor = weights[half] * across[:, half : half + side]
    for away in range(1, half + 1):
        pair = across[:, half + away : half + away + side] + across[:, half - away : half - away + side]
        down = _multiply_add(pair, weights[half + away], down)
    return down


def _multiply_add(one: Tensor, other: Tensor | float, added: Tensor | float) -> Tensor:
    """Return float32 `one * other + added`, rounded once as by the instruction that OpenCV uses."""
    return (one.double() * other + added).float()


def _slope(grey_NTT: Tensor, axis: int) -> Tensor:
    """Return `numpy.gradient` along an axis."""
    last = grey_NTT.shape[axis] - 1
    inner = (grey_NTT.narrow(axis, 2, last - 1) - grey_NTT.narrow(axis, 0, last - 1)) / 2
    first = grey_NTT.narrow(axis, 1, 1) - grey_NTT.narrow(axis, 0, 1)
    end = grey_NTT.narrow(axis, last, 1) - grey_NTT.narrow(axis, last - 1, 1)
    return torch.cat([first, inner, end], dim=axis)


def _half_turn(dx: Tensor, dy: Tensor) -> Tensor:
    """Return OpenCV's angle of vectors, in radians, modulo half a turn."""
    along, beside = torch.maximum(dx.abs(), dy.abs()), torch.minimum(dx.abs(), dy.abs())
    ratio = beside / (along + _EPSILON)
    square = ratio * ratio
    first, third, fifth, seventh = (float(np.float32(power) * _DEGREES) for power in _ARC_TANGENT)
    series = _multiply_add(_multiply_add(_multiply_add(square, seventh, fifth), square, third), square, first)
    degrees = series * ratio
    degrees = torch.where(dx.abs() >= dy.abs(), degrees, 90 - degrees)
    degrees = torch.where(dx < 0, 180 - degrees, degrees)
    degrees = torch.where(dy < 0, 360 - degrees, degrees)
    angle, half = degrees * float(np.float32(math.pi / 180)), float(np.float32(math.pi))
    for _ in range(2):  # the whole turn itself is two of them
        angle = torch.where(angle >= half, angle - half, angle)
    return angle


def _box_around(point_NP2: Tensor) -> Tensor:
    """Return what `methods.facing.box_around` does: (N, 4)."""
    ordered, count = point_NP2.sort(dim=1).values, point_NP2.shape[1]
    ends = []
    for share in MOST:
        place = share * (count - 1)
        low = math.floor(place)
        below, above = ordered[:, low], ordered[:, min(low + 1, count - 1)]
        ends.append(below + (above - below) * (place - low))
    centre_N2, half_N2 = (ends[0] + ends[1]) / 2, (ends[1] - ends[0]) / 2 * ENLARGED
    return torch.cat([centre_N2 - half_N2, centre_N2 + half_N2], dim=1)
