"""Dense optical flow between two frames of a video: where each place of the first is in the second.

Farneback's method, as in Zhang et al. 2018 (docs/method.md 8). A place that the flow
back does not bring home, hidden in the second
frame or led astray, is sent far out of the picture: nothing corresponds to it.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ray_kplm.imaging import coordinates

_AGREE = 0.015
"""There and back must end so close to the start; share of the side."""
_LOST = 1e6
"""Shift of a place that has no counterpart, pixels."""


def flow_between(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pictures (S, S, 3) -> shifts (S, S, 2) of the first one's pixels, in pixels."""
    if np.array_equal(first, second):
        return np.zeros((*first.shape[:2], 2), np.float32)
    grey = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (first, second)]
    side = len(first)
    there, back = _farneback(*grey), _farneback(*grey[::-1])
    rows, columns = np.indices((side, side), dtype=np.float32)
    returned = _at(back, columns + there[..., 0], rows + there[..., 1])
    astray = np.linalg.norm(there + returned, axis=-1) > _AGREE * side
    there[astray] = _LOST
    return there


def warp_flow(flow: NDArray[np.float32], picture_to_view: coordinates.Affine) -> NDArray[np.float32]:
    """A flow between pictures (S, S, 2) as shifts in an affine view of them: (G, G, 2) at places evenly over the view.

    They are a heatmap cell apart or nearer: between a place that has a counterpart and one that has none nothing is told.
    """
    side = len(flow)
    at = np.linspace(0, side - 1, side // coordinates.STRIDE + 1, dtype=np.float32)
    places = np.stack(np.meshgrid(at, at), axis=-1)
    before = coordinates.apply(coordinates.invert(picture_to_view), places.reshape(-1, 2)).reshape(places.shape)
    moved = _at(flow, before[..., 0].astype(np.float32), before[..., 1].astype(np.float32))
    return (moved @ picture_to_view[:, :2].T).astype(np.float32)


def _farneback(first: NDArray, second: NDArray) -> NDArray[np.float32]:
    start = np.zeros((*first.shape, 2), np.float32)
    return cv2.calcOpticalFlowFarneback(
        first, second, start, pyr_scale=0.5, levels=4, winsize=15, iterations=3, poly_n=5, poly_sigma=1.2, flags=0
    )


def _at(field: NDArray[np.float32], x: NDArray, y: NDArray) -> NDArray[np.float32]:
    return cv2.remap(field, x, y, interpolation=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
