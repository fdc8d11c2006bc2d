"""Landmarks of whole splits by the stages of a finished run, predicted once and kept with the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from ray_kplm.analysis.stored_predictions import evaluation_path as evaluation_path
from ray_kplm.analysis.stored_predictions import prediction_step
from ray_kplm.analysis.stored_predictions import stored_landmarks_of as stored_landmarks_of
from ray_kplm.correspondence.clusters import read_clusters
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.detectors.stored import facing_rule, landmark_predictor
from ray_kplm.evaluation.stages import STAGE1, STAGE2, STAGE_TITLES, WARMUP
from ray_kplm.inference.dataset import Prediction, SplitLandmarks, predict, read_predictions
from ray_kplm.methods import build_method
from ray_kplm.methods.predictors import PredictorFactory
from ray_kplm.points.stored import LANDMARKS
from ray_kplm.progress import ProgressCallback, ignore_progress, part_of
from ray_kplm.run import Run, round_path
from ray_kplm.runtime.session import session
from ray_kplm.schemas import TEST, TRAIN

Predictions = dict[str, SplitLandmarks]
"""Split -> its landmarks."""


def predictor(run: Run, stage: str) -> tuple[PredictorFactory, dict[str, Any]]:
    """Return the predictor of a stage, and the manifest of the step that trained it.

    Args:
        run: The run.
        stage: A name in `evaluation.stages`, or the number of a round, of which 0 is the warm-up.

    Raises:
        RunError: The stage is not finished.
    """
    config = run.config
    if stage == STAGE2:
        return landmark_predictor(run, LANDMARKS), run.finished("stage2")
    number = int({STAGE1: config.stage1.rounds, WARMUP: 0}.get(stage, stage))
    labels = run.finished(f"{round_path(number)}/labels")
    folder = run.unit(f"{round_path(number)}/labels").parent
    network = run.unit(f"{round_path(number)}/train")
    make = build_method(config).stage1_predictor(network, read_clusters(folder), labels["threshold"])
    return replace(make, round=folder, facing=facing_rule(run)), labels


def stage_title(stage: str) -> str:
    """Return the title of a stage, or of a round given by its number."""
    return STAGE_TITLES.get(stage, f"round {stage}")


def predict_stages(
    run: Run, dataset: Dataset, stages: Sequence[str], progress: ProgressCallback
) -> Iterator[tuple[str, Predictions]]:
    """Yield each stage with its landmarks on both splits.

    Landmarks that are not on storage are predicted first, those of all stages together. Ray is started for that if it is not
    initialised.
    """
    predictions = {stage: _predictions(run, dataset, stage, (TRAIN, TEST)) for stage in stages}
    missing = [p for of_stage in predictions.values() for p in of_stage if not p.step.is_current()]
    if missing:
        progress(0.0, f"landmarks of the train and test images, by {', '.join(stage_title(stage) for stage in stages)}")
        with session(run.config.compute):
            predict(missing, run.resolved, dataset, part_of(progress, 0.0, 0.5))
    for number, (stage, of_stage) in enumerate(predictions.items()):
        progress(0.5 + 0.5 * number / len(predictions), f"scores of {stage_title(stage)}")
        yield stage, {p.split: read_predictions(p.step.folder, dataset, p.split) for p in of_stage}


def landmarks_of(
    run: Run, dataset: Dataset, split: str, progress: ProgressCallback = ignore_progress
) -> SplitLandmarks:
    """Return the stage-2 detector's landmarks on a split.

    Ray must be initialised if they are not on storage yet.
    """
    predictions = _predictions(run, dataset, STAGE2, (split,))
    predict(predictions, run.resolved, dataset, progress)
    return read_predictions(predictions[0].step.folder, dataset, split)


def _predictions(run: Run, dataset: Dataset, stage: str, splits: Sequence[str]) -> list[Prediction]:
    """Return the predictions of a stage on some splits; `predict` computes those that are not on storage."""
    factory, manifest = predictor(run, stage)
    return [Prediction(prediction_step(run, dataset, stage, split, manifest), split, factory) for split in splits]
