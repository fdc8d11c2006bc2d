"""Records a method's page: the tasks of a run in their order, before any of them is done.

The order of the steps stands on the page alone. What is recorded from it gives fingerprints (what may be reused, forked or
shared), whether a run is finished, the weights of its progress display, and its picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

from ray_kplm.datasets.dataset import Dataset
from ray_kplm.methods import build_method
from ray_kplm.methods.page import Output
from ray_kplm.run import Run
from ray_kplm.steps.align import Align
from ray_kplm.steps.calibrate_visibility import CalibrateVisibility
from ray_kplm.steps.cluster import ClusterFeatures, ClusterKeypoints
from ray_kplm.steps.context import RunContext
from ray_kplm.steps.detect import DetectKeypoints
from ray_kplm.steps.extract import ExtractFeatures, ExtractKeypoints
from ray_kplm.steps.facing import FindFacing
from ray_kplm.steps.merge import MergeChannels
from ray_kplm.steps.task import LandmarkLabels, RoundLabels, Task
from ray_kplm.steps.train import TrainRound
from ray_kplm.steps.train_landmarks import ExportJointHead, TrainLandmarks
from ray_kplm.steps.update_labels import UpdateLabels

AnyTask = TypeVar("AnyTask", bound=Task)


class Recorder:
    """`methods.page.Steps` that notes each step as a task."""

    def __init__(self, context: RunContext) -> None:
        self.tasks: list[Task] = []
        self._context = context

    def _add(self, task: AnyTask) -> AnyTask:
        self.tasks.append(task)
        return task

    def rounds(self) -> range:
        """Return the numbers of the rounds, the warm-up first."""
        return range(self._context.config.stage1.rounds + 1)

    def phases(self) -> range:
        """Return the numbers of the phases of stage 2."""
        return range(self._context.method.num_phases)

    def detect_keypoints(self, *, described: bool = False) -> DetectKeypoints:
        """Note the detection of generic keypoints."""
        return self._add(DetectKeypoints(self._context, described))

    def cluster_keypoints(self, keypoints: Output) -> ClusterKeypoints:
        """Note the clustering of generic keypoints."""
        return self._add(ClusterKeypoints(self._context, _as(DetectKeypoints, keypoints)))

    def find_facing(self) -> FindFacing | None:
        """Note the search for what a mirror image is, unless the configuration says it."""
        found_by_images = self._context.config.method.mirror in ("auto", "facing")
        return self._add(FindFacing(self._context)) if found_by_images else None

    def train(
        self, round: int, labels: Output, start: Output | None = None, facing: Output | None = None
    ) -> TrainRound:
        """Note the training of a round."""
        before = None if start is None else _as(TrainRound, start)
        faced = None if facing is None else _as(FindFacing, facing)
        return self._add(TrainRound(self._context, round, _as(RoundLabels, labels), before, faced))

    def extract_features(
        self, round: int, network: Output, known: Output | None = None, facing: Output | None = None
    ) -> ExtractFeatures:
        """Note the extraction of keypoints with descriptors."""
        described = None if known is None else _as(RoundLabels, known)
        faced = None if facing is None else _as(FindFacing, facing)
        return self._add(ExtractFeatures(self._context, round, _as(TrainRound, network), described, faced))

    def extract_keypoints(self, round: int, network: Output) -> ExtractKeypoints:
        """Note the extraction of keypoints."""
        return self._add(ExtractKeypoints(self._context, round, _as(TrainRound, network)))

    def cluster(self, round: int, features: Output, previous: Output | None = None) -> ClusterFeatures:
        """Note the clustering of features."""
        before = None if previous is None else _as(ClusterFeatures, previous)
        return self._add(ClusterFeatures(self._context, round, _as(ExtractFeatures, features), before))

    def align(self, keypoints: Output) -> Align:
        """Note the alignment with a template."""
        return self._add(Align(self._context, _as(ExtractKeypoints, keypoints)))

    def train_landmarks(
        self, labels: Output, start: Output | None = None, phase: int | None = None, facing: Output | None = None
    ) -> TrainLandmarks:
        """Note the training of the landmark detector in a phase."""
        number = self.phases()[-1] if phase is None else phase
        before = start if start is None or isinstance(start, MergeChannels) else _as(TrainRound, start)
        faced = None if facing is None else _as(FindFacing, facing)
        return self._add(TrainLandmarks(self._context, number, _as(LandmarkLabels, labels), before, faced))

    def merge_channels(self, phase: int, detector: Output) -> MergeChannels:
        """Note the merge of channels."""
        return self._add(MergeChannels(self._context, phase, _as(TrainLandmarks, detector)))

    def update_labels(self, phase: int, detector: Output) -> UpdateLabels:
        """Note the labelling with a detector."""
        return self._add(UpdateLabels(self._context, phase, _as(TrainLandmarks, detector)))

    def export_joint_head(self, network: Output, labels: Output) -> ExportJointHead:
        """Note the export of a jointly trained detector."""
        return self._add(ExportJointHead(self._context, _as(TrainRound, network), _as(LandmarkLabels, labels)))

    def calibrate_visibility(self, detector: Output, facing: Output | None = None) -> CalibrateVisibility:
        """Note the fit of what gives landmarks their probabilities."""
        assert isinstance(detector, TrainLandmarks | ExportJointHead), f"{detector.path}: is no detector"
        faced = None if facing is None else _as(FindFacing, facing)
        return self._add(CalibrateVisibility(self._context, detector, faced))


def _as(kind: type[AnyTask], output: Output) -> AnyTask:
    """The output as a kind of task. A page that passes something else is wrong."""
    assert isinstance(output, kind), f"{output.path}: a page takes {kind.__name__} here"
    return output


@dataclass(frozen=True)
class Recording:
    """The tasks of a run, in the order of work."""

    tasks: tuple[Task, ...]

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)

    def __getitem__(self, path: str) -> Task:
        """Return the task of a folder of the run: `stage2`."""
        return next(task for task in self.tasks if task.path == path)

    def is_finished(self) -> bool:
        """Return whether the last task is done, and the detector that it takes is still there.

        Raises:
            RunError: a task was done or begun under another configuration.
        """
        done = {task for task in self.tasks if task.step.manifest() is not None}
        last = self.tasks[-1]
        return {last, *(task for task in last.takes if not task.is_transient)} <= done

    def check_outputs(self) -> None:
        """Raise DamageError if a file of a finished step is lost or has another size, or if the detector's are damaged.

        The detector is what the last step makes and takes.
        """
        last = self.tasks[-1]
        for task in self.tasks:
            task.check_output(thoroughly=task is last or task in last.takes)

    def takers(self, task: Task) -> list[Task]:
        """Return the tasks that take the output of a task."""
        return [other for other in self.tasks if task in other.takes]

    def is_consumed(self, task: Task) -> bool:
        """Return whether all tasks that take the output of a task are done."""
        return all(taker.step.manifest() is not None for taker in self.takers(task))

    def state(self, task: Task) -> str:
        """Return `Step.state`, or `deleted` for a transient output that no task needs any more."""
        state = task.step.state()
        consumed = all(taker.step.state() == "done" for taker in self.takers(task))
        return "deleted" if task.is_transient and state == "to do" and consumed else state

    @property
    def has_clusters(self) -> bool:
        """Whether the rounds end with clusters, which are ordered landmarks."""
        return any(isinstance(task, ClusterFeatures) for task in self.tasks)

    @property
    def keeps_cluster_numbers(self) -> bool:
        """Whether a cluster has the same number in every round."""
        return any(isinstance(task, ClusterFeatures) and task.previous is not None for task in self.tasks)

    def weights(self) -> dict[str, float]:
        """Return the expected cost of each task by its folder's full path."""
        return {task.folder.path: task.cost for task in self.tasks}

    def picture(self) -> str:
        """Return the run as a Mermaid flow chart: what each task takes, and which are done."""
        number = {task: f"t{index}" for index, task in enumerate(self.tasks)}
        lines = ["flowchart TD"]
        for task in self.tasks:
            lines.append(
                f'  {number[task]}["{task.path}"]{":::done" if self.state(task) in ("done", "deleted") else ""}'
            )
            lines += [f"  {number[taken]} --> {number[task]}" for taken in task.takes]
        return "\n".join([*lines, "  classDef done fill:#bfe3c5"])


def record(run: Run, dataset: Dataset) -> Recording:
    """Record the page of a run's method. Reads nothing of the run, and writes nothing."""
    method = build_method(run.config)
    recorder = Recorder(RunContext(run, dataset, method))
    method.discover_landmarks(recorder)
    return Recording(tuple(recorder.tasks))
