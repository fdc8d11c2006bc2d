"""Random views of an image for training, decided by a seed alone.

The pictures know nothing of labels: a view comes with the way from the crop frame to its own frame, and whoever holds the
round's labels moves them along. albumentations moves three reference keypoints along with the image; the affine map is what
carried them.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # or the import asks a package index for news

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray

from ray_kplm.config import AugmentConfig
from ray_kplm.imaging import coordinates
from ray_kplm.imaging.crops import letterbox
from ray_kplm.imaging.flow import flow_between, warp_flow
from ray_kplm.imaging.warp import IDENTITY_SHIFT, compose_shifts, random_warp

_WARP = 31
"""Of a view's seed: the random numbers of its warp."""


@dataclass(frozen=True)
class View:
    """picture: uint8 (S, S, 3). A crop's point comes to it by the map crop_to_view, float32 (2, 3), then by the shifts there,
    float32 (G, G, 2); see `imaging.warp`."""

    picture: NDArray[np.uint8]
    crop_to_view: NDArray[np.float32]
    shifts: NDArray[np.float32]


class Augmenter:
    """The thesis' augmentation (flip, affine, colour, blur, noise; albumentations), and a smooth warp where asked for."""

    def __init__(self, config: AugmentConfig, size: int) -> None:
        self.size = size
        self._warp = config.warp
        self._reference = np.array([[0, 0], [size - 1, 0], [0, size - 1]], dtype=np.float64)
        self._views = {flip: self._compose(config, flip) for flip in (False, True)}

    @staticmethod
    def _compose(config: AugmentConfig, flip: bool) -> A.Compose:
        shift = config.translate
        steps = [
            A.HorizontalFlip(p=1.0 if flip else 0.0),
            A.Affine(
                scale=config.scale,
                translate_percent=(-shift, shift),
                rotate=(-config.rotate, config.rotate),
                keep_ratio=True,
                border_mode=cv2.BORDER_REPLICATE,
                p=1.0,
            ),
            A.ColorJitter(brightness=config.brightness, contrast=config.contrast, saturation=(1, 1), hue=(0, 0), p=1.0),
            A.ColorJitter(
                brightness=(1, 1), contrast=(1, 1), saturation=config.saturation, hue=config.hue, p=config.colour_share
            ),
            A.GaussianBlur(blur_limit=0, sigma_limit=(0.0, config.blur), p=config.blur_share),
            A.OneOf(
                [
                    A.GaussNoise(std_range=(0.0, config.noise), per_channel=False),
                    A.GaussNoise(std_range=(0.0, config.noise), per_channel=True),
                ],
                p=config.noise_share,
            ),
        ]
        return A.Compose(steps, keypoint_params=A.KeypointParams(format="xy", remove_invisible=False))

    def __call__(
        self, image: NDArray[np.uint8], seed: int, flip: bool, before: NDArray[np.uint8] | None = None
    ) -> View:
        """A view of a crop uint8 (H, W, 3). The same seed and flip give the same view, whatever was asked before.

        before: another frame of the same video; the view's way is then that of points of this one.
        """
        view, crop_to_input = letterbox(image, self.size)
        shown = view
        compose = self._views[flip]
        # `set_random_seed` gives every transform the same stream (albumentations 2.0.8): as far shifted, as bright. Here they
        # draw from one stream in turn. The flip draws nothing, so a view and its mirror image have the same numbers.
        compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        out = compose(image=view, keypoints=self._reference)
        input_to_view = _affine_between(self._reference, np.asarray(out["keypoints"], dtype=np.float64))
        picture, shifts = out["image"], IDENTITY_SHIFT
        if self._warp:
            picture, shifts = random_warp(picture, self._warp, np.random.default_rng((seed, _WARP)))
        if before is not None:
            start, crop_to_input = letterbox(before, self.size)
            flow = warp_flow(flow_between(start, shown), input_to_view)
            shifts = compose_shifts(flow, shifts, self.size)
        crop_to_view = coordinates.compose(input_to_view, crop_to_input).astype(np.float32)
        return View(picture, crop_to_view, shifts)


def _affine_between(before: NDArray, after: NDArray) -> coordinates.Affine:
    """The affine map that carries three points to three points."""
    homogeneous = np.concatenate([before, np.ones((3, 1))], axis=1)
    return np.linalg.solve(homogeneous, after).T
