"""Whether a landmark is in an image: its probability of being there, from what its heatmap and the layout look like.

A landmark is there if nothing covers it and its side of the object is not turned away. Both have a logistic regression for each
landmark, the first of features of its heatmap, the second of the layout of all landmarks; the probability is their product. All
is measured on the heatmaps of one image, so any detector that has the heatmaps has the probabilities. `visibility_fit` fits
the model without annotation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.ranges import MIN_PROBABILITY as MIN_PROBABILITY
from ray_kplm.storage import Folder

if TYPE_CHECKING:
    from torch import Tensor

VISIBILITY = "visibility.json"
"""File of the model, in the folder of a detector."""
VISIBILITY_STEP = "visibility"
"""The step of a run that fits the model, and its folder."""
INFERRED_SHARE = 0.5
"""Of the least probability of a found landmark: from here on, a landmark that is not found is inferred, below it absent."""
FOUND, INFERRED, ABSENT = 2, 1, 0
"""Values of `visibility_flags`, which are those of COCO keypoints' `v`."""
OWN_FEATURES = ("height", "least_height", "sharpness", "mirror_distance", "second_peak", "mass", "spread")
"""Of a landmark's heatmap in an image, `own_features`. After these come the places of all landmarks, `layout`."""
_SECOND_PEAK_REACH = 3.0
"""Cells around the peak that are left out when the second peak is looked for."""
_FLOOR = 1e-4
"""Least height that others are divided by."""


@dataclass(frozen=True, eq=False)
class VisibilityModel:
    """Gives each landmark a probability of being found.

    Attributes:
        weights: float32 (K, F), of the `features` of each landmark.
        offset: float32 (K, 2), of the two regressions: that nothing covers the landmark, and that it is not turned away.
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
            if plain["features"] != list(OWN_FEATURES):
                raise ValueError(f"features {plain['features']}: this version has {list(OWN_FEATURES)}")
            return cls(np.array(plain["weights"], np.float32), np.array(plain["offset"], np.float32))

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `VISIBILITY`."""
        return {"features": list(OWN_FEATURES), "weights": self.weights.tolist(), "offset": self.offset.tolist()}


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


def probabilities(features_BKF: Tensor, weights_KF: Tensor, offset_K2: Tensor) -> Tensor:
    """Return the probabilities of being there, BK, by a `VisibilityModel`."""
    import torch

    terms_BKF = features_BKF * weights_KF
    own = len(OWN_FEATURES)
    uncovered_BK = torch.sigmoid(terms_BKF[..., :own].sum(-1) + offset_K2[:, 0])
    return uncovered_BK * torch.sigmoid(terms_BKF[..., own:].sum(-1) + offset_K2[:, 1])


def features(own_BKhw: Tensor, mirrored_BKhw: Tensor | None, maps_BKhw: Tensor, sigma: float) -> Tensor:
    """Return the features of the landmarks: BKF, F = len(OWN_FEATURES) + 2 K. Only operations that ONNX has.

    Args:
        own_BKhw: Heatmaps of the images.
        mirrored_BKhw: Those of the mirror images, flipped back and with permuted channels; None without mirror images.
        maps_BKhw: The heatmaps that are decoded: the mean of both.
        sigma: Of the Gaussians that the channels were trained on, cells.
    """
    import torch  # here, as detectors in ONNX run without it

    from ray_kplm.network import heatmaps

    xy_BK2, height_BK = heatmaps.decode(maps_BKhw, sigma)
    layout_BL = layout(xy_BK2)
    shared_BKL = layout_BL[:, None].expand(-1, maps_BKhw.shape[1], -1)
    own_BKF = own_features(own_BKhw, mirrored_BKhw, maps_BKhw, xy_BK2, height_BK, sigma)
    return torch.cat([own_BKF, shared_BKL], dim=-1)


def own_features(
    own_BKhw: Tensor,
    mirrored_BKhw: Tensor | None,
    maps_BKhw: Tensor,
    xy_BK2: Tensor,
    height_BK: Tensor,
    sigma: float,
) -> Tensor:
    """Return what each landmark's own heatmap says of it, `OWN_FEATURES`: BKF.

    Height of the peak; the lesser of the heights in the image and in its mirror image; `heatmaps.sharpness`; logarithm of the
    distance of both peaks, cells; height of the second peak relative to the first; logarithm of the sum of the heatmap over its
    height; logarithm of its mean squared distance from the landmark. The first arguments are those of `features`, the others
    the decoded landmarks and their heights.
    """
    import torch

    from ray_kplm.network import heatmaps

    least_BK, distance_BK = height_BK, torch.zeros_like(height_BK)
    if mirrored_BKhw is not None:
        there_BK2, one_BK = heatmaps.decode(own_BKhw, sigma)
        back_BK2, other_BK = heatmaps.decode(mirrored_BKhw, sigma)
        least_BK = torch.minimum(one_BK, other_BK)
        distance_BK = (there_BK2 - back_BK2).square().sum(-1).sqrt()
    sharpness_BK = heatmaps.sharpness(maps_BKhw.flatten(0, 1), xy_BK2.flatten(0, 1)[:, None], sigma).view_as(height_BK)
    cells = torch.arange(maps_BKhw.shape[-1], device=maps_BKhw.device, dtype=maps_BKhw.dtype)
    across_BKw, down_BKh = ((cells - xy_BK2[..., axis, None]).square() for axis in (0, 1))
    squared_BKhw = down_BKh[..., :, None] + across_BKw[..., None, :]
    positive_BKhw = maps_BKhw.clamp(min=0)
    far_BKhw = positive_BKhw * (squared_BKhw > _SECOND_PEAK_REACH**2)
    total_BK = positive_BKhw.sum((-2, -1)).clamp(min=_FLOOR)
    scale_BK = height_BK.clamp(min=_FLOOR)
    spread_BK = (positive_BKhw * squared_BKhw).sum((-2, -1)) / total_BK
    return torch.stack(
        [
            height_BK,
            least_BK,
            sharpness_BK,
            torch.log1p(distance_BK),
            far_BKhw.flatten(2).amax(-1) / scale_BK,
            torch.log(total_BK / scale_BK),
            torch.log1p(spread_BK),
        ],
        dim=-1,
    )


def layout(xy_BK2: Tensor) -> Tensor:
    """Return the places of all landmarks relative to their centre and their spread: (B, 2 K).

    They tell how an object is turned, and with it which of its landmarks it hides.
    """
    centred_BK2 = xy_BK2 - xy_BK2.mean(1, keepdim=True)
    size_B = centred_BK2.square().sum(-1).mean(1).sqrt().clamp(min=_FLOOR)
    return (centred_BK2 / size_B[:, None, None]).flatten(1)
