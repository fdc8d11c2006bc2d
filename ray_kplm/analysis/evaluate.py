"""Scores of a finished run against the annotation, and pictures of what it found."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ray_kplm.correspondence.clusters import read_clusters
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.datasets.landmark_arrays import LandmarkArrays, landmark_arrays
from ray_kplm.errors import DataError
from ray_kplm.evaluation.annotation import LandmarkSet, Scoring, annotated_set, count_points
from ray_kplm.evaluation.buckets import Buckets, bucketed
from ray_kplm.evaluation.detection import NEAR_SHARE, percent_near
from ray_kplm.evaluation.protocol_scores import protocol_scores
from ray_kplm.evaluation.protocols import Protocol, body_sigmas, find, resolve
from ray_kplm.evaluation.summary import evaluate_landmarks
from ray_kplm.evaluation.tables import STAGES
from ray_kplm.imaging.crops import decode_crop
from ray_kplm.imaging.draw import contact_sheet, encode_png
from ray_kplm.inference.dataset import Prediction, predict, read_predictions
from ray_kplm.landmark_detector import landmark_predictor
from ray_kplm.methods import build_method
from ray_kplm.methods.predictors import PredictorFactory
from ray_kplm.network.heatmaps import DECODER_VERSION
from ray_kplm.progress import ProgressCallback, ignore_progress, part_of
from ray_kplm.report.figures import cumulative_curves
from ray_kplm.run import MANIFEST, Run, round_path
from ray_kplm.runtime.session import session
from ray_kplm.schemas import TEST, TRAIN
from ray_kplm.steps.detect import keypoint_finder
from ray_kplm.storage import Folder

STAGE2, STAGE1, WARMUP = "stage2", "stage1", "warmup"
Predictions = dict[str, tuple[np.ndarray, np.ndarray]]
"""Split -> xy (N, K, 2) and confidence (N, K)."""


@dataclass(frozen=True)
class Options:
    """What is scored against which annotation."""

    data: str | None = None
    """Another dataset than the run's own: on its training images the regressors are fitted, on its test images it is scored."""
    protocol: str | None = None
    """Of `evaluation.protocols`: its figures are added, with the thesis' beside them."""
    by: tuple[str, ...] = ()
    """Buckets of the test images: `yaw=0,30,60,90`."""
    visible_only: bool | None = None
    """Whether hidden points are left out; None: as the protocol has it, else they are scored."""


def evaluate(run: Run, progress: ProgressCallback = ignore_progress, options: Options | None = None) -> dict[str, Any]:
    """Metrics of stage 2, of stage 1's last round and of the warm-up; kept in `<run>/evaluation/metrics.json`, those on
    another dataset below `<run>/evaluation/on`.

    Predictions that are on storage are taken from there; Ray is started for the others, where it is not initialised. Raises
    RunError for an unfinished run, DataError for a dataset without landmarks or without one of the splits, or whose
    landmarks are not those of the protocol.
    """
    started = time.monotonic()
    options = options or Options()
    dataset = Dataset.open(options.data or run.config.dataset)
    place = _place(run, dataset)
    annotation = _Annotation.read(dataset, options)
    stages = (STAGE2, STAGE1, WARMUP) if build_method(run.config).describes else (STAGE2,)
    found, per_image, protocol = {}, {}, None
    for stage, predictions in _predicted(run, dataset, stages, progress):
        found[stage] = annotation.scores(predictions, run.config.seed)
        errors = found[stage].pop("per_image")
        if stage == STAGE2:
            per_image = {"image_id": annotation.arrays[TEST].ids, **errors}
            protocol = annotation.protocol_scores(predictions, run.config.seed)
    earlier = {
        f"{stage}_{name}": found[stage][name]
        for stage in stages[1:]
        for name in ("forward_nme", "backward_nme", "points_per_image")
    }
    metrics = {
        **found[STAGE2],
        **earlier,
        **annotation.facts(),
        "generic_keypoints": annotation.of_keypoints(run) if place == "evaluation" else None,
        "folder": str(run.folder / place),
        "dataset": {"name": dataset.meta.get("name"), "path": str(dataset.root), "fingerprint": dataset.fingerprint},
        "protocol": protocol,
        "stages": found,
        "per_image": per_image,
        "seconds": time.monotonic() - started,
    }
    curves = {
        STAGES[stage]: (found[stage]["forward_per_landmark"], found[stage]["backward_per_landmark"])
        for stage in stages[:2]
    }
    (run.folder / place).write_bytes("curves.png", cumulative_curves(curves, f"{run.folder.name}: cumulative error"))
    (run.folder / place).write_json("metrics.json", metrics)
    return metrics


def stage_scores(
    run: Run, stages: Sequence[str], progress: ProgressCallback = ignore_progress
) -> dict[str, dict[str, Any]]:
    """`evaluation.summary.evaluate_landmarks` of some stages, or of rounds by their numbers. Raises as `evaluate` does."""
    dataset = Dataset.open(run.config.dataset)
    annotation = _Annotation.read(dataset, Options())
    predicted = _predicted(run, dataset, stages, progress)
    return {stage: annotation.scores(predictions, run.config.seed) for stage, predictions in predicted}


def _predicted(
    run: Run, dataset: Dataset, stages: Sequence[str], progress: ProgressCallback
) -> Iterator[tuple[str, Predictions]]:
    """What each stage says of both splits: from storage, or now, all that is missing at once."""
    predictions = {stage: _predictions(run, dataset, stage, (TRAIN, TEST)) for stage in stages}
    missing = [p for of_stage in predictions.values() for p in of_stage if not p.step.is_current()]
    if missing:
        progress(0.0, f"landmarks of the train and test images, by {', '.join(_name(stage) for stage in stages)}")
        with session(run.config.compute):
            predict(missing, run.resolved, dataset, part_of(progress, 0.0, 0.5))
    for number, (stage, of_stage) in enumerate(predictions.items()):
        progress(0.5 + 0.5 * number / len(predictions), f"scores of {_name(stage)}")
        yield stage, {p.split: read_predictions(p.step.folder, dataset, p.split) for p in of_stage}


def _name(stage: str) -> str:
    return STAGES.get(stage, f"round {stage}")


@dataclass(frozen=True)
class _Annotation:
    """A dataset's annotation and how it is scored."""

    arrays: dict[str, LandmarkArrays]
    scoring: Scoring
    protocol: Protocol | None
    protocol_scoring: Scoring | None
    by: list[Buckets]
    protocol_by: list[Buckets]

    @classmethod
    def read(cls, dataset: Dataset, options: Options) -> _Annotation:
        """Of both splits. Raises whatever is wrong with the options or the dataset, before anything is predicted."""
        if not dataset.has_landmarks:
            what = "has no annotated landmarks to score against; ingest it with --landmarks FILE"
            raise DataError(f"{dataset.root}: {what}")
        for split in (TRAIN, TEST):
            if split not in dataset.manifest["splits"] or not dataset.count(split):
                use = "score on" if split == TEST else "fit regressors on"
                raise DataError(f"{dataset.root}: has no {split} images to {use}; ingest with --test-share 0.2")
        arrays = {split: landmark_arrays(dataset, split) for split in (TRAIN, TEST)}
        columns = arrays[TEST].attributes
        protocol = find(options.protocol) if options.protocol else None
        names = dataset.meta.get("landmark_names") or []
        of_protocol = resolve(protocol, names, options.visible_only) if protocol else None
        by_of_protocol = [bucketed(text, columns) for text in protocol.by] if protocol else []
        by = [bucketed(text, columns) for text in options.by]
        normaliser = dataset.meta.get("nme") or {"type": "bbox_sqrt"}
        scoring = Scoring(
            normaliser, visible_only=bool(options.visible_only), sigmas=body_sigmas(names) if names else None
        )
        return cls(arrays, scoring, protocol, of_protocol, by, by_of_protocol)

    def scores(self, predictions: Predictions, seed: int) -> dict[str, Any]:
        train, test = self._sets(self.scoring, predictions)
        return evaluate_landmarks(train, test, seed=seed, by=self.by, sigmas=self.scoring.sigmas)

    def protocol_scores(self, predictions: Predictions, seed: int) -> dict[str, Any] | None:
        if self.protocol is None or self.protocol_scoring is None:
            return None
        train, test = self._sets(self.protocol_scoring, predictions)
        return protocol_scores(self.protocol, self.protocol_scoring, train, test, seed=seed, by=self.protocol_by)

    def facts(self) -> dict[str, Any]:
        """What of the test part's annotation is scored."""
        return {
            "points": count_points(self.arrays[TEST], self.scoring),
            "visible_only": self.scoring.visible_only,
            "normaliser": dict(self.scoring.normaliser),
        }

    def of_keypoints(self, run: Run) -> dict[str, Any]:
        """Where the run began: its generic keypoints an image, and how many are near an annotated point."""
        folder, arrays = run.folder / "keypoints", self.arrays[TRAIN]
        tables = folder.read_tables(folder.parts(), ["image_id", "xy"])
        ids = [name for table in tables for name in table["image_id"].to_pylist()]
        found = [np.reshape(xy, (-1, 2)) for table in tables for xy in table["xy"].to_pylist()]
        rows = [row for row in map({name: i for i, name in enumerate(arrays.ids)}.get, ids) if row is not None]
        annotated = annotated_set(arrays, self.scoring)
        near = percent_near(found, annotated.truth[rows], NEAR_SHARE * annotated.normaliser[rows])
        return {
            "detector": run.config.keypoints.detector,
            "images": len(ids),
            "points_per_image": sum(map(len, found)) / max(len(ids), 1),
            "near_percent": near if np.isfinite(near) else None,
        }

    def _sets(self, scoring: Scoring, predictions: Predictions) -> list[LandmarkSet]:
        """Of the training and the test part."""
        return [
            replace(
                annotated_set(self.arrays[split], scoring),
                discovered=predictions[split][0].astype(np.float64),
                confidence=predictions[split][1].astype(np.float64),
            )
            for split in (TRAIN, TEST)
        ]


def show(
    run: Run, split: str = TEST, count: int = 48, *, columns: int = 8, tile: int = 160, keypoints: bool = False
) -> bytes:
    """Return a contact sheet of seeded images of a split with their landmarks, as PNG; kept at
    `<run>/evaluation/<picture_name>`.

    tile: side of an image on the sheet, pixels. keypoints: show each image twice, above with the generic keypoints that the run
    would begin with there.
    """
    dataset = Dataset.open(run.config.dataset)
    if split not in dataset.manifest["splits"] or not dataset.count(split):
        raise DataError(f"{dataset.root}: has no {split} images; take --split {TRAIN}")
    find = _generic_keypoints(run, dataset, split) if keypoints else None
    xy, confidence = landmarks_of(run, dataset, split)
    total = dataset.count(split)
    chosen = np.sort(np.random.default_rng(run.config.seed).permutation(total)[:count])
    starts = np.cumsum([0, *dataset.rows(split)])
    images, generic = [], []
    for part, first, last in zip(dataset.parts(split), starts[:-1], starts[1:], strict=True):
        rows = chosen[(chosen >= first) & (chosen < last)] - first
        if len(rows):
            images += [decode_crop(e) for e in dataset.images(split).read_table(part, ["image"]).take(rows)["image"]]
            generic += find(part, rows) if find else []
    before = f"{run.config.keypoints.detector} keypoints (above) and " if keypoints else ""
    title = f"{run.folder.name}: {before}{xy.shape[1]} landmarks on {len(images)} of {total} {split} images"
    usual = np.median(confidence, axis=0)  # a landmark is drawn hollow where it is far less sure than usual
    sheet = contact_sheet(
        images,
        list(xy[chosen]),
        confidence=list(confidence[chosen] / usual.clip(1e-6)),
        keypoints=generic if keypoints else None,
        columns=columns,
        tile=tile,
        title=title,
    )
    png = encode_png(sheet)
    (run.folder / "evaluation").write_bytes(picture_name(split, keypoints), png)
    return png


def picture_name(split: str, keypoints: bool = False) -> str:
    """Return the file name of the contact sheet of a split: `test.png`, or with keypoints `test_keypoints.png`."""
    return f"{split}_keypoints.png" if keypoints else f"{split}.png"


def _generic_keypoints(run: Run, dataset: Dataset, split: str) -> Callable[[str, np.ndarray], list[np.ndarray]]:
    run.finished("keypoints")
    config = run.config
    return keypoint_finder(
        dataset.images(split), dataset.landmarks(split), run.folder / "keypoints", config.keypoints, config.seed
    )


def landmarks_of(run: Run, dataset: Dataset, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The detector's xy (N, K, 2), crop frame, and confidence (N, K) in all images of a split. Needs Ray only for what it has
    not predicted before."""
    predictions = _predictions(run, dataset, STAGE2, (split,))
    predict(predictions, run.resolved, dataset)
    return read_predictions(predictions[0].step.folder, dataset, split)


def _predictions(run: Run, dataset: Dataset, stage: str, splits: Sequence[str]) -> list[Prediction]:
    """What a stage says of some splits; `predict` makes what is not on storage."""
    make, source = predictor(run, stage)
    place = _place(run, dataset)
    inputs = {"network": source["fingerprint"], "dataset": dataset.fingerprint}
    return [
        Prediction(
            run.step(
                f"{place}/{stage}/{split}",
                "predict",
                {
                    "stage": stage,
                    "split": split,
                    "flip_at_test": run.config.stage2.flip_at_test,
                    "decoder": DECODER_VERSION,
                },
                inputs,
            ),
            split,
            make,
        )
        for split in splits
    ]


def _place(run: Run, dataset: Dataset) -> str:
    """Where scores and predictions go: another dataset than the run's own has a folder of its own, by name and content."""
    own = Folder.at(run.config.dataset)
    if own == dataset.root or (own.is_file(MANIFEST) and own.read_json(MANIFEST)["fingerprint"] == dataset.fingerprint):
        return "evaluation"
    name = "".join(c if c.isalnum() else "_" for c in str(dataset.meta.get("name") or "unnamed"))
    return f"evaluation/on/{name}-{dataset.fingerprint[:8]}"


def predictor(run: Run, stage: str) -> tuple[PredictorFactory, dict[str, Any]]:
    """How a stage predicts, and the manifest of the step that made it. stage: also the number of a round, 0: the warm-up."""
    config = run.config
    if stage == STAGE2:
        return landmark_predictor(run), run.finished("stage2")
    number = int({STAGE1: config.stage1.rounds, WARMUP: 0}.get(stage, stage))
    labels = run.finished(f"{round_path(number)}/labels")
    folder = run.folder / "rounds" / f"{number:03d}"
    method = build_method(config)
    return method.stage1_predictor(folder / "train", read_clusters(folder), labels["threshold"]), labels
