"""A detector's graph as an exported program of PyTorch (`torch.export`, `.pt2`): operations and weights, no code."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from ray_kplm.detectors.file_metadata import FileMetadata
from ray_kplm.detectors.image_graph import ImageGraph, traced
from ray_kplm.errors import ConfigError, DamageError
from ray_kplm.methods.predicted import Observed, Predicted

_METADATA = "metadata.json"


def to_program(graph: ImageGraph) -> Callable[[FileMetadata], bytes]:
    """Trace a graph, and return what makes the content of a file of it with its metadata."""
    program = traced(graph)

    def content(metadata: FileMetadata) -> bytes:
        buffer = io.BytesIO()
        torch.export.save(program, buffer, extra_files={_METADATA: json.dumps(metadata.to_texts())})
        return buffer.getvalue()

    return content


class ProgramPredictor:
    """The graph of a `.pt2` file as a `methods.predicted.Predictor`, on the CPU."""

    def __init__(self, content: bytes, name: str, device: str | None = None) -> None:
        """Load a program.

        Args:
            content: The file.
            name: Of the file, for errors.
            device: `cpu`, which is the default.

        Raises:
            ConfigError: The device is another one.
            DamageError: The file is no exported program.
            RunError: It is no detector.
        """
        if device not in (None, "auto", "cpu"):
            raise ConfigError(f"{name}: runs on the CPU, not on {device!r}; load the run, or an ONNX file, for a GPU")
        extra = {_METADATA: ""}
        try:
            with warnings.catch_warnings(action="ignore"):
                program = torch.export.load(io.BytesIO(content), extra_files=extra)
        except Exception as error:  # of many kinds, on damaged files
            text = " ".join(str(error).split())[:200]
            raise DamageError(
                f"{name}: cannot be read as a program of PyTorch ({text}); export the detector again"
            ) from None
        self.metadata = FileMetadata.of_texts(json.loads(extra[_METADATA] or "{}"), name)
        self._module = program.module()

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8], boxes: NDArray[np.float32] | None = None) -> Predicted:
        """Return the landmarks of pictures (B, H, W, 3) in their pixels: see `Predictor`."""
        least = torch.scalar_tensor(self.metadata.min_probability)
        given = [torch.from_numpy(np.array(images, order="C")), least]
        if self.metadata.has_facing:
            boxes = np.full((len(images), 4), np.nan) if boxes is None else boxes
            given.append(torch.from_numpy(np.asarray(boxes, np.float32)))
        xy, confidence, probability, _, *facing = (value.numpy() for value in self._module(*given))
        return Predicted(xy, confidence, probability, *facing)

    def observe(self, images: NDArray[np.uint8]) -> Observed:
        """Raise ConfigError: an exported graph does not give its heatmaps."""
        raise ConfigError("a detector in a file has no heatmaps to measure; give the run that it was exported from")
