"""Detectors in ONNX files, run by onnxruntime without PyTorch."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.detectors.file_metadata import FileMetadata
from ray_kplm.errors import ConfigError, DamageError
from ray_kplm.extras import check_installed
from ray_kplm.methods.predicted import Observed, Predicted

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxPredictor:
    """The graph of an ONNX file as a `methods.predicted.Predictor`. It takes pictures of any size, if all have the same."""

    def __init__(self, content: bytes, name: str, device: str | None = None, threads: int = 0) -> None:
        """Start a session.

        Args:
            content: The file.
            name: Of the file, for errors.
            device: `cpu` or `cuda`; by default a GPU if onnxruntime can use one.
            threads: Of the CPU; 0: all cores.

        Raises:
            ConfigError: onnxruntime is not installed, or cannot use the device.
            DamageError: The file is no ONNX.
            RunError: It is no detector.
        """
        self.session = _session(content, name, device, threads)
        self.metadata = FileMetadata.of_texts(self.session.get_modelmeta().custom_metadata_map, name)

    def __call__(self, images: NDArray[np.uint8], boxes: NDArray[np.float32] | None = None) -> Predicted:
        """Return the landmarks of pictures (B, H, W, 3) in their pixels: see `Predictor`."""
        names = ["xy", "confidence", "probability"]
        given = {"images": np.ascontiguousarray(images)}
        if self.metadata.has_facing:
            names.append("facing")
            given |= {} if boxes is None else {"boxes": np.asarray(boxes, np.float32)}
        return Predicted(*self.session.run(names, given))

    def observe(self, images: NDArray[np.uint8]) -> Observed:
        """Raise ConfigError: an exported graph does not give its heatmaps."""
        raise ConfigError("a detector in a file has no heatmaps to measure; give the run that it was exported from")


def _session(content: bytes, name: str, device: str | None, threads: int) -> Any:
    check_installed("onnxruntime")
    onnxruntime: Any = importlib.import_module("onnxruntime")
    usable = onnxruntime.get_available_providers()
    wanted = _PROVIDERS.get("cpu" if device in (None, "auto") else str(device))
    if device in (None, "auto") and _PROVIDERS["cuda"] in usable:
        wanted = _PROVIDERS["cuda"]
    if wanted not in usable:
        raise ConfigError(
            f"{name}: onnxruntime cannot run on device {device!r} here; give 'cpu', or install onnxruntime-gpu"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # warnings are about the graph, which the user did not write
    providers = [wanted] if wanted == _PROVIDERS["cpu"] else [wanted, _PROVIDERS["cpu"]]
    try:
        return onnxruntime.InferenceSession(content, options, providers=providers)
    except Exception as error:  # onnxruntime's exceptions have no common base
        text = " ".join(str(error).split())[:200]
        raise DamageError(f"{name}: cannot be read as ONNX ({text}); export the detector again") from None
