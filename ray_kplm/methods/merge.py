"""Chapter 5 (NeurIPS 2020): M clusters matched by the Hungarian algorithm, M channels in stage 2, merged as they train."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ray_kplm.correspondence.matched_update import MatchedUpdate, update_matched
from ray_kplm.correspondence.sharded_kmeans import Shards
from ray_kplm.errors import CollapseError
from ray_kplm.methods.base import Method
from ray_kplm.methods.channels import Channels
from ray_kplm.methods.pair_objective import PairObjective
from ray_kplm.methods.predictors import ClusterPredictorFactory, PredictorFactory
from ray_kplm.progress import ProgressCallback
from ray_kplm.storage import Folder


@dataclass(frozen=True)
class Merge(Method):
    """The number of landmarks is what merging leaves; `method.landmarks` only scales how many keypoints are detected."""

    @property
    def clusters_keypoints(self) -> bool:
        return True

    @property
    def keeps_points(self) -> bool:
        return True

    @property
    def continues_clusters(self) -> bool:
        return True

    @property
    def pauses(self) -> int:
        return (self.config.stage2.iterations - 1) // self.config.merging.every

    def _stretch(self, total: int) -> int:
        return self.iterations(self.config.merging.every)

    @property
    def flips(self) -> bool:
        """The correspondence of mirror images is unknown in this generation (thesis 6: "not utilised")."""
        return False

    def objective(self, round_number: int) -> PairObjective:
        negatives = self.config.stage1.negatives
        return PairObjective(
            self.config, across=True, negatives="different_cluster" if negatives == "auto" else negatives
        )

    def correspond(
        self,
        shards: Shards,
        labels: Folder,
        round_number: int,
        previous: dict[str, NDArray] | None,
        progress: ProgressCallback,
    ) -> MatchedUpdate:
        """K-means begins where the last round ended: clusters keep their numbers (thesis 5.3.2)."""
        start = None if previous is None else previous["centroids"]
        return update_matched(shards, labels, self.config, round_number, start, progress)

    def stage1_predictor(self, network: Folder, clusters: dict[str, NDArray], threshold: float) -> PredictorFactory:
        return ClusterPredictorFactory(self.config, network, clusters["centroids"], threshold, clusters["cutoff"])

    def first_channels(self, clusters: dict[str, NDArray], label_counts: NDArray) -> Channels:
        """One for each cluster with enough points to learn from."""
        enough = np.asarray(label_counts) >= self.config.merging.min_points
        if enough.sum() < 2:
            raise CollapseError(
                f"{int(enough.sum())} of {len(enough)} clusters have merging.min_points = {self.config.merging.min_points} "
                f"points; the largest has {int(np.max(label_counts, initial=0))}: lower it, or label more images"
            )
        return Channels.first(enough)
