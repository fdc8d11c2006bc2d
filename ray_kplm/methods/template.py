"""Chapter 4: a detector without descriptors, trained from scratch in every round; correspondence with one image's points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ray_kplm.config import Config
from ray_kplm.datasets.sequences import Frames
from ray_kplm.methods.base import Method
from ray_kplm.methods.channels import Channels
from ray_kplm.methods.extractor import DISTILLING_VIEWS, PointExtractor
from ray_kplm.methods.landmark_objective import LandmarkObjective
from ray_kplm.methods.page import Output, Steps
from ray_kplm.methods.pair_objective import PointObjective
from ray_kplm.methods.sampling import Plan, single_plan
from ray_kplm.methods.trainer import Schedule
from ray_kplm.network.compute import Placement
from ray_kplm.network.hourglass import DetectorNetwork

_ROUND = 4
"""Second number of the seeds of data plans."""


def discover_landmarks(step: Steps) -> Output:
    """Thesis Algorithm 1: every training begins with a fresh network."""
    keypoints = step.detect_keypoints()
    for round in step.rounds():
        network = step.train(round, keypoints)
        keypoints = step.extract_keypoints(round, network)
    labels = step.align(keypoints)
    *phases, last = step.phases()
    for phase in phases:
        detector = step.train_landmarks(labels, phase=phase)
        labels = step.update_labels(phase, detector)  # line 11
    return step.calibrate_visibility(step.train_landmarks(labels, phase=last))


@dataclass(frozen=True)
class Template(Method):
    """The method of chapter 4.

    The number of landmarks is that of the template's points: `method.landmarks`, or fewer if its image has fewer.
    """

    def discover_landmarks(self, step: Steps) -> Output:
        """Take the steps of `discover_landmarks` in this module."""
        return discover_landmarks(step)

    @property
    def flips(self) -> bool:
        """False: mirror partners are unknown. Only stage 1, which has no identities, shows mirror images."""
        return False

    @property
    def num_phases(self) -> int:
        """`template.rounds`: each detector labels the images for the next one."""
        return self.config.template.rounds

    def phase_reads(self) -> dict[str, Any]:
        """Return the number of phases, if there are several."""
        return {"stretch": self.num_phases} if self.num_phases > 1 else {}  # the key of stored fingerprints

    def phase_bounds(self, phase: int) -> tuple[int, int]:
        """Return the iterations of stage 2 before a phase and at its end: all phases but the last are of one length."""
        total = self.iterations(self.config.stage2.iterations)
        length = max(1, total // self.num_phases)
        return phase * length, total if phase == self.num_phases - 1 else (phase + 1) * length

    def objective(self, round: int) -> PointObjective:
        """Return the loss of the detector alone."""
        return PointObjective(self.config)

    def extractor(self, weights: dict[str, torch.Tensor], placement: Placement, round: int) -> PointExtractor:
        """Return the extractor of keypoints, which averages several views from `template.distil_from` on (thesis 4.2.3)."""
        network = DetectorNetwork(self.config.network)
        network.load_state_dict(weights)
        views = DISTILLING_VIEWS if round >= self.config.template.distil_from else DISTILLING_VIEWS[:1]
        return PointExtractor(placement.move(network).eval(), placement, self.config.detection, views)

    @property
    def views_per_unit(self) -> int:
        """A single image."""
        return 1

    def round_plan(
        self,
        round: int,
        usable: NDArray[np.int64],
        frames: Frames | None = None,
        facing: NDArray[np.float32] | None = None,
    ) -> Plan:
        """Return the data plan of a round: single images, half of them mirrored."""
        stage = self.config.stage1
        return single_plan(
            usable,
            iterations=self.iterations(stage.round_iterations if round else stage.warmup_iterations),
            batch=self.round_batch,
            flip=self.config.method.mirror != "none",
            seed=(self.config.seed, _ROUND, round),
        )

    def round_schedule(self, round: int) -> Schedule:
        """Return the schedule of a round's fresh network: over the round."""
        return self._round_schedule_of_its_own(round)

    def round_images(self, round: int) -> int:
        """Return the number of images that a round uses: as many as its training has views, or `round_images`."""
        stage1 = self.config.stage1
        if self.config.round_images or round > stage1.rounds:
            return super().round_images(round)
        iterations = stage1.round_iterations if round else stage1.warmup_iterations
        return self.iterations(iterations) * self.round_batch

    def first_channels(self, clusters: dict[str, NDArray[Any]], label_counts: NDArray[np.int64]) -> Channels:
        """Return a channel for each of the template's points."""
        return Channels.first(np.ones(len(label_counts), bool))

    def landmark_objective(self, channels: int) -> LandmarkObjective:
        """Return the loss of stage 2, for a backbone that starts from random weights."""
        return LandmarkObjective(self.config, channels, from_scratch=True)

    def landmark_schedule(self, phase: int) -> Schedule:
        """Return the schedule of a phase's fresh network: over the phase."""
        return Schedule(0, self.phase_iterations(phase), self.config.stage2.decay_at, self._rate_factor())


def build(config: Config) -> Template:
    """Return the method of a configuration."""
    return Template(config)
