"""What a generation of the method decides; the steps of a run ask it and never which one it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from numpy.typing import NDArray

from ray_kplm.config import Config
from ray_kplm.correspondence.sharded_kmeans import Shards
from ray_kplm.datasets.sequences import Frames
from ray_kplm.methods.channels import Channels
from ray_kplm.methods.extractor import DescriptorExtractor, KeypointExtractor
from ray_kplm.methods.landmark_objective import LandmarkObjective
from ray_kplm.methods.predictors import PredictorFactory
from ray_kplm.methods.sampling import AnyImages, NearbyFrames, PairSource, Plan, pair_plan, single_plan
from ray_kplm.methods.trainer import Objective, Schedule
from ray_kplm.network.compute import Placement
from ray_kplm.network.hourglass import KeypointNetwork
from ray_kplm.progress import ProgressCallback
from ray_kplm.storage import Folder

_WARMUP, _ROUND, _STAGE2 = 1, 2, 3


class ClusteringResult(Protocol):
    """What a pseudo-label update found."""

    def facts(self) -> dict[str, Any]:
        """Numbers for the manifest, the log and MLflow."""
        ...

    def arrays(self) -> dict[str, NDArray]:
        """Centroids and what else later steps need: `clusters.npz`."""
        ...


@dataclass(frozen=True)
class Method(ABC):
    """Objective, plan and schedule of every training step; correspondence; the channels of stage 2. Picklable."""

    config: Config

    @property
    def clusters_keypoints(self) -> bool:
        """Whether the warm-up trains on clusters of the generic keypoints' own descriptors, and not on identities."""
        return False

    @property
    def describes(self) -> bool:
        """Whether the network describes its keypoints, so that clustering tells in every round which correspond."""
        return True

    @property
    def restarts(self) -> bool:
        """Whether every training begins with a fresh network."""
        return False

    @property
    def keeps_points(self) -> bool:
        """Whether extraction describes the last round's points beside the newly detected ones."""
        return False

    @property
    def continues_clusters(self) -> bool:
        """Whether an update continues the clusters of the one before."""
        return False

    @property
    def single_stage(self) -> bool:
        """Whether the landmark detector is trained in the rounds already, and stage 2 only takes it out."""
        return False

    @property
    def pauses(self) -> int:
        """How often stage 2 stops, for `pause`."""
        return 0

    @property
    def pause(self) -> Literal["merge", "relabel"]:
        """What is done then: channels become one, or what the detector finds are the next one's labels."""
        return "merge"

    # -- stage 1

    @abstractmethod
    def objective(self, round_number: int) -> Objective:
        """Of the warm-up (round 0) and of every round."""

    def finder(self, weights: dict[str, torch.Tensor], placement: Placement, round_number: int) -> KeypointExtractor:
        """What finds a round's keypoints with its network."""
        network = KeypointNetwork(self.config.network)
        network.load_shared_weights(weights)
        return DescriptorExtractor(placement.move(network).eval(), placement, self.config.detection)

    @abstractmethod
    def correspond(
        self,
        shards: Shards,
        labels: Folder,
        round_number: int,
        previous: dict[str, NDArray] | None,
        progress: ProgressCallback,
    ) -> ClusteringResult:
        """Turn features into pseudo-labels, where the network describes. previous: what the last round's update found."""

    @abstractmethod
    def stage1_predictor(self, network: Folder, clusters: dict[str, NDArray], threshold: float) -> PredictorFactory:
        """Ordered landmarks from a stage-1 network and what its update found, where the network describes."""

    @property
    def round_views(self) -> int:
        """Views that a unit of a round's batch is made of: the two of a pair."""
        return 2

    @property
    def round_batch(self) -> int:
        """`Plan.batch` of every round."""
        return self._batch(self.config.stage1.batch_size)

    @property
    def landmark_batch(self) -> int:
        """`Plan.batch` of stage 2."""
        return self._batch(self.config.stage2.batch_size)

    def round_plan(self, round_number: int, usable: NDArray, frames: Frames | None = None) -> Plan:
        """Pairs of images. usable: rows of labelled images. frames: of all images of the round, if they are of videos."""
        stage = self.config.stage1
        identities = round_number == 0 and not self.clusters_keypoints
        return pair_plan(
            self._pairs(round_number, identities, usable, frames),
            iterations=self.iterations(stage.round_iterations if round_number else stage.warmup_iterations),
            pairs=self.round_batch,
            flip=self.flips and not identities,
            seed=(self.config.seed, _ROUND if round_number else _WARMUP, round_number),
        )

    def _pairs(self, round_number: int, identities: bool, usable: NDArray, frames: Frames | None) -> PairSource:
        """Where a keypoint's only counterpart is itself: two views of one image (thesis 6.1.5), or two frames of a video."""
        stage = self.config.stage1
        if not identities and (round_number == 0 or stage.correspondence == "clustering"):
            return AnyImages(usable, stage.same_image_share)
        if frames is not None and stage.frame_gap:
            return NearbyFrames(usable, frames, stage.frame_gap)
        return AnyImages(usable, same_image_share=1.0)

    def round_first(self, round_number: int) -> int:
        """Iterations of stage 1 before a round; `rounds` + 1: all."""
        stage = self.config.stage1
        if not round_number:
            return 0
        return self.iterations(stage.warmup_iterations) + (round_number - 1) * self.iterations(stage.round_iterations)

    def round_schedule(self, round_number: int) -> Schedule:
        """Over the stage, whose rounds continue one network; over the round where it has a network or a cosine of its own."""
        stage = self.config.stage1
        if self.restarts or stage.decay == "cosine":
            length = self.round_first(round_number + 1) - self.round_first(round_number)
            return Schedule(0, length, stage.decay_at, self._rate_factor(), stage.decay)
        total = self.round_first(stage.rounds + 1)
        return Schedule(self.round_first(round_number), total, stage.decay_at, self._rate_factor())

    # -- stage 2

    @abstractmethod
    def first_channels(self, clusters: dict[str, NDArray], label_counts: NDArray) -> Channels:
        """The channels that stage 2 starts with. label_counts: of each landmark in the last round's labels."""

    def landmark_objective(self, channels: int) -> LandmarkObjective:
        return LandmarkObjective(self.config, channels, from_scratch=self.restarts)

    def landmark_plan(self, usable: NDArray, segment: int) -> Plan:
        """Of the stretch of stage 2 before pause number `segment`, or after the last."""
        return single_plan(
            usable,
            iterations=self.landmark_iterations(segment),
            batch=self.landmark_batch,
            flip=self.flips,
            seed=(self.config.seed, _STAGE2, segment) if segment else (self.config.seed, _STAGE2),
        )

    def landmark_first(self, segment: int) -> int:
        """Iterations of stage 2 before a stretch of it."""
        return self._segment(segment)[0]

    def landmark_schedule(self, segment: int) -> Schedule:
        """Over the stage, whose stretches continue one network; over the stretch where each has a fresh one."""
        stage = self.config.stage2
        if self.restarts:
            return Schedule(0, self.landmark_iterations(segment), stage.decay_at, self._rate_factor())
        total = self.iterations(stage.iterations)
        return Schedule(self.landmark_first(segment), total, stage.decay_at, self._rate_factor())

    def landmark_iterations(self, segment: int) -> int:
        return self._segment(segment)[1]

    def _segment(self, segment: int) -> tuple[int, int]:
        """First iteration and length of a stretch of stage 2."""
        total = self.iterations(self.config.stage2.iterations)
        if not self.pauses:
            return 0, total
        every = self._stretch(total)
        first = segment * every
        return first, (total if segment == self.pauses else first + every) - first

    def _stretch(self, total: int) -> int:
        """Iterations between two pauses."""
        raise AssertionError("a generation that pauses says when")

    # -- both

    @property
    def flips(self) -> bool:
        """Whether training shows mirror images."""
        return self.config.method.flip

    def round_images(self, round_number: int) -> int:
        """Images that a round can use: as many as its training has views, or `round_images`."""
        stage1, stage2 = self.config.stage1, self.config.stage2
        if round_number > stage1.rounds:
            views = self.iterations(stage2.iterations) * self.landmark_batch
        elif round_number == 0:
            per_pair = 2 if self.clusters_keypoints else 1
            views = self.iterations(stage1.warmup_iterations) * self.round_batch * per_pair
        else:
            views = self.iterations(stage1.round_iterations) * self.round_batch * 2
        return self.config.round_images or views

    def iterations(self, configured: int) -> int:
        """Of one worker; R's linear rule divides them by the number of workers."""
        return (
            max(1, configured // self.config.compute.worker_range.max) if self.config.compute.scale_lr else configured
        )

    def _batch(self, configured: int) -> int:
        return configured * self.config.compute.worker_range.max if self.config.compute.scale_lr else configured

    def _rate_factor(self) -> float:
        return float(self.config.compute.worker_range.max) if self.config.compute.scale_lr else 1.0
