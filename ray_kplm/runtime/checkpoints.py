"""Checkpoints of unfinished trainings: `<run>/ray/<token of the driver>/checkpoint_*`, written by Ray Train.

Each driver has a folder of its own. So one that was overtaken and wakes up, and Ray Train that still works for it, write over
nothing and delete nothing of the driver that took over. That one begins with a copy of the newest checkpoint that others left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ray_kplm.storage import Folder, copy_file

STATE, POSITION = "state.pt", "position.json"
"""Files of a checkpoint: weights and optimiser; job and iteration."""
_PREFIX = "checkpoint_"
_REGISTRY = "checkpoint_manager_snapshot.json"
"""File in which Ray Train notes the checkpoints that are complete."""
_INHERITED = "-inherited"


@dataclass(frozen=True)
class Position:
    """Where a checkpoint stands."""

    job: str
    """Fingerprint of the step that is trained."""
    iteration: int

    @classmethod
    def of(cls, values: dict[str, Any]) -> Position:
        """Return what `position.json` says. Earlier versions put the path of the step before the fingerprint."""
        return cls(str(values["job"]).split()[-1], int(values["iteration"]))


def inherit_checkpoint(checkpoints: Folder, own: Folder, job: str) -> Folder | None:
    """Copy the newest checkpoint of a job that other drivers left.

    Args:
        checkpoints: folder of the checkpoints of all drivers.
        own: this driver's folder in it.
        job: fingerprint of the step.

    Returns:
        The folder with the copy, which nobody else changes; None: there is no checkpoint.
    """
    found: list[tuple[int, str, Folder]] = []
    others = [checkpoints, *(checkpoints / name for name in checkpoints.folders() if name != own.name)]
    for folder in others:  # the first one: earlier versions had no folder for each driver
        if not folder.is_file(_REGISTRY):
            continue
        complete = folder.read_bytes(_REGISTRY)
        for name in folder.folders():
            position = _position(folder / name) if name.startswith(_PREFIX) and name.encode() in complete else None
            if position is not None and position.job == job:
                found.append((position.iteration, name, folder / name))
    copy = checkpoints / f"{own.name}{_INHERITED}"
    for _, _, source in sorted(found, key=lambda entry: entry[:2], reverse=True):
        try:
            for name in (STATE, POSITION):
                copy_file(source, copy, name)
        except FileNotFoundError:  # the driver that wrote it is still at work, and has deleted it
            continue
        return copy
    return None


def _position(checkpoint: Folder) -> Position | None:
    try:
        return Position.of(checkpoint.read_json(POSITION))
    except (OSError, ValueError, KeyError, TypeError, IndexError):  # deleted meanwhile, or damaged
        return None
