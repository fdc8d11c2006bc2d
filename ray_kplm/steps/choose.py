"""Choose the numbers of landmarks, K, and of training clusters, M, from the images: `kplm choose`, and `auto` in a run.

<run>/choice/keypoints/part-00000.parquet    generic keypoints of a seeded sample of the training images
<run>/choice/manifest.json                   K, M and the evidence

The numbers belong to the configuration that the steps of a run read, so they are chosen before its page is recorded.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ray_kplm.config import AUTO, Config
from ray_kplm.config_names import as_recorded
from ray_kplm.correspondence.stability import (
    Evidence,
    SplitMeasures,
    candidates,
    choose_clusters,
    choose_landmarks,
    measure_split,
    principal_components,
)
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.datasets.round_sampling import SAMPLE_PARTS, Selection, full_selection
from ray_kplm.errors import CollapseError
from ray_kplm.imaging.crops import crop_sizes, decode_crop
from ray_kplm.keypoints import LEARNED
from ray_kplm.keypoints.patches import PATCH_DIM, describe_patches
from ray_kplm.progress import ProgressCallback, ignore_progress, part_of
from ray_kplm.run import Run, Step
from ray_kplm.runtime.map_parts import Pool
from ray_kplm.runtime.tasks import Shared, cluster_cpus, run_tasks
from ray_kplm.schemas import TRAIN
from ray_kplm.steps.detect import detect
from ray_kplm.storage import Folder

LANDMARKS = "method.landmarks"
"""Path of K. Where a sweep or an ablation varies it, each run chooses an M for its own K."""
CHOICE = "choice"
"""The step's folder in a run."""
IMAGES = 600
"""Largest number of images that are looked at."""
SPLITS = 10
"""Number of random splits of the images into halves."""
_SAMPLE = 53
"""Of the seed of the sample."""
_DETECTION_SHARE = 0.4
"""Share of the time that the keypoints take, for the progress."""


def has_auto(config: Config) -> bool:
    """Return whether K or M is to be chosen."""
    return AUTO in (config.method.landmarks, config.method.clusters)


def choice_step(run: Run, dataset: Dataset) -> Step:
    """Return the step that chooses for a run, whose configuration has `auto`."""
    config = run.config
    reads = {
        "seed": config.seed,
        "method": {"landmarks": config.method.landmarks, "clusters": config.method.clusters},
        "keypoints": as_recorded("keypoints", asdict(config.keypoints)),
        "round_images": config.round_images,
    }
    return run.step(CHOICE, "choose", reads, {"dataset": dataset.fingerprint})


def resolve(run: Run, dataset: Dataset, progress: ProgressCallback = ignore_progress) -> Config:
    """Return the run's configuration with numbers in place of `auto`, which are chosen once for a run.

    Raises:
        RunError: the numbers were chosen under another configuration.
        CollapseError: the images have too few keypoints.
    """
    if not has_auto(run.config):
        return run.config
    step = choice_step(run, dataset)
    return resolved(run.config, step.manifest() or choose(step, dataset, run.config, progress))


def resolved(config: Config, choice: Mapping[str, Any]) -> Config:
    """Return a configuration with the numbers of a choice, the content of its manifest."""
    landmarks, clusters = int(choice["landmarks"]), int(choice["clusters"])
    return replace(config, method=replace(config.method, landmarks=landmarks, clusters=clusters))


def choose(
    step: Step, dataset: Dataset, config: Config, progress: ProgressCallback = ignore_progress
) -> dict[str, Any]:
    """Choose the numbers that are `auto` in the configuration, and publish them with their evidence.

    Time and memory do not grow with the data set: `IMAGES` images at most are looked at. Needs a Ray session.

    Args:
        step: where the choice is published.
        dataset: its training images are looked at.
        config: the detector of the generic keypoints, and the numbers that are given.
        progress: called as the work goes on.

    Returns:
        The manifest: `landmarks`, `clusters`, `images`, `points_per_image`, and, if K was chosen, `range` (of K, over other
        splits), `doubts` and `rows`, a dictionary for each K that was compared.
    """
    step.begin()
    whole = full_selection(dataset.parts(TRAIN), dataset.rows(TRAIN))
    sample = whole.sample(IMAGES, (config.seed, _SAMPLE), SAMPLE_PARTS)
    folder = step.folder / "keypoints"
    pool = Pool(
        config.compute.detect_workers or os.cpu_count() or 1,
        gpus=config.compute.gpus_per_worker if config.keypoints.detector in LEARNED else 0.0,
    )
    show = part_of(progress, 0.0, _DETECTION_SHARE)
    images, annotation = dataset.images(TRAIN), dataset.landmarks(TRAIN)
    found = detect(images, annotation, folder, sample, config.keypoints, config.seed, pool, show)
    per_image = float(found["points_per_image"])
    if per_image < config.limits.min_points_per_image:
        raise CollapseError(
            f"{per_image:.2f} generic keypoints an image, too few to choose a number of landmarks; look at "
            "keypoints.detector, keypoints.limit and keypoints.outlier_share"
        )
    facts: dict[str, Any] = {"images": sample.images, "points_per_image": per_image}
    landmarks = config.method.landmarks
    if landmarks == AUTO:
        most = config.method.clusters if config.method.clusters != AUTO else config.keypoints.limit
        show = part_of(progress, _DETECTION_SHARE, 1.0)
        evidence = measure(images, folder, sample, candidates(per_image, most), config.seed, show)
        choice = choose_landmarks(evidence, config.seed)
        landmarks = choice.landmarks
        facts |= {"range": [choice.low, choice.high], "doubts": list(choice.doubts), "rows": rows(evidence)}
    clusters = config.method.clusters
    if clusters == AUTO:
        trained = min(config.round_images or dataset.count(TRAIN), dataset.count(TRAIN))
        clusters = choose_clusters(landmarks, trained, per_image)
    return step.finish(landmarks=landmarks, clusters=clusters, **facts)


def measure(
    images: Folder,
    keypoints: Folder,
    sample: Selection,
    landmarks: tuple[int, ...],
    seed: int,
    progress: ProgressCallback = ignore_progress,
) -> Evidence:
    """Return the measures of `SPLITS` splits of the images into halves, each by a task of its own.

    Args:
        images: the split's images.
        keypoints: the generic keypoints of the sample.
        sample: the images that are looked at.
        landmarks: the values of K to compare.
        seed: of the splits.
        progress: called after each split.
    """
    at_most = cluster_cpus()
    calls = [(images, keypoints, part, rows) for part, rows in zip(sample.parts, sample.rows, strict=True)]
    parts = dict(run_tasks(_describe_part, calls, at_most=at_most))
    descriptors = np.concatenate([parts[number][0] for number in range(len(calls))])
    counts = np.concatenate([parts[number][1] for number in range(len(calls))])
    points = Shared((principal_components(descriptors), np.repeat(np.arange(len(counts)), counts)))
    done: dict[int, SplitMeasures] = {}
    splits = [(points, landmarks, seed * SPLITS + number) for number in range(SPLITS)]
    for number, result in run_tasks(_measure_split, splits, at_most=at_most):
        done[number] = result
        progress(len(done) / SPLITS, f"{len(done)}/{SPLITS} splits of the images clustered")
    return Evidence.of_splits(landmarks, [done[number] for number in range(SPLITS)])


def rows(evidence: Evidence) -> list[dict[str, Any]]:
    """Return the evidence as rows, one for each K: means over the splits, and the standard error of the excess."""
    measures = (evidence.agreement, evidence.chance, evidence.excess, evidence.found)
    columns = [measure.mean(axis=0) for measure in measures]
    table = zip(evidence.landmarks, *columns, evidence.standard_error(), strict=True)
    names = ("landmarks", "agreement", "chance", "excess", "found", "standard_error")
    return [dict(zip(names, (int(k), *map(float, values)), strict=True)) for k, *values in table]


def _describe_part(
    images: Folder, keypoints: Folder, part: str, rows: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the descriptors (N, d) of the keypoints of rows of a part, and the number of each image."""
    cv2.setNumThreads(1)
    table = images.read_table(part, ["image", "width", "height", "box"]).take(rows)
    points = [np.array(xy, np.float32).reshape(-1, 2) for xy in keypoints.read_table(part, ["xy"])["xy"].to_pylist()]
    pieces = [np.zeros((0, PATCH_DIM), np.float32)]
    for encoded, size, box, xy in zip(table["image"], crop_sizes(table), table["box"].to_pylist(), points, strict=True):
        x0, y0, x1, y1 = box or (0, 0, *size.tolist())
        pieces.append(describe_patches(decode_crop(encoded), xy, max(x1 - x0, y1 - y0)))
    return np.concatenate(pieces), np.array([len(xy) for xy in points], np.int64)


def _measure_split(
    shared: Shared[tuple[NDArray[np.float16], NDArray[np.int64]]], landmarks: tuple[int, ...], seed: int
) -> SplitMeasures:
    """Return `measure_split` of shared points."""
    points, image = shared.get()
    return measure_split(points, image, landmarks, seed)
