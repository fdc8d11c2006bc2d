"""Chapter 5's pseudo-label update, the coordinator's part (docs/method.md 5; thesis 5.2.1).

K-means to M clusters, then in each image the Hungarian assignment of keypoints to clusters. A cluster is both a landmark and
what the next round trains on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.config import Config
from ray_kplm.correspondence.hungarian import Spread
from ray_kplm.correspondence.shard_results import Contents, Labelled
from ray_kplm.correspondence.sharded_kmeans import Shards, fit, fit_progress
from ray_kplm.correspondence.update import check_usable_images
from ray_kplm.progress import ProgressCallback
from ray_kplm.storage import Folder


@dataclass(frozen=True)
class MatchedUpdate:
    """The result of an update of chapter 5.

    Attributes:
        centroids: (M, d).
        cutoff: (M,), the largest distance of each cluster's members to its centroid.
        objectives: Objective of K-means before each iteration, and at the end.
        contents: Images and keypoints of the round.
        labelled: Counts of the labels.
    """

    centroids: NDArray[np.float32]
    cutoff: NDArray[np.float64]
    objectives: list[float]
    contents: Contents
    labelled: Labelled

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays to store in `clusters.npz`."""
        return {"centroids": self.centroids, "cutoff": self.cutoff, "objectives": np.array(self.objectives)}

    def facts(self) -> dict[str, Any]:
        """Return the numbers for the manifest, the log and MLflow."""
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
    """Run the update of chapter 5 on the shards, which write the parts of labels.

    In each image, keypoints beyond a cluster's mean distance + 1 standard deviation are dropped. The keypoints include those of
    the last round: extraction describes new and old ones together.

    Args:
        shards: The shards of the round.
        labels: Folder of the labels.
        config: The run's configuration.
        round_number: Seeds K-means.
        previous: Centroids (M, d) of the last round, from which K-means starts; None: k-means++ starts.
        progress: Called after each iteration of K-means.

    Raises:
        CollapseError: Too few descriptors or usable images are left to learn from.
    """
    clusters = config.method.clusters
    contents: Contents = reduce(add, shards.ask("begin"))
    seed = (config.seed, round_number, 0)
    on_iteration = fit_progress(progress, f"M = {clusters}", config.clustering)
    clustering = fit(shards, clusters, config, seed, on_iteration, previous, mirrored=False)
    spread: Spread = reduce(add, shards.ask("spread", clustering.centroids))
    cutoff = spread.cutoff()
    labelled: Labelled = reduce(add, shards.ask("label_matches", clustering.centroids, cutoff, labels))
    check_usable_images(contents.images, labelled, config)
    return MatchedUpdate(clustering.centroids, cutoff, clustering.objectives, contents, labelled)
