"""Random views of images for training, determined by seeds.

Labels are not part of the augmentation: a view comes with the map from the crop frame to its own frame, by which the training
loop maps the round's labels. `imaging.reference_views` makes the same views by albumentations, slowly.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ray_kplm.config import AugmentConfig
from ray_kplm.imaging import coordinates, photometry
from ray_kplm.imaging.composites import box_mask, cut_out, fill_background, moved_placement, put_over
from ray_kplm.imaging.crops import letterbox, shrunk
from ray_kplm.imaging.flow import flow_between, warp_flow
from ray_kplm.imaging.resampling import Resampler
from ray_kplm.imaging.view_parameters import ViewParameters, draw_views
from ray_kplm.imaging.warp import IDENTITY_SHIFT, compose_shifts, point_shifts

if TYPE_CHECKING:
    from ray_kplm.imaging.extra_transforms import ExtraTransforms


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


@dataclass(frozen=True)
class ViewBatch:
    """Random views of B crops, and the maps of their points: `View` with an axis more.

    Attributes:
        picture: (B, S, S, 3).
        crop_to_view: (B, 2, 3).
        shifts: (B, G, G, 2).
    """

    picture: NDArray[np.uint8]
    crop_to_view: NDArray[np.float32]
    shifts: NDArray[np.float32]


@dataclass(frozen=True)
class Inputs:
    """What a training device makes B views of: all that is done to crops before their random numbers apply.

    Attributes:
        picture: (B, S, S, 3). The crop, as large as it is shown, begins in the corner; beyond it its border is repeated.
        crop_to_input: (B, 2, 3), the map of the crop's points to the input.
        input_to_picture: (B, 2, 3), the map of the input's points to the picture.
    """

    picture: NDArray[np.uint8]
    crop_to_input: NDArray[np.float64]
    input_to_picture: NDArray[np.float64]


class Augmenter:
    """The thesis' augmentation (flip, affine, colour, blur, noise), and a smooth warp and pasted objects if configured."""

    def __init__(self, config: AugmentConfig, size: int) -> None:
        """Build the augmentation.

        Args:
            config: Ranges of the transforms.
            size: Side S of the views, pixels.

        Raises:
            ConfigError: The file of `augment.extra` cannot be used.
        """
        self.config, self.size = config, size
        self._resampler = Resampler(size, warped=config.warp > 0)
        self._extra: ExtraTransforms | None = None
        if config.extra:
            from ray_kplm.imaging.extra_transforms import ExtraTransforms  # takes a second

            self._extra = ExtraTransforms(config.extra, size)

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
        parameters = draw_views(self.config, np.array([seed]), np.array([flip]))
        made = self.views(parameters, [image], None if before is None else [before], [boxed])
        return View(made.picture[0], made.crop_to_view[0], made.shifts[0])

    def views(
        self,
        parameters: ViewParameters,
        images: Iterable[NDArray[np.uint8]],
        before: Iterable[NDArray[np.uint8]] | None = None,
        boxed: Iterable[Boxed | None] = repeat(None),
    ) -> ViewBatch:
        """Return views of B crops. A view does not depend on the others of the batch.

        Args:
            parameters: What is done to the crops.
            images: The crops, (H, W, 3) of any sizes. One after the other is asked for, so that each may be decoded then.
            before: As for a single view, for all of them.
            boxed: As for a single view. It is used where `parameters.paste` is true.
        """
        count, size = len(parameters), self.size
        input_to_view = parameters.input_to_view(size)
        nodes = parameters.warp * size
        maps = self._resampler.maps(coordinates.invert(input_to_view), nodes)
        pictures = np.empty((count, size, size, 3), np.uint8)
        crop_to_input = np.tile(coordinates.scaling(1.0), (count, 1, 1))
        shifts = list(point_shifts(nodes, size)) if self.config.warp else [IDENTITY_SHIFT] * count
        frames = repeat(None) if before is None else before
        for i, image, start, beside in zip(range(count), images, frames, boxed, strict=False):
            if beside is not None and parameters.paste[i] and start is None:
                crop_to_input[i] = self._paste(image, beside, parameters.paste_shift[i], maps[i], pictures[i])
            else:
                self._show(image, maps[i], pictures[i], crop_to_input[i])
            if self._extra is not None:
                pictures[i], shifts[i] = self._extra(pictures[i], shifts[i], int(parameters.extra_seed[i]))
            if start is not None:
                first, crop_to_input[i] = letterbox(start, size)
                flow = warp_flow(flow_between(first, letterbox(image, size)[0]), input_to_view[i])
                shifts[i] = compose_shifts(flow, shifts[i], size)
            photometry.change(pictures[i], parameters, i)
        crop_to_view = coordinates.compose(input_to_view, crop_to_input).astype(np.float32)
        return ViewBatch(pictures, crop_to_view, np.stack(shifts))

    def inputs(
        self,
        parameters: ViewParameters,
        images: Iterable[NDArray[np.uint8]],
        boxed: Iterable[Boxed | None] = repeat(None),
    ) -> Inputs:
        """Return the inputs of B views. A pasted object is resampled here, and once more in the view.

        Args:
            parameters: Of the views; only those of pasted objects are used.
            images: As for `views`.
            boxed: As for `views`.
        """
        count, size = len(parameters), self.size
        still = np.tile(coordinates.scaling(1.0), (count, 1, 1))
        made = Inputs(np.empty((count, size, size, 3), np.uint8), still.copy(), still.copy())
        unmoved = self._resampler.maps(still[:1], np.zeros_like(parameters.warp[:1]))
        for i, image, beside in zip(range(count), images, boxed, strict=False):
            if beside is not None and parameters.paste[i]:
                made.crop_to_input[i] = self._paste(
                    image, beside, parameters.paste_shift[i], unmoved[0], made.picture[i]
                )
                continue
            height, width = image.shape[:2]
            made.crop_to_input[i], made.input_to_picture[i] = _placement(width, height, size)
            small = shrunk(image, size)[0]
            rest = size - small.shape[0], size - small.shape[1]
            cv2.copyMakeBorder(small, 0, rest[0], 0, rest[1], cv2.BORDER_REPLICATE, made.picture[i])
        return made

    def _show(
        self,
        image: NDArray[np.uint8],
        view_map: NDArray[np.float32],
        out: NDArray[np.uint8],
        crop_to_input: coordinates.Affine,
    ) -> None:
        """Fill a view with a crop, and the map of the crop's points to the input, which is given as the identity."""
        height, width = image.shape[:2]
        if height == width == self.size:
            self._resampler.resample(image, view_map, out)
            return
        crop_to_input[:], input_to_picture = _placement(width, height, self.size)
        self._resampler.resample(shrunk(image, self.size)[0], view_map, out, input_to_picture)

    def _paste(
        self,
        image: NDArray[np.uint8],
        boxed: Boxed,
        shift: NDArray[np.float64],
        view_map: NDArray[np.float32],
        out: NDArray[np.uint8],
    ) -> coordinates.Affine:
        """Fill a view with the object, moved, on the background of another image.

        Returns:
            The map of the object's points in the crop to the input.
        """
        picture, crop_to_input = letterbox(image, self.size)
        other, other_to_input = letterbox(boxed.other, self.size)
        covered = box_mask(_in_input(boxed.other_box, other_to_input), self.size)
        box = _in_input(boxed.box, crop_to_input)
        placement = moved_placement(box, self.size, shift)
        cut = np.empty((self.size, self.size, 4), np.uint8)
        back = coordinates.invert(placement)
        self._resampler.resample(cut_out(picture, box_mask(box, self.size)), view_map, cut, back)
        self._resampler.resample(fill_background(other, covered), view_map, out)
        put_over(out, cut)
        return coordinates.compose(placement, crop_to_input)


@lru_cache(maxsize=1024)
def _placement(width: int, height: int, size: int) -> tuple[coordinates.Affine, coordinates.Affine]:
    """Return the maps of a crop's points to the input, and of the input's points to the crop after `shrunk`."""
    to_input = coordinates.crop_to_input(width, height, size)
    _, crop_to_picture = shrunk(np.empty((height, width, 1), np.uint8), size)
    return to_input, coordinates.compose(crop_to_picture, coordinates.invert(to_input))


def _in_input(box: NDArray[Any], crop_to_input: coordinates.Affine) -> NDArray[np.float64]:
    """Return a box (4,) of the crop frame in the input frame."""
    return np.asarray(coordinates.apply(crop_to_input, box.reshape(2, 2)), np.float64).ravel()
