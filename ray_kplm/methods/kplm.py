"""Chapter 6: same-image negatives, K-means twice with duplicates dropped, K channels in stage 2."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ray_kplm.correspondence.sharded_kmeans import Shards
from ray_kplm.correspondence.update import Update, update
from ray_kplm.methods.base import Method
from ray_kplm.methods.channels import Channels
from ray_kplm.methods.pair_objective import JointObjective, PairObjective
from ray_kplm.methods.predictors import ClusterPredictorFactory, PredictorFactory
from ray_kplm.progress import ProgressCallback
from ray_kplm.storage import Folder


@dataclass(frozen=True)
class Kplm(Method):
    """TPAMI 2023."""

    @property
    def single_stage(self) -> bool:
        return self.config.stage2.training == "joint"

    @property
    def continues_clusters(self) -> bool:
        """A head that is trained along needs the same landmark under the same number in every round."""
        return self.single_stage

    def objective(self, round_number: int) -> PairObjective:
        kind = JointObjective if self.single_stage else PairObjective
        negatives = self.config.stage1.negatives
        return kind(self.config, across=round_number > 0, negatives="same_image" if negatives == "auto" else negatives)

    def correspond(
        self,
        shards: Shards,
        labels: Folder,
        round_number: int,
        previous: dict[str, NDArray] | None,
        progress: ProgressCallback,
    ) -> Update:
        """K-means starts anew in every round, so that a bad clustering does not last; at most the numbers are kept."""
        before = None if previous is None else previous["landmark_centroids"]
        return update(shards, labels, self.config, round_number, progress, before)

    def stage1_predictor(self, network: Folder, clusters: dict[str, NDArray], threshold: float) -> PredictorFactory:
        return ClusterPredictorFactory(self.config, network, clusters["landmark_centroids"], threshold)

    def first_channels(self, clusters: dict[str, NDArray], label_counts: NDArray) -> Channels:
        """One for each of the K landmarks, with the partners that the flip counts told."""
        return Channels.first(np.ones(self.config.method.landmarks, bool), clusters["flip_map"])
