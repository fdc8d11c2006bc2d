"""A new run that takes over what still fits from another one."""

from __future__ import annotations

from collections.abc import Sequence

from ray_kplm.config import Config
from ray_kplm.correspondence.clusters import CLUSTERS
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.errors import RunError
from ray_kplm.run import MANIFEST, Run
from ray_kplm.steps.recorder import record
from ray_kplm.steps.task import Task
from ray_kplm.storage import Folder, copy_file

_STEPS = {"keypoints", "rounds", "template", "stage2"}
"""Folders of a run's steps."""


def fork(source: Run, config: Config) -> list[str]:
    """Copy the steps of `source` whose fingerprints are those of `config` into the new run `config.run`.

    Returns the paths of the steps taken over. Raises RunError if there is a run already.
    """
    target = Run.start(config)
    if target.folder.is_file("config.yaml"):
        raise RunError(f"{target.folder}: is a run already; fork into a new folder")
    dataset = Dataset.open(config.dataset)
    taken: list[str] = []
    for task in record(target, dataset):
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
    """`fork` from the run that has most in common with the configuration; nothing where none has anything.

    What an interrupted fork left in the run's folder, steps and no run yet, is removed.
    """
    folder = Folder.at(config.run)
    if not folder.names() and {*folder.folders()} <= _STEPS:
        folder.delete()
    target = Run.start(config)
    prints = {task.path: task.fingerprint for task in record(target, Dataset.open(config.dataset))}

    def common(source: Run) -> int:
        found = [source.manifest(path) for path in prints]
        return sum(
            manifest is not None and manifest["fingerprint"] == wanted
            for manifest, wanted in zip(found, prints.values(), strict=True)
        )

    best = max(sources, key=common, default=None)
    return fork(best, config) if best and common(best) else []


def _copy_step(source: Run, task: Task) -> None:
    """Copy all files of a step's folder, its manifest last; and the clusters beside the folder of labels."""
    folder = source.folder
    for piece in task.path.split("/"):
        folder /= piece
    if folder.parent.is_file(CLUSTERS):
        copy_file(folder.parent, task.folder.parent, CLUSTERS)
    for name in sorted(folder.names(), key=lambda name: name == MANIFEST):
        copy_file(folder, task.folder, name)
