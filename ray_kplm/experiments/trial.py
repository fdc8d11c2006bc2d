"""One run of an ablation or a sweep, which may take over finished steps of the others."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from ray_kplm.config import Config, from_dict, with_overrides
from ray_kplm.dense_features import FEATURE_NAMES
from ray_kplm.pipeline import discover
from ray_kplm.progress import ProgressCallback, ProgressDisplay
from ray_kplm.run import Run
from ray_kplm.steps.executor import AfterRound
from ray_kplm.steps.fork import fork_best
from ray_kplm.storage import Folder
from ray_kplm.tracking import ParentRun


def absolute(config: Config) -> Config:
    """Return the configuration with absolute local paths, since a trial's process works in a folder of its own."""
    paths = {"dataset": config.dataset, "run": config.run, "keypoints.file": config.keypoints.file}
    paths["augment.extra"] = config.augment.extra
    local = {name: Folder.at(path).path for name, path in paths.items() if path and Folder.at(path).is_local}
    if os.path.exists(config.keypoints.weights):  # else a hub name
        local["keypoints.weights"] = os.path.abspath(config.keypoints.weights)
    if config.features not in FEATURE_NAMES and os.path.exists(config.features):
        local["features"] = os.path.abspath(config.features)
    return from_dict(with_overrides(config.to_dict(), [f"{name}={path}" for name, path in local.items()]))


def discover_with_reuse(
    siblings: Sequence[Folder],
    config: Config,
    progress: ProgressCallback,
    parent: ParentRun | None = None,
    after_round: AfterRound = lambda executor, round: None,
) -> Run:
    """Run `discover`, after copying the finished steps of the sibling that has most in common with the configuration.

    Args:
        siblings: Run directories, or folders that may become such.
        config: The configuration, with its run directory.
        progress: Gets the progress of the run.
        parent: The group of runs in MLflow that this one belongs to.
        after_round: Called with every finished round; it may raise to end the run there.
    """
    if not Folder.at(config.run).is_file("config.yaml"):
        runs = [Run.open(str(folder)) for folder in siblings if folder.is_file("config.yaml")]
        fork_best(runs, config)
    run, _ = discover(config, progress_to(progress), parent, after_round)
    return run


def progress_to(callback: ProgressCallback) -> Callable[[dict[str, float]], ProgressDisplay]:
    """Return what makes a run's `ProgressDisplay` that reports to a callback instead of writing to the terminal."""
    return lambda weights: ProgressDisplay(weights, callback=callback)
