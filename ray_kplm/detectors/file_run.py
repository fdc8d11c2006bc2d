"""A detector in a file in the place of a run, for what needs no more of a run than its detector: `kplm predict`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
import torch

from ray_kplm.config import load_config
from ray_kplm.detectors.loading import open_file
from ray_kplm.methods.predicted import Predictor
from ray_kplm.methods.predictors import LandmarkPredictorFactory
from ray_kplm.network.compute import Placement
from ray_kplm.points.layout import Layout
from ray_kplm.run import Run
from ray_kplm.storage import Folder


def file_run(uri: str) -> Run:
    """Return a run whose folder is the file, and whose configuration has what prediction asks of it.

    Raises:
        KplmError: See `loading.open_file`.
    """
    metadata = open_file(uri, "cpu").metadata
    known = {
        "network.image_size": metadata.image_size,
        "network.depth": 1,  # not known here; this one goes with all sizes
        "compute.batch_images": metadata.batch,
        "method.landmarks": len(metadata.names),
        "stage2.flip_at_test": metadata.flip,
    }
    return Run(Folder.at(uri), load_config(None, [f"{name}={str(value).lower()}" for name, value in known.items()]))


def file_factory(run: Run) -> FilePredictorFactory:
    """Return what builds the predictor of a `file_run`."""
    metadata = open_file(str(run.folder), "cpu").metadata
    flip_map = np.array(metadata.flip_map, np.int16)
    return FilePredictorFactory(run.config, run.folder, flip_map, metadata.flip, of_file=metadata.layout)


def file_fingerprint(run: Run) -> str:
    """Return what tells the file of a `file_run` from others."""
    return hashlib.sha256(run.folder.parent.read_bytes(run.folder.name)).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class FilePredictorFactory(LandmarkPredictorFactory):
    """Builds the predictor of a file, `network`."""

    of_file: Layout = field(kw_only=True)
    """The points that the file predicts."""

    @property
    def layout(self) -> Layout:
        """The points that are predicted, without a name of the category."""
        return self.of_file

    def __call__(self, placement: Placement) -> Predictor:
        """Return the predictor on this placement's device, with as many threads as PyTorch has."""
        kind = placement.device.type
        return open_file(str(self.network), kind if kind == "cuda" else "cpu", torch.get_num_threads())
