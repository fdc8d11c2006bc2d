"""Scores of a finished run against the annotation: `kplm evaluate`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ray_kplm.analysis.predictions import Predictions, evaluation_path, predict_stages
from ray_kplm.analysis.recordings import rounds_have_landmarks
from ray_kplm.correspondence.features import feature_parts, read_columns
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.datasets.landmark_arrays import LandmarkArrays, landmark_arrays
from ray_kplm.errors import DataError
from ray_kplm.evaluation.annotation import LandmarkSet, Scoring, annotated_set, count_points
from ray_kplm.evaluation.buckets import Buckets, bucketed
from ray_kplm.evaluation.detection import NEAR_SHARE, percent_near
from ray_kplm.evaluation.protocol_scores import protocol_scores
from ray_kplm.evaluation.protocols import Protocol, body_sigmas, find, resolve
from ray_kplm.evaluation.stages import STAGE1, STAGE2, STAGE_TITLES, WARMUP
from ray_kplm.evaluation.summary import evaluate_landmarks
from ray_kplm.evaluation.visibility import nearest_points, visibility_scores
from ray_kplm.progress import ProgressCallback, ignore_progress
from ray_kplm.report.figures import cumulative_curves
from ray_kplm.run import Run
from ray_kplm.schemas import TEST, TRAIN


@dataclass(frozen=True)
class Options:
    """Choice of the dataset, the protocol and the annotation to score against."""

    data: str | None = None
    """Another dataset than the run's own. The regressors are fitted on its training images and scored on its test images."""
    protocol: str | None = None
    """Name in `evaluation.protocols`; adds its scores, with the published ones beside them."""
    by: tuple[str, ...] = ()
    """Buckets of the test images, as `yaw=0,30,60,90`."""
    visible_only: bool | None = None
    """Whether to leave out hidden points; None for the protocol's choice, or to score them without a protocol."""


def evaluate(run: Run, progress: ProgressCallback = ignore_progress, options: Options | None = None) -> dict[str, Any]:
    """Score stage 2, the last round of stage 1 and the warm-up of a finished run.

    The scores are kept in `<run>/evaluation/metrics.json`, those on another dataset below `<run>/evaluation/on`. Predictions
    on storage are reused. Ray is started for the others if it is not initialised.

    Args:
        run: A finished run.
        progress: Called as the work goes on.
        options: The choice of data; by default the run's own dataset without a protocol.

    Returns:
        The scores of stage 2 (`evaluation.summary.evaluate_landmarks`), those of each stage as `stages`, and facts about the
        annotation, for JSON.

    Raises:
        RunError: The run is not finished.
        DataError: The dataset lacks landmarks, one of the splits, or landmarks of the protocol.
        ConfigError: The protocol or the buckets are invalid.
    """
    started = time.monotonic()
    options = options or Options()
    dataset = Dataset.open(options.data or run.config.dataset)
    path = evaluation_path(run, dataset)
    annotation = _Annotation.read(dataset, options)
    stages = (STAGE2, STAGE1, WARMUP) if rounds_have_landmarks(run) else (STAGE2,)
    scores, per_image, protocol, visibility = {}, {}, None, None
    for stage, predictions in predict_stages(run, dataset, stages, progress):
        scores[stage] = annotation.scores(predictions, run.config.seed)
        errors = scores[stage].pop("per_image")
        if stage == STAGE2:
            per_image = {"image_id": annotation.arrays[TEST].ids, **errors}
            protocol = annotation.protocol_scores(predictions, run.config.seed)
            visibility = annotation.visibility_scores(predictions)
    earlier_stages = {
        f"{stage}_{name}": scores[stage][name]
        for stage in stages[1:]
        for name in ("forward_nme", "backward_nme", "points_per_image")
    }
    metrics = {
        **scores[STAGE2],
        **earlier_stages,
        **annotation.facts(),
        "generic_keypoints": annotation.of_keypoints(run) if path == "evaluation" else None,
        "folder": str(run.folder / path),
        "dataset": {"name": dataset.meta.get("name"), "path": str(dataset.root), "fingerprint": dataset.fingerprint},
        "protocol": protocol,
        "visibility": visibility,
        "stages": scores,
        "per_image": per_image,
        "seconds": time.monotonic() - started,
    }
    curves = {
        STAGE_TITLES[stage]: (scores[stage]["forward_per_landmark"], scores[stage]["backward_per_landmark"])
        for stage in stages[:2]
    }
    (run.folder / path).write_bytes("curves.png", cumulative_curves(curves, f"{run.folder.name}: cumulative error"))
    (run.folder / path).write_json("metrics.json", metrics)
    progress(1.0, f"all scores: {run.folder / path}")
    return metrics


def stage_scores(
    run: Run, stages: Sequence[str], progress: ProgressCallback = ignore_progress
) -> dict[str, dict[str, Any]]:
    """Return the scores (`evaluation.summary.evaluate_landmarks`) of some stages, or of rounds given by their numbers.

    Raises:
        RunError: A stage is not finished.
        DataError: The dataset lacks landmarks or one of the splits.
    """
    dataset = Dataset.open(run.config.dataset)
    annotation = _Annotation.read(dataset, Options())
    predicted = predict_stages(run, dataset, stages, progress)
    return {stage: annotation.scores(predictions, run.config.seed) for stage, predictions in predicted}


@dataclass(frozen=True)
class _Annotation:
    """A dataset's annotation, and how it is scored: in general and by a protocol."""

    arrays: dict[str, LandmarkArrays]
    scoring: Scoring
    protocol: Protocol | None
    protocol_scoring: Scoring | None
    by: list[Buckets]
    protocol_by: list[Buckets]

    @classmethod
    def read(cls, dataset: Dataset, options: Options) -> _Annotation:
        """Read the annotation of both splits and check the options against it, before anything is predicted.

        Raises:
            DataError: The dataset lacks landmarks, one of the splits, landmarks of the protocol or a column of a bucket.
            ConfigError: The protocol or the buckets are invalid.
        """
        if not dataset.has_landmarks:
            problem = "has no annotated landmarks to score against; ingest it with --landmarks FILE"
            raise DataError(f"{dataset.root}: {problem}")
        for split in (TRAIN, TEST):
            if split not in dataset.manifest["splits"] or not dataset.count(split):
                use = "score on" if split == TEST else "fit regressors on"
                raise DataError(f"{dataset.root}: has no {split} images to {use}; ingest with --test-share 0.2")
        arrays = {split: landmark_arrays(dataset, split) for split in (TRAIN, TEST)}
        columns = arrays[TEST].attributes
        protocol = find(options.protocol) if options.protocol else None
        names = dataset.meta.get("landmark_names") or []
        protocol_scoring = resolve(protocol, names, options.visible_only) if protocol else None
        protocol_by = [bucketed(text, columns) for text in protocol.by] if protocol else []
        by = [bucketed(text, columns) for text in options.by]
        normaliser = dataset.meta.get("nme") or {"type": "bbox_sqrt"}
        scoring = Scoring(
            normaliser, visible_only=bool(options.visible_only), sigmas=body_sigmas(names) if names else None
        )
        return cls(arrays, scoring, protocol, protocol_scoring, by, protocol_by)

    def scores(self, predictions: Predictions, seed: int) -> dict[str, Any]:
        """Return all scores of predictions."""
        train, test = self._sets(self.scoring, predictions)
        return evaluate_landmarks(train, test, seed=seed, by=self.by, sigmas=self.scoring.sigmas)

    def protocol_scores(self, predictions: Predictions, seed: int) -> dict[str, Any] | None:
        """Return the scores of predictions by the protocol, or None without a protocol."""
        if self.protocol is None or self.protocol_scoring is None:
            return None
        train, test = self._sets(self.protocol_scoring, predictions)
        return protocol_scores(self.protocol, self.protocol_scoring, train, test, seed=seed, by=self.protocol_by)

    def visibility_scores(self, predictions: Predictions) -> dict[str, Any] | None:
        """Return how well the probabilities of the test images agree with the annotation; None if either is missing."""
        train, test = self._sets(replace(self.scoring, visible_only=False), predictions)
        points = nearest_points(train.in_image_sides().discovered, train.in_image_sides().truth)
        return visibility_scores(predictions[TEST].probability, points, test.truth, self.arrays[TEST].visible)

    def facts(self) -> dict[str, Any]:
        """Return facts about the annotation of the test split that is scored, and the doubtful points of both splits."""
        return {
            "points": count_points(self.arrays[TEST], self.scoring),
            "doubtful_points": self.arrays[TRAIN].marks.plus(self.arrays[TEST].marks)._asdict(),
            "visible_only": self.scoring.visible_only,
            "normaliser": dict(self.scoring.normaliser),
        }

    def of_keypoints(self, run: Run) -> dict[str, Any]:
        """Return the number of generic keypoints per training image, and the share of these near an annotated point."""
        folder, arrays = run.unit("keypoints"), self.arrays[TRAIN]
        tables = [read_columns(folder, part, ["image_id", "xy"]) for part in feature_parts(folder)]
        ids = [name for table in tables for name in table["image_id"].to_pylist()]
        keypoints = [np.reshape(xy, (-1, 2)) for table in tables for xy in table["xy"].to_pylist()]
        rows = [row for row in map({name: i for i, name in enumerate(arrays.ids)}.get, ids) if row is not None]
        annotated = annotated_set(arrays, self.scoring)
        near = percent_near(keypoints, annotated.truth[rows], NEAR_SHARE * annotated.normaliser[rows])
        return {
            "detector": run.config.keypoints.detector,
            "images": len(ids),
            "points_per_image": sum(map(len, keypoints)) / max(len(ids), 1),
            "near_percent": near if np.isfinite(near) else None,
        }

    def _sets(self, scoring: Scoring, predictions: Predictions) -> list[LandmarkSet]:
        """Return the landmarks of the training and the test split."""
        return [
            replace(
                annotated_set(self.arrays[split], scoring),
                discovered=predictions[split][0].astype(np.float64),
                confidence=predictions[split][1].astype(np.float64),
            )
            for split in (TRAIN, TEST)
        ]
