"""Chapter 6 (TPAMI 2023): same-image negatives, K-means twice with duplicates dropped, K channels in stage 2."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_kplm.config import Config
from ray_kplm.correspondence.background import Background
from ray_kplm.correspondence.sharded_kmeans import Shards
from ray_kplm.correspondence.update import Update, update
from ray_kplm.dense_features.blend import frozen_share
from ray_kplm.methods.base import Method
from ray_kplm.methods.channels import Channels
from ray_kplm.methods.cluster_predictor import ClusterPredictorFactory
from ray_kplm.methods.labels import Labels, cluster_labels
from ray_kplm.methods.page import Output, Steps
from ray_kplm.methods.pair_objective import JointObjective, PairObjective
from ray_kplm.progress import ProgressCallback
from ray_kplm.storage import Folder


def discover_landmarks(step: Steps) -> Output:
    """Thesis Algorithm 2, and stage 2 (thesis 6.1.7)."""
    labels, network, facing = step.detect_keypoints(), None, step.find_facing()
    for round in step.rounds():  # round 0 is the warm-up
        network = step.train(round, labels, start=network, facing=facing)  # lines 4 to 8
        features = step.extract_features(round, network, facing=facing)  # line 9
        labels = step.cluster(round, features)  # lines 10 and 11
    detector = step.train_landmarks(labels, start=network, facing=facing)
    return step.calibrate_visibility(detector, facing=facing)


def discover_landmarks_jointly(step: Steps) -> Output:
    """Train in a single stage (thesis 7.2): the rounds train the landmark detector too."""
    labels, network, facing = step.detect_keypoints(), None, step.find_facing()
    for round in step.rounds():
        network = step.train(round, labels, start=network, facing=facing)
        features = step.extract_features(round, network, facing=facing)
        head, trained_on = network, labels
        labels = step.cluster(round, features, previous=labels if round else None)  # landmarks keep their numbers
    return step.calibrate_visibility(step.export_joint_head(head, trained_on), facing=facing)


@dataclass(frozen=True)
class Kplm(Method):
    """The method of chapter 6 in two stages."""

    def discover_landmarks(self, step: Steps) -> Output:
        """Take the steps of `discover_landmarks` in this module."""
        return discover_landmarks(step)

    def objective(self, round: int) -> PairObjective:
        """Return the loss on pairs, between images from round 1 on."""
        return PairObjective(self.config, across=round > 0, negatives=self._negatives())

    def _negatives(self) -> Literal["same_image", "different_cluster"]:
        negatives = self.config.stage1.negatives
        return "same_image" if negatives == "auto" else negatives

    def frozen_share(self, round: int) -> float:
        """Return a share that falls over the rounds to 0; 0 with HOG, which describes edges, not parts."""
        if self.config.features == "hog":
            return 0.0
        return frozen_share(round, self.config.stage1.rounds, self.config.features_share)

    def cluster(
        self,
        shards: Shards,
        labels: Folder,
        round: int,
        previous: dict[str, NDArray[Any]] | None,
        progress: ProgressCallback,
        background: Background | None = None,
    ) -> Update:
        """Cluster from new centroids in every round, so that a bad clustering does not persist.

        Given previous clusters, the new landmarks are matched to them and keep their numbers.
        """
        before = None if previous is None else previous["landmark_centroids"]
        return update(shards, labels, self.config, round, progress, before, background)

    def stage1_predictor(
        self, network: Folder, clusters: dict[str, NDArray[Any]], threshold: float
    ) -> ClusterPredictorFactory:
        """Return the factory of a predictor that assigns keypoints to the K landmark centroids."""
        return ClusterPredictorFactory(self.config, network, clusters["landmark_centroids"], threshold)

    def first_channels(self, clusters: dict[str, NDArray[Any]], label_counts: NDArray[np.int64]) -> Channels:
        """Return a channel for each of the K landmarks, with the mirror partners of the flip counts."""
        return Channels.first(np.ones(self.config.method.landmarks, bool), clusters["flip_map"])


@dataclass(frozen=True)
class JointKplm(Kplm):
    """The method of chapter 6 in a single stage: `stage2.training: joint`."""

    def discover_landmarks(self, step: Steps) -> Output:
        """Take the steps of `discover_landmarks_jointly` in this module."""
        return discover_landmarks_jointly(step)

    def objective(self, round: int) -> JointObjective:
        """Return the loss on pairs with that of the landmark head."""
        return JointObjective(self.config, across=round > 0, negatives=self._negatives())

    def frozen_share(self, round: int) -> float:
        """Return 0: landmarks keep their numbers by their centroids, which must be of the same descriptors in all rounds."""
        return 0.0

    def round_labels(self, tables: Iterable[pa.Table], clusters: dict[str, NDArray[Any]]) -> Labels:
        """Return the labels of the pairs with those of the landmark head, in both mirror images."""
        return cluster_labels(tables, clusters["flip_map"])

    def round_reads(self) -> dict[str, Any]:
        """Return the options of the landmark head."""
        stage2 = self.config.stage2
        return {"joint": {"weight": stage2.joint_weight, "heatmap_sigma": stage2.heatmap_sigma}}


def build(config: Config) -> Kplm:
    """Return the method of a configuration."""
    return JointKplm(config) if config.stage2.training == "joint" else Kplm(config)
