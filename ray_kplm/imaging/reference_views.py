"""The views of `imaging.augment` by albumentations: slow, with one resampling for each transform. Tests and benches compare.

The transforms take the same parameters as the fast path, instead of drawing some. A pasted object, the affine map and the warp
resample in turn, and at the border of a warped view the reference repeats pixels where the fast path shows the image.
"""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # without it, the import asks PyPI for a newer version

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray

from ray_kplm.imaging import coordinates
from ray_kplm.imaging.augment import Boxed, View
from ray_kplm.imaging.composites import box_mask, fill_background, moved_placement, paste
from ray_kplm.imaging.crops import letterbox
from ray_kplm.imaging.view_parameters import ViewParameters
from ray_kplm.imaging.warp import IDENTITY_SHIFT

_LATTICE = 17
_STEPS = 8
"""Points along a side, and iterations of v = p - shift(v), for the map of a warp's points."""


class ReferenceAugmenter:
    """Makes single views by albumentations, OpenCV and NumPy."""

    def __init__(self, size: int) -> None:
        """Build the transforms.

        Args:
            size: Side S of the views, pixels.
        """
        self.size = size
        self._reference = np.array([[0, 0], [size - 1, 0], [0, size - 1]], dtype=np.float64)
        self._flip, self._move, self._light = A.HorizontalFlip(), _Move(), _Jitter()
        self._colour, self._blur, self._noise = _Jitter(), _Blur(), A.GaussNoise(p=1.0)
        self._all = A.Compose(
            [self._flip, self._move, self._light, self._colour, self._blur, self._noise],
            keypoint_params=A.KeypointParams(format="xy", remove_invisible=False),
        )

    def __call__(
        self, image: NDArray[np.uint8], parameters: ViewParameters, index: int = 0, boxed: Boxed | None = None
    ) -> View:
        """Return a view of a crop.

        Args:
            image: (H, W, 3), the crop.
            parameters: Of a batch of views.
            index: Of the view in it.
            boxed: The object's box, and another image.
        """
        picture, crop_to_input = letterbox(image, self.size)
        if boxed is not None and parameters.paste[index]:
            picture, placement = self._pasted(picture, crop_to_input, boxed, parameters.paste_shift[index])
            crop_to_input = coordinates.compose(placement, crop_to_input)
        self._set(parameters, index)
        out = self._all(image=picture, keypoints=self._reference)
        input_to_view = _affine_between(self._reference, np.asarray(out["keypoints"], dtype=np.float64))
        picture, shifts = out["image"], IDENTITY_SHIFT
        if parameters.warp[index].any():
            picture, shifts = warp(picture, parameters.warp[index] * self.size)
        return View(picture, coordinates.compose(input_to_view, crop_to_input).astype(np.float32), shifts)

    def _set(self, parameters: ViewParameters, index: int) -> None:
        """Give the transforms what they do to the next view."""
        p, i = parameters, index
        flip = coordinates.mirroring(self.size) if p.flip[i] else coordinates.scaling(1.0)
        affine = coordinates.compose(p.rows(slice(i, i + 1)).input_to_view(self.size)[0], flip)
        self._flip.p = float(p.flip[i])
        self._move.given = np.concatenate([affine, [[0, 0, 1]]])
        self._light.given = (float(p.brightness[i]), float(p.contrast[i]), 1.0, 0.0)
        self._colour.given = (1.0, 1.0, float(p.saturation[i]), float(p.hue[i]))
        self._colour.p = float(p.saturation[i] != 1 or p.hue[i] != 0)
        self._blur.p, self._blur.sigma_limit = float(p.blur[i] > 0), (float(p.blur[i]),) * 2
        self._noise.p, self._noise.std_range = float(p.noise[i] > 0), (float(p.noise[i]),) * 2
        self._noise.per_channel = bool(p.noise_per_channel[i])
        self._noise.random_generator = np.random.default_rng(int(p.noise_seed[i]))

    def _pasted(
        self, picture: NDArray[np.uint8], crop_to_input: coordinates.Affine, boxed: Boxed, shift: NDArray[np.float64]
    ) -> tuple[NDArray[np.uint8], coordinates.Affine]:
        """Return the input with its object moved, on the background of another image, and the map of the object's points."""
        other, other_to_input = letterbox(boxed.other, self.size)
        box, other_box = (
            coordinates.apply(affine, corners.reshape(2, 2)).ravel()
            for affine, corners in ((crop_to_input, boxed.box), (other_to_input, boxed.other_box))
        )
        background = fill_background(other, box_mask(other_box, self.size))
        placement = moved_placement(box, self.size, shift)
        return paste(picture, box_mask(box, self.size), background, placement), placement


def warp(picture: NDArray[np.uint8], nodes: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Warp a picture.

    Args:
        picture: (S, S, 3).
        nodes: (WARP_NODES, WARP_NODES, 2), shifts of the nodes, pixels.

    Returns:
        The warped picture, and the shifts of its points, (G, G, 2).
    """
    side = len(picture)
    back = cv2.resize(
        nodes.astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC
    )  # warped place -> its source
    rows, columns = np.indices((side, side), dtype=np.float32)
    warped = _sample(picture, columns + back[..., 0], rows + back[..., 1])
    at = np.linspace(0, side - 1, _LATTICE, dtype=np.float32)
    places = np.stack(np.meshgrid(at, at), axis=-1)
    moved = places
    for _ in range(_STEPS):
        moved = places - _sample(back, moved[..., 0], moved[..., 1])
    return warped, moved - places


def _sample(picture: NDArray[Any], x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    sampled: NDArray[Any] = cv2.remap(picture, x, y, interpolation=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return sampled


def _affine_between(before: NDArray[Any], after: NDArray[Any]) -> coordinates.Affine:
    """Return the affine map of three points (3, 2) to three points."""
    homogeneous = np.concatenate([before, np.ones((3, 1))], axis=1)
    affine: coordinates.Affine = np.linalg.solve(homogeneous, after).T
    return affine


class _Move(A.Affine):
    """A given affine map; albumentations' own draws whole pixels only."""

    def __init__(self) -> None:
        super().__init__(border_mode=cv2.BORDER_REPLICATE, p=1.0)
        self.given = np.eye(3)

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Return the map."""
        shape, sizes = params["shape"][:2], {"x": 1.0, "y": 1.0}  # of keypoints, which have none here
        return {"matrix": self.given, "bbox_matrix": self.given, "output_shape": shape, "scale": sizes}


class _Jitter(A.ColorJitter):
    """Given factors, in the order brightness, contrast, saturation, hue; albumentations' own shuffles it."""

    def __init__(self) -> None:
        super().__init__(p=1.0)
        self.given = (1.0, 1.0, 1.0, 0.0)

    def get_params(self) -> dict[str, Any]:
        """Return the factors."""
        return {
            **dict(zip(("brightness", "contrast", "saturation", "hue"), self.given, strict=True)),
            "order": range(4),
        }


class _Blur(A.GaussianBlur):
    """A Gaussian of the sigma that `sigma_limit` is set to."""

    def __init__(self) -> None:
        super().__init__(blur_limit=0, sigma_limit=(0.5, 0.5), p=1.0)
