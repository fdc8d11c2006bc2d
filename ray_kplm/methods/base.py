"""The interface of a method: its page, and for each step the objective, the data plan and the schedule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from ray_kplm.config import Config
from ray_kplm.correspondence.background import Background
from ray_kplm.correspondence.sharded_kmeans import Shards
from ray_kplm.datasets.sequences import Frames
from ray_kplm.methods.channels import Channels
from ray_kplm.methods.cluster_predictor import ClusterPredictorFactory
from ray_kplm.methods.extractor import DescriptorExtractor, KeypointExtractor
from ray_kplm.methods.labels import Labels, cluster_labels
from ray_kplm.methods.landmark_objective import LandmarkObjective
from ray_kplm.methods.page import Output, Steps
from ray_kplm.methods.sampling import AnyImages, NearbyFrames, PairSource, Plan, pair_plan, single_plan
from ray_kplm.methods.trainer import Objective, Schedule
from ray_kplm.methods.window_plan import WHOLE_IMAGES, WindowPlan
from ray_kplm.network.compute import Placement
from ray_kplm.network.hourglass import KeypointNetwork
from ray_kplm.progress import ProgressCallback
from ray_kplm.storage import Folder

_WARMUP, _ROUND, _STAGE2 = 1, 2, 3
"""Second number of the seeds of data plans."""


class ClusteringResult(Protocol):
    """The result of a pseudo-label update."""

    def facts(self) -> dict[str, Any]:
        """Return numbers for the manifest, the log and MLflow."""
        ...

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return centroids and other arrays that later steps need: the content of `clusters.npz`."""
        ...


@dataclass(frozen=True)
class Method(ABC):
    """A method: its page, and what the steps of the page need. Picklable, so that it can be sent to workers.

    Round 0 is the warm-up. The phases of stage 2 are numbered from 0.
    """

    config: Config

    @abstractmethod
    def discover_landmarks(self, step: Steps) -> Output:
        """Take the steps that lead from images to the landmark detector: the method's page."""

    # -- stage 1

    @abstractmethod
    def objective(self, round: int) -> Objective:
        """Return what the training of a round minimises."""

    def extractor(self, weights: dict[str, torch.Tensor], placement: Placement, round: int) -> KeypointExtractor:
        """Return what extracts keypoints with the network of a round."""
        network = KeypointNetwork(self.config.network)
        network.load_shared_weights(weights)
        return DescriptorExtractor(placement.move(network).eval(), placement, self.config.detection)

    def frozen_share(self, round: int) -> float:
        """Return the share of `features` in the descriptors that the keypoints of a round are clustered by; 0: none."""
        return 0.0

    def cluster(
        self,
        shards: Shards,
        labels: Folder,
        round: int,
        previous: dict[str, NDArray[Any]] | None,
        progress: ProgressCallback,
        background: Background | None = None,
    ) -> ClusteringResult:
        """Cluster the features on the shards and write pseudo-labels.

        Args:
            shards: the shards, which hold the features of the images.
            labels: folder to which the shards write the pseudo-labels of their parts.
            round: the round whose network extracted the features.
            previous: arrays of an earlier update, if its clusters are continued.
            progress: called after each iteration of K-means.
            background: the static background that the generic keypoints showed.
        """
        raise NotImplementedError(f"method.kind = {self.config.method.kind!r} has no descriptors to cluster")

    def round_labels(self, tables: Iterable[pa.Table], clusters: dict[str, NDArray[Any]]) -> Labels:
        """Return what a round trains on, from tables of pseudo-labels (schemas.LABELS) and the update's arrays."""
        return cluster_labels(tables)

    def stage1_predictor(
        self, network: Folder, clusters: dict[str, NDArray[Any]], threshold: float
    ) -> ClusterPredictorFactory:
        """Return the factory of a predictor of ordered landmarks from a round's network and clusters (thesis 6.3.3)."""
        raise NotImplementedError(f"method.kind = {self.config.method.kind!r} has no ordered landmarks in stage 1")

    def round_reads(self) -> dict[str, Any]:
        """Return configuration, beside `stage1`, that the training of a round depends on."""
        return {}

    @property
    def views_per_unit(self) -> int:
        """Views in a unit of a round's batch: the two of a pair."""
        return 2

    @property
    def round_batch(self) -> int:
        """`Plan.batch` of every round."""
        return self._batch(self.config.stage1.batch_size)

    def round_plan(
        self,
        round: int,
        usable: NDArray[np.int64],
        frames: Frames | None = None,
        facing: NDArray[np.float32] | None = None,
    ) -> Plan:
        """Return the data plan of a round: pairs of images.

        Args:
            round: its number.
            usable: (n,) rows of labelled images.
            frames: of all images of the round, if they are from videos.
            facing: (N,), of all images of the round, if mirror images are `facing`: all are shown as they face one way.
        """
        stage = self.config.stage1
        identities = self._trains_on_identities(round)
        return pair_plan(
            self._pairs(round, identities, usable, frames),
            iterations=self.iterations(stage.round_iterations if round else stage.warmup_iterations),
            pairs=self.round_batch,
            flip=self.flips and not identities if facing is None else facing < 0,
            seed=(self.config.seed, _ROUND if round else _WARMUP, round),
        )

    def _trains_on_identities(self, round: int) -> bool:
        """Return whether a keypoint corresponds only to itself in another view, as in the warm-up (thesis 6.1.5)."""
        return round == 0

    def _pairs(self, round: int, identities: bool, usable: NDArray[np.int64], frames: Frames | None) -> PairSource:
        """Return the source of pairs: of two images for clusters; of two views of one image, or two frames, for identities."""
        stage = self.config.stage1
        if not identities and (round == 0 or stage.correspondence == "clustering"):
            return AnyImages(usable, stage.same_image_share)
        if frames is not None and stage.frame_gap:
            return NearbyFrames(usable, frames, stage.frame_gap)
        return AnyImages(usable, same_image_share=1.0)

    def round_first(self, round: int) -> int:
        """Return the number of iterations of stage 1 before a round; for `rounds` + 1, that of the whole stage."""
        stage = self.config.stage1
        if not round:
            return 0
        return self.iterations(stage.warmup_iterations) + (round - 1) * self.iterations(stage.round_iterations)

    def round_schedule(self, round: int) -> Schedule:
        """Return the schedule of a round: over the stage, whose rounds continue one network, or over the round for a cosine."""
        stage = self.config.stage1
        if stage.decay == "cosine":
            return self._round_schedule_of_its_own(round)
        total = self.round_first(stage.rounds + 1)
        return Schedule(self.round_first(round), total, stage.decay_at, self._rate_factor())

    def _round_schedule_of_its_own(self, round: int) -> Schedule:
        stage = self.config.stage1
        length = self.round_first(round + 1) - self.round_first(round)
        return Schedule(0, length, stage.decay_at, self._rate_factor(), stage.decay)

    # -- stage 2

    @abstractmethod
    def first_channels(self, clusters: dict[str, NDArray[Any]], label_counts: NDArray[np.int64]) -> Channels:
        """Return the channels that stage 2 starts with. label_counts: (L,), labels of each landmark in the last round."""

    @property
    def landmark_batch(self) -> int:
        """`Plan.batch` of stage 2."""
        return self._batch(self.config.stage2.batch_size)

    @property
    def num_phases(self) -> int:
        """Number of trainings in stage 2."""
        return 1

    def phase_reads(self) -> dict[str, Any]:
        """Return configuration, beside `stage2`, that the phases depend on."""
        return {}

    def phase_bounds(self, phase: int) -> tuple[int, int]:
        """Return the numbers of iterations of stage 2 before a phase and at its end."""
        return 0, self.iterations(self.config.stage2.iterations)

    def phase_iterations(self, phase: int) -> int:
        """Return the number of iterations of a phase."""
        first, end = self.phase_bounds(phase)
        return end - first

    def landmark_objective(self, channels: int) -> LandmarkObjective:
        """Return what stage 2 minimises."""
        return LandmarkObjective(self.config, channels)

    def landmark_plan(self, usable: NDArray[np.int64], phase: int, facing: NDArray[np.float32] | None = None) -> Plan:
        """Return the data plan of a phase of stage 2: single images.

        Args:
            usable: (n,) rows of labelled images.
            phase: its number.
            facing: (N,), of all images of the round, if mirror images are `facing`.
        """
        return single_plan(
            usable,
            iterations=self.phase_iterations(phase),
            batch=self.landmark_batch,
            flip=self.flips if facing is None else facing < 0,
            seed=(self.config.seed, _STAGE2, phase) if phase else (self.config.seed, _STAGE2),
        )

    def landmark_windows(self, images: int, parts: int, phase: int) -> WindowPlan | None:
        """Return the data plan of a phase of stage 2 by windows of parts; None for as many images as memory should hold.

        These are as many as a round of stage 1 holds, and in any case WHOLE_IMAGES.

        Args:
            images: number of the images of stage 2.
            parts: number of parts that they are in.
            phase: its number.
        """
        if images <= max(WHOLE_IMAGES, self.round_images(1) if self.config.stage1.rounds else 0):
            return None
        iterations, seed = self.phase_iterations(phase), (self.config.seed, _STAGE2, phase)
        return WindowPlan(parts, images, iterations, self.landmark_batch, self.flips, seed)

    def landmark_schedule(self, phase: int) -> Schedule:
        """Return the schedule of a phase: over the stage, whose phases continue one network."""
        stage = self.config.stage2
        total = self.iterations(stage.iterations)
        return Schedule(self.phase_bounds(phase)[0], total, stage.decay_at, self._rate_factor())

    # -- both

    @property
    def flips(self) -> bool:
        """Whether training shows mirror images, with the labels of the mirror partners."""
        return self.config.method.mirror in ("partners", "auto")

    def round_images(self, round: int) -> int:
        """Return the number of images that a round uses: as many as its training has views, or `round_images`."""
        stage1, stage2 = self.config.stage1, self.config.stage2
        if round > stage1.rounds:
            views = self.iterations(stage2.iterations) * self.landmark_batch
        elif round == 0:
            images_per_pair = 1 if self._trains_on_identities(0) else 2
            views = self.iterations(stage1.warmup_iterations) * self.round_batch * images_per_pair
        else:
            views = self.iterations(stage1.round_iterations) * self.round_batch * 2
        return self.config.round_images or views

    def iterations(self, configured: int) -> int:
        """Return the iterations of one worker: `compute.scale_lr` divides them by the number of workers."""
        compute = self.config.compute
        return max(1, configured // compute.worker_range.max) if compute.scale_lr else configured

    def _batch(self, configured: int) -> int:
        compute = self.config.compute
        return configured * compute.worker_range.max if compute.scale_lr else configured

    def _rate_factor(self) -> float:
        compute = self.config.compute
        return float(compute.worker_range.max) if compute.scale_lr else 1.0
