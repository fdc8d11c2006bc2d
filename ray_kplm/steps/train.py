"""Training of the stage-1 network: detector and descriptors, on a round's labels (thesis Algorithm 2, lines 4 to 8)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ray_kplm.datasets.sequences import read_frames
from ray_kplm.run import Step, round_path
from ray_kplm.runtime.image_store import RoundImages
from ray_kplm.runtime.train_loop import Training
from ray_kplm.steps.detect import DetectKeypoints
from ray_kplm.steps.facing import FindFacing, decided_method
from ray_kplm.steps.task import TRAINING_COST, RoundLabels, Task

if TYPE_CHECKING:
    from ray_kplm.steps.executor import Executor

_BETWEEN_IMAGES = ("correspondence", "negatives", "positives", "same_image_share")
"""Of the `stage1` options, those that a training on identities does not use."""
_STAGE1 = 1
"""Of the seeds of trainings."""


@dataclass(frozen=True, eq=False)
class TrainRound(Task):
    """The network of a round; round 0 is the warm-up."""

    round: int
    labels: RoundLabels
    start: Task | None
    """Whose network and optimiser are continued."""
    facing: FindFacing | None = None

    @property
    def path(self) -> str:
        return f"{round_path(self.round)}/train"

    @property
    def step(self) -> Step:
        stage1 = asdict(self.context.config.stage1)
        on_identities = isinstance(self.labels, DetectKeypoints)
        if on_identities:
            for name in _BETWEEN_IMAGES:
                del stage1[name]
        reads = {
            **self.context.training_reads(),
            "stage1": stage1,
            **self.context.drawn_reads(self.round),
            **self.context.method.round_reads(),
        }
        inputs = {"keypoints" if on_identities else "labels": self.labels.fingerprint}
        if self.start is not None:
            inputs["network"] = self.start.fingerprint
        if self.facing is not None:
            inputs["facing"] = self.facing.fingerprint
        return self.context.run.step(self.path, "train", reads, inputs)

    @property
    def cost(self) -> float:
        stage1 = self.context.config.stage1
        iterations = stage1.round_iterations if self.round else stage1.warmup_iterations
        return iterations * self.context.method.views_per_unit * stage1.batch_size * TRAINING_COST

    @property
    def worker_batch(self) -> int:
        return self.context.method.round_batch

    def run(self, executor: Executor) -> None:
        context, method = self.context, decided_method(self.context, self.facing)
        selection = context.selection(self.round)
        labels = self.labels.round_labels(selection.parts)
        facing = None if self.facing is None else self.facing.of_images(selection)
        frames = read_frames(context.images, selection) if context.dataset.has_sequences else None
        title = context.round_title(self.round)
        executor.begin(self, title)
        training = Training(
            context.run.resolved,
            method.objective(self.round),
            labels,
            method.round_plan(self.round, labels.usable(), frames, facing),
            method.round_schedule(self.round),
            RoundImages.load(context.images, selection),
            None if self.start is None else (self.start.folder, "continue"),
            (context.config.seed, _STAGE1, self.round),
        )
        executor.train(self, training, method.round_first(self.round), "stage1")
