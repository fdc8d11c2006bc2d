"""A batch of training views, as it comes from whoever makes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
