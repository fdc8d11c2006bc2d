"""What every step of a run knows: the run, its dataset and its method; which images are whose; what fingerprints hold."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from ray_kplm.config import Config
from ray_kplm.config_names import as_recorded, augment_as_recorded, mirror_as_recorded
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.datasets.round_sampling import Selection, draw_round
from ray_kplm.imaging.extra_file import content_hash
from ray_kplm.methods.base import Method
from ray_kplm.run import Run
from ray_kplm.schemas import TRAIN
from ray_kplm.storage import Folder

LAYOUT = ("workers", "scale_lr", "precision", "channels_last")
"""Of the `compute` options, those that a trained network depends on."""


@dataclass(frozen=True)
class RunContext:
    """A run, its dataset and its method."""

    run: Run
    dataset: Dataset
    method: Method

    @property
    def config(self) -> Config:
        """The configuration as it was asked for."""
        return self.run.config

    @property
    def images(self) -> Folder:
        """The training images."""
        return self.dataset.images(TRAIN)

    # -- which images

    @property
    def stage2(self) -> int:
        """The number that follows the last round: the images of stage 2 are drawn as those of a round."""
        return self.config.stage1.rounds + 1

    def image_count(self, number: int) -> int:
        """Return how many images round `number` trains on; after the last round comes stage 2."""
        return min(self.method.round_images(number), self.dataset.count(TRAIN))

    def selection(self, number: int) -> Selection:
        """Return the images that round `number` trains on; the round before labels them."""
        parts, rows = self.dataset.parts(TRAIN), self.dataset.rows(TRAIN)
        count = self.image_count(number)
        return draw_round(parts, rows, before=self._images_before(number), count=count, seed=self.config.seed)

    def _images_before(self, number: int) -> int:
        """Images that the rounds before `number` draw, all together."""
        return sum(self.image_count(earlier) for earlier in range(number))

    # -- when

    def round_title(self, number: int) -> str:
        """Return what the display calls a round."""
        return "warm-up" if number == 0 else f"round {number}/{self.config.stage1.rounds}"

    def round_end(self, number: int) -> int:
        """Return the global iteration at the end of a round."""
        return self.method.round_first(number + 1)

    def phase_start(self, phase: int) -> int:
        """Return the global iteration at the beginning of a phase of stage 2."""
        return self.round_end(self.config.stage1.rounds) + self.method.phase_bounds(phase)[0]

    # -- what fingerprints hold

    @cached_property
    def _extra_hash(self) -> str:
        """What stands for the user's own transforms, empty without them."""
        extra = self.config.augment.extra
        return content_hash(extra) if extra else ""

    def drawn_reads(self, number: int) -> dict[str, int]:
        """Return what a step reads of round `number`'s images.

        Where these are all there are, or where the rounds before draw as many each, their count alone determines them.
        """
        before, count = self._images_before(number), self.image_count(number)
        follows = count == self.dataset.count(TRAIN) or before == number * count
        return {"images": count} if follows else {"images": count, "images_before": before}

    def common_reads(self) -> dict[str, Any]:
        """Return what every step depends on."""
        return {"seed": self.config.seed, "method": {"kind": self.config.method.kind}}

    def training_reads(self) -> dict[str, Any]:
        """Return what every training depends on."""
        compute, augment = asdict(self.config.compute), asdict(self.config.augment)
        augment["extra"] = self._extra_hash
        return {
            **self.common_reads(),
            "method": {"kind": self.config.method.kind, **mirror_as_recorded(self.config.method.mirror)},
            "network": asdict(self.config.network),
            "augment": augment_as_recorded(augment),
            "compute": as_recorded("compute", {name: compute[name] for name in LAYOUT}),
        }
