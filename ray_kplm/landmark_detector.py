"""The landmark detector of a finished run, for new images."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ray_kplm.datasets import image_io
from ray_kplm.errors import DataError
from ray_kplm.imaging import coordinates
from ray_kplm.imaging.crops import letterbox
from ray_kplm.integrity import CheckedFolder
from ray_kplm.methods.channels import CHANNELS, Channels
from ray_kplm.methods.facing import FACING, TEMPLATE, FacingRule
from ray_kplm.methods.predictors import LandmarkPredictor, LandmarkPredictorFactory, OneWayPredictor
from ray_kplm.methods.trainer import NETWORK, strip_optimiser
from ray_kplm.network.compute import Placement
from ray_kplm.run import CONFIG, Run
from ray_kplm.storage import Folder


@dataclass(frozen=True)
class Landmarks:
    """K landmarks of one image.

    Attributes:
        xy: (K, 2), (x, y) in source pixels, with pixel centres at integers.
        confidence: (K,), heights of the heatmaps' peaks.
        facing: which way the object faces, for a category seen from the side: the sign is one of the two ways, the same one in
            all images; the magnitude, 0 to 1, is how sure it is. None for other categories.
    """

    xy: NDArray[np.float32]
    confidence: NDArray[np.float32]
    facing: float | None = None


def landmark_predictor(run: Run) -> LandmarkPredictorFactory:
    """Return the detector of a finished run, or of a folder written by `export`.

    Raises:
        RunError: The run is not finished.
        DamageError: A file of the detector is damaged.
    """
    folder = _exported(run.folder) if _is_exported(run.folder) else run.unit("stage2")
    if not _is_exported(run.folder):
        run.finished("stage2")
    channels = Channels.read(folder)
    return LandmarkPredictorFactory(
        run.config, folder, channels.flip_map, run.config.stage2.flip_at_test, facing_rule(run)
    )


def facing_rule(run: Run) -> FacingRule | None:
    """Return the rule that gives the facing of any image; None if mirror images of the run's category are no `facing`.

    Raises:
        DamageError: The rule is damaged or lost.
    """
    exported = _is_exported(run.folder)
    folder = _exported(run.folder) / FACING if exported else run.unit(FACING)
    found = FacingRule.of_detector(folder, run.config)
    manifest = None if exported else run.manifest(FACING)
    if found is None and manifest is not None and manifest.get("mirror") == "facing":
        raise folder.damage(TEMPLATE, "is lost, and mirror images face the other way")
    return found


def _is_exported(folder: Folder) -> bool:
    return folder.is_file(CHANNELS)


def _exported(folder: Folder) -> CheckedFolder:
    return CheckedFolder.of(folder, "export the detector of the run again")


def export(run: Run, folder: Folder) -> None:
    """Copy the files that the detector needs to a folder: `network.pt` (only the weights), `channels.json`, `config.yaml`.

    `LandmarkDetector.load` reads the folder, and checks the files by its `manifest.json`.

    Raises:
        RunError: The run is not finished.
        DamageError: A file of the detector is damaged.
    """
    fingerprint = run.finished("stage2")["fingerprint"]
    source, target = run.unit("stage2"), _exported(folder)
    with source.parsing(NETWORK):
        state = strip_optimiser(source.read_bytes(NETWORK))
    target.write_bytes(NETWORK, state)
    target.write_bytes(CHANNELS, source.read_bytes(CHANNELS))
    target.write_bytes(CONFIG, run.folder.read_bytes(CONFIG))
    rule = facing_rule(run)
    if rule is not None:
        rule.write(target / FACING)
    target.publish({"kind": "detector", "fingerprint": fingerprint}, names=())


Image = NDArray[np.uint8] | bytes | str | os.PathLike[str]
"""An array (H, W, 3) RGB or (H, W), an encoded image, or a path."""


class LandmarkDetector:
    """A trained detector of K landmarks: `LandmarkDetector.load("runs/faces").predict(["a.jpg", array])`."""

    def __init__(self, predictor: LandmarkPredictor | OneWayPredictor, size: int, batch: int) -> None:
        self._predictor, self._size, self._batch = predictor, size, batch

    @classmethod
    def load(
        cls, run: str | os.PathLike[str], *, device: str | None = None, flip: bool | None = None
    ) -> LandmarkDetector:
        """Load the detector of a finished run, or of a folder written by `export`.

        `compute.precision: auto` is decided by the device, not by the format the run was trained in, as bf16 is slow on a CPU
        that does not support it. The landmarks are the same up to rounding.

        Args:
            run: A path or URI.
            device: `cpu` or `cuda`; by default a GPU if one is available.
            flip: Whether to average with the mirror image; by default as the run is configured.

        Raises:
            RunError: The run is not finished.
            DamageError: A file of the detector is damaged.
        """
        opened = Run.open(os.fspath(run))
        make = landmark_predictor(opened)
        config = opened.config
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        placement = Placement.choose(config.compute, chosen)
        make = make if flip is None else replace(make, flip=flip)
        return cls(make(placement), config.network.image_size, config.compute.batch_images)

    def predict(self, images: Iterable[Image], boxes: ArrayLike | None = None, margin: float = 0.2) -> list[Landmarks]:
        """Detect the landmarks of images.

        Args:
            images: uint8 arrays (H, W, 3) RGB or (H, W), paths, or encoded images. The frame of a file is the upright picture
                (EXIF orientation applied).
            boxes: (N, 4), x0, y0, x1, y1 of the object in each image, which is cropped as by `kplm ingest`. Without boxes the
                object must fill the image as it did in training.
            margin: Margin around a box, as a share of its longer side.

        Returns:
            The landmarks of each image, in its own pixels.

        Raises:
            DataError: An image cannot be read, or the number of boxes is not that of the images.
        """
        images = list(images)
        windows = None if boxes is None else np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        if windows is not None and len(windows) != len(images):
            raise DataError(f"{len(windows)} boxes for {len(images)} images: give one box for each image, or no boxes")
        landmarks: list[Landmarks] = []
        for start in range(0, len(images), self._batch):
            stop = min(start + self._batch, len(images))
            inputs = [
                self._input(images[i], None if windows is None else windows[i], margin) for i in range(start, stop)
            ]
            landmarks += self._predict(inputs, None if windows is None else windows[start:stop])
        return landmarks

    def _predict(
        self, inputs: list[tuple[NDArray[np.uint8], coordinates.Affine]], boxes: NDArray[np.float64] | None
    ) -> list[Landmarks]:
        """Return the landmarks of a batch: inputs with their transforms to source pixels, boxes (B, 4) in source pixels."""
        batch, maps = np.stack([image for image, _ in inputs]), [affine for _, affine in inputs]
        facing: list[float] | list[None] = [None] * len(inputs)
        if isinstance(self._predictor, OneWayPredictor):
            inside = None if boxes is None else np.stack([_in_input(b, m) for b, m in zip(boxes, maps, strict=True)])
            xy, confidence, ways = self._predictor.with_facing(batch, inside)
            facing = ways.tolist()
        else:
            xy, confidence = self._predictor(batch)
        return [
            Landmarks(coordinates.apply(input_to_source, points).astype(np.float32), peaks, way)
            for input_to_source, points, peaks, way in zip(maps, xy, confidence, facing, strict=True)
        ]

    def _input(
        self, image: Image, box: NDArray[np.float64] | None, margin: float
    ) -> tuple[NDArray[np.uint8], coordinates.Affine]:
        """Return the network's input and the transform from input to source pixels."""
        rgb = _rgb(image)
        if box is None:
            crop, crop_to_source = rgb, coordinates.scaling(1.0)
        else:
            window = image_io.window_around(tuple(box), margin, image_io.full_window(rgb))
            crop, crop_to_source = image_io.crop(rgb, window, self._size)
        view, crop_to_input = letterbox(crop, self._size)
        return view, coordinates.compose(crop_to_source, coordinates.invert(crop_to_input))


def _in_input(box: NDArray[np.float64], input_to_source: coordinates.Affine) -> NDArray[np.float32]:
    """Return a box (4,) of the source frame in the input frame."""
    corners = coordinates.apply(coordinates.invert(input_to_source), box.reshape(2, 2))
    return np.asarray(corners, np.float32).ravel()


def _rgb(image: Image) -> NDArray[np.uint8]:
    """Return an image as (H, W, 3) RGB."""
    if isinstance(image, bytes):
        try:
            return image_io.decode_image_file(image).rgb
        except DataError as error:
            raise DataError(f"an image of {len(image)} bytes: {error}") from None
    if isinstance(image, (str, os.PathLike)):
        try:
            with open(image, "rb") as stream:
                return image_io.decode_image_file(stream.read()).rgb
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
