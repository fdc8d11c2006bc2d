"""Loading of a detector in whatever form it is stored. What a form needs is imported with it: ONNX runs without PyTorch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from ray_kplm.detectors.file_metadata import SUFFIXES
from ray_kplm.detectors.pretrained_config import open_detector
from ray_kplm.errors import ConfigError, DataError
from ray_kplm.methods.predicted import Predictor
from ray_kplm.points.layout import Layout
from ray_kplm.storage import Folder

if TYPE_CHECKING:
    from ray_kplm.detectors.onnx_detector import OnnxPredictor
    from ray_kplm.detectors.torch_program import ProgramPredictor


class Loaded(NamedTuple):
    """A detector that is ready to predict.

    Attributes:
        predictor: Of inputs of `size` pixels a side.
        size: S.
        batch: Most inputs that it is given at once.
        layout: The points that it predicts.
    """

    predictor: Predictor
    size: int
    batch: int
    layout: Layout


def load_detector(uri: str, device: str | None = None, flip: bool | None = None, points: str | None = None) -> Loaded:
    """Load a detector: see `LandmarkDetector.load`."""
    return _of_run(uri, device, flip, points) if file_form(uri) is None else _of_file(uri, device, flip, points)


def file_form(uri: str) -> str | None:
    """Return the form of the file that holds a detector, a key of `SUFFIXES`; None for the folder of a run or of a detector."""
    return next((form for form, suffix in SUFFIXES.items() if uri.lower().endswith(suffix)), None)


def open_file(uri: str, device: str | None = None, threads: int = 0) -> OnnxPredictor | ProgramPredictor:
    """Return the predictor that a file holds.

    Args:
        uri: The file.
        device: Where it runs.
        threads: Of the CPU; 0: all cores, or as PyTorch is set.

    Raises:
        DataError: There is no such file.
        DamageError: It is damaged.
        RunError: It holds no detector.
        ConfigError: It cannot run on the device, or a package is missing.
    """
    at = Folder.at(uri)
    if not at.parent.is_file(at.name):
        raise DataError(f"{uri}: no such file; `kplm export RUN {at.name}` writes one")
    content = at.parent.read_bytes(at.name)
    if file_form(uri) == "onnx":
        from ray_kplm.detectors.onnx_detector import OnnxPredictor

        return OnnxPredictor(content, uri, device, threads)
    from ray_kplm.detectors.torch_program import ProgramPredictor

    return ProgramPredictor(content, uri, device)


def _of_file(uri: str, device: str | None, flip: bool | None, points: str | None) -> Loaded:
    if points is not None:
        raise ConfigError(f"{uri}: points={points!r} was decided when the file was exported; leave it out")
    predictor = open_file(uri, device)
    metadata = predictor.metadata
    if flip is not None and flip != metadata.flip:
        raise ConfigError(f"{uri}: flip={metadata.flip} was decided when the file was exported; leave it out")
    return Loaded(predictor, metadata.image_size, metadata.batch, metadata.layout)


def _of_run(uri: str, device: str | None, flip: bool | None, points: str | None) -> Loaded:
    from ray_kplm.detectors.stored import landmark_predictor
    from ray_kplm.network.compute import Placement, choose_device

    run = open_detector(uri)
    make, config = landmark_predictor(run, points), run.config
    placement = Placement.choose(config.compute, choose_device(device))
    make = make if flip is None else replace(make, flip=flip)
    return Loaded(make(placement), config.network.image_size, config.compute.batch_images, make.layout)
