"""A batch of training views, as it comes from whoever makes them, and the labels' points in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Views:
    """B views of training images.

    picture: uint8 (B, S, S, 3). image: (B,) index in the round. flip: (B,), whether the view is of the mirror image.
    crop_to_view: (B, 2, 3) and shifts: (B, G, G, 2), the way of a point of the crop (`imaging.augment.View`).
    """

    picture: NDArray[np.uint8]
    image: NDArray[np.int64]
    flip: NDArray[np.bool_]
    crop_to_view: NDArray[np.float32]
    shifts: NDArray[np.float32]


@dataclass(frozen=True)
class Points:
    """Points in B views, padded to P, on the device.

    xy: (B, P, 2) heatmap frame. valid: bool (B, P). identity: int64 (B, P), what corresponds, NONE for nothing. landmark: int64
    (B, P), of K, where the labels tell both.
    """

    xy: Tensor
    valid: Tensor
    identity: Tensor
    landmark: Tensor | None = None
