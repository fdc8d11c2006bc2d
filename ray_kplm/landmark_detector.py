"""The landmark detector of a finished run, for new images."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Literal, NamedTuple, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ray_kplm.datasets import image_io
from ray_kplm.datasets.given_images import Image, as_images, rgb_of
from ray_kplm.datasets.ingest_source import box_fault
from ray_kplm.datasets.limits import DEFAULT_LIMITS, Limits
from ray_kplm.detectors.loading import load_detector
from ray_kplm.errors import DataError
from ray_kplm.imaging import coordinates
from ray_kplm.methods.predicted import Predictor
from ray_kplm.methods.visibility import MIN_PROBABILITY, found_of
from ray_kplm.points.layout import Layout


@dataclass(frozen=True)
class Landmarks:
    """K landmarks of one image.

    Attributes:
        xy: (K, 2), (x, y) in source pixels, with pixel centres at integers.
        confidence: (K,), heights of the heatmaps' peaks.
        probability: (K,), of being found, 0 to 1; NaN of a detector that was made without a `VisibilityModel`.
        found: bool (K,), whether the probability is at least `min_probability`; where there is none, whether `xy` is a point.
        facing: which way the object faces, for a category seen from the side: the sign is one of the two ways, the same one in
            all images; the magnitude, 0 to 1, is how sure it is. None for other categories.
    """

    xy: NDArray[np.float32]
    confidence: NDArray[np.float32]
    probability: NDArray[np.float32]
    found: NDArray[np.bool_]
    facing: float | None = None


class LandmarkDetector:
    """A trained detector of K landmarks: `LandmarkDetector.load("runs/faces").predict(["a.jpg", array])`.

    Attributes:
        layout: Names, mirror partners and skeleton of the points that it predicts: its landmarks, or those made of them by
            `kplm edit` or `kplm adapt`. Files and folders to share have a skeleton that was derived where none was given; a run
            has none then.
        batch: Images that are predicted at once.
        limits: Of an image file and of a picture.
    """

    def __init__(
        self,
        predictor: Predictor,
        size: int,
        batch: int,
        layout: Layout,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """Wrap a predictor of the points of a layout for inputs of `size` pixels a side, `batch` of them at a time."""
        self._predictor, self._size, self.batch = predictor, size, batch
        self.layout, self.limits = layout, limits

    @property
    def landmarks(self) -> int:
        """Number of points that it predicts."""
        return len(self.layout)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the points, in their order."""
        return self.layout.names

    @classmethod
    def load(
        cls,
        run: str | os.PathLike[str],
        *,
        device: str | None = None,
        flip: bool | None = None,
        points: str | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> LandmarkDetector:
        """Load the detector of a finished run, of a folder that holds one, or of a file that `kplm export` wrote.

        `compute.precision: auto` is decided by the device, not by the format the run was trained in, as bf16 is slow on a CPU
        that does not support it. The landmarks are the same up to rounding.

        Args:
            run: A path or URI; files end in `.onnx` or `.pt2`.
            device: `cpu`, `cuda` or `mps`; None and `auto`: a GPU if one is available.
            flip: Whether to average with the mirror image; by default as the run is configured. A file has it decided.
            points: Which points to predict: a name that `kplm adapt` gave, or `landmarks` for the landmarks themselves; by
                default those that `kplm edit` made of the landmarks, if it did.
            limits: Of an image file and of a picture; larger ones are refused.

        Raises:
            RunError: The run is not finished.
            DataError: The run has no such points.
            DamageError: A file of the detector is damaged.
            ConfigError: There is no such device, the choice does not apply to a file, or a package is missing that reads it.
        """
        return cls(*load_detector(os.fspath(run), device, flip, points), limits)

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        *,
        revision: str | None = None,
        device: str | None = None,
        flip: bool | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> LandmarkDetector:
        """Load a detector that `kplm push` shared: `LandmarkDetector.from_pretrained("user/name").predict(["a.jpg"])`.

        It finds the points that it was shared with; `names` and `layout` say which.

        Args:
            name: A name on the model hub, or a folder.
            revision: A branch, a tag or a commit on the hub; by default its main branch.
            device: As in `load`.
            flip: As in `load`.
            limits: As in `load`.

        Raises:
            ConfigError: The package huggingface_hub or safetensors is missing, or the name is not valid.
            DataError: There is no such model or revision, or it is of another kind.
            StorageError: The hub does not answer or refuses, or a file is damaged.
        """
        from ray_kplm.detectors.hub import local_folder

        return cls.load(local_folder(os.fspath(name), revision), device=device, flip=flip, limits=limits)

    @overload
    def predict(
        self,
        images: Image | Iterable[Image],
        boxes: ArrayLike | None = None,
        margin: float = 0.2,
        *,
        errors: Literal["raise"] = "raise",
        min_probability: float = MIN_PROBABILITY,
    ) -> list[Landmarks]: ...

    @overload
    def predict(
        self,
        images: Image | Iterable[Image],
        boxes: ArrayLike | None = None,
        margin: float = 0.2,
        *,
        errors: Literal["none"],
        min_probability: float = MIN_PROBABILITY,
    ) -> list[Landmarks | None]: ...

    def predict(
        self,
        images: Image | Iterable[Image],
        boxes: ArrayLike | None = None,
        margin: float = 0.2,
        *,
        errors: Literal["raise", "none"] = "raise",
        min_probability: float = MIN_PROBABILITY,
    ) -> Sequence[Landmarks | None]:
        """Detect the landmarks of images. The same pixels have the same landmarks, in whatever form they come.

        Args:
            images: Any number of images, a list, an iterator or an array (N, H, W, 3), or one image. An image is a path or URI,
                the bytes of an image file, a PIL image, or an array (H, W, 3) RGB or (H, W) grey. The frame of a file and of a
                PIL image is the upright picture (EXIF orientation applied). Arrays of other numbers than uint8 are scaled by
                the range that occurs in each image, as 16-bit files are.
            boxes: (N, 4), x0, y0, x1, y1 of the object in each image, which is cropped as by `kplm ingest`. Without boxes the
                object must fill the image as it did in training.
            margin: Margin around a box, as a share of its longer side.
            errors: `raise`: an image that cannot be used is an error that names it. `none`: its result is None.
            min_probability: Least probability of a landmark that is `found`, 0 to 1.

        Returns:
            The landmarks of each image, in its own pixels; of one image a list of one.

        Raises:
            DataError: An image cannot be used, or the number of boxes is not that of the images.
        """
        if errors not in ("raise", "none"):
            raise DataError(f"errors is {errors!r}: give 'raise' or 'none'")
        if not (math.isfinite(margin) and margin >= 0):
            raise DataError(f"margin is {margin}: give a share of the box's side, at least 0")
        if not 0 <= min_probability <= 1:
            raise DataError(f"min_probability is {min_probability}: give a probability, 0 to 1")
        found: list[Landmarks | None] = []
        batch: list[Prepared] = []
        for number, (image, box) in enumerate(_with_boxes(as_images(images), boxes)):
            found.append(None)
            try:
                batch.append(self._input(number, image, box, margin))
            except DataError as error:
                if errors == "raise":
                    name = image if isinstance(image, (str, os.PathLike)) else f"image {number}"
                    raise DataError(f"{name}: {error}") from None
            if len(batch) == self.batch:
                self._fill(found, batch, min_probability)
                batch = []
        self._fill(found, batch, min_probability)
        return found

    def prepare(self, image: Image, box: ArrayLike | None = None, margin: float = 0.2) -> Prepared:
        """Return an image as `predict_prepared` and `see` take it: read and decoded, but without what the device computes.

        It may be called in several threads.

        Args:
            image: As of `predict`.
            box: (4,), x0, y0, x1, y1 of the object, around which the image is cropped; None: it is not cropped.
            margin: Around the box, as a share of its longer side.

        Raises:
            DataError: The image cannot be used.
        """
        return self._input(0, image, None if box is None else np.asarray(box, np.float64), margin)

    def predict_prepared(
        self, images: Sequence[Prepared], *, min_probability: float = MIN_PROBABILITY
    ) -> list[Landmarks]:
        """Return what `predict` does, of images that `prepare` returned: all of them as one batch, in one thread at a time."""
        return self._predict([one[1:3] for one in images], None, min_probability) if images else []

    def see(self, images: Sequence[Prepared]) -> list[Seen]:
        """Return the landmarks as the network sees them, of images that `prepare` returned, in batches of `batch`.

        In a category that is seen from the side these are the landmarks of the image or of its mirror image, whichever faces
        the way of the training: there `PointSet` makes points of them.
        """
        return [one for at in range(0, len(images), self.batch) for one in self._see(images[at : at + self.batch])]

    def _see(self, images: Sequence[Prepared]) -> list[Seen]:
        nowhere = np.full(4, np.nan)
        inside = [nowhere if one.box is None else _in_input(one.box, one.to_source) for one in images]
        found = self._predictor(np.stack([one.view for one in images]), np.stack(inside).astype(np.float32))
        turn = coordinates.mirroring(self._size)
        is_turned = np.zeros(len(images), bool) if found.facing is None else found.facing < 0
        return [
            Seen(
                one.view[:, ::-1] if turned else one.view,
                coordinates.apply(turn, xy) if turned else xy,
                confidence,
                probability,
                coordinates.compose(one.to_source, turn) if turned else one.to_source,
                bool(turned),
            )
            for one, xy, confidence, probability, turned in zip(
                images, found.xy, found.confidence, found.probability, is_turned, strict=True
            )
        ]

    def _fill(self, found: list[Landmarks | None], batch: list[Prepared], least: float) -> None:
        """Put the landmarks of a batch to their places."""
        if batch:
            boxes = None if batch[0].box is None else np.stack([one.box for one in batch if one.box is not None])
            for one, landmarks in zip(batch, self._predict([one[1:3] for one in batch], boxes, least), strict=True):
                found[one.number] = landmarks

    def _predict(
        self,
        inputs: list[tuple[NDArray[np.uint8], coordinates.Affine]],
        boxes: NDArray[np.float64] | None,
        least: float,
    ) -> list[Landmarks]:
        """Return the landmarks of a batch: inputs with their transforms to source pixels, boxes (B, 4) in source pixels."""
        maps = [affine for _, affine in inputs]
        inside = None if boxes is None else np.stack([_in_input(b, m) for b, m in zip(boxes, maps, strict=True)])
        seen = self._predictor(np.stack([image for image, _ in inputs]), inside)
        is_found = found_of(seen.xy, seen.probability, least)
        facing = [None] * len(inputs) if seen.facing is None else seen.facing.tolist()
        return [
            Landmarks(coordinates.apply(input_to_source, xy).astype(np.float32), confidence, probability, found, way)
            for input_to_source, xy, confidence, probability, found, way in zip(
                maps, seen.xy, seen.confidence, seen.probability, is_found, facing, strict=True
            )
        ]

    def _input(self, number: int, image: Image, box: NDArray[np.float64] | None, margin: float) -> Prepared:
        """Return the network's input of an image."""
        rgb = rgb_of(image, self.limits)
        window = image_io.full_window(rgb)
        if box is not None:
            x0, y0, x1, y1 = box.tolist()
            if (fault := box_fault((x0, y0, x1, y1))) is not None:
                raise DataError(f"{fault}: {box.tolist()}")
            window = image_io.window_around((x0, y0, x1, y1), margin, window)
        return Prepared(number, *image_io.network_input(rgb, window, self._size), box)


class Prepared(NamedTuple):
    """One image as the network sees it: its number, the input, the map to source pixels, and the box in source pixels."""

    number: int
    view: NDArray[np.uint8]
    to_source: coordinates.Affine
    box: NDArray[np.float64] | None


class Seen(NamedTuple):
    """The landmarks of one image as the network sees it.

    Attributes:
        view: (S, S, 3), the input; the mirror image if the object faces the other way than those of the training.
        xy: (K, 2), pixels of the view.
        confidence: (K,).
        probability: (K,), of being found; NaN without a `VisibilityModel`.
        to_source: The map from the view to source pixels.
        is_turned: Whether the view is the mirror image.
    """

    view: NDArray[np.uint8]
    xy: NDArray[np.float32]
    confidence: NDArray[np.float32]
    probability: NDArray[np.float32]
    to_source: coordinates.Affine
    is_turned: bool


def _with_boxes(images: Iterable[Image], boxes: ArrayLike | None) -> Iterator[tuple[Image, NDArray[np.float64] | None]]:
    """Yield each image with its box, or None if there are no boxes."""
    if boxes is None:
        yield from ((image, None) for image in images)
        return
    try:
        rows = np.asarray(boxes, dtype=np.float64)
        rows = rows.reshape(-1, 4) if rows.size else rows.reshape(0, 4)
    except (TypeError, ValueError):
        raise DataError("boxes: give four numbers x0, y0, x1, y1 for each image, (N, 4)") from None
    images = images if isinstance(images, Sized) else list(images)
    if len(rows) != len(images):
        raise DataError(f"{len(rows)} boxes for {len(images)} images: give one box for each image, or no boxes")
    yield from zip(images, rows, strict=True)


def _in_input(box: NDArray[np.float64], input_to_source: coordinates.Affine) -> NDArray[np.float32]:
    """Return a box (4,) of the source frame in the input frame."""
    corners = coordinates.apply(coordinates.invert(input_to_source), box.reshape(2, 2))
    return np.asarray(corners, np.float32).ravel()
