"""A new run that takes over the steps of another run that still fit."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from ray_kplm.config import Config
from ray_kplm.correspondence.clusters import CLUSTERS
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.errors import DamageError, RunError
from ray_kplm.locking import lock_folder
from ray_kplm.methods.frozen_descriptors import PROJECTION
from ray_kplm.run import MANIFEST, Run
from ray_kplm.steps.recorder import record
from ray_kplm.steps.task import Task
from ray_kplm.storage import Folder
from ray_kplm.storage.integrity import OUTPUTS, read_manifest


def fork(source: Run, config: Config) -> list[str]:
    """Copy the steps of `source` whose fingerprints are those of `config` into the new run `config.run`.

    Returns:
        The paths of the copied steps.

    Raises:
        RunError: there is a run already, or another driver is at work there.
    """
    target = Run.start(config)
    if target.folder.is_file("config.yaml"):
        raise RunError(f"{target.folder}: is a run already; fork into a new folder")
    with lock_folder(target.folder) as lock:
        return _fork(source, replace(target, folder=lock.folder))


def _fork(source: Run, target: Run) -> list[str]:
    taken: list[str] = []
    for task in record(target, Dataset.open(target.config.dataset)):
        try:
            if not _fits(source, task):
                continue
            _copy_step(source, task)
        except FileNotFoundError:  # features, which the source's own process has just deleted
            continue
        except DamageError as error:
            print(f"kplm: {task.path} is not taken over: {error}", file=sys.stderr, flush=True)
            for name in task.folder.unchecked.names():
                task.folder.unchecked.delete_file(name)
            continue
        taken.append(task.path)
    target.save()
    return taken


def fork_best(sources: Sequence[Run], config: Config) -> list[str]:
    """Fork from the run that has most steps in common with the configuration, if one has any.

    What an interrupted fork left in the run's folder, which is steps without a configuration, is removed first.

    Returns:
        The paths of the copied steps.
    """
    folder = Folder.at(config.run)
    recording = record(Run(folder, config), Dataset.open(config.dataset))

    def common(source: Run) -> int:
        count = 0
        for task in recording:
            with suppress(DamageError, FileNotFoundError):
                count += _fits(source, task)
        return count

    with lock_folder(folder) as lock:
        files = [name for name in folder.names() if not name.startswith(".")]
        if not files and {*folder.folders()} <= {task.path.split("/")[0] for task in recording}:
            for name in folder.folders():
                (lock.folder / name).delete()
        target = replace(Run.start(config), folder=lock.folder)
        best = max(sources, key=common, default=None)
        return _fork(best, target) if best and common(best) else []


def _fits(source: Run, task: Task) -> bool:
    """Return whether a run has the finished step that a task would make."""
    found = source.manifest(task.path)
    return found is not None and found["fingerprint"] == task.fingerprint


def _copy_step(source: Run, task: Task) -> None:
    """Copy all files of a step, its manifest last; and the round's arrays beside its folder.

    Raises:
        FileNotFoundError: a file was deleted meanwhile.
        DamageError: a file is damaged or lost.
    """
    folder, target = source.unit(task.path), task.folder
    names = {*read_manifest(folder).get(OUTPUTS, {}), *folder.names()}  # an older version recorded no names
    names |= {f"../{name}" for name in (CLUSTERS, PROJECTION) if folder.parent.is_file(name)}
    for key in sorted(names, key=lambda name: name == MANIFEST):
        (where, name), (there, _) = folder.place(key), target.place(key)
        there.unchecked.write_bytes(name, where.read_bytes(name))
