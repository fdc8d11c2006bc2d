"""A new run that takes over the steps of another run that still fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ray_kplm.config import Config
from ray_kplm.correspondence.clusters import CLUSTERS
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.errors import RunError
from ray_kplm.methods.frozen_descriptors import PROJECTION
from ray_kplm.run import MANIFEST, Run
from ray_kplm.run_lock import lock_folder
from ray_kplm.steps.recorder import record
from ray_kplm.steps.task import Task
from ray_kplm.storage import Folder, copy_file


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
        found = source.manifest(task.path)
        if found is None or found["fingerprint"] != task.fingerprint:
            continue
        try:
            _copy_step(source, task)
        except FileNotFoundError:  # features, which the source's own process has just deleted
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
    prints = {task.path: task.fingerprint for task in recording}

    def common(source: Run) -> int:
        found = [source.manifest(path) for path in prints]
        return sum(
            manifest is not None and manifest["fingerprint"] == wanted
            for manifest, wanted in zip(found, prints.values(), strict=True)
        )

    with lock_folder(folder) as lock:
        files = [name for name in folder.names() if not name.startswith(".")]
        if not files and {*folder.folders()} <= {path.split("/")[0] for path in prints}:
            for name in folder.folders():
                (lock.folder / name).delete()
        target = replace(Run.start(config), folder=lock.folder)
        best = max(sources, key=common, default=None)
        return _fork(best, target) if best and common(best) else []


def _copy_step(source: Run, task: Task) -> None:
    """Copy all files of a step's folder, its manifest last; and the round's arrays beside the folder."""
    folder = source.folder
    for piece in task.path.split("/"):
        folder /= piece
    for name in (CLUSTERS, PROJECTION):
        if folder.parent.is_file(name):
            copy_file(folder.parent, task.folder.parent, name)
    for name in sorted(folder.names(), key=lambda name: name == MANIFEST):
        copy_file(folder, task.folder, name)
