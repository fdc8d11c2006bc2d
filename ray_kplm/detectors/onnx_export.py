"""A detector's graph as an ONNX file."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable

import numpy as np
import torch

from ray_kplm.detectors.file_metadata import FileMetadata
from ray_kplm.detectors.image_graph import BOXES, INPUTS, ImageGraph, traced
from ray_kplm.extras import check_installed

_OPSET = 18
_TEXT = "Landmarks of RGB pictures uint8 (N, H, W, 3): xy in pixels with centres at integers. min_probability may be left out."


def to_onnx(graph: ImageGraph) -> Callable[[FileMetadata], bytes]:
    """Convert a graph, and return what makes the content of a file of it with its metadata.

    Raises:
        ConfigError: A package of the extra `onnx` is missing.
    """
    check_installed("onnx", "onnxscript", "onnxruntime")
    import onnx

    torch_log = logging.getLogger("torch.onnx")
    level = torch_log.level
    torch_log.setLevel(logging.ERROR)  # it warns of packages that no graph here needs
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            program = torch.onnx.export(
                traced(graph), dynamo=True, optimize=False, opset_version=_OPSET, input_names=graph.inputs,
                output_names=graph.outputs, verbose=False,
            )  # fmt: skip
    finally:
        torch_log.setLevel(level)
    assert program is not None
    model = program.model_proto
    for part in (model.graph, *model.functions):  # texts about the trace, most of the file of a small network
        del part.value_info[:]
        for node in part.node:
            del node.metadata_props[:]
            node.ClearField("doc_string")
    model.doc_string, model.producer_name = _TEXT, "ray_kplm"

    def content(metadata: FileMetadata) -> bytes:
        model.producer_version = metadata.version
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, metadata.to_texts())
        defaults = {INPUTS[1]: np.array(metadata.min_probability, np.float32)}
        if metadata.has_facing:
            defaults[BOXES] = np.full((1, 4), np.nan, np.float32)
        for one in [one for one in model.graph.initializer if one.name in defaults]:
            model.graph.initializer.remove(one)
        model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in defaults.items())
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString())

    return content
