"""What a generic detector returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Keypoints:
    """Generic, unordered points of one image.

    xy: float32 (N, 2), crop pixels, (x, y). score: float32 (N,), larger is stronger.
    descriptors: float32 (N, d), unit norm, or None where the detector has none.
    """

    xy: NDArray[np.float32]
    score: NDArray[np.float32]
    descriptors: NDArray[np.float32] | None

    @classmethod
    def empty(cls, descriptor_dim: int) -> Keypoints:
        return cls(np.zeros((0, 2), np.float32), np.zeros(0, np.float32), np.zeros((0, descriptor_dim), np.float32))


class Detector(Protocol):
    """A generic keypoint detector: pure, one image at a time, the same points for the same image."""

    def __call__(self, image: NDArray[np.uint8], box: NDArray | None = None) -> Keypoints: ...
