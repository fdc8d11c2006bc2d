"""What predictors of landmarks answer, and their interface. It needs no PyTorch, as one of them runs without."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Observed(NamedTuple):
    """The landmarks that a predictor finds in B images, with measures of their quality. NaN where one is not detected.

    Attributes:
        xy: float32 (B, K, 2), input frame.
        confidence: float32 (B, K), 0 where not detected.
        sharpness: float32 (B, K), of the heatmap's peak (`heatmaps.sharpness`).
        separation: float32 (B, K), of the descriptor from other clusters (`label_free.separation`); None without descriptors.
    """

    xy: NDArray[np.float32]
    confidence: NDArray[np.float32]
    sharpness: NDArray[np.float32]
    separation: NDArray[np.float32] | None


class Predicted(NamedTuple):
    """The landmarks that a predictor finds in B images.

    Attributes:
        xy: float32 (B, K, 2), input frame; NaN where not detected.
        confidence: float32 (B, K), the peaks of the heatmaps; 0 where not detected.
        probability: float32 (B, K), of being found; NaN if the detector has no `VisibilityModel`.
        facing: float32 (B,), see `correspondence.facing.facings`; None for a category that is not seen from the side.
    """

    xy: NDArray[np.float32]
    confidence: NDArray[np.float32]
    probability: NDArray[np.float32]
    facing: NDArray[np.float32] | None = None


class Described(NamedTuple):
    """The landmarks of B images, and what the network sees there. Images that face the other way are turned.

    Attributes:
        xy: float32 (B, K, 2), input frame of the images as they were turned.
        confidence: float32 (B, K), the peaks of the heatmaps.
        descriptors: float32 (B, K, C), the last features of the network where the landmarks are.
        turned: bool (B,), which images were turned.
    """

    xy: NDArray[np.float32]
    confidence: NDArray[np.float32]
    descriptors: NDArray[np.float32]
    turned: NDArray[np.bool_]


class Predictor(Protocol):
    """Predicts K landmarks in images, uint8 (B, S, S, 3)."""

    def __call__(self, images: NDArray[np.uint8], boxes: NDArray[np.float32] | None = None) -> Predicted:
        """Return the landmarks of images.

        boxes: (B, 4) of the objects in the input frame, NaN where unknown, for predictors that look which way objects face.
        """
        ...

    def observe(self, images: NDArray[np.uint8]) -> Observed:
        """Return the same landmarks with measures of their quality."""
        ...
