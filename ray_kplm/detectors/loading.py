"""Loading of a detector in whatever form it is stored. What a form needs is imported with it: ONNX runs without PyTorch."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from ray_kplm.detectors.pretrained_config import open_detector
from ray_kplm.methods.predicted import Predictor


class Loaded(NamedTuple):
    """A detector that is ready to predict.

    Attributes:
        predictor: Of inputs of `size` pixels a side.
        size: S.
        batch: Most inputs that it is given at once.
        landmarks: K.
    """

    predictor: Predictor
    size: int
    batch: int
    landmarks: int


def load_detector(uri: str, device: str | None = None, flip: bool | None = None) -> Loaded:
    """Load a detector: see `LandmarkDetector.load`."""
    return _of_run(uri, device, flip)


def _of_run(uri: str, device: str | None, flip: bool | None) -> Loaded:
    import torch

    from ray_kplm.detectors.stored import landmark_predictor
    from ray_kplm.network.compute import Placement

    run = open_detector(uri)
    make, config = landmark_predictor(run), run.config
    placement = Placement.choose(
        config.compute, torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    )
    make = make if flip is None else replace(make, flip=flip)
    return Loaded(make(placement), config.network.image_size, config.compute.batch_images, len(make.flip_map))
