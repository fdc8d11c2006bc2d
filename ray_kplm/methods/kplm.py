"""Chapter 6: same-image negatives, K-means twice with duplicates dropped, K channels in stage 2."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ray_kplm.correspondence.update import Log, Shards, Update, update
from ray_kplm.methods.channels import Channels
from ray_kplm.methods.generation import Generation
from ray_kplm.methods.landmarks import MakeClusterPredictor, MakePredictor
from ray_kplm.methods.stage1 import PairObjective
from ray_kplm.storage import Folder


@dataclass(frozen=True)
class Kplm(Generation):
    """TPAMI 2023."""

    def objective(self, round_number: int) -> PairObjective:
        negatives = self.config.stage1.negatives
        return PairObjective(
            self.config, across=round_number > 0, negatives="same_image" if negatives == "auto" else negatives
        )

    def correspond(
        self, shards: Shards, labels: Folder, round_number: int, previous: dict[str, NDArray] | None, log: Log
    ) -> Update:
        """Every update starts anew: what the last round found does not matter."""
        return update(shards, labels, self.config, round_number, log)

    def stage1_predictor(self, network: Folder, clusters: dict[str, NDArray], threshold: float) -> MakePredictor:
        return MakeClusterPredictor(self.config, network, clusters["landmark_centroids"], threshold)

    def first_channels(self, clusters: dict[str, NDArray], label_counts: NDArray) -> Channels:
        """One for each of the K landmarks, with the partners that the flip counts told."""
        return Channels.first(np.ones(self.config.method.landmarks, bool), clusters["flip_map"])
