"""Pictures of more than 8 bits a value, or of numbers that are no bytes: they are scaled by the range that occurs in each.

How much of its range such a file uses is not written in it: 12 bits of an X-ray in 16, a thermal camera's 7000 to 9000,
0 to 1 or 0 to 255 in floats. The range is that of the picture alone: the same pixels give the same answer wherever they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.errors import DataError

SCALED = "deep pictures scaled by the range that occurs"
"""Note about such a picture, counted when a source is read."""

_SHARE = 0.001
"""Share of the values at each end that may be hot or dead pixels."""
_BEYOND = 0.25
"""Values beyond the others by more than this share of their range are clipped."""
_FEW = 64
"""Fewer values than this are too few to tell which are far from the others."""
_SAMPLE = 1 << 20
"""Number of values that the range is taken from at most, evenly spaced."""
_ROWS = 64


def deep_to_rgb(values: NDArray[Any], *, white_is_low: bool = False) -> NDArray[np.uint8]:
    """Return a picture of any numbers as RGB. Its lowest value becomes 0, its highest 255; colours share one range.

    Single values far from all others are clipped, infinite ones too, NaN becomes 0, and a constant picture 128.

    Args:
        values: (H, W), (H, W, 1) grey, (H, W, 2) grey and alpha, (H, W, 3) RGB or (H, W, 4) RGBA, numbers or booleans.
        white_is_low: Whether the lowest value is white.

    Returns:
        (H, W, 3), on white.

    Raises:
        DataError: No value is finite, the values are no numbers, or every pixel is transparent.
    """
    values = values[:, :, None] if values.ndim == 2 else values
    if values.dtype.kind not in "buif":
        raise DataError(f"unreadable: values of type {values.dtype}, which are no real numbers")
    colours = 3 if values.shape[2] >= 3 else 1
    alpha = values[:, :, colours] if values.shape[2] in (2, 4) else None
    low, high = _range(values[:, :, :colours])
    opaque = None if alpha is None else _opaque(alpha)
    rgb = np.empty((*values.shape[:2], 3), np.uint8)
    for start in range(0, len(values), _ROWS):
        rows = slice(start, start + _ROWS)
        shares = _shares(values[rows, :, :colours], low, high)
        shares = 1 - shares if white_is_low else shares
        if alpha is not None and opaque is not None:
            share = np.clip(np.nan_to_num(alpha[rows, :, None].astype(np.float64)) / opaque, 0, 1)
            shares = shares * share + (1 - share)
        rgb[rows] = np.rint(shares * 255).astype(np.uint8)
    return rgb


def _range(values: NDArray[Any]) -> tuple[float, float]:
    """Return the lowest and the highest value without those far from all others."""
    flat = values.reshape(-1)
    sample = flat[:: max(1, len(flat) // _SAMPLE)]
    sample = sample[np.isfinite(sample)].astype(np.float64)
    if not len(sample):
        finite = flat[np.isfinite(flat)]
        if not len(finite):
            raise DataError("unreadable: no value of the picture is a finite number")
        sample = finite.astype(np.float64)
    low, high = float(sample.min()), float(sample.max())
    if len(sample) < _FEW:
        return low, high
    usual_low = np.quantile(sample, _SHARE, method="higher")
    usual_high = np.quantile(sample, 1 - _SHARE, method="lower")
    with np.errstate(over="ignore"):
        beyond = _BEYOND * (usual_high - usual_low)
    if not np.isfinite(beyond) or usual_low == usual_high:
        return low, high
    return max(low, float(usual_low - beyond)), min(high, float(usual_high + beyond))


def _shares(values: NDArray[Any], low: float, high: float) -> NDArray[np.float64]:
    """Return values as shares of the range, 0 to 1; halves are subtracted, as the range of floats may overflow."""
    if high == low:
        return np.where(np.isnan(values.astype(np.float64)), 0.0, 128 / 255)
    shares: NDArray[np.float64] = (np.clip(values.astype(np.float64), low, high) / 2 - low / 2) / (high / 2 - low / 2)
    return np.nan_to_num(shares)


def _opaque(alpha: NDArray[Any]) -> float:
    """Return the value of an opaque pixel: the full scale of the fewest bits, 8 to 32, that hold all values; of floats 1."""
    highest = float(np.nanmax(alpha, initial=0, where=np.isfinite(alpha)))
    if highest <= 0:
        raise DataError("transparent: no pixel is visible")
    if alpha.dtype.kind in "bf" and highest <= 1:
        return 1.0
    return float(next(2**bits - 1 for bits in (8, 10, 12, 14, 16, 32, 1000) if highest < 2**bits))
