"""Random views of an image for training, determined by a seed.

Labels are not part of the augmentation: a view comes with the map from the crop frame to its own frame, by which the training
loop maps the round's labels. albumentations transforms three reference keypoints along with the image, from which the affine
map is computed.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # without it, the import asks PyPI for a newer version

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray

from ray_kplm.config import AugmentConfig
from ray_kplm.imaging import coordinates
from ray_kplm.imaging.composites import box_mask, fill_background, paste, random_placement
from ray_kplm.imaging.crops import letterbox
from ray_kplm.imaging.flow import flow_between, warp_flow
from ray_kplm.imaging.warp import IDENTITY_SHIFT, compose_shifts, random_warp

_WARP, _PASTE = 31, 59
"""Added to a view's seed for the random numbers of its warp, and of its pasted object."""


@dataclass(frozen=True)
class Boxed:
    """The object's box in a crop, and another crop with its own, whose background the object may be pasted on.

    Attributes:
        box: (4,), x0, y0, x1, y1 in the crop, pixels.
        other: (H, W, 3).
        other_box: (4,).
    """

    box: NDArray[np.float64]
    other: NDArray[np.uint8]
    other_box: NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """A random view of a crop, and the map of the crop's points to it.

    Attributes:
        picture: (S, S, 3).
        crop_to_view: (2, 3), the affine part of the map.
        shifts: (G, G, 2), the warp after it; see `imaging.warp`.
    """

    picture: NDArray[np.uint8]
    crop_to_view: NDArray[np.float32]
    shifts: NDArray[np.float32]


class Augmenter:
    """The thesis' augmentation (flip, affine, colour, blur, noise; albumentations), and a smooth warp if configured."""

    def __init__(self, config: AugmentConfig, size: int) -> None:
        """Build the augmentation.

        Args:
            config: Ranges of the transforms.
            size: Side S of the views, pixels.
        """
        self.size = size
        self._warp, self._paste, self._shift = config.warp, config.paste, config.paste_shift
        self._reference = np.array([[0, 0], [size - 1, 0], [0, size - 1]], dtype=np.float64)
        self._views = {flip: self._compose(config, flip) for flip in (False, True)}

    @staticmethod
    def _compose(config: AugmentConfig, flip: bool) -> A.Compose:
        """Return the transforms, all without the flip or all with it."""
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
            A.GaussianBlur(
                blur_limit=0, sigma_limit=(0.0, config.blur), p=config.blur_share if config.blur else 0.0
            ),  # a sigma of exactly 0 would give black pictures (albumentations 2.0.8)
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
        self,
        image: NDArray[np.uint8],
        seed: int,
        flip: bool,
        before: NDArray[np.uint8] | None = None,
        boxed: Boxed | None = None,
    ) -> View:
        """Return a view of a crop; the same crop, seed and flip give the same view.

        Args:
            image: (H, W, 3), the crop.
            seed: Of the transforms.
            flip: Whether the view is mirrored.
            before: Another frame of the same video. The map of points to the view is then that of this frame's points.
            boxed: The object's box, and another image for `augment.paste`; None: nothing is pasted.
        """
        picture, crop_to_input = letterbox(image, self.size)
        if boxed is not None and self._paste and before is None:
            picture, moved = self._pasted(picture, crop_to_input, boxed, np.random.default_rng((seed, _PASTE)))
            crop_to_input = coordinates.compose(moved, crop_to_input)
        current = picture
        compose = self._views[flip]
        # `set_random_seed` gives each transform its own stream from the same seed (albumentations 2.0.8), so that the shift and
        # the brightness, for instance, are correlated. Here they draw from one stream in turn. The flip draws nothing, so a
        # view and its mirror image have the same random numbers.
        compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        out = compose(image=picture, keypoints=self._reference)
        input_to_view = _affine_between(self._reference, np.asarray(out["keypoints"], dtype=np.float64))
        picture, shifts = out["image"], IDENTITY_SHIFT
        if self._warp:
            picture, shifts = random_warp(picture, self._warp, np.random.default_rng((seed, _WARP)))
        if before is not None:
            start, crop_to_input = letterbox(before, self.size)
            flow = warp_flow(flow_between(start, current), input_to_view)
            shifts = compose_shifts(flow, shifts, self.size)
        crop_to_view = coordinates.compose(input_to_view, crop_to_input).astype(np.float32)
        return View(picture, crop_to_view, shifts)

    def _pasted(
        self, picture: NDArray[np.uint8], crop_to_input: coordinates.Affine, boxed: Boxed, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], coordinates.Affine]:
        """Return the input with its object moved, on the background of another image, and the map of the object's points.

        Most views are left as they are; `augment.paste` is the share of the others.
        """
        if rng.random() >= self._paste:
            return picture, coordinates.scaling(1.0)
        other, other_to_input = letterbox(boxed.other, self.size)
        covered = box_mask(_in_input(boxed.other_box, other_to_input), self.size)
        box = _in_input(boxed.box, crop_to_input)
        placement = random_placement(box, self.size, self._shift, rng)
        return paste(picture, box_mask(box, self.size), fill_background(other, covered), placement), placement


def _in_input(box: NDArray[Any], crop_to_input: coordinates.Affine) -> NDArray[np.float64]:
    """Return a box (4,) of the crop frame in the input frame."""
    return np.asarray(coordinates.apply(crop_to_input, box.reshape(2, 2)), np.float64).ravel()


def _affine_between(before: NDArray[Any], after: NDArray[Any]) -> coordinates.Affine:
    """Return the affine map of three points (3, 2) to three points."""
    homogeneous = np.concatenate([before, np.ones((3, 1))], axis=1)
    affine: coordinates.Affine = np.linalg.solve(homogeneous, after).T
    return affine
