"""Chapter 4: a detector without descriptors, trained anew in every round; correspondence with the points of one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ray_kplm.correspondence.sharded_kmeans import Shards
from ray_kplm.datasets.sequences import Frames
from ray_kplm.methods.base import ClusteringResult, Method
from ray_kplm.methods.channels import Channels
from ray_kplm.methods.extractor import DISTILLING_VIEWS, PointExtractor
from ray_kplm.methods.pair_objective import PointObjective
from ray_kplm.methods.predictors import PredictorFactory
from ray_kplm.methods.sampling import Plan, single_plan
from ray_kplm.network.compute import Placement
from ray_kplm.network.hourglass import DetectorNetwork
from ray_kplm.progress import ProgressCallback
from ray_kplm.storage import Folder

_ROUND = 4


@dataclass(frozen=True)
class Template(Method):
    """The number of landmarks is that of the template's points: `method.landmarks`, or fewer where its image has fewer."""

    @property
    def describes(self) -> bool:
        return False

    @property
    def restarts(self) -> bool:
        return True

    @property
    def flips(self) -> bool:
        """Which landmarks are partners is not known (only stage 1, which has no identities, sees mirror images)."""
        return False

    @property
    def pauses(self) -> int:
        return self.config.template.rounds - 1

    @property
    def pause(self) -> Literal["merge", "relabel"]:
        return "relabel"

    def _stretch(self, total: int) -> int:
        return max(1, total // self.config.template.rounds)

    def objective(self, round_number: int) -> PointObjective:
        return PointObjective(self.config)

    def finder(self, weights: dict[str, torch.Tensor], placement: Placement, round_number: int) -> PointExtractor:
        """From `template.distil_from` on a point must be seen in several views (thesis 4.2.3)."""
        network = DetectorNetwork(self.config.network)
        network.load_state_dict(weights)
        views = DISTILLING_VIEWS if round_number >= self.config.template.distil_from else DISTILLING_VIEWS[:1]
        return PointExtractor(placement.move(network).eval(), placement, self.config.detection, views)

    @property
    def round_views(self) -> int:
        return 1

    def round_plan(self, round_number: int, usable: NDArray, frames: Frames | None = None) -> Plan:
        """Single images, half of them mirrored."""
        stage = self.config.stage1
        return single_plan(
            usable,
            iterations=self.iterations(stage.round_iterations if round_number else stage.warmup_iterations),
            batch=self.round_batch,
            flip=self.config.method.flip,
            seed=(self.config.seed, _ROUND, round_number),
        )

    def round_images(self, round_number: int) -> int:
        stage1 = self.config.stage1
        if self.config.round_images or round_number > stage1.rounds:
            return super().round_images(round_number)
        iterations = stage1.round_iterations if round_number else stage1.warmup_iterations
        return self.iterations(iterations) * self.round_batch

    def first_channels(self, clusters: dict[str, NDArray], label_counts: NDArray) -> Channels:
        return Channels.first(np.ones(len(label_counts), bool))

    def correspond(
        self,
        shards: Shards,
        labels: Folder,
        round_number: int,
        previous: dict[str, NDArray] | None,
        progress: ProgressCallback,
    ) -> ClusteringResult:
        raise AssertionError("without descriptors nothing is clustered")

    def stage1_predictor(self, network: Folder, clusters: dict[str, NDArray], threshold: float) -> PredictorFactory:
        raise AssertionError("without descriptors stage 1 has no ordered landmarks")
