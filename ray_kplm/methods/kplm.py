"""Chapter 6: same-image negatives, K-means twice with duplicates dropped, K channels in stage 2."""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import NDArray

from ray_kplm.config import Config
from ray_kplm.methods.learner import Schedule
from ray_kplm.methods.plan import Plan, pair_plan, single_plan
from ray_kplm.methods.stage1 import PairObjective
from ray_kplm.methods.stage2 import LandmarkObjective

_WARMUP, _ROUND, _STAGE2 = 1, 2, 3


@dataclass(frozen=True)
class Kplm:
    """What a generation decides: the objective, the plan and the schedule of every training step."""

    config: Config

    def objective(self, round_number: int) -> PairObjective:
        """Of the warm-up (round 0) and of every round."""
        return PairObjective(self.config, across=round_number > 0)

    def landmark_objective(self) -> LandmarkObjective:
        return LandmarkObjective(self.config)

    def round_plan(self, round_number: int, usable: NDArray) -> Plan:
        """Round 0 is the warm-up: two views of one image, none mirrored (thesis 6.1.5)."""
        stage = self.config.stage1
        warmup = round_number == 0
        return pair_plan(
            usable,
            iterations=self.iterations(stage.warmup_iterations if warmup else stage.round_iterations),
            pairs=self._batch(stage.batch_size),
            same_image_share=1.0 if warmup or stage.correspondence == "equivariance" else stage.same_image_share,
            flip=self.config.method.flip and not warmup,
            seed=(self.config.seed, _WARMUP if warmup else _ROUND, round_number),
        )

    def round_schedule(self, round_number: int) -> Schedule:
        stage = self.config.stage1
        warmup, each = self.iterations(stage.warmup_iterations), self.iterations(stage.round_iterations)
        first = 0 if round_number == 0 else warmup + (round_number - 1) * each
        return Schedule(first, warmup + stage.rounds * each, stage.decay_at, self._rate_factor())

    def landmark_plan(self, usable: NDArray) -> Plan:
        stage = self.config.stage2
        return single_plan(
            usable,
            iterations=self.iterations(stage.iterations),
            batch=self._batch(stage.batch_size),
            flip=self.config.method.flip,
            seed=(self.config.seed, _STAGE2),
        )

    def landmark_schedule(self) -> Schedule:
        stage = self.config.stage2
        return Schedule(0, self.iterations(stage.iterations), stage.decay_at, self._rate_factor())

    def round_images(self, round_number: int) -> int:
        """Images that a round can use: as many as its training has views, or `round_images`."""
        stage1, stage2 = self.config.stage1, self.config.stage2
        if round_number > stage1.rounds:
            views = self.iterations(stage2.iterations) * self._batch(stage2.batch_size)
        elif round_number == 0:
            views = self.iterations(stage1.warmup_iterations) * self._batch(stage1.batch_size)
        else:
            views = self.iterations(stage1.round_iterations) * self._batch(stage1.batch_size) * 2
        return self.config.round_images or views

    def iterations(self, configured: int) -> int:
        """Of one worker; R's linear rule divides them by the number of workers."""
        return max(1, configured // self.config.compute.workers) if self.config.compute.linear_rule else configured

    def _batch(self, configured: int) -> int:
        return configured * self.config.compute.workers if self.config.compute.linear_rule else configured

    def _rate_factor(self) -> float:
        return float(self.config.compute.workers) if self.config.compute.linear_rule else 1.0
