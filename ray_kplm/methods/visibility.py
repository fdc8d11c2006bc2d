"""Whether a landmark is in an image: its probability of being found, from what its heatmap looks like.

The model is a logistic regression for each landmark. Its features are measured on the heatmaps of one image, so that
any detector that has the heatmaps has the probabilities; `steps/calibrate_visibility.py` fits it without annotation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.storage import Folder

if TYPE_CHECKING:
    from torch import Tensor

VISIBILITY = "visibility.json"
"""File of the model, in the folder of a detector."""
VISIBILITY_STEP = "visibility"
"""The step of a run that fits the model, and its folder."""
MIN_PROBABILITY = 0.5
"""Least probability of a landmark that is reported as found, unless the user says otherwise."""
INFERRED_SHARE = 0.5
"""Of the least probability of a found landmark: from here on, a landmark that is not found is inferred, below it absent."""
FOUND, INFERRED, ABSENT = 2, 1, 0
"""Values of `visibility_flags`, which are those of COCO keypoints' `v`."""
FEATURES = ("height", "sharpness", "mirror_distance")
"""Of a landmark in an image: the peak's height; `heatmaps.sharpness`; distance of the peaks in the image and in its mirror
image, cells, 0 without a mirror image."""


@dataclass(frozen=True, eq=False)
class VisibilityModel:
    """Gives each landmark a probability of being found.

    Attributes:
        weights: float32 (K, F), of the features of each landmark, `FEATURES`.
        offset: float32 (K,).
    """

    weights: NDArray[np.float32]
    offset: NDArray[np.float32]

    @classmethod
    def read(cls, folder: Folder) -> VisibilityModel | None:
        """Return the model of a detector's folder; None if it has none. Raises DamageError if it cannot be read."""
        if not folder.is_file(VISIBILITY):
            return None
        with folder.parsing(VISIBILITY):
            plain = folder.read_object(VISIBILITY)
            return cls(np.array(plain["weights"], np.float32), np.array(plain["offset"], np.float32))

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `VISIBILITY`."""
        return {"features": list(FEATURES), "weights": self.weights.tolist(), "offset": self.offset.tolist()}


def found_of(
    xy: NDArray[np.floating[Any]], probability: NDArray[np.floating[Any]], least: float = MIN_PROBABILITY
) -> NDArray[np.bool_]:
    """Return which landmarks are found: bool (..., K).

    Args:
        xy: (..., K, 2), NaN where not detected.
        probability: (..., K); where it is NaN, a landmark is found if `xy` is a point.
        least: Least probability of a landmark that is found.
    """
    found: NDArray[np.bool_] = np.isfinite(xy).all(axis=-1) & ~(probability < least)
    return found


def visibility_flags(
    xy: NDArray[np.floating[Any]], probability: NDArray[np.floating[Any]], min_probability: float = MIN_PROBABILITY
) -> NDArray[np.int8]:
    """Return COCO's `v` of landmarks: int8 (..., K), FOUND, INFERRED or ABSENT.

    A landmark is found from `min_probability` on, as `found_of` has it. It is inferred from `INFERRED_SHARE` of this on: it
    may be hidden, and its position follows from what is around it. Below, or without a position, it is absent. Where the
    probability is NaN, as detectors without a `VisibilityModel` give it, a landmark with a position is found.

    Args:
        xy: (..., K, 2), NaN where not detected.
        probability: (..., K), of being found.
        min_probability: Least probability of a landmark that is found.
    """
    has_place = np.isfinite(xy).all(axis=-1)
    flags = np.full(probability.shape, INFERRED, np.int8)
    flags[found_of(xy, probability, min_probability)] = FOUND
    flags[~has_place | (probability < INFERRED_SHARE * min_probability)] = ABSENT
    return flags


def features(own_BKhw: Tensor, mirrored_BKhw: Tensor | None, maps_BKhw: Tensor, sigma: float) -> Tensor:
    """Return the features of the landmarks: BKF. Only operations that ONNX has.

    Args:
        own_BKhw: Heatmaps of the images.
        mirrored_BKhw: Those of the mirror images, flipped back and with permuted channels; None without mirror images.
        maps_BKhw: The heatmaps that are decoded: the mean of both.
        sigma: Of the Gaussians that the channels were trained on, cells.
    """
    import torch  # here, as detectors in ONNX run without it

    from ray_kplm.network import heatmaps

    cells_BK2, height_BK = heatmaps.decode(maps_BKhw, sigma)
    sharpness_BK = heatmaps.sharpness(maps_BKhw.flatten(0, 1), cells_BK2.flatten(0, 1)[:, None], sigma)
    distance_BK = torch.zeros_like(height_BK)
    if mirrored_BKhw is not None:
        apart_BK2 = heatmaps.decode(own_BKhw, sigma)[0] - heatmaps.decode(mirrored_BKhw, sigma)[0]
        distance_BK = apart_BK2.square().sum(-1).sqrt()
    return torch.stack([height_BK, sharpness_BK.view_as(height_BK), distance_BK], dim=-1)
