"""Dense optical flow between two frames of a video, by Farneback's method (docs/method.md 8).

As in Zhang et al. 2018, forward and backward flow are compared. Where they disagree, the place is hidden in the second frame or
the flow is wrong; such a place gets a shift far out of the image, so that nothing corresponds to it.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ray_kplm.imaging import coordinates

_MAX_CYCLE_ERROR = 0.015
"""Largest distance between a place and its image under forward and backward flow, share of the side."""
_NO_COUNTERPART = 1e6
"""Shift of a place that has no counterpart, pixels."""


def flow_between(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the shift of each pixel of the first frame (S, S, 3) to the second, in pixels: (S, S, 2)."""
    if np.array_equal(first, second):
        return np.zeros((*first.shape[:2], 2), np.float32)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (first, second)]
    side = len(first)
    forward, backward = _farneback(*grey), _farneback(*grey[::-1])
    rows, columns = np.indices((side, side), dtype=np.float32)
    returned = _sample(backward, columns + forward[..., 0], rows + forward[..., 1])
    inconsistent = np.linalg.norm(forward + returned, axis=-1) > _MAX_CYCLE_ERROR * side
    forward[inconsistent] = _NO_COUNTERPART
    return forward


def warp_flow(flow: NDArray[np.float32], picture_to_view: coordinates.Affine) -> NDArray[np.float32]:
    """Return the flow between two pictures as shifts between affine views of them.

    The shifts are at most a heatmap cell apart. Between a place with a counterpart and one without, they have no meaning.

    Args:
        flow: (S, S, 2), pixels.
        picture_to_view: The map of both pictures to their views.

    Returns:
        (G, G, 2), pixels, on an even grid over the view.
    """
    side = len(flow)
    at = np.linspace(0, side - 1, side // coordinates.STRIDE + 1, dtype=np.float32)
    places = np.stack(np.meshgrid(at, at), axis=-1)
    before = coordinates.apply(coordinates.invert(picture_to_view), places.reshape(-1, 2)).reshape(places.shape)
    moved = _sample(flow, before[..., 0].astype(np.float32), before[..., 1].astype(np.float32))
    shifts: NDArray[np.float32] = (moved @ picture_to_view[:, :2].T).astype(np.float32)
    return shifts


def _farneback(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the flow (S, S, 2) between grey frames (S, S)."""
    start = np.zeros((*first.shape, 2), np.float32)
    flow: NDArray[np.float32] = cv2.calcOpticalFlowFarneback(
        first, second, start, pyr_scale=0.5, levels=4, winsize=15, iterations=3, poly_n=5, poly_sigma=1.2, flags=0
    )
    return flow


def _sample(field: NDArray[np.float32], x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float32]:
    """Sample a field bilinearly at the places x, y, with replicated borders."""
    sampled: NDArray[np.float32] = cv2.remap(
        field, x, y, interpolation=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return sampled
