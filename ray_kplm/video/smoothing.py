"""Landmarks smoothed over time by the One Euro filter, and how much they jitter.

Casiez, Roussel and Vogel, "1 Euro Filter: A Simple Speed-based Low-pass Filter for Noisy Input in Interactive Systems", CHI
2012. The filter is a low-pass of first order whose cut-off frequency rises with the speed: a landmark at rest does not tremble,
and a fast one does not lag. It looks at earlier frames only.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.video.options import SmoothOptions

MAX_GAP_S = 0.5
"""A landmark that was not found for a longer time begins anew, seconds."""


class OneEuro:
    """The filter of K landmarks of one object. The speed is that in the plane, so that a turned picture has turned results.

    A landmark that is not found keeps the place that was given, and its filter waits. If it is found again within MAX_GAP_S,
    the filter continues with the time that has passed; after that it begins anew.
    """

    def __init__(self, options: SmoothOptions, side: float) -> None:
        """Start before the first frame. side: the longer side of the picture, pixels."""
        self._options, self._side = options, side
        self._time: NDArray[np.float64] | None = None

    def __call__(self, time: float, given: NDArray[np.floating[Any]], found: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the smoothed places of a frame: (K, 2).

        Args:
            time: Of the frame, seconds, later than that of the frame before.
            given: The places, (K, 2), pixels; NaN where not detected.
            found: (K,).
        """
        xy: NDArray[np.float64] = np.array(given, np.float64)
        found = found & np.isfinite(xy).all(axis=1)
        if self._time is None:
            self._time = np.full(len(xy), -math.inf)
            self._raw, self._smooth, self._speed = xy.copy(), xy.copy(), np.zeros_like(xy)
        passed = time - self._time
        fresh = found & (passed > MAX_GAP_S)
        going = found & ~fresh & (passed > 0)
        self._smooth[fresh], self._speed[fresh] = xy[fresh], 0
        if going.any():
            self._advance(going, xy, passed)
        self._raw[found], self._time[found] = xy[found], time
        xy[found] = self._smooth[found]
        return xy

    def _advance(self, going: NDArray[np.bool_], xy: NDArray[np.float64], passed: NDArray[np.float64]) -> None:
        options, step = self._options, passed[going, None]
        speed = (xy[going] - self._raw[going]) / step
        self._speed[going] += _share(step, options.derivative_cutoff) * (speed - self._speed[going])
        fast = np.linalg.norm(self._speed[going], axis=1, keepdims=True) / self._side
        share = _share(step, options.min_cutoff + options.beta * fast)
        self._smooth[going] += share * (xy[going] - self._smooth[going])


def _share(step: NDArray[np.float64], cutoff: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Return the weight of a new value in a low-pass filter: step in seconds, cutoff in Hz."""
    turn = 2 * math.pi * cutoff * step
    return np.asarray(turn / (turn + 1))


class Jitter:
    """The mean size of the second difference of a landmark's place over three successive frames in which it is found.

    It is 0 for a landmark that moves evenly, and sqrt(6) * sqrt(pi / 2) = 3.07 times sigma for one that trembles around an even
    movement, by independent Gaussian noise of sigma pixels on each axis.
    """

    def __init__(self) -> None:
        """Start before the first frame of a video."""
        self._last: dict[int, list[tuple[int, NDArray[np.float64], NDArray[np.bool_]]]] = {}
        self._pixels, self._shares, self._count = 0.0, 0.0, 0

    def add(self, number: int, frame: int, given: NDArray[np.floating[Any]], found: NDArray[np.bool_]) -> None:
        """Add the next frame of an object: numbers of both, the places (K, 2) and which are found (K,)."""
        xy: NDArray[np.float64] = np.array(given, np.float64)
        last = [*self._last.get(number, [])[-2:], (frame, xy, found & np.isfinite(xy).all(axis=1))]
        self._last[number] = last
        if [one[0] for one in last] != [frame - 2, frame - 1, frame]:
            return
        (_, a, in_a), (_, b, in_b), (_, c, in_c) = last
        both = in_a & in_b & in_c
        if both.any():
            size = float(np.ptp(b[in_b], axis=0).max())
            difference = np.linalg.norm(a[both] - 2 * b[both] + c[both], axis=1)
            self._pixels += float(difference.sum())
            self._shares += float(difference.sum()) / size if size > 0 else 0.0
            self._count += int(both.sum())

    @property
    def pixels(self) -> float | None:
        """The mean, pixels a frame; None where no landmark was found in three successive frames."""
        return self._pixels / self._count if self._count else None

    @property
    def of_size(self) -> float | None:
        """The mean as a share of the object's size: the longer side of the box around the landmarks found in the frame."""
        return self._shares / self._count if self._count else None
