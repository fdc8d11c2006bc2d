"""The pseudo-label update, seen from its coordinator (METHOD 3, steps 2 to 4; thesis 6.1.3).

Cluster to K and drop duplicates, so that an image keeps at most K keypoints; cluster what is left to M and drop duplicates
again. The K clusters are the round's landmarks, the M clusters are what the next round trains on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ray_kplm.config import Config
from ray_kplm.correspondence import flip, kmeans
from ray_kplm.correspondence.shard import Filtered, Labelled
from ray_kplm.errors import CollapseError
from ray_kplm.storage import Folder


class Shards(Protocol):
    """All shards of a round, wherever they are."""

    def ask(self, method: str, *arguments: Any) -> list[Any]:
        """Call a method of `DescriptorShard` on every shard, at the same time; answers in the shards' order."""
        ...


@dataclass(frozen=True)
class Update:
    """What an update found.

    landmark_centroids float32 (K, d), cluster_centroids float32 (M, d), flip_map int16 (K,). Objectives per iteration.
    """

    landmark_centroids: NDArray[np.float32]
    cluster_centroids: NDArray[np.float32]
    flip_map: NDArray[np.int16]
    landmark_objectives: list[float]
    cluster_objectives: list[float]
    filtered: Filtered
    labelled: Labelled

    def facts(self) -> dict[str, Any]:
        """Numbers for the manifest, the log and MLflow."""
        images = max(self.filtered.images, 1)
        return {
            "images": self.filtered.images,
            "usable_images": self.labelled.usable_images,
            "detected_per_image": self.filtered.detected / images,
            "points_per_image": self.filtered.kept / images,
            "training_points_per_image": self.labelled.trained / images,
            "detection_rate": (self.labelled.landmark_counts / images).round(4).tolist(),
            "flip_map": self.flip_map.tolist(),
            "flip_map_argmax": flip.flip_map(self.filtered.flip_counts).tolist(),
            "landmark_objective": self.landmark_objectives[-1],
            "cluster_objective": self.cluster_objectives[-1],
            "landmark_iterations": len(self.landmark_objectives) - 1,
            "cluster_iterations": len(self.cluster_objectives) - 1,
        }


def update(shards: Shards, labels: Folder, config: Config, round_number: int, log: Callable[[str], None]) -> Update:
    """Run the whole update on the shards; parts of labels appear in `labels`.

    Raises CollapseError when too little is left to learn from.
    """
    landmarks, clusters = config.method.landmarks, config.method.clusters
    log(f"clustering to K = {landmarks}")
    first = _fit(shards, landmarks, config, (config.seed, round_number, 0))
    filtered = reduce(add, shards.ask("filter_landmarks", first.centroids))
    _check_points(filtered, config)
    log(f"clustering to M = {clusters}")
    second = _fit(shards, clusters, config, (config.seed, round_number, 1))
    labelled = reduce(add, shards.ask("label", second.centroids, landmarks, labels))
    _check_images(filtered, labelled, config)
    match config.method.flip_map:
        case "pairs":
            partner = flip.mirror_pairs(filtered.flip_counts)
        case "argmax":
            partner = flip.flip_map(filtered.flip_counts)
    return Update(first.centroids, second.centroids, partner, first.objectives, second.objectives, filtered, labelled)


def _fit(shards: Shards, k: int, config: Config, seed: tuple[int, ...]) -> kmeans.Clustering:
    """K-means of all descriptors still in, or of a seeded share of them."""
    options = config.clustering
    points = sum(shards.ask("count"))
    if points < k:
        raise CollapseError(
            f"{points} descriptors for {k} clusters: need at least as many; look at detection.points_per_landmark "
            f"and stage1.warmup_iterations, or lower method.clusters"
        )
    share = min(1.0, options.fit_points / points) if options.fit_points else 1.0
    parts = [piece for answer in shards.ask("sample", min(1.0, options.start_sample / points)) for piece in answer]
    sample = np.concatenate([points for _, points in sorted(parts, key=lambda piece: piece[0])])
    rng = np.random.default_rng(seed)
    starts = (kmeans.plus_plus(sample, k, rng) for _ in range(options.redos))
    return kmeans.fit(
        lambda centroids: reduce(add, shards.ask("partial", centroids, share)),
        starts,
        iterations=options.iterations,
        tolerance=options.tolerance,
    )


def _check_points(filtered: Filtered, config: Config) -> None:
    points = filtered.kept / max(filtered.images, 1)
    least = config.limits.min_points_per_image
    if points < least:
        raise CollapseError(
            f"{points:.2f} points an image are left, fewer than limits.min_points_per_image = {least}: the detector found "
            f"too little; look at detection.threshold, detection.points_per_landmark and stage1.learning_rate"
        )


def _check_images(filtered: Filtered, labelled: Labelled, config: Config) -> None:
    share = labelled.usable_images / max(filtered.images, 1)
    least = config.limits.min_image_share
    if share < least:
        raise CollapseError(
            f"{labelled.usable_images} of {filtered.images} images have two points or more, a share of {share:.3f} where "
            f"limits.min_image_share = {least}; look at detection.points_per_landmark and stage1.warmup_iterations"
        )
