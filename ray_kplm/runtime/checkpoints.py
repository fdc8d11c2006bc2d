"""Checkpoints of unfinished trainings: `<run>/ray/<token of the driver>/checkpoint_*`, written by Ray Train.

Each driver has a folder of its own. So one that was overtaken and wakes up, and Ray Train that still works for it, write over
nothing and delete nothing of the driver that took over. That one begins with a copy of the newest checkpoint that others left.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from ray_kplm.errors import DamageError
from ray_kplm.storage import Folder, copy_file
from ray_kplm.storage.file_content import check_seal, parsing, seal
from ray_kplm.storage.file_records import difference, record_of

STATE, POSITION = "state.pt", "position.json"
"""Files of a checkpoint: weights and optimiser; job, iteration and the hash of the weights."""
_PREFIX = "checkpoint_"
_REGISTRY = "checkpoint_manager_snapshot.json"
"""File in which Ray Train notes the checkpoints that are complete."""
_INHERITED = "-inherited"
_WAY_OUT = "remove the folder `ray` of the run; the same command then begins this training again"


class Position(NamedTuple):
    """Where a checkpoint stands."""

    job: str
    """Fingerprint of the step that is trained."""
    iteration: int


class Loaded(NamedTuple):
    """The content of a checkpoint."""

    state: bytes
    """Weights and optimiser."""
    iteration: int


def write_checkpoint(folder: Folder, state: bytes, job: str, iteration: int) -> None:
    """Write a checkpoint of a job, a step's fingerprint, into a folder."""
    folder.write_bytes(STATE, state, durable=False)
    folder.write_json(POSITION, seal({"job": job, "iteration": iteration, "state": record_of(STATE, state)}))


def read_checkpoint(folder: Folder, job: str, target: str) -> Loaded | None:
    """Return the content of a checkpoint, None if it is of another job.

    Args:
        folder: of the checkpoint.
        job: the fingerprint of the step that is trained.
        target: where the step writes, for the error.

    Raises:
        DamageError: the checkpoint is not as it was written. Those of earlier versions have no hash.
    """
    with parsing(f"{target}: the checkpoint of its training", _WAY_OUT):
        values = json.loads(folder.read_bytes(POSITION))
        check_seal(values)
        position = position_of(values)
        if position.job != job:
            return None
        state = folder.read_bytes(STATE)
        if "state" in values and (found := difference(values["state"], state)):
            raise ValueError(found)
    return Loaded(state, position.iteration)


def position_of(values: dict[str, Any]) -> Position:
    """Return what `position.json` says. Earlier versions put the path of the step before the fingerprint."""
    return Position(str(values["job"]).split()[-1], int(values["iteration"]))


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
            if read_checkpoint(source, job, str(source)) is None:
                continue
            for name in (STATE, POSITION):
                copy_file(source, copy, name)
        except (
            FileNotFoundError,
            DamageError,
        ):  # its driver is still at work and has deleted it; or an older one is whole
            continue
        return copy
    return None


def _position(checkpoint: Folder) -> Position | None:
    try:
        return position_of(checkpoint.read_json(POSITION))
    except (OSError, ValueError, KeyError, TypeError, IndexError):  # deleted meanwhile, or damaged
        return None
