"""A finished run as a detector for new images."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ray_kplm.datasets import image_io as pictures
from ray_kplm.errors import DataError
from ray_kplm.imaging import coordinates
from ray_kplm.imaging.crops import letterbox
from ray_kplm.methods.channels import CHANNELS, Channels
from ray_kplm.methods.predictors import LandmarkPredictor, LandmarkPredictorFactory
from ray_kplm.methods.trainer import NETWORK, weights_alone
from ray_kplm.network.compute import Placement
from ray_kplm.run import Run
from ray_kplm.storage import Folder


@dataclass(frozen=True)
class Landmarks:
    """K landmarks of one image: xy float32 (K, 2) source pixels, (x, y); confidence float32 (K,), the heatmap's peak."""

    xy: NDArray[np.float32]
    confidence: NDArray[np.float32]


def landmark_predictor(run: Run) -> LandmarkPredictorFactory:
    """The detector of a finished run, or of a folder that `export` wrote. Raises RunError if the run is not finished."""
    folder = run.folder
    if not _is_exported(folder):
        run.finished("stage2")
        folder /= "stage2"
    channels = Channels.from_dict(folder.read_json(CHANNELS))
    return LandmarkPredictorFactory(run.config, folder, channels.flip_map, run.config.stage2.flip_at_test)


def _is_exported(folder: Folder) -> bool:
    return folder.is_file(NETWORK) and folder.is_file(CHANNELS)


def export(run: Run, folder: Folder) -> None:
    """All that the detector of a finished run needs: `network.pt` (weights alone), `channels.json`, `config.yaml`.

    `LandmarkDetector.load` reads it. Raises RunError if the run is not finished.
    """
    run.finished("stage2")
    source = run.folder / "stage2"
    folder.write_bytes(NETWORK, weights_alone(source.read_bytes(NETWORK)))
    folder.write_bytes(CHANNELS, source.read_bytes(CHANNELS))
    folder.write_bytes("config.yaml", run.folder.read_bytes("config.yaml"))


Image = NDArray[np.uint8] | bytes | str | os.PathLike


class LandmarkDetector:
    """`LandmarkDetector.load("runs/faces").predict(["a.jpg", array])`."""

    def __init__(self, predictor: LandmarkPredictor, size: int, batch: int) -> None:
        self._predictor, self._size, self._batch = predictor, size, batch

    @classmethod
    def load(
        cls, run: str | os.PathLike[str], *, device: str | None = None, flip: bool | None = None
    ) -> LandmarkDetector:
        """The detector of a finished run directory, or of a folder that `export` wrote (a path or a URI).

        `compute.precision: auto` is decided by the device, not by what the run was trained with: the landmarks are the same but
        for rounding, and a CPU that cannot multiply bf16 is slow at it.

        device: `cpu` or `cuda`, by default a GPU if there is one. flip: average with the mirror image, by default as the run
        is configured (on). Raises RunError if the run is not finished.
        """
        opened = Run.open(os.fspath(run))
        make = landmark_predictor(opened)
        config = opened.config
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        placement = Placement.choose(config.compute, chosen)
        make = make if flip is None else replace(make, flip=flip)
        return cls(make(placement), config.network.image_size, config.compute.batch_images)

    def predict(self, images: Iterable[Image], boxes: ArrayLike | None = None, margin: float = 0.2) -> list[Landmarks]:
        """Landmarks of each image, in its own pixels.

        images: uint8 arrays (H, W, 3) RGB or (H, W), paths, or encoded bytes. A file's frame is the upright picture (EXIF).
        boxes: (N, 4) x0, y0, x1, y1 of the object in each image, cut out with `margin` (of the longer side) as `kplm ingest`
        does; without boxes the object must fill the picture as it did in training. Raises DataError for what is no image.
        """
        given = list(images)
        wanted = None if boxes is None else np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        if wanted is not None and len(wanted) != len(given):
            raise DataError(f"{len(wanted)} boxes for {len(given)} images: give one box for each image, or none at all")
        found: list[Landmarks] = []
        for start in range(0, len(given), self._batch):
            stop = min(start + self._batch, len(given))
            made = [self._input(given[i], None if wanted is None else wanted[i], margin) for i in range(start, stop)]
            xy, confidence = self._predictor(np.stack([image for image, _ in made]))
            found += [
                Landmarks(coordinates.apply(back, points).astype(np.float32), peaks)
                for (_, back), points, peaks in zip(made, xy, confidence, strict=True)
            ]
        return found

    def _input(self, image: Image, box: NDArray | None, margin: float) -> tuple[NDArray[np.uint8], coordinates.Affine]:
        """The network's input and the map input -> source."""
        rgb = _rgb(image)
        if box is None:
            crop, crop_to_source = rgb, coordinates.scaling(1.0)
        else:
            window = pictures.window_around(tuple(box), margin, pictures.full_window(rgb))
            crop, crop_to_source = pictures.crop(rgb, window, self._size)
        view, crop_to_input = letterbox(crop, self._size)
        return view, coordinates.compose(crop_to_source, coordinates.invert(crop_to_input))


def _rgb(image: Image) -> NDArray[np.uint8]:
    if isinstance(image, bytes):
        try:
            return pictures.decode_image_file(image).rgb
        except DataError as error:
            raise DataError(f"an image of {len(image)} bytes: {error}") from None
    if isinstance(image, (str, os.PathLike)):
        try:
            with open(image, "rb") as stream:
                return pictures.decode_image_file(stream.read()).rgb
        except (OSError, DataError) as error:
            raise DataError(f"{image}: {error}") from None
    array = np.asarray(image)
    if (
        array.dtype != np.uint8
        or array.ndim not in (2, 3)
        or (array.ndim == 3 and array.shape[2] != 3)
        or not array.size
    ):
        raise DataError(
            f"an image of shape {array.shape} and type {array.dtype}: give uint8 (H, W, 3) RGB, (H, W), a path or bytes"
        )
    return np.repeat(array[:, :, None], 3, axis=2) if array.ndim == 2 else array
