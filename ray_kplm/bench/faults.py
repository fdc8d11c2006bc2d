"""Faults that `kplm bench chaos --victims` injects: the process to kill and the moment to kill it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

WORKER, EXTRACTION, SHARD = "worker", "extraction", "shard"
COORDINATOR, CONTROLLER, DRIVER, NODE = "coordinator", "controller", "driver", "node"
_TITLES = {
    WORKER: "RayTrainWorker",
    EXTRACTION: "MapBatches(_work_on_part)",
    SHARD: "_ShardActor",
    COORDINATOR: "CorrespondenceActor",
    CONTROLLER: "TrainController",
}
"""Part of the title of the Ray process of each victim."""

CHECKPOINT, PART = "ray/*/checkpoint_*", "part-*"
"""Patterns of files: checkpoints, below the run, of the training step at work; parts, below the step."""


@dataclass(frozen=True)
class Fault:
    """A process to kill as soon as a step at work has written a number of files.

    Attributes:
        victim: Kind of process, or `NODE` for all processes of a node that has a training or an extraction worker.
        step: Path of the step in the run.
        pattern: Files that must have been written, `CHECKPOINT` or `PART`; empty for the start of the step.
        count: Number of these files.
    """

    victim: str
    step: str
    pattern: str = ""
    count: int = 1

    def __str__(self) -> str:
        moment = f"{self.count} x {Path(self.pattern).name}" if self.pattern else "at its start"
        return f"{self.victim} ({self.step}, {moment})"

    @property
    def title(self) -> str:
        """Part of the title of the process to kill."""
        if self.victim == NODE:
            return _TITLES[EXTRACTION if self.step.endswith("features") else WORKER]
        return _TITLES[self.victim]


MOMENTS: tuple[tuple[Fault, ...], ...] = (
    (
        Fault(WORKER, "rounds/000/train"),
        Fault(DRIVER, "rounds/000/train", CHECKPOINT),
        Fault(NODE, "rounds/000/features"),
        Fault(EXTRACTION, "rounds/000/features", PART),
        Fault(SHARD, "rounds/000/labels"),
        Fault(CONTROLLER, "rounds/001/train", CHECKPOINT),
        Fault(COORDINATOR, "rounds/001/labels"),
    ),
    (
        Fault(NODE, "rounds/000/train", CHECKPOINT),
        Fault(EXTRACTION, "rounds/000/features"),
        Fault(DRIVER, "rounds/000/labels"),
        Fault(COORDINATOR, "rounds/000/labels"),
        Fault(WORKER, "rounds/001/train", CHECKPOINT),
        Fault(SHARD, "rounds/001/labels", PART),
        Fault(CONTROLLER, "stage2"),
    ),
    (
        Fault(CONTROLLER, "rounds/000/labels"),
        Fault(COORDINATOR, "rounds/000/labels", PART),
        Fault(NODE, "rounds/001/train", CHECKPOINT, 2),
        Fault(EXTRACTION, "rounds/001/features", PART, 4),
        Fault(SHARD, "rounds/001/labels"),
        Fault(DRIVER, "stage2", CHECKPOINT),
        Fault(WORKER, "stage2", CHECKPOINT, 2),
    ),
)
"""Three moments for each of seven victims. The faults of one row can all be injected into one run, in this order."""
