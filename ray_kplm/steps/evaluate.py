"""Scores of a finished run against the annotation, and pictures of what it found."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ray_kplm.contracts import TEST, TRAIN
from ray_kplm.datasets.dataset import Dataset, landmark_arrays
from ray_kplm.errors import DataError, RunError
from ray_kplm.evaluation.normalisers import normaliser
from ray_kplm.evaluation.summary import LandmarkSet, evaluate_landmarks
from ray_kplm.imaging.crops import decode
from ray_kplm.imaging.draw import contact_sheet, encode_png
from ray_kplm.methods import build_method
from ray_kplm.methods.channels import CHANNELS, Channels
from ray_kplm.methods.landmarks import MakeLandmarkPredictor, MakePredictor
from ray_kplm.report.figures import cumulative_curves
from ray_kplm.run import Run, round_path
from ray_kplm.steps.correspond import read_clusters
from ray_kplm.steps.predict import Prediction, predict, read_predictions

STAGE2, STAGE1, WARMUP = "stage2", "stage1", "warmup"
_NAMES = {STAGE2: "stage 2", STAGE1: "stage 1", WARMUP: "warm-up"}
Report = Callable[[str], None]


def evaluate(run: Run, report: Report = lambda text: None) -> dict[str, Any]:
    """Metrics of stage 2, of stage 1's last round and of the warm-up; kept in `<run>/evaluation/metrics.json`.

    Ray must be initialised. Raises RunError for an unfinished run, DataError for a dataset without landmarks or test split.
    """
    started = time.monotonic()
    folder = run.folder / "evaluation"
    stages = (STAGE2, STAGE1, WARMUP) if build_method(run.config).describes else (STAGE2,)
    found = stage_scores(run, stages, report)
    earlier = {
        f"{stage}_{name}": found[stage][name]
        for stage in stages[1:]
        for name in ("forward_nme", "backward_nme", "points_per_image")
    }
    metrics = {**found[STAGE2], **earlier, "stages": found, "seconds": time.monotonic() - started}
    curves = {
        _NAMES[stage]: (found[stage]["forward_per_landmark"], found[stage]["backward_per_landmark"])
        for stage in stages[:2]
    }
    folder.write_bytes("curves.png", cumulative_curves(curves, f"{run.folder.name}: cumulative error"))
    folder.write_json("metrics.json", metrics)
    return metrics


def stage_scores(run: Run, stages: Sequence[str], report: Report = lambda text: None) -> dict[str, dict[str, Any]]:
    """`evaluation.summary.evaluate_landmarks` of some stages, or of rounds by their numbers. Raises as `evaluate` does."""
    dataset = Dataset.open(run.config.dataset)
    if not dataset.has_landmarks:
        raise DataError(f"{dataset.root}: has no annotated landmarks to score against; ingest it with --landmarks FILE")
    truth = {split: _truth(dataset, split) for split in (TRAIN, TEST)}
    predictions = {stage: _predictions(run, dataset, stage, (TRAIN, TEST)) for stage in stages}
    names = ", ".join(_NAMES.get(stage, f"round {stage}") for stage in stages)
    report(f"landmarks of the train and test images, by {names}")
    predict([p for of_stage in predictions.values() for p in of_stage], run.config, dataset)
    return {stage: _scores(of_stage, dataset, truth, run.config.seed) for stage, of_stage in predictions.items()}


def show(run: Run, split: str = TEST, count: int = 48, *, columns: int = 8) -> bytes:
    """A contact sheet of seeded images of a split with their landmarks, as PNG; also at `<run>/evaluation/<split>.png`."""
    dataset = Dataset.open(run.config.dataset)
    if split not in dataset.manifest["splits"] or not dataset.count(split):
        raise DataError(f"{dataset.root}: has no {split} images; take --split {TRAIN}")
    xy, confidence = landmarks_of(run, dataset, split)
    total = dataset.count(split)
    chosen = np.sort(np.random.default_rng(run.config.seed).permutation(total)[:count])
    starts = np.cumsum([0, *dataset.rows(split)])
    images = []
    for part, first, last in zip(dataset.parts(split), starts[:-1], starts[1:], strict=True):
        rows = chosen[(chosen >= first) & (chosen < last)] - first
        if len(rows):
            images += [decode(e) for e in dataset.images(split).read_table(part, ["image"]).take(rows)["image"]]
    title = f"{run.folder.name}: {xy.shape[1]} landmarks on {len(images)} of {total} {split} images"
    usual = np.median(confidence, axis=0)  # a landmark is drawn hollow where it is far less sure than usual
    sheet = contact_sheet(
        images, list(xy[chosen]), confidence=list(confidence[chosen] / usual.clip(1e-6)), columns=columns, title=title
    )
    png = encode_png(sheet)
    (run.folder / "evaluation").write_bytes(f"{split}.png", png)
    return png


def landmarks_of(run: Run, dataset: Dataset, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The detector's xy (N, K, 2), crop frame, and confidence (N, K) in all images of a split. Needs Ray only for what it has
    not predicted before."""
    predictions = _predictions(run, dataset, STAGE2, (split,))
    predict(predictions, run.config, dataset)
    return read_predictions(predictions[0].step.folder, dataset, split)


def _scores(
    predictions: list[Prediction], dataset: Dataset, truth: dict[str, LandmarkSet], seed: int
) -> dict[str, Any]:
    sets = {}
    for prediction in predictions:
        xy, _ = read_predictions(prediction.step.folder, dataset, prediction.split)
        sets[prediction.split] = replace(truth[prediction.split], discovered=xy.astype(np.float64))
    return evaluate_landmarks(sets[TRAIN], sets[TEST], seed=seed)


def _truth(dataset: Dataset, split: str) -> LandmarkSet:
    """The annotation of a split; `discovered` is filled in later."""
    if split not in dataset.manifest["splits"] or not dataset.count(split):
        raise DataError(f"{dataset.root}: has no {split} images to score on; ingest with --test-share 0.2")
    arrays = landmark_arrays(dataset, split)
    definition = dataset.meta.get("nme") or {"type": "bbox_sqrt"}
    landmarks = arrays.landmarks.astype(np.float64)
    boxes = np.where(np.isnan(arrays.boxes), _extent(landmarks), arrays.boxes)
    nothing = np.zeros((len(landmarks), 0, 2))
    return LandmarkSet(nothing, landmarks, normaliser(definition, landmarks, boxes), arrays.sizes.max(axis=1))


def _extent(landmarks: np.ndarray) -> np.ndarray:
    """The bounding box (N, 4) of each image's annotated points."""
    low = np.where(np.isnan(landmarks), np.inf, landmarks).min(axis=1)
    high = np.where(np.isnan(landmarks), -np.inf, landmarks).max(axis=1)
    return np.concatenate([low, high], axis=1)


def _predictions(run: Run, dataset: Dataset, stage: str, splits: Sequence[str]) -> list[Prediction]:
    """What a stage says of some splits; `predict` makes what is not on storage."""
    make, source = predictor(run, stage)
    inputs = {"network": source["fingerprint"], "dataset": dataset.fingerprint}
    return [
        Prediction(
            run.step(
                f"evaluation/{stage}/{split}",
                "predict",
                {"stage": stage, "split": split, "flip_at_test": run.config.stage2.flip_at_test},
                inputs,
            ),
            split,
            make,
        )
        for split in splits
    ]


def predictor(run: Run, stage: str) -> tuple[MakePredictor, dict[str, Any]]:
    """How a stage predicts, and the manifest of the step that made it. stage: also the number of a round, 0: the warm-up."""
    config = run.config
    if stage == STAGE2:
        return landmark_predictor(run), _finished(run, "stage2")
    number = int({STAGE1: config.stage1.rounds, WARMUP: 0}.get(stage, stage))
    labels = _finished(run, f"{round_path(number)}/labels")
    folder = run.folder / "rounds" / f"{number:03d}"
    method = build_method(config)
    return method.stage1_predictor(folder / "train", read_clusters(folder), labels["threshold"]), labels


def landmark_predictor(run: Run) -> MakeLandmarkPredictor:
    """The stage-2 detector of a finished run."""
    _finished(run, "stage2")
    folder = run.folder / "stage2"
    channels = Channels.from_dict(folder.read_json(CHANNELS))
    return MakeLandmarkPredictor(run.config, folder, channels.flip_map, run.config.stage2.flip_at_test)


def _finished(run: Run, path: str) -> dict[str, Any]:
    manifest = run.manifest(path)
    if manifest is None:
        raise RunError(
            f"{run.folder}: {path} is not finished; run `kplm train` with this run directory again to continue"
        )
    return manifest
