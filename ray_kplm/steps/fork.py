"""A new run that takes over what still fits from another one."""

from __future__ import annotations

from collections.abc import Sequence

from ray_kplm.config import Config
from ray_kplm.correspondence.clusters import CLUSTERS
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.errors import RunError
from ray_kplm.methods import build_method
from ray_kplm.run import MANIFEST, Run, Step
from ray_kplm.steps.graph import Steps
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
    steps = Steps(target, dataset, build_method(config))
    taken: list[str] = []
    for step in steps:
        path = step.folder.path.removeprefix(target.folder.path + "/")
        found = source.manifest(path)
        if found is None or found["fingerprint"] != step.fingerprint:
            continue
        try:
            _take(source, path, step)
        except FileNotFoundError:  # features, which the source's own process has just deleted
            continue
        taken.append(path)
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
    steps = Steps(target, Dataset.open(config.dataset), build_method(config))
    prints = {step.folder.path.removeprefix(target.folder.path + "/"): step.fingerprint for step in steps}

    def common(source: Run) -> int:
        found = [source.manifest(path) for path in prints]
        return sum(
            manifest is not None and manifest["fingerprint"] == wanted
            for manifest, wanted in zip(found, prints.values(), strict=True)
        )

    best = max(sources, key=common, default=None)
    return fork(best, config) if best and common(best) else []


def _take(source: Run, path: str, step: Step) -> None:
    whole = Folder(source.folder.filesystem, f"{source.folder.path}/{path}")
    if step.name == "correspond":
        copy_file(whole.parent, step.folder.parent, CLUSTERS)
    _copy(whole, step.folder)


def _copy(source: Folder, target: Folder) -> None:
    """All files of a step's folder; its manifest last."""
    for name in sorted(source.names(), key=lambda name: name == MANIFEST):
        copy_file(source, target, name)
