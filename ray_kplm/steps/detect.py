"""Detection of generic keypoints in the training images, outliers removed (thesis 6.3.4, docs/method.md 2)."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_kplm.config import Config, KeypointsConfig
from ray_kplm.config_names import as_recorded
from ray_kplm.correspondence import features
from ray_kplm.correspondence.background import Background, find_background
from ray_kplm.correspondence.faiss_import import faiss
from ray_kplm.correspondence.features import features_table, keypoints_table
from ray_kplm.correspondence.outliers import KNNOutlierScore
from ray_kplm.datasets.round_sampling import Selection
from ray_kplm.errors import CollapseError
from ray_kplm.imaging import coordinates
from ray_kplm.keypoints import LEARNED, build_source
from ray_kplm.keypoints.file import FileSource
from ray_kplm.keypoints.source import Keypoints
from ray_kplm.methods.labels import Labels, keypoint_labels
from ray_kplm.progress import ProgressCallback, ignore_progress
from ray_kplm.run import Step
from ray_kplm.runtime.map_parts import Pool, map_parts
from ray_kplm.schemas import TRAIN
from ray_kplm.steps.context import RunContext
from ray_kplm.steps.keypoint_sample import FindKeypoints, OutlierRule, outlier_rule, sample_keypoints
from ray_kplm.steps.task import DETECTION_COST, RoundLabels
from ray_kplm.storage import Folder

if TYPE_CHECKING:
    from ray_kplm.steps.executor import Executor

_PATH = "keypoints"
_RULE = "outliers.npz"
_BACKGROUND = "background.npz"


@dataclass(frozen=True, eq=False)
class DetectKeypoints(RoundLabels):
    """Generic keypoints of the images that the warm-up trains on."""

    described: bool
    """Whether the detector's descriptors are kept, for clustering."""

    @property
    def path(self) -> str:
        return _PATH

    @property
    def step(self) -> Step:
        context = self.context
        keypoints = as_recorded("keypoints", asdict(context.config.keypoints))
        reads = {**context.common_reads(), "keypoints": keypoints, **context.drawn_reads(0)}
        if context.config.method.drop_static == "auto":
            reads["drop_static"] = "auto"
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
            drop_background=config.method.drop_static == "auto",
        )
        check_enough(facts, config)
        text = "; ".join(filter(None, (facts.get("matched", ""), _background_text(facts))))
        executor.finish(self, facts, {"keypoints_per_image": facts["points_per_image"]}, 0, text)

    def round_labels(self, parts: list[str]) -> Labels:
        """Return labels by which a keypoint corresponds to itself in another view (thesis 6.1.5)."""
        return keypoint_labels(self.folder.read_tables(parts, ["xy"]))


def check_enough(facts: dict[str, Any], config: Config) -> None:
    """Raise CollapseError if images have too few generic keypoints to train on, with their number.

    Args:
        facts: From `detect`.
        config: The run's, with the numbers of landmarks and clusters.
    """
    images, blank = facts["images"], facts["images_without_keypoints"]
    points, limits = round(facts["points_per_image"] * images), config.limits
    faults = {
        f"fewer an image than limits.min_points_per_image = {limits.min_points_per_image:g}": (
            facts["points_per_image"] < limits.min_points_per_image
        ),
        f"too few images with two or more for limits.min_image_share = {limits.min_image_share:g}": (
            images - blank < limits.min_image_share * images
        ),
        f"fewer than method.clusters = {config.method.clusters}": (
            config.method.kind != "template" and points < config.method.clusters
        ),
    }
    fault = next((text for text, holds in faults.items() if holds), None)
    if fault is not None:
        own = config.keypoints.detector == "file"
        remedy = "keypoints.file" if own else "keypoints.detector, keypoints.limit and keypoints.outlier_share"
        raise CollapseError(
            f"{points} generic keypoints in {images} images, of which {blank} show fewer than two: {fault}; look at the "
            f"pictures, at {remedy}, use more images, or lower method.clusters"
        )


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
    drop_background: bool = False,
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
        drop_background: leave out keypoints of the static background.
    """
    source = build_source(config, landmarks, seed)  # raises here, in one line, rather than in a worker
    matched = {}
    if isinstance(source, FileSource):
        tables = images.read_tables(images.parts(), ["image_id"])
        matched = {"matched": source.match(image_id for table in tables for image_id in table["image_id"].to_pylist())}
    find = FindKeypoints(images, landmarks, config, seed)
    sample = sample_keypoints(find, selection, seed, pool) if config.outlier_share or drop_background else None
    background = None
    if drop_background and sample and (background := find_background(*sample)):
        target.write_bytes(_BACKGROUND, background.to_bytes())
        sample = sample.select(~background.shows(sample.xy, sample.descriptors))
    if config.outlier_share and sample:
        target.write_bytes(_RULE, outlier_rule(sample.descriptors, config.outlier_share).to_bytes())
    answers = map_parts(DetectPart, {"find": find, "target": target, "described": described}, selection, pool, progress)
    total = {key: sum(int(answer[key]) for answer in answers) for key in ("images", "found", "kept", "empty", "shown")}
    return {
        "images": total["images"],
        "background_per_image": total["shown"] / max(total["images"], 1),
        "background_places": [] if background is None else background.places().round(3).tolist(),
        "images_without_keypoints": total["empty"],
        "found_per_image": total["found"] / max(total["images"], 1),
        "points_per_image": total["kept"] / max(total["images"], 1),
        **matched,
    }


class DetectPart:
    """A worker that detects the keypoints of a part."""

    def __init__(self, find: FindKeypoints, target: Folder, described: bool) -> None:
        faiss.omp_set_num_threads(1)
        self._find, self._target, self._described = find, target, described
        rule = _read_rule(target)
        self._background = _read_background(target)
        self._outlier_score = KNNOutlierScore(rule.sample) if rule else None
        self._limit = rule.limit if rule else np.inf

    def __call__(self, part: str, rows: NDArray[np.int64]) -> dict[str, int]:
        if (stored := self._stored(part)) is not None:
            return {
                "images": len(stored),
                "found": int(stored.sum()),
                "kept": int(stored.sum()),
                "empty": int((stored < 2).sum()),
                "shown": 0,
            }
        image_id, points, moving, kept = self._find_kept(part, rows)
        counts = np.array([len(k.xy) for k in kept], np.int64)
        xy, score = np.concatenate([k.xy for k in kept]), np.concatenate([k.score for k in kept])
        if self._described:
            descriptors = self._descriptors(kept)
            sizes = self._find.sizes(part, rows)
            table = features_table(image_id.to_pylist(), sizes, counts, xy, score, descriptors, descriptors)
            features.write_features(self._target, part, table)
        else:
            self._target.write_table(part, keypoints_table(image_id, counts, xy, score))
        found, left = (sum(len(k.xy) for k in which) for which in (points, moving))
        return {
            "images": len(kept),
            "found": found,
            "kept": int(counts.sum()),
            "empty": int((counts < 2).sum()),
            "shown": found - left,
        }

    def _stored(self, part: str) -> NDArray[np.int64] | None:
        """Return the number of keypoints of each image of a part that is on storage; None if it is not."""
        if self._described:
            return features.read_counts(self._target, part).counts if features.is_whole(self._target, part) else None
        if not self._target.is_whole(part):
            return None
        lengths = self._target.read_table(part, ["score"])["score"].combine_chunks().value_lengths()
        return np.asarray(lengths.to_numpy(), np.int64)

    def find(self, part: str, rows: NDArray[np.int64]) -> list[Keypoints]:
        """Return the keypoints of rows of a part, without background and outliers."""
        return self._find_kept(part, rows)[-1]

    def _find_kept(
        self, part: str, rows: NDArray[np.int64]
    ) -> tuple[pa.ChunkedArray, list[Keypoints], list[Keypoints], list[Keypoints]]:
        """Return the ids of rows of a part, their keypoints, these without background, and these without outliers."""
        image_id, points = self._find(part, rows)
        moving = points
        if self._background is not None:
            sizes = self._find.sizes(part, rows)
            moving = [self._without_background(k, size) for k, size in zip(points, sizes, strict=True)]
        return image_id, points, moving, [self._without_outliers(keypoints) for keypoints in moving]

    def _descriptors(self, kept: list[Keypoints]) -> NDArray[np.float16]:
        """Return the descriptors of all keypoints. Generic detectors have none of the mirror image, and none is used."""
        found = [k.descriptors for k in kept if k.descriptors is not None]
        assert len(found) == len(kept), f"{self._find.config.detector} has no descriptors"
        return np.concatenate(found).astype(np.float16)

    def _without_background(self, keypoints: Keypoints, size: NDArray[np.int32]) -> Keypoints:
        if self._background is None or keypoints.descriptors is None:
            return keypoints
        shown = self._background.shows(coordinates.in_square(keypoints.xy, size), keypoints.descriptors)
        return keypoints.select(~shown)

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
    worker = DetectPart(FindKeypoints(images, landmarks, config, seed), detected, described=False)
    return lambda part, rows: [keypoints.xy for keypoints in worker.find(part, rows)]


def read_background(context: RunContext) -> Background | None:
    """Return the static background that a run's generic keypoints showed; None if there is none."""
    return _read_background(context.run.unit(_PATH))


def _read_background(keypoints: Folder) -> Background | None:
    if not keypoints.is_file(_BACKGROUND):
        return None
    with keypoints.parsing(_BACKGROUND):
        return Background.from_bytes(keypoints.read_bytes(_BACKGROUND))


def _read_rule(keypoints: Folder) -> OutlierRule | None:
    if not keypoints.is_file(_RULE):
        return None
    with keypoints.parsing(_RULE):
        return OutlierRule.from_bytes(keypoints.read_bytes(_RULE))


def _background_text(facts: dict[str, Any]) -> str:
    """Return what was left out as background in one line; empty if nothing was."""
    places = facts["background_places"]
    if not places:
        return ""
    return (
        f"{facts['background_per_image']:.1f} of {facts['found_per_image']:.1f} keypoints an image are left out: they show "
        f"the same background at {len(places)} places of the input; method.drop_static=no keeps them"
    )
