"""Landmarks of whole splits of a dataset, by the stage-2 detector or by a stage-1 network and its clusters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_kplm import schemas
from ray_kplm.config import Config
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.datasets.round_sampling import Selection, full_selection
from ray_kplm.inference.batches import BatchLandmarks, predict_batches, probability_column
from ray_kplm.inference.split_landmarks import SplitLandmarks as SplitLandmarks
from ray_kplm.inference.split_landmarks import read_predictions as read_predictions
from ray_kplm.methods.inputs import read_inputs, worker_placement
from ray_kplm.methods.predicted import Predictor
from ray_kplm.methods.predictors import PredictorFactory
from ray_kplm.progress import ProgressCallback, ignore_progress
from ray_kplm.run import Step
from ray_kplm.runtime.map_parts import Pool, map_parts
from ray_kplm.storage import Folder


@dataclass(frozen=True)
class Prediction:
    """A split to predict.

    Attributes:
        step: The step that publishes the landmarks.
        split: The split.
        make: The predictor.
    """

    step: Step
    split: str
    make: PredictorFactory


def predict(
    predictions: Sequence[Prediction], config: Config, dataset: Dataset, progress: ProgressCallback = ignore_progress
) -> None:
    """Write the landmarks (schemas.PREDICTIONS) of each prediction into its step's folder, and publish the step.

    All predictions share one pool of workers. Those whose step is current are skipped.
    """
    compute = config.compute
    missing = [prediction for prediction in predictions if not prediction.step.is_current()]
    names: list[str] = []
    rows: list[NDArray[np.int64]] = []
    for index, prediction in enumerate(missing):
        prediction.step.begin()
        whole = full_selection(dataset.parts(prediction.split), dataset.rows(prediction.split))
        names += [f"{index}/{part}" for part in whole.parts]
        rows += whole.rows
    work = [_Work(config, p.make, dataset.images(p.split), p.step.folder) for p in missing]
    pool = Pool(compute.extract_workers, compute.cpus_per_worker, compute.gpus_per_worker)
    map_parts(_PredictPart, {"work": work}, Selection(names, rows), pool, progress)
    for prediction in missing:
        prediction.step.finish(images=dataset.count(prediction.split))


@dataclass(frozen=True)
class _Work:
    """A prediction as a worker needs it: the predictor, the images, and the folder to write to."""

    config: Config
    make: PredictorFactory
    images: Folder
    target: Folder


class _PredictPart:
    """Worker that predicts a part; it builds each predictor when a part first needs it."""

    def __init__(self, work: list[_Work]) -> None:
        self._work, self._placement = work, worker_placement(work[0].config.compute)
        self._predictors: dict[PredictorFactory, Predictor] = {}

    def __call__(self, name: str, rows: NDArray[np.int64]) -> dict[str, Any]:
        index, part = name.split("/")
        work = self._work[int(index)]
        if work.target.is_whole(part):
            return {"images": work.target.rows(part)}
        if work.make not in self._predictors:
            self._predictors[work.make] = work.make(self._placement)
        batches = read_inputs(work.images, part, rows, work.config)
        found = predict_batches(batches, self._predictors[work.make])
        work.target.write_table(part, _table(found))
        return {"images": len(found.ids)}


def _table(found: BatchLandmarks) -> pa.Table:
    columns = [
        found.ids,
        np.stack(found.xy).astype(np.float32).tolist(),
        found.confidence.astype(np.float32).tolist(),
        probability_column(found.probability),
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schemas.PREDICTIONS, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schemas.PREDICTIONS)
