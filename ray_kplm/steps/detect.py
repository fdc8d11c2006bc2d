"""Detection of generic keypoints in the training images, outliers removed (thesis 6.3.4, docs/method.md 2)."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import cv2
import faiss
import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from ray_kplm.config import KeypointsConfig
from ray_kplm.config_names import as_recorded
from ray_kplm.correspondence.features import features_table, keypoints_table
from ray_kplm.correspondence.outliers import KNNOutlierScore
from ray_kplm.datasets.round_sampling import SAMPLE_PARTS, Selection
from ray_kplm.errors import CollapseError
from ray_kplm.imaging.crops import crop_sizes
from ray_kplm.keypoints import LEARNED, build_source
from ray_kplm.keypoints.source import Keypoints, KeypointSource
from ray_kplm.methods.labels import Labels, keypoint_labels
from ray_kplm.progress import ProgressCallback, ignore_progress
from ray_kplm.run import Step
from ray_kplm.runtime.map_parts import Pool, map_parts
from ray_kplm.runtime.tasks import run_tasks
from ray_kplm.schemas import TRAIN
from ray_kplm.steps.task import DETECTION_COST, RoundLabels
from ray_kplm.storage import Folder

if TYPE_CHECKING:
    from ray_kplm.steps.executor import Executor

_RULE = "outliers.npz"
_SAMPLE = 37
"""Of the seed of the images that the outlier rule is made from: other ones than quality is measured on."""


@dataclass(frozen=True, eq=False)
class DetectKeypoints(RoundLabels):
    """Generic keypoints of the images that the warm-up trains on."""

    described: bool
    """Whether the detector's descriptors are kept, for clustering."""

    @property
    def path(self) -> str:
        return "keypoints"

    @property
    def step(self) -> Step:
        context = self.context
        keypoints = as_recorded("keypoints", asdict(context.config.keypoints))
        reads = {**context.common_reads(), "keypoints": keypoints, **context.drawn_reads(0)}
        return context.run.step(self.path, "keypoints", reads, {"dataset": context.dataset.fingerprint})

    @property
    def cost(self) -> float:
        return self.context.image_count(0) * DETECTION_COST

    def run(self, executor: Executor) -> None:
        config = self.context.config
        executor.begin(self, f"generic keypoints ({config.keypoints.detector})")
        gpus = config.compute.gpus_per_worker if config.keypoints.detector in LEARNED else 0.0
        facts = detect(
            self.context.images,
            self.context.dataset.landmarks(TRAIN),
            self.folder,
            self.context.selection(0),
            config.keypoints,
            config.seed,
            Pool(config.compute.detect_workers or os.cpu_count() or 1, gpus=gpus),
            executor.progress.advance,
            described=self.described,
        )
        least = config.limits.min_points_per_image
        if facts["points_per_image"] < least:
            raise CollapseError(
                f"{facts['points_per_image']:.2f} generic keypoints an image, fewer than limits.min_points_per_image = "
                f"{least}; look at keypoints.detector, keypoints.limit and keypoints.outlier_share"
            )
        executor.finish(self, facts, {"keypoints_per_image": facts["points_per_image"]}, 0)

    def round_labels(self, parts: list[str]) -> Labels:
        """Return labels by which a keypoint corresponds to itself in another view (thesis 6.1.5)."""
        return keypoint_labels(self.folder.read_tables(parts, ["xy"]))


@dataclass(frozen=True)
class OutlierRule:
    """A sample of the category's descriptors float32 (N, d), and the distance to it above which a keypoint is an outlier."""

    sample: NDArray[np.float32]
    limit: float

    def to_bytes(self) -> bytes:
        """Return the rule as the content of an npz file."""
        buffer = io.BytesIO()
        np.savez(buffer, sample=self.sample, limit=self.limit)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> OutlierRule:
        """Return the rule of `to_bytes`."""
        with np.load(io.BytesIO(content)) as arrays:
            return cls(arrays["sample"], float(arrays["limit"]))


def detect(
    images: Folder,
    landmarks: Folder,
    target: Folder,
    selection: Selection,
    config: KeypointsConfig,
    seed: int,
    pool: Pool,
    progress: ProgressCallback = ignore_progress,
    *,
    described: bool = False,
) -> dict[str, Any]:
    """Write the keypoints (schemas.KEYPOINTS) of the selected images. Return facts for the manifest.

    Args:
        images: the split's images.
        landmarks: the split's annotation, which `keypoints.detector: noisy_gt` alone reads.
        target: where the keypoints are written.
        selection: the images to look at.
        config: the detector and its options.
        seed: of the sample for the outlier rule.
        pool: the workers.
        progress: called as parts are done.
        described: write features (schemas.features_schema) instead: keypoints with their descriptors.
    """
    build_source(config, landmarks, seed)  # raises here, in one line, rather than in a worker
    find = _Find(images, landmarks, config, seed)
    rule = _outlier_rule(find, selection, seed, pool)
    if rule:
        target.write_bytes(_RULE, rule.to_bytes())
    answers = map_parts(DetectPart, {"find": find, "target": target, "described": described}, selection, pool, progress)
    total = {key: sum(int(answer[key]) for answer in answers) for key in ("images", "found", "kept", "empty")}
    return {
        "images": total["images"],
        "images_without_keypoints": total["empty"],
        "found_per_image": total["found"] / max(total["images"], 1),
        "points_per_image": total["kept"] / max(total["images"], 1),
    }


class DetectPart:
    """A worker that detects the keypoints of a part."""

    def __init__(self, find: _Find, target: Folder, described: bool) -> None:
        faiss.omp_set_num_threads(1)
        self._find, self._target, self._described = find, target, described
        rule = OutlierRule.from_bytes(target.read_bytes(_RULE)) if target.is_file(_RULE) else None
        self._outlier_score = KNNOutlierScore(rule.sample) if rule else None
        self._limit = rule.limit if rule else np.inf

    def __call__(self, part: str, rows: NDArray[np.int64]) -> dict[str, int]:
        if self._target.is_file(part):
            kept = self._target.read_table(part, ["score"])["score"].combine_chunks().value_lengths().to_numpy()
            return {
                "images": len(kept),
                "found": int(kept.sum()),
                "kept": int(kept.sum()),
                "empty": int((kept < 2).sum()),
            }
        image_id, points, kept = self.find(part, rows)
        counts = np.array([len(k.xy) for k in kept], np.int64)
        xy, score = np.concatenate([k.xy for k in kept]), np.concatenate([k.score for k in kept])
        if self._described:
            descriptors = self._descriptors(kept)
            sizes = crop_sizes(self._find.images.read_table(part, ["width", "height"]).take(rows))
            table = features_table(image_id.to_pylist(), sizes, counts, xy, score, descriptors, descriptors)
        else:
            table = keypoints_table(image_id, counts, xy, score)
        self._target.write_table(part, table)
        found = sum(len(k.xy) for k in points)
        return {"images": len(kept), "found": found, "kept": int(counts.sum()), "empty": int((counts < 2).sum())}

    def find(self, part: str, rows: NDArray[np.int64]) -> tuple[pa.ChunkedArray, list[Keypoints], list[Keypoints]]:
        """Return the ids of rows of a part, their keypoints, and their keypoints without outliers."""
        image_id, points = self._find(part, rows)
        return image_id, points, [self._without_outliers(keypoints) for keypoints in points]

    def _descriptors(self, kept: list[Keypoints]) -> NDArray[np.float16]:
        """Return the descriptors of all keypoints. Generic detectors have none of the mirror image, and none is used."""
        found = [k.descriptors for k in kept if k.descriptors is not None]
        assert len(found) == len(kept), f"{self._find.config.detector} has no descriptors"
        return np.concatenate(found).astype(np.float16)

    def _without_outliers(self, keypoints: Keypoints) -> Keypoints:
        if self._outlier_score is None or keypoints.descriptors is None:
            return keypoints
        keep = self._outlier_score.distance(keypoints.descriptors) <= self._limit
        return keypoints.select(keep)


def keypoint_finder(
    images: Folder, landmarks: Folder, detected: Folder, config: KeypointsConfig, seed: int
) -> Callable[[str, NDArray[np.int64]], list[NDArray[np.float32]]]:
    """Return a function that detects the keypoints of rows of a part, xy float32 (P, 2) each, as a run did.

    It works in this process, on one thread, without Ray.

    Args:
        images: of any split of the run's dataset.
        landmarks: the split's annotation.
        detected: the run's keypoints, with its outlier rule.
        config: the run's detector.
        seed: the run's.
    """
    build_source(config, landmarks, seed)
    worker = DetectPart(_Find(images, landmarks, config, seed), detected, described=False)
    return lambda part, rows: [keypoints.xy for keypoints in worker.find(part, rows)[2]]


@dataclass
class _Find:
    """Runs the configured source of keypoints. Workers build it on first use; it is not pickled."""

    images: Folder
    landmarks: Folder
    config: KeypointsConfig
    seed: int
    _source: KeypointSource | None = None

    def __call__(self, part: str, rows: NDArray[np.int64]) -> tuple[pa.ChunkedArray, list[Keypoints]]:
        """Return the ids and the keypoints of rows of a part."""
        if self._source is None:
            cv2.setNumThreads(1)
            torch.set_num_threads(1)
            self._source = build_source(self.config, self.landmarks, self.seed)
        table = self.images.read_table(part, list(self._source.columns)).take(pa.array(rows)).combine_chunks()
        return table["image_id"], self._source(part, table, rows)


def _outlier_rule(find: _Find, selection: Selection, seed: int, pool: Pool) -> OutlierRule | None:
    """Make the rule from a seeded, bounded sample of images; None if no outliers are wanted or there are no descriptors."""
    config = find.config
    if config.outlier_share == 0:
        return None
    sample = selection.sample(max(1, config.outlier_sample // config.limit), (seed, _SAMPLE), SAMPLE_PARTS)
    calls = [(find, part, rows) for part, rows in zip(sample.parts, sample.rows, strict=True)]
    pieces = dict(run_tasks(_sample_descriptors, calls, at_most=len(calls), cpus=pool.cpus, gpus=pool.gpus))
    found = [pieces[number] for number in range(len(calls)) if len(pieces[number])]
    if not found:
        return None
    descriptors = np.concatenate(found)
    distance = KNNOutlierScore(descriptors).distance(descriptors)
    return OutlierRule(descriptors, float(np.quantile(distance, 1 - config.outlier_share)))


def _sample_descriptors(find: _Find, part: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    _, points = find(part, rows)
    found = [keypoints.descriptors for keypoints in points if keypoints.descriptors is not None]
    return np.concatenate(found) if found else np.zeros((0, 0), np.float32)
