"""A finished run's detector as one file, checked against the detector before it is written: `kplm export`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

import ray_kplm
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.detectors.file_metadata import SUFFIXES, FileMetadata
from ray_kplm.detectors.graph_facing import GraphFacing
from ray_kplm.detectors.image_graph import HalfNetwork, ImageGraph
from ray_kplm.detectors.loading import file_form
from ray_kplm.detectors.stored import detector_fingerprint, landmark_predictor
from ray_kplm.errors import ConfigError, KplmError, RunError
from ray_kplm.imaging.crops import decode_crop
from ray_kplm.landmark_detector import LandmarkDetector, Landmarks
from ray_kplm.methods.predicted import Predicted, Predictor
from ray_kplm.methods.predictors import LandmarkPredictorFactory
from ray_kplm.methods.visibility import MIN_PROBABILITY
from ray_kplm.network.compute import Placement
from ray_kplm.points.graph import PointGraph
from ray_kplm.points.layout import Layout
from ray_kplm.run import Run
from ray_kplm.storage import Folder

Form = Literal["onnx", "torch"]
Precision = Literal["fp32", "fp16"]

MAX_DIFFERENCE = 0.1
"""Largest difference of a landmark from the detector's, pixels of the picture, with which a file is written."""
_MAX_PROBABILITY_DIFFERENCE = 0.05
"""Features of visibility leave out cells near the peak, so that the least shift of it may count a cell more or less."""
_MAX_FACING_DIFFERENCE = 0.05
"""A box around the landmarks is rounded to whole pixels, so that the least shift of them may move it by one."""
_IMAGES = 16
"""Images of the dataset that a file is checked on, as they are."""
_SHAPES = ((1, 1), (5, 7), (64, 48), (100, 96), (192, 192), (480, 640), (1000, 333))
"""Heights and widths that pictures are resized to, on which it is checked besides."""
_SEED = 0


@dataclass(frozen=True)
class ExportReport:
    """Summary of an export."""

    file: str
    """The file that was written."""
    bytes: int
    """Its size."""
    landmarks: int
    """K."""
    precision: Precision
    """Of the network in the file."""
    images: int
    """Images of the dataset that it was checked on; 0: the dataset cannot be read, and pictures were drawn."""
    pictures: int
    """All pictures that it was checked on."""
    max_difference: float
    """Largest difference of a landmark from the detector's, pixels of the picture."""
    max_probability_difference: float
    """Largest difference of a probability; 0 if there are none."""
    max_facing_difference: float
    """Largest difference of a facing; 0 if there are none."""

    def __str__(self) -> str:
        on = f"{self.images} images of the dataset" if self.images else "drawn pictures, as the dataset cannot be read,"
        return (
            f"{self.file}: {self.landmarks} landmarks, {self.precision}, {self.bytes / 1e6:.1f} MB; on {on} and "
            f"{self.pictures - self.images} of other sizes it differs from the detector by {self.max_difference:.2g} px at most"
        )


def export_file(
    run: Run,
    out: str | os.PathLike[str],
    form: Form = "onnx",
    precision: Precision = "fp32",
    points: str | None = None,
) -> ExportReport:
    """Write the detector of a finished run, or of a folder written by `stored.export`, as one file.

    The file is run on images of the dataset and on pictures of odd sizes before it is written. It must find what the detector
    finds in float32. For a category seen from the side the mirror images of the pictures are among them, so that the file must
    turn what the detector turns.

    Args:
        run: The run.
        out: The file, a path or URI. One that exists is replaced, once the new one has passed.
        form: `onnx`, or `torch` for a program of `torch.export`.
        precision: Of the network's weights and computations in the file.
        points: Which points the file predicts: see `stored.landmark_predictor`.

    Raises:
        RunError: The run is not finished, or the file finds other landmarks than the detector.
        ConfigError: Objects are turned to face one way by features that the graph does not compute; the file's name ends in
            another way; or a package is missing.
        DataError: The run has no such points.
        DamageError: A file of the detector is damaged.
    """
    out = os.fspath(out)
    if file_form(out) != form:
        raise ConfigError(f"{out}: the name of a file of the form {form} ends in {SUFFIXES[form]}; name it so")
    if file_form(str(run.folder)):
        raise ConfigError(f"{run.folder}: is a file already; export the run that it was made of")
    make = landmark_predictor(run, points)
    if make.facing is not None and make.facing.config.features != "hog":
        raise ConfigError(
            f"{run.folder}: its category is seen from the side, and which way is found by features = "
            f"{make.facing.config.features!r}, which are no part of a graph; use the run itself, or train with features=hog"
        )
    inner = make.inner(Placement(torch.device("cpu"), None, False))
    size, batch = run.config.network.image_size, run.config.compute.batch_images
    detector = LandmarkDetector(make.around(inner), size, batch, make.layout)
    images = _images(run)
    pictures = [*images, *_resized(images or [_drawn(number) for number in range(len(_SHAPES))])]
    if make.facing is not None:
        pictures += [picture[:, ::-1].copy() for picture in pictures]
    expected = detector.predict(pictures)
    layout = make.layout.joined(_found(expected[: len(images)]))
    inference = inner.inference
    metadata = _metadata(run, make, layout, inference.flip, precision, detector_fingerprint(run, points))
    if precision == "fp16":
        inference.network = HalfNetwork(inference.network)
    facing = None if make.facing is None else GraphFacing(make.facing)
    made = None if make.points is None else PointGraph(make.points)
    content = _converter(form)(ImageGraph(inference, size, facing, made).eval())
    opened = _opened(form, content(metadata), out)
    found = [opened(picture[None]) for picture in pictures]
    apart, off, turned = _differences(found, expected)
    off = off if metadata.has_probability else 0.0
    if not (apart <= MAX_DIFFERENCE and off <= _MAX_PROBABILITY_DIFFERENCE and turned <= _MAX_FACING_DIFFERENCE):
        way_out = (
            "try --precision fp32"
            if precision == "fp16"
            else "use the run itself: some heatmap may have two peaks of nearly the same height, between which rounding decides"
        )
        raise RunError(
            f"{out}: not written, as it differs from the detector by {apart:.3g} px, probabilities by {off:.3g} and facings by "
            f"{turned:.3g}; at most {MAX_DIFFERENCE} px, {_MAX_PROBABILITY_DIFFERENCE} and {_MAX_FACING_DIFFERENCE} are "
            f"allowed; {way_out}"
        )
    final = content(replace(metadata, max_difference=apart))
    at = Folder.at(out)
    at.parent.write_bytes(at.name, final)
    return ExportReport(out, len(final), len(layout), precision, len(images), len(pictures), apart, off, turned)


def _converter(form: Form) -> Callable[[ImageGraph], Callable[[FileMetadata], bytes]]:
    if form == "onnx":
        from ray_kplm.detectors.onnx_export import to_onnx

        return to_onnx
    from ray_kplm.detectors.torch_program import to_program

    return to_program


def _opened(form: Form, content: bytes, name: str) -> Predictor:
    if form == "onnx":
        from ray_kplm.detectors.onnx_detector import OnnxPredictor

        return OnnxPredictor(content, name, "cpu")
    from ray_kplm.detectors.torch_program import ProgramPredictor

    return ProgramPredictor(content, name)


def _differences(found: list[Predicted], expected: list[Landmarks]) -> tuple[float, float, float]:
    """Return the largest differences of landmarks, of probabilities and of facings, NaN if any is.

    Where the facing is so near 0 that its sign differs within what is allowed, landmarks are of the two ways, and not compared.
    """
    apart, off, turned = [0.0], [0.0], [0.0]
    for one, other in zip(found, expected, strict=True):
        if one.facing is not None and other.facing is not None:
            way = float(one.facing[0])
            turned.append(abs(way - other.facing))
            if (way < 0) != (other.facing < 0) and turned[-1] <= _MAX_FACING_DIFFERENCE:
                continue
        apart.append(float(np.abs(one.xy[0] - other.xy).max()))
        off.append(float(np.abs(one.probability[0] - other.probability).max()))
    largest = [float(np.max(values)) for values in (apart, off, turned)]
    return largest[0], largest[1], largest[2]


def _found(landmarks: list[Landmarks]) -> list[NDArray[np.float32]]:
    """Return the points (K, 2) of images, NaN where one is not found."""
    return [np.where(one.found[:, None], one.xy, np.float32(np.nan)) for one in landmarks]


def _metadata(
    run: Run, make: LandmarkPredictorFactory, layout: Layout, flip: bool, precision: Precision, fingerprint: str
) -> FileMetadata:
    dataset = _dataset(run)
    partners = make.flip_map.tolist() if make.points is None else layout.flip_map
    described = dataset.meta if dataset else {}
    licence = described.get("licence") or "not known; see the data set that the detector was trained on"
    return FileMetadata(
        version=ray_kplm.__version__, names=list(layout.names), flip_map=partners,
        skeleton=[list(edge) for edge in layout.skeleton], image_size=run.config.network.image_size,
        batch=run.config.compute.batch_images, flip=flip, min_probability=MIN_PROBABILITY,
        has_probability=make.visibility is not None, has_facing=make.facing is not None, precision=precision,
        fingerprint=fingerprint,
        dataset=described.get("name") or "not known", licence=licence, max_difference=0.0,
    )  # fmt: skip


def _dataset(run: Run) -> Dataset | None:
    """Return the dataset of a run; None if it is no longer there."""
    try:
        return Dataset.open(run.config.dataset) if run.config.dataset else None
    except (KplmError, OSError):
        return None


def _images(run: Run) -> list[NDArray[np.uint8]]:
    """Return the first test images of the run's dataset, or training images; none if they cannot be read."""
    dataset = _dataset(run)
    try:
        for split in ("test", "train") if dataset else ():
            assert dataset is not None
            for part in dataset.parts(split):
                table = dataset.images(split).read_table(part, ["image"])
                if table.num_rows:
                    return [decode_crop(encoded) for encoded in table["image"][:_IMAGES]]
    except (KplmError, OSError):
        pass
    return []


def _resized(images: list[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    return [
        np.asarray(cv2.resize(images[number % len(images)], (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)
        for number, (height, width) in enumerate(_SHAPES)
    ]


def _drawn(number: int) -> NDArray[np.uint8]:
    """Return a picture of coloured shapes, for a detector without images."""
    rng = np.random.default_rng((_SEED, number))
    picture = np.full((256, 256, 3), rng.integers(0, 256, 3), np.uint8)
    for _ in range(12):
        centre, colour = rng.integers(0, 256, 2).tolist(), rng.integers(0, 256, 3).tolist()
        cv2.circle(picture, centre, int(rng.integers(8, 60)), colour, -1)
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), 2), np.uint8)
