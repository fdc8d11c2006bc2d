"""Landmarks of a split, part by part: with the stage-2 detector, or with a stage-1 network and its clusters."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from ray_kplm import contracts
from ray_kplm.config import Config
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.datasets.selection import everything
from ray_kplm.imaging import frames
from ray_kplm.methods.landmarks import Predictor
from ray_kplm.network.compute import Placement
from ray_kplm.run import Step
from ray_kplm.steps.extract import read_inputs
from ray_kplm.steps.parts import Pool, Progress, map_parts
from ray_kplm.storage import Folder

MakePredictor = Callable[[Placement], Predictor]
"""Builds the predictor where it will run; picklable."""


@dataclass(frozen=True)
class _Prediction:
    config: Config
    make: MakePredictor
    images: Folder
    target: Folder


def predict(
    step: Step, config: Config, dataset: Dataset, split: str, make: MakePredictor, progress: Progress | None = None
) -> None:
    """Write the landmarks (contracts.PREDICTIONS) of a split into the step's folder and publish it."""
    compute = config.compute
    pool = Pool(compute.extract_actors, compute.cpus_per_worker, compute.gpus_per_worker)
    work = _Prediction(config, make, dataset.images(split), step.folder)
    whole = everything(dataset.parts(split), dataset.rows(split))
    map_parts(_PredictPart, {"work": work}, whole, pool, progress)
    step.finish(images=dataset.count(split))


class _PredictPart:
    """Holds the network."""

    def __init__(self, work: _Prediction) -> None:
        cv2.setNumThreads(1)
        compute = work.config.compute
        torch.set_num_threads(compute.threads or max(1, (os.cpu_count() or 1) // compute.extract_actors))
        device = torch.device("cuda" if torch.cuda.is_available() and compute.gpus_per_worker else "cpu")
        self._work = work
        self._predict = work.make(Placement.choose(compute, device))

    def __call__(self, part: str, rows: NDArray[np.int64]) -> dict[str, Any]:
        work = self._work
        if work.target.is_file(part):
            return {"images": work.target.rows(part)}
        ids, points, confidences = [], [], []
        for images, crop_to_input, names in read_inputs(work.images, part, rows, work.config):
            xy, confidence = self._predict(images)
            to_crop = [frames.invert(affine) for affine in crop_to_input]
            points += [frames.apply(back, p) for back, p in zip(to_crop, xy, strict=True)]
            confidences.append(confidence)
            ids += names
        work.target.write_table(part, _table(ids, np.stack(points), np.concatenate(confidences)))
        return {"images": len(ids)}


def _table(ids: list[str], xy: NDArray, confidence: NDArray) -> pa.Table:
    columns = [ids, xy.astype(np.float32).tolist(), confidence.astype(np.float32).tolist()]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, contracts.PREDICTIONS, strict=True)]
    return pa.Table.from_arrays(arrays, schema=contracts.PREDICTIONS)


def read_predictions(folder: Folder, dataset: Dataset, split: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """All landmarks of a split in the dataset's order: xy (N, K, 2) crop frame, NaN: not detected; confidence (N, K)."""
    tables = [folder.read_table(part) for part in dataset.parts(split)]
    xy = np.concatenate([np.array(t["xy"].to_pylist(), np.float32) for t in tables])
    return xy, np.concatenate([np.array(t["confidence"].to_pylist(), np.float32) for t in tables])
