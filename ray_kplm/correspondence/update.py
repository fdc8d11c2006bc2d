"""The pseudo-label update, seen from its coordinator (docs/method.md 3, steps 2 to 4; thesis 6.1.3).

Cluster to K and drop duplicates, so that an image keeps at most K keypoints; cluster what is left to M and drop duplicates
again. The K clusters are the round's landmarks, the M clusters are what the next round trains on.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ray_kplm.config import ClusteringConfig, Config
from ray_kplm.correspondence import flip, hungarian, kmeans
from ray_kplm.correspondence.shard import Contents, Filtered, Labelled
from ray_kplm.errors import CollapseError
from ray_kplm.progress import ProgressCallback, part_of
from ray_kplm.storage import Folder

_TRIAL_ITERATIONS = 10
"""Of K-means from one of several starts, on a sample: enough to on_iteration a good start from a bad one."""
_STATIC_FITS = 4
"""Fits to K at most, where keypoints that stand still are dropped after each but the last."""


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
    contents: Contents
    excluded: int
    filtered: Filtered
    labelled: Labelled

    def arrays(self) -> dict[str, NDArray]:
        """What `clusters.npz` keeps."""
        return {
            "landmark_centroids": self.landmark_centroids,
            "cluster_centroids": self.cluster_centroids,
            "flip_map": self.flip_map,
            "flip_counts": self.filtered.flip_counts,
            "landmark_objectives": np.array(self.landmark_objectives),
            "cluster_objectives": np.array(self.cluster_objectives),
        }

    def facts(self) -> dict[str, Any]:
        """Numbers for the manifest, the log and MLflow; position_spread in % of the input's side."""
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
) -> Update:
    """Run the whole update of chapter 6 on the shards; parts of labels appear in `labels`.

    previous: the last round's landmark centroids (K, d), whose numbers the new ones take over.

    Raises CollapseError when too little is left to learn from.
    """
    landmarks, clusters, options = config.method.landmarks, config.method.clusters, config.clustering
    contents = reduce(add, shards.ask("begin"))
    first, filtered, excluded = _landmarks(
        shards, config, round_number, fit_progress(part_of(progress, 0.0, 0.5), f"K = {landmarks}", options), previous
    )
    _check_points(filtered, config)
    second = fit(
        shards,
        clusters,
        config,
        (config.seed, round_number, 1),
        fit_progress(part_of(progress, 0.5, 1.0), f"M = {clusters}", options),
    )
    labelled = reduce(add, shards.ask("label", second.centroids, landmarks, labels))
    _check_images(filtered.images, labelled, config)
    match config.method.flip_map:
        case "pairs":
            partner = flip.mirror_pairs(filtered.flip_counts)
        case "argmax":
            partner = flip.flip_map(filtered.flip_counts)
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


def _landmarks(
    shards: Shards,
    config: Config,
    round_number: int,
    on_iteration: kmeans.IterationCallback,
    previous: NDArray[np.float32] | None,
) -> tuple[kmeans.Clustering, Filtered, int]:
    """Return the K clusters, what the duplicate filter left, and how many keypoints `drop_static` left out before: those that
    stand still. Raises CollapseError where all do."""
    excluded = 0
    for attempt in range(_STATIC_FITS):
        found = fit(shards, config.method.landmarks, config, (config.seed, round_number, 0), on_iteration)
        if previous is not None:
            found = found.reordered(hungarian.match_to_previous(previous, found.centroids))
        filtered = reduce(add, shards.ask("filter_landmarks", found.centroids))
        static = filtered.positions.static()
        if not config.method.drop_static or not static.any() or attempt == _STATIC_FITS - 1:
            break
        if static.all():
            raise CollapseError(
                f"all {len(static)} landmarks stand still, which method.drop_static = true leaves out: they are background, or "
                f"the images are aligned so that the object does not move; then set method.drop_static=false"
            )
        excluded += reduce(add, shards.ask("exclude", found.centroids, static))
    return found, filtered, excluded


@dataclass(frozen=True)
class MatchedUpdate:
    """What an update of chapter 5 found: centroids float32 (M, d), cut-off of each cluster (M,), objectives per iteration."""

    centroids: NDArray[np.float32]
    cutoff: NDArray[np.float64]
    objectives: list[float]
    contents: Contents
    labelled: Labelled

    def arrays(self) -> dict[str, NDArray]:
        """What `clusters.npz` keeps."""
        return {"centroids": self.centroids, "cutoff": self.cutoff, "objectives": np.array(self.objectives)}

    def facts(self) -> dict[str, Any]:
        """Numbers for the manifest, the log and MLflow."""
        images = max(self.contents.images, 1)
        return {
            "images": self.contents.images,
            "usable_images": self.labelled.usable_images,
            "unusable_keypoints": self.contents.unusable,
            "detected_per_image": self.contents.keypoints / images,
            "points_per_image": self.labelled.trained / images,
            "training_points_per_image": self.labelled.trained / images,
            "label_counts": self.labelled.landmark_counts.tolist(),
            "detection_rate": (self.labelled.landmark_counts / images).round(4).tolist(),
            "cluster_objective": self.objectives[-1],
            "cluster_iterations": len(self.objectives) - 1,
        }


def update_matched(
    shards: Shards,
    labels: Folder,
    config: Config,
    round_number: int,
    previous: NDArray[np.float32] | None,
    progress: ProgressCallback,
) -> MatchedUpdate:
    """Run the update of chapter 5 on the shards (docs/method.md 5): M clusters, from the last round's centroids where there
    are some; in each image the Hungarian assignment, without what lies beyond a cluster's mean + 1 standard deviation.

    The last round's points are among the features already: extraction describes new and old points together.
    """
    clusters = config.method.clusters
    contents = reduce(add, shards.ask("begin"))
    seed = (config.seed, round_number, 0)
    on_iteration = fit_progress(progress, f"M = {clusters}", config.clustering)
    found = fit(shards, clusters, config, seed, on_iteration, previous, mirrored=False)
    cutoff = reduce(add, shards.ask("spread", found.centroids)).cutoff()
    labelled = reduce(add, shards.ask("label_matches", found.centroids, cutoff, labels))
    _check_images(contents.images, labelled, config)
    return MatchedUpdate(found.centroids, cutoff, found.objectives, contents, labelled)


def fit_progress(progress: ProgressCallback, name: str, options: ClusteringConfig) -> kmeans.IterationCallback:
    """Return the callback that turns a fit's iterations into progress. Its start 0 is the fit of all points, those from 1 are
    trials on the sample, which are taken for half of the work."""

    def on_iteration(start: int, iteration: int, objective: float) -> None:
        if start:
            share = (start - 1 + iteration / _TRIAL_ITERATIONS) / options.n_init / 2
        else:
            share = (1 + iteration / options.iterations) / 2
        what = f"start {start}/{options.n_init}, " if start else ""
        text = f"clustering to {name}: {what}iteration {iteration}, objective {objective:.6g}"
        progress(share, text)

    return on_iteration


def fit(
    shards: Shards,
    k: int,
    config: Config,
    seed: tuple[int, ...],
    on_iteration: kmeans.IterationCallback,
    previous: NDArray[np.float32] | None = None,
    *,
    mirrored: bool = True,
) -> kmeans.Clustering:
    """K-means of all descriptors still in, or of a seeded share, from `previous` centroids or the best of several starts.

    mirrored: whether those of the mirror images are fitted too.
    """
    options = config.clustering
    points = _FitPoints(shards, options.fit_points, mirrored)
    if points.total.points < k:
        raise CollapseError(
            f"{points.total.points} descriptors for {k} clusters: need at least as many; look at detection.points_per_landmark "
            f"and stage1.warmup_iterations, or lower method.clusters"
        )
    if previous is None:
        previous = points.start(k, options, seed, on_iteration)
    return kmeans.fit(
        points,
        [previous],
        iterations=options.iterations,
        tolerance=options.tolerance,
        spherical=options.spherical,
        on_iteration=lambda start, iteration, objective: on_iteration(0, iteration, objective),
    )


class _FitPoints:
    """`kmeans.Points` on shards."""

    def __init__(self, shards: Shards, fit_points: int, mirrored: bool) -> None:
        """fit_points: how many descriptors to fit on, a seeded sample; 0: all."""
        self._shards = shards
        self.total = reduce(add, shards.ask("begin_fit", 1.0, mirrored))
        if fit_points and fit_points < self.total.points:
            self.total = reduce(add, shards.ask("begin_fit", fit_points / self.total.points, mirrored))

    def size(self) -> kmeans.Size:
        return self.total

    def partial(self, centroids: NDArray[np.float32]) -> kmeans.Partial:
        return reduce(add, self._shards.ask("partial", centroids))

    def start(
        self, k: int, options: ClusteringConfig, seed: tuple[int, ...], on_iteration: kmeans.IterationCallback
    ) -> NDArray[np.float32]:
        """The best of `n_init` fits of a seeded, bounded sample, each from its own k-means++ start.

        Which clusters are found is decided by the start, and a sample shows that as well as all points do.
        """
        share = min(1.0, max(options.start_sample, k) / self.total.points)
        pieces = [piece for answer in self._shards.ask("sample", share) for piece in answer]
        sample = np.concatenate([points for _, points in sorted(pieces, key=lambda piece: piece[0])])
        if len(sample) < k:  # a share of few points may be fewer than asked for
            more = replace(options, start_sample=2 * max(options.start_sample, k))
            return self.start(k, more, seed, on_iteration)
        rng = np.random.default_rng(seed)
        best = kmeans.fit(
            kmeans.InMemory(sample, threads=os.cpu_count() or 1),
            (kmeans.plus_plus(sample, k, rng) for _ in range(options.n_init)),
            iterations=min(_TRIAL_ITERATIONS, options.iterations),
            tolerance=options.tolerance,
            spherical=options.spherical,
            on_iteration=lambda start, iteration, objective: on_iteration(start + 1, iteration, objective),
        )
        return best.centroids


def _check_points(filtered: Filtered, config: Config) -> None:
    points = filtered.kept / max(filtered.images, 1)
    least = config.limits.min_points_per_image
    if points < least:
        raise CollapseError(
            f"{points:.2f} points an image are left, fewer than limits.min_points_per_image = {least}: the detector found "
            f"too little; look at detection.threshold, detection.points_per_landmark and stage1.learning_rate"
        )


def _check_images(images: int, labelled: Labelled, config: Config) -> None:
    share = labelled.usable_images / max(images, 1)
    least = config.limits.min_image_share
    if share < least:
        raise CollapseError(
            f"{labelled.usable_images} of {images} images have two points or more, a share of {share:.3f} where "
            f"limits.min_image_share = {least}; look at detection.points_per_landmark and stage1.warmup_iterations"
        )
