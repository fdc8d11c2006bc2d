"""Stage 2: training of the landmark detector (thesis 6.1.7), or taking it out of a jointly trained network (thesis 7.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

from ray_kplm.datasets.round_sampling import Selection
from ray_kplm.methods.base import Method
from ray_kplm.methods.batch import Views
from ray_kplm.methods.channels import CHANNELS, Channels, landmark_state
from ray_kplm.methods.labels import CarriedLabels, Labels, landmark_labels
from ray_kplm.methods.sampling import Plan
from ray_kplm.methods.trainer import NETWORK
from ray_kplm.methods.window_plan import WindowPlan
from ray_kplm.run import Step
from ray_kplm.runtime.data_pipeline import feed
from ray_kplm.runtime.image_store import RoundImages
from ray_kplm.runtime.train_loop import Training
from ray_kplm.runtime.window_feed import feed_windows
from ray_kplm.runtime.window_store import LabelledParts, WindowImages
from ray_kplm.steps.facing import FindFacing, decided_method
from ray_kplm.steps.merge import MergeChannels
from ray_kplm.steps.task import TRAINING_COST, LandmarkLabels, Task
from ray_kplm.steps.train import TrainRound
from ray_kplm.storage import Folder

if TYPE_CHECKING:
    from ray_kplm.steps.executor import Executor

STAGE2 = "stage2"
"""The folder of the landmark detector."""
_STAGE2 = 2
"""Of the seeds of trainings."""
_COLUMNS = ["xy", "score", "landmark"]
"""Those of the labels that a landmark detector is trained on."""


class _Data(NamedTuple):
    """What a training sees: see `Training`."""

    labels: Labels | CarriedLabels
    plan: Plan | WindowPlan
    images: RoundImages | WindowImages
    views: Callable[..., Iterator[Views]]


def labels_of_part(labels: Folder, channels: Channels, part: str) -> Labels:
    """Return what a landmark detector is trained on in a part of a table of pseudo-labels."""
    return landmark_labels([labels.read_table(part, _COLUMNS)], channels)


@dataclass(frozen=True, eq=False)
class TrainLandmarks(Task):
    """The landmark detector after a phase of stage 2."""

    phase: int
    labels: LandmarkLabels
    start: TrainRound | MergeChannels | None
    """Whose network is continued: with a new head if stage 1 trained it, else with head and optimiser."""
    facing: FindFacing | None = None

    essential = (NETWORK, CHANNELS)

    @property
    def _is_last(self) -> bool:
        return self.phase == self.context.method.num_phases - 1

    @property
    def path(self) -> str:
        return STAGE2 if self._is_last else f"{STAGE2}/{self.phase:03d}/train"

    @property
    def step(self) -> Step:
        stage2 = asdict(self.context.config.stage2)
        del stage2["flip_at_test"]
        reads = {**self.context.training_reads(), "stage2": stage2, **self.context.method.phase_reads()}
        inputs = {"labels": self.labels.fingerprint}
        if self.start is not None:
            inputs["network"] = self.start.fingerprint
        if self.facing is not None:
            inputs["facing"] = self.facing.fingerprint
        return self.context.run.step(self.path, "landmarks", reads, inputs)

    @property
    def cost(self) -> float:
        return self.context.method.phase_iterations(self.phase) * self.context.config.stage2.batch_size * TRAINING_COST

    @property
    def worker_batch(self) -> int:
        return self.context.method.landmark_batch

    def channels(self) -> Channels:
        """Return the channels that are trained: those that a merge left, or the method's first ones."""
        if isinstance(self.start, MergeChannels):
            return self.start.channels()
        return self.context.method.first_channels(self.labels.clusters(), self.labels.label_counts())

    def run(self, executor: Executor) -> None:
        context, channels = self.context, self.channels()
        method = decided_method(context, self.facing)
        self.folder.write_json(CHANNELS, channels.to_dict())
        selection = context.selection(context.stage2)
        phases = f", {self.phase + 1} of {method.num_phases}" if method.num_phases > 1 else ""
        title = f"stage 2, {len(channels)} channels{phases}"
        executor.begin(self, title)
        data = self._data_by_windows(method, selection, channels) or self._whole_data(method, selection, channels)
        training = Training(
            context.run.resolved,
            method.landmark_objective(len(channels)),
            data.labels,
            data.plan,
            method.landmark_schedule(self.phase),
            data.images,
            None if self.start is None else (self.start.folder, self._use_of_start()),
            (context.config.seed, _STAGE2, self.phase),
            data.views,
        )
        executor.train(self, training, context.phase_start(self.phase), "stage2")

    def _whole_data(self, method: Method, selection: Selection, channels: Channels) -> _Data:
        """Return the data of a training whose labels and images are all at hand."""
        labels = landmark_labels(self.labels.folder.read_tables(selection.parts, _COLUMNS), channels)
        facing = None if self.facing is None else self.facing.of_images(selection)
        plan = method.landmark_plan(labels.usable(), self.phase, facing)
        return _Data(labels, plan, RoundImages.load(self.context.images, selection), feed)

    def _data_by_windows(self, method: Method, selection: Selection, channels: Channels) -> _Data | None:
        """Return the data of a training on more images than memory should hold; None if these are not so many."""
        plan = method.landmark_windows(selection.images, len(selection.parts), self.phase)
        if plan is None:
            return None
        labels = partial(labels_of_part, self.labels.folder, channels)
        facings = None if self.facing is None else self.facing.facings()
        parts = LabelledParts(self.context.images, selection, labels, facings)
        return _Data(CarriedLabels(), plan, WindowImages.open(plan, parts), feed_windows)

    def _use_of_start(self) -> Literal["head", "continue"]:
        return "head" if isinstance(self.start, TrainRound) else "continue"


@dataclass(frozen=True, eq=False)
class ExportJointHead(Task):
    """The landmark detector out of a network whose rounds trained it already."""

    network: Task
    labels: LandmarkLabels
    """What the head was trained on last."""

    essential = (NETWORK, CHANNELS)

    @property
    def path(self) -> str:
        return STAGE2

    @property
    def step(self) -> Step:
        inputs = {"network": self.network.fingerprint}
        return self.context.run.step(self.path, "landmarks", self.context.common_reads(), inputs)

    @property
    def cost(self) -> float:
        return 0.0

    def run(self, executor: Executor) -> None:
        executor.begin(self, "stage 2: taken from the last round")
        channels = self.context.method.first_channels(self.labels.clusters(), self.labels.label_counts())
        self.folder.write_json(CHANNELS, channels.to_dict())
        self.folder.write_bytes(NETWORK, landmark_state(self.network.folder.read_bytes(NETWORK)))
        executor.finish(self, {}, {}, self.context.round_end(self.context.config.stage1.rounds))
