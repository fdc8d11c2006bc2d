"""A step of a run as an object: where it writes, what it takes, what it costs, and how it is done."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ray_kplm.methods.labels import Labels
from ray_kplm.run import Step
from ray_kplm.storage.integrity import CheckedFolder, read_manifest

if TYPE_CHECKING:
    from ray_kplm.steps.context import RunContext
    from ray_kplm.steps.executor import Executor

DETECTION_COST, FORWARD_COST, TRAINING_COST = 1.0, 1.5, 4.0
"""Rough cost of an image: keypoints detected, run through the network, trained on. For the remaining time only."""
METRICS = (
    "points_per_image",
    "training_points_per_image",
    "usable_images",
    "landmark_objective",
    "cluster_objective",
)
"""Facts of a step that MLflow keeps as metrics."""


@dataclass(frozen=True, eq=False)
class Task(ABC):
    """A step of a run, and the handle of its output on a method's page.

    What a task needs of other tasks it holds as fields. Nothing is read from storage before `run`.
    """

    context: RunContext

    is_transient: ClassVar[bool] = False
    """Whether the output is deleted once the tasks that take it are done."""
    essential: ClassVar[tuple[str, ...]] = ()
    """Files without which the finished step is useless, also where an older version kept no records of its files."""
    starts_workers: ClassVar[bool] = False
    """Whether the workers of the next training are started meanwhile: the task leaves CPUs and GPUs to them."""

    works_in_workers: ClassVar[bool] = False
    """Whether training workers that hold the GPUs do the work; otherwise they end before it."""
    uses_clustering: ClassVar[bool] = False
    """Whether the actors of clustering are used."""

    @property
    @abstractmethod
    def path(self) -> str:
        """The step's folder, relative to the run's."""

    @property
    @abstractmethod
    def step(self) -> Step:
        """The step on storage: its folder, and what it reads."""

    @property
    @abstractmethod
    def cost(self) -> float:
        """Expected cost, in units of `FORWARD_COST`."""

    @abstractmethod
    def run(self, executor: Executor) -> None:
        """Do the work, or go on with it, and publish the step."""

    @property
    def takes(self) -> tuple[Task, ...]:
        """The tasks whose output this one takes."""
        return tuple(value for value in vars(self).values() if isinstance(value, Task))

    @property
    def completes_round(self) -> int | None:
        """The round of stage 1 whose last task this is."""
        return None

    @property
    def worker_batch(self) -> int | None:
        """`Plan.batch` of the training, if this is one: workers for it can be started ahead."""
        return None

    @cached_property
    def fingerprint(self) -> str:
        """The step's fingerprint, which those that take its output depend on."""
        return self.step.fingerprint

    @property
    def folder(self) -> CheckedFolder:
        """The step's folder."""
        return self.step.folder

    def check_output(self, *, thoroughly: bool = False) -> None:
        """Raise DamageError if the step is finished and a file of it is lost, or has another size.

        Args:
            thoroughly: whether to compare the content of all files too.
        """
        if self.step.manifest() is None:
            return
        for name in self.essential:
            if not self.folder.unchecked.is_file(name):
                raise self.folder.damage(name, f"is lost, though {self.path} is finished")
        self.folder.check_sizes()
        if thoroughly:
            self.folder.check()

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest of the finished step."""
        return read_manifest(self.folder)


class RoundLabels(Task):
    """A task whose output a round of stage 1 can train on."""

    @abstractmethod
    def round_labels(self, parts: list[str]) -> Labels:
        """Return the labels of the images of some parts."""


class LandmarkLabels(Task):
    """A task whose output stage 2 can train on: points with the numbers of landmarks."""

    def clusters(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of `clusters.npz`; none where correspondence does not come from clusters."""
        return {}

    def label_counts(self) -> NDArray[np.int64]:
        """Return the number of labels of each landmark: (L,)."""
        return np.array(self.manifest["label_counts"])


def metrics_of(facts: dict[str, Any]) -> dict[str, float]:
    """Return the facts of a step that MLflow keeps."""
    return {name: facts[name] for name in METRICS if name in facts}
