"""The first step: generic keypoints of the training images, outliers removed (thesis 6.3.4, docs/method.md 2)."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import faiss
import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from ray_kplm.config import KeypointsConfig
from ray_kplm.correspondence.features import features_table, keypoints_table
from ray_kplm.correspondence.outliers import KNNOutlierScore
from ray_kplm.datasets.round_sampling import SAMPLE_PARTS, Selection
from ray_kplm.imaging.crops import crop_sizes
from ray_kplm.keypoints import build_source
from ray_kplm.keypoints.source import Keypoints, KeypointSource
from ray_kplm.progress import ProgressCallback, ignore_progress
from ray_kplm.runtime.map_parts import Pool, map_parts
from ray_kplm.runtime.tasks import run_tasks
from ray_kplm.storage import Folder

_RULE = "outliers.npz"
_SAMPLE = 37
"""Of the seed of the images that the outlier rule is made from: other ones than quality is measured on."""


@dataclass(frozen=True)
class OutlierRule:
    """A sample of the category's descriptors float32 (N, d), and the distance above which a keypoint is unlike all others."""

    sample: NDArray[np.float32]
    limit: float

    def packed(self) -> bytes:
        buffer = io.BytesIO()
        np.savez(buffer, sample=self.sample, limit=self.limit)
        return buffer.getvalue()

    @classmethod
    def unpacked(cls, content: bytes) -> OutlierRule:
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
    """Write the keypoints (schemas.KEYPOINTS) of the selected images; returns what was found.

    landmarks: the split's annotation, for `keypoints.detector: noisy_gt` alone. described: write features, which are keypoints
    with their descriptors, which the source must have.
    """
    build_source(config, landmarks, seed)  # what is missing is said here, in one line, and not by a worker
    find = _Find(images, landmarks, config, seed)
    rule = _outlier_rule(find, selection, seed, pool)
    if rule:
        target.write_bytes(_RULE, rule.packed())
    answers = map_parts(DetectPart, {"find": find, "target": target, "described": described}, selection, pool, progress)
    total = {key: sum(int(answer[key]) for answer in answers) for key in ("images", "found", "kept", "empty")}
    return {
        "images": total["images"],
        "images_without_keypoints": total["empty"],
        "found_per_image": total["found"] / max(total["images"], 1),
        "points_per_image": total["kept"] / max(total["images"], 1),
    }


class DetectPart:
    """Keypoints of one part."""

    def __init__(self, find: _Find, target: Folder, described: bool) -> None:
        faiss.omp_set_num_threads(1)
        self._find, self._target, self._described = find, target, described
        rule = OutlierRule.unpacked(target.read_bytes(_RULE)) if target.is_file(_RULE) else None
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
        """Return the ids of some rows of a part, their keypoints, and those of them that are no outliers."""
        image_id, points = self._find(part, rows)
        return image_id, points, [self._without_outliers(keypoints) for keypoints in points]

    def _descriptors(self, kept: list[Keypoints]) -> NDArray[np.float16]:
        """Of all points in a row. Those of mirror images are not known, and not used where these are."""
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
    """Return what finds the keypoints of rows of a part, xy float32 (P, 2) of each, as the run whose `detected` this is began.

    images, landmarks: of any split of its dataset. In this process, on one thread, without Ray.
    """
    build_source(config, landmarks, seed)
    worker = DetectPart(_Find(images, landmarks, config, seed), detected, described=False)
    return lambda part, rows: [keypoints.xy for keypoints in worker.find(part, rows)[2]]


@dataclass
class _Find:
    """Runs the configured source where it is needed: it is built on first use, not sent."""

    images: Folder
    landmarks: Folder
    config: KeypointsConfig
    seed: int
    _source: KeypointSource | None = None

    def __call__(self, part: str, rows: NDArray[np.int64]) -> tuple[pa.ChunkedArray, list[Keypoints]]:
        """Ids and keypoints of some rows of a part."""
        if self._source is None:
            cv2.setNumThreads(1)
            torch.set_num_threads(1)
            self._source = build_source(self.config, self.landmarks, self.seed)
        table = self.images.read_table(part, list(self._source.columns)).take(pa.array(rows)).combine_chunks()
        return table["image_id"], self._source(part, table, rows)


def _outlier_rule(find: _Find, selection: Selection, seed: int, pool: Pool) -> OutlierRule | None:
    """From the descriptors of a seeded, bounded sample of images; None if no keypoint is to go, or there are no descriptors."""
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


def _sample_descriptors(find: _Find, part: str, rows: NDArray) -> NDArray[np.float32]:
    _, points = find(part, rows)
    found = [keypoints.descriptors for keypoints in points if keypoints.descriptors is not None]
    return np.concatenate(found) if found else np.zeros((0, 0), np.float32)
