"""Speed of a detector on one core: one image, batches of 32, from JPEG files, beside the network's forward pass alone."""

from __future__ import annotations

import platform
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.bench.timing import REPEATS, fastest, in_new_process
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.errors import DataError
from ray_kplm.progress import ProgressCallback, ignore_progress
from ray_kplm.run import Run

if TYPE_CHECKING:
    from torch import Tensor

    from ray_kplm.landmark_detector import LandmarkDetector
    from ray_kplm.methods.predictors import LandmarkPredictor

_BATCH = 32
_FILES = 64
"""JPEG files that are predicted, in batches of 32."""
_SINGLE = 8
"""Images that are predicted one by one for the latency."""


def bench(run: Run, onnx: str | None = None, progress: ProgressCallback = ignore_progress) -> dict[str, Any]:
    """Time the detector of a run, and its ONNX file, on images of its dataset as JPEG files, with one thread.

    Args:
        run: A finished run.
        onnx: An ONNX file of its detector; None: one is exported.
        progress: Called between the measurements.

    Returns:
        `latency_ms`: of one image, by form, with `forward` for the network alone; `images_per_s`: in batches of 32, likewise;
        `predict_share`: share of the time of `LandmarkDetector.predict` on the files that is the network's forward pass.

    Raises:
        DataError: The dataset has no images.
        KplmError: The run is not finished, or the file cannot be exported.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = _write_files(run, Path(folder))
        if onnx is None:
            progress(0.1, "exporting the detector")
            onnx = f"{folder}/detector.onnx"
            from ray_kplm.detectors.export_file import export_file

            export_file(run, onnx)
        progress(0.5, "timing PyTorch")
        by_torch = in_new_process(1, _time_torch, str(run.folder), files)
        progress(0.8, "timing ONNX")
        by_onnx = in_new_process(1, _time_detector, onnx, files)
        progress(1.0, "timed")
    forms = {"torch": by_torch, "onnx": by_onnx}
    return {
        "cpu": _cpu(),
        "image_size": run.config.network.image_size,
        "width": run.config.network.width,
        "precision": by_torch["precision"],
        "latency_ms": {"forward": by_torch["forward_ms"]} | {name: one["latency_ms"] for name, one in forms.items()},
        "images_per_s": {"forward": by_torch["forward_per_s"]} | {n: one["images_per_s"] for n, one in forms.items()},
        "predict_share": by_torch["predict_share"],
    }


def lines(figures: dict[str, Any]) -> list[str]:
    """Return the figures for a person: a line each."""
    head = f"{figures['cpu']}, one thread; input {figures['image_size']} px, width {figures['width']}"
    rows = [
        f"{name:8} {figures['latency_ms'][name]:8.1f} ms for one image, "
        f"{figures['images_per_s'][name]:8.1f} images/s at batch 32"
        for name in figures["latency_ms"]
    ]
    share = f"the network's forward pass is {figures['predict_share']:.0%} of the time of predict on files"
    return [head, f"PyTorch in {figures['precision']}", *rows, share]


def _write_files(run: Run, folder: Path) -> list[str]:
    from ray_kplm.datasets.image_io import encode_jpeg
    from ray_kplm.imaging.crops import decode_crop

    dataset = Dataset.open(run.config.dataset)
    names: list[str] = []
    for split in ("test", "train"):
        for part in dataset.parts(split):
            for encoded in dataset.images(split).read_table(part, ["image"])["image"][: _FILES - len(names)]:
                names.append(str(folder / f"{len(names)}.jpg"))
                Path(names[-1]).write_bytes(encode_jpeg(decode_crop(encoded)))
    if not names:
        raise DataError(f"{dataset.root}: has no images to time a detector on")
    return [names[number % len(names)] for number in range(_FILES)]


def _time_detector(detector: str, files: list[str]) -> dict[str, Any]:
    """Return the milliseconds of one image and the images a second of all files, by `LandmarkDetector.predict`."""
    from ray_kplm.landmark_detector import LandmarkDetector

    _single_thread()
    loaded = LandmarkDetector.load(detector, device="cpu")
    loaded.batch = _BATCH
    single = fastest(lambda: [loaded.predict(file) for file in files[:_SINGLE]])
    return {
        "latency_ms": single / _SINGLE * 1000,
        "images_per_s": len(files) / fastest(lambda: loaded.predict(files)),
    }


def _time_torch(run: str, files: list[str]) -> dict[str, Any]:
    """Return the same of the run's detector, and of its network's forward pass alone."""
    import torch

    from ray_kplm.detectors.stored import landmark_predictor
    from ray_kplm.landmark_detector import LandmarkDetector
    from ray_kplm.network.compute import Placement
    from ray_kplm.points.layout import Layout

    _single_thread()
    torch.set_num_threads(1)
    opened = Run.open(run)
    config = opened.config
    placement = Placement.choose(config.compute, torch.device("cpu"))
    factory = landmark_predictor(opened)
    predictor = factory.inner(placement)
    side = config.network.image_size
    images: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, (_BATCH, side, side, 3), dtype=np.uint8)
    timed = predictor.maps
    with torch.inference_mode():
        single = fastest(lambda: [timed(images[:1]) for _ in range(_SINGLE)])
        several = fastest(lambda: [timed(images) for _ in range(_FILES // _BATCH)])
    return _time_detector(run, files) | {
        "predict_share": _share(
            predictor, LandmarkDetector(predictor, side, _BATCH, Layout.of("", factory.flip_map)), files
        ),
        "forward_ms": single / _SINGLE * 1000,
        "forward_per_s": _FILES / several,
        "precision": "fp32" if placement.autocast is None else "bf16",
    }


def _share(predictor: LandmarkPredictor, detector: LandmarkDetector, files: list[str]) -> float:
    """Return the share of the processor time of a prediction that its network's forward passes take."""
    forward, inside = predictor.maps, 0.0

    def timed(images: NDArray[np.uint8]) -> tuple[Tensor, Tensor | None]:
        nonlocal inside
        began = time.process_time()
        maps = forward(images)
        inside += time.process_time() - began
        return maps

    detector.predict(files)
    predictor.maps = timed  # type: ignore[method-assign]
    began = time.process_time()
    for _ in range(REPEATS):
        detector.predict(files)
    return inside / (time.process_time() - began)


def _single_thread() -> None:
    import cv2

    cv2.setNumThreads(1)


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="ignore") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        return platform.processor()
