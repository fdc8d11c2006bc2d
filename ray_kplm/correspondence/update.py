"""Chapter 6's pseudo-label update, the coordinator's part (docs/method.md 3, steps 2 to 4; thesis 6.1.3).

Cluster to K and drop duplicates, so that an image keeps at most K keypoints; cluster what is left to M and drop duplicates
again. The K clusters are the round's landmarks, the M clusters are what the next round trains on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.config import Config
from ray_kplm.correspondence import flip, hungarian, kmeans
from ray_kplm.correspondence.background import Background
from ray_kplm.correspondence.shard_results import Contents, Filtered, Labelled
from ray_kplm.correspondence.sharded_kmeans import Shards, fit, fit_progress
from ray_kplm.correspondence.static import Positions
from ray_kplm.errors import CollapseError
from ray_kplm.progress import ProgressCallback, part_of
from ray_kplm.storage import Folder

_STATIC_FITS = 4
"""Most fits to K; static landmarks' keypoints are dropped after each fit but the last."""


@dataclass(frozen=True)
class Update:
    """The result of an update of chapter 6.

    Attributes:
        landmark_centroids: (K, d).
        cluster_centroids: (M, d).
        flip_map: (K,), the mirror partner of each landmark; NONE: none.
        landmark_objectives: Objective of the fit to K before each iteration, and at the end.
        cluster_objectives: The same of the fit to M.
        contents: Images and keypoints of the round.
        excluded: Keypoints of static landmarks that were dropped.
        filtered: Counts of the first duplicate filter.
        labelled: Counts of the labels.
    """

    landmark_centroids: NDArray[np.float32]
    cluster_centroids: NDArray[np.float32]
    flip_map: NDArray[np.int16]
    landmark_objectives: list[float]
    cluster_objectives: list[float]
    contents: Contents
    excluded: int
    filtered: Filtered
    labelled: Labelled

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays to store in `clusters.npz`."""
        return {
            "landmark_centroids": self.landmark_centroids,
            "cluster_centroids": self.cluster_centroids,
            "flip_map": self.flip_map,
            "flip_counts": self.filtered.flip_counts,
            "landmark_objectives": np.array(self.landmark_objectives),
            "cluster_objectives": np.array(self.cluster_objectives),
        }

    def facts(self) -> dict[str, Any]:
        """Return the numbers for the manifest, the log and MLflow; position_spread is in % of the input's side."""
        images = max(self.filtered.images, 1)
        return {
            "images": self.filtered.images,
            "usable_images": self.labelled.usable_images,
            "unusable_keypoints": self.contents.unusable,
            "static_landmarks": np.flatnonzero(self.filtered.positions.static()).tolist(),
            "static_keypoints": self.excluded,
            "position_spread": [
                None if np.isnan(share) else round(100 * share, 2)
                for share in self.filtered.positions.spread().tolist()
            ],
            "detected_per_image": self.filtered.detected / images,
            "points_per_image": self.filtered.kept / images,
            "training_points_per_image": self.labelled.trained / images,
            "label_counts": self.labelled.landmark_counts.tolist(),
            "detection_rate": (self.labelled.landmark_counts / images).round(4).tolist(),
            "flip_map": self.flip_map.tolist(),
            "flip_map_argmax": flip.flip_map(self.filtered.flip_counts).tolist(),
            "landmark_objective": self.landmark_objectives[-1],
            "cluster_objective": self.cluster_objectives[-1],
            "landmark_iterations": len(self.landmark_objectives) - 1,
            "cluster_iterations": len(self.cluster_objectives) - 1,
        }


def update(
    shards: Shards,
    labels: Folder,
    config: Config,
    round_number: int,
    progress: ProgressCallback,
    previous: NDArray[np.float32] | None = None,
    background: Background | None = None,
) -> Update:
    """Run the update of chapter 6 on the shards, which write the parts of labels.

    Args:
        shards: The shards of the round.
        labels: Folder of the labels.
        config: The run's configuration.
        round_number: Seeds K-means.
        progress: Called after each iteration of K-means.
        previous: Landmark centroids (K, d) of the last round. The new landmarks are put in the order that matches them best.
        background: The static background that the generic keypoints showed, for `method.drop_static: auto`.

    Raises:
        CollapseError: Too few points or usable images are left to learn from.
    """
    landmarks, clusters, options = config.method.landmarks, config.method.clusters, config.clustering
    contents: Contents = reduce(add, shards.ask("begin"))
    on_iteration = fit_progress(part_of(progress, 0.0, 0.5), f"K = {landmarks}", options)
    first, filtered, excluded = _fit_landmarks(shards, config, round_number, on_iteration, previous, background)
    _check_points(filtered, config)
    second = fit(
        shards,
        clusters,
        config,
        (config.seed, round_number, 1),
        fit_progress(part_of(progress, 0.5, 1.0), f"M = {clusters}", options),
        mirrored=config.method.mirror != "facing",
    )
    labelled: Labelled = reduce(add, shards.ask("label", second.centroids, landmarks, labels))
    check_usable_images(filtered.images, labelled, config)
    if config.method.mirror == "facing":
        partner = np.arange(landmarks, dtype=np.int16)  # a head is a head in the mirror
    else:
        partner = flip.mirror_pairs(filtered.flip_counts)
    return Update(
        first.centroids,
        second.centroids,
        partner,
        first.objectives,
        second.objectives,
        contents,
        excluded,
        filtered,
        labelled,
    )


def _fit_landmarks(
    shards: Shards,
    config: Config,
    round_number: int,
    on_iteration: kmeans.IterationCallback,
    previous: NDArray[np.float32] | None,
    background: Background | None,
) -> tuple[kmeans.Clustering, Filtered, int]:
    """Fit the K clusters and filter duplicates; drop the keypoints that `method.drop_static` leaves out and fit again.

    Returns:
        The clusters, the counts of the duplicate filter, and the number of static keypoints that were dropped.

    Raises:
        CollapseError: All landmarks are left out, or there are fewer descriptors than landmarks.
    """
    excluded = 0
    for attempt in range(_STATIC_FITS):
        seed, mirrored = (config.seed, round_number, 0), config.method.mirror != "facing"
        clustering = fit(shards, config.method.landmarks, config, seed, on_iteration, mirrored=mirrored)
        if previous is not None:
            clustering = clustering.reordered(hungarian.match_to_previous(previous, clustering.centroids))
        filtered: Filtered = reduce(add, shards.ask("filter_landmarks", clustering.centroids))
        unwanted = _left_out(filtered.positions, config, background)
        if not unwanted.any() or attempt == _STATIC_FITS - 1:
            break
        if unwanted.all():
            raise CollapseError(
                f"all {len(unwanted)} landmarks stand still in the images and method.drop_static={config.method.drop_static} "
                f"drops them: they are background, or the images are aligned so that the object does not move; then set "
                f"method.drop_static=no"
            )
        excluded += reduce(add, shards.ask("exclude", clustering.centroids, unwanted))
    return clustering, filtered, excluded


def _left_out(positions: Positions, config: Config, background: Background | None) -> NDArray[np.bool_]:
    """Return the landmarks that `method.drop_static` leaves out: (K,)."""
    static = positions.static()
    match config.method.drop_static:
        case "yes":
            return static
        case "auto" if background is not None:
            return static & background.is_near(positions.mean())
        case _:
            return np.zeros_like(static)


def _check_points(filtered: Filtered, config: Config) -> None:
    """Raise CollapseError if the duplicate filter left fewer points an image than `limits.min_points_per_image`."""
    points = filtered.kept / max(filtered.images, 1)
    least = config.limits.min_points_per_image
    if points < least:
        raise CollapseError(
            f"{points:.2f} points an image are left, fewer than limits.min_points_per_image = {least}: the detector found "
            f"too little; look at detection.threshold, detection.points_per_landmark and stage1.learning_rate"
        )


def check_usable_images(images: int, labelled: Labelled, config: Config) -> None:
    """Raise CollapseError if fewer images than `limits.min_image_share` have two labelled points or more."""
    share = labelled.usable_images / max(images, 1)
    least = config.limits.min_image_share
    if share < least:
        raise CollapseError(
            f"{labelled.usable_images} of {images} images have two points or more, a share of {share:.3f}, less than "
            f"limits.min_image_share = {least}; look at detection.points_per_landmark and stage1.warmup_iterations"
        )
