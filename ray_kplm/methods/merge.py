"""Chapter 5 (NeurIPS 2020): M clusters matched by the Hungarian algorithm, M channels in stage 2, merged as they train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.config import Config
from ray_kplm.correspondence.background import Background
from ray_kplm.correspondence.matched_update import MatchedUpdate, update_matched
from ray_kplm.correspondence.sharded_kmeans import Shards
from ray_kplm.errors import CollapseError
from ray_kplm.methods.base import Method
from ray_kplm.methods.channels import Channels
from ray_kplm.methods.cluster_predictor import ClusterPredictorFactory
from ray_kplm.methods.page import Output, Steps
from ray_kplm.methods.pair_objective import PairObjective
from ray_kplm.progress import ProgressCallback
from ray_kplm.storage import Folder


def discover_landmarks(step: Steps) -> Output:
    """Thesis 5.2, from generic keypoints to as many landmarks as merging leaves."""
    keypoints = step.detect_keypoints(described=True)
    labels, network = step.cluster_keypoints(keypoints), None
    for round in step.rounds():
        known = labels if round else None  # points and clusters continue those of the last round (thesis 5.3.2)
        network = step.train(round, labels, start=network)
        features = step.extract_features(round, network, known=known)
        labels = step.cluster(round, features, previous=known)
    *phases, last = step.phases()
    for phase in phases:
        detector = step.train_landmarks(labels, start=network, phase=phase)
        network = step.merge_channels(phase, detector)
    return step.calibrate_visibility(step.train_landmarks(labels, start=network, phase=last))


@dataclass(frozen=True)
class Merge(Method):
    """The method of chapter 5.

    The number of landmarks is that of the channels after all merges; `method.landmarks` only scales how many keypoints are
    detected.
    """

    def discover_landmarks(self, step: Steps) -> Output:
        """Take the steps of `discover_landmarks` in this module."""
        return discover_landmarks(step)

    def _trains_on_identities(self, round: int) -> bool:
        return False  # the warm-up has clusters of the generic keypoints

    @property
    def num_phases(self) -> int:
        """One more than there are merges."""
        return (self.config.stage2.iterations - 1) // self.config.merging.every + 1

    def phase_reads(self) -> dict[str, Any]:
        """Return the iterations between merges, if there are any."""
        return {"stretch": self.config.merging.every} if self.num_phases > 1 else {}  # the key of stored fingerprints

    def phase_bounds(self, phase: int) -> tuple[int, int]:
        """Return the iterations of stage 2 before a phase and at its end: a merge follows every `merging.every`."""
        total, every = self.iterations(self.config.stage2.iterations), self.iterations(self.config.merging.every)
        return phase * every, total if phase == self.num_phases - 1 else (phase + 1) * every

    @property
    def flips(self) -> bool:
        """False: this method does not know the correspondence of mirror images (thesis 6: "not utilised")."""
        return False

    def objective(self, round: int) -> PairObjective:
        """Return the loss on pairs of images, with negatives from other clusters."""
        negatives = self.config.stage1.negatives
        return PairObjective(
            self.config, across=True, negatives="different_cluster" if negatives == "auto" else negatives
        )

    def cluster(
        self,
        shards: Shards,
        labels: Folder,
        round: int,
        previous: dict[str, NDArray[Any]] | None,
        progress: ProgressCallback,
        background: Background | None = None,
    ) -> MatchedUpdate:
        """Cluster from the previous round's centroids, so that clusters keep their numbers (thesis 5.3.2).

        The background is left out of the generic keypoints alone.
        """
        start = None if previous is None else previous["centroids"]
        return update_matched(shards, labels, self.config, round, start, progress)

    def stage1_predictor(
        self, network: Folder, clusters: dict[str, NDArray[Any]], threshold: float
    ) -> ClusterPredictorFactory:
        """Return the factory of a predictor that matches keypoints and clusters, within each cluster's cut-off."""
        return ClusterPredictorFactory(self.config, network, clusters["centroids"], threshold, clusters["cutoff"])

    def first_channels(self, clusters: dict[str, NDArray[Any]], label_counts: NDArray[np.int64]) -> Channels:
        """Return a channel for each cluster with enough points to learn from.

        Raises:
            CollapseError: fewer than two clusters have `merging.min_points` points.
        """
        enough = np.asarray(label_counts) >= self.config.merging.min_points
        if enough.sum() < 2:
            raise CollapseError(
                f"{int(enough.sum())} of {len(enough)} clusters have merging.min_points = {self.config.merging.min_points} "
                f"points; the largest has {int(np.max(label_counts, initial=0))}: lower it, or label more images"
            )
        return Channels.first(enough)


def build(config: Config) -> Merge:
    """Return the method of a configuration."""
    return Merge(config)
