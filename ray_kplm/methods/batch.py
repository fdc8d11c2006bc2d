"""A batch of training views, and the labelled points in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from ray_kplm.methods.labels import Labels


@dataclass(frozen=True)
class Views:
    """B views of training images.

    Attributes:
        picture: (B, S, S, 3), RGB, the network's input: uint8; or, made on the training device, a float32 tensor from 0 to 1.
        image: (B,) index of the image in the round, whose labels apply.
        flip: (B,) whether the view shows the mirror image.
        crop_to_view: (B, 2, 3) affine map from the crop frame to the input frame.
        shifts: (B, G, G, 2) grid of the smooth warp that follows the affine map, see `imaging.augment.View`.
        labels: of the B views, where they come with them; `image` then counts them.
    """

    picture: NDArray[np.uint8] | Tensor
    image: NDArray[np.int64]
    flip: NDArray[np.bool_]
    crop_to_view: NDArray[np.float32]
    shifts: NDArray[np.float32]
    labels: Labels | None = None


@dataclass(frozen=True)
class Points:
    """Labelled points in B views, padded to P per view, on the training device.

    Attributes:
        xy: (B, P, 2), heatmap frame.
        valid: bool (B, P), False for padding and for points outside the view.
        identity: int64 (B, P). Points of equal identity correspond; NONE corresponds to nothing.
        landmark: int64 (B, P), the landmark of K, if the labels have landmarks beside identities.
    """

    xy: Tensor
    valid: Tensor
    identity: Tensor
    landmark: Tensor | None = None
