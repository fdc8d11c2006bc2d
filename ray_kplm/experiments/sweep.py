"""`kplm sweep`: search the configuration that finds the best landmarks, by Ray Tune.

<sweep>/sweep.json                           what is searched, and how
<sweep>/tune/                                Tune's experiment: its state, and for each trial the metrics of each round
<sweep>/keypoints/<fingerprint>/             generic keypoints, shared by all trials that begin with the same
<sweep>/000,batch_size=8/ ...                the trials' run directories
<sweep>/best.yaml, results.{json,csv}, index.html
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated, Any

from ray_kplm.config import ComputeConfig, Config
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.errors import ConfigError, RunError
from ray_kplm.experiments.objective import AUTO, choose_objective, measure_round, measure_run
from ray_kplm.experiments.space import Choice, Space, Values, configured, read_space
from ray_kplm.experiments.sweep_events import RESULTS, SweepEvents, keypoints_folder
from ray_kplm.experiments.sweep_results import from_dict, run_name
from ray_kplm.experiments.trial import absolute, discover_with_reuse
from ray_kplm.locking import lock_folder
from ray_kplm.locking.fence import Patrol, end_process
from ray_kplm.progress import ProgressCallback
from ray_kplm.ranges import TRIALS, Processes, Seed, check_ranges
from ray_kplm.run import Run
from ray_kplm.runtime.session import session
from ray_kplm.runtime.trial_actor import Report
from ray_kplm.runtime.tune import (
    GRID,
    OBJECTIVE,
    RANDOM,
    ROUND,
    TPE,
    Halving,
    Search,
    import_optuna,
    run_trials,
)
from ray_kplm.steps.choose import LANDMARKS, resolve
from ray_kplm.steps.context import LAYOUT
from ray_kplm.steps.executor import Executor
from ray_kplm.steps.recorder import record
from ray_kplm.storage import Folder, Guard
from ray_kplm.tracking import ParentRun, add_evaluation, check_environment, track_group

_DEFINITION = "sweep.json"


@dataclass(frozen=True)
class SweepOptions:
    """How to search."""

    over: Sequence[str]
    """See `experiments.space`."""
    search: str | None = None
    """grid, random or tpe; None: a grid where all dimensions are lists, else random."""
    samples: Annotated[int, TRIALS] = 20
    """Trials of random and tpe search."""
    max_concurrent: Processes | None = None
    """Trials side by side; None: as many as the cluster has room for."""
    seed: Seed = 0
    """Of the search. That of the runs is the configuration's."""
    objective: str = AUTO
    halving: Halving | None = None
    """Stop weak trials early."""

    def __post_init__(self) -> None:
        check_ranges(self, "sweep: ")


def sweep(config: Config, options: SweepOptions, progress: ProgressCallback) -> dict[str, Any]:
    """Try configurations below `config.run`.

    Continues a sweep that was interrupted: finished and stopped trials stay as they are, the others continue in their run
    directories. More samples may be asked for than before.

    Returns:
        What `results.json` there holds: the best trial, and all of them.

    Raises:
        ConfigError: The options do not fit the configuration.
        RunError: No trial finished, or the folder holds something else.
    """
    if not config.run:
        raise ConfigError("run = '': name the sweep's folder, for example run=runs/sweep")
    check_environment()
    config, folder = absolute(config), Folder.at(config.run)
    dataset, space = Dataset.open(config.dataset), read_space(options.over, config)
    objective = choose_objective(options.objective, dataset)
    search = _search(config, space, options)
    if options.halving and not record(Run(folder, config), dataset).has_clusters:
        raise ConfigError(f"--asha: the rounds of method.kind = {config.method.kind} have no landmarks to compare")
    samples = (
        math.prod(len(given) for _, given in search.space.values()) if search.algorithm == GRID else search.samples
    )
    _begin(folder, _definition(config, space, search.algorithm, objective, options))
    results = folder.read_object(RESULTS) if folder.is_file(RESULTS) else {"trials": []}
    if sum(from_dict(tree).is_over for tree in results["trials"]) < samples:
        parameters = {"objective": objective, "search": search.algorithm, **space.to_dict()}
        with (
            lock_folder(folder) as lock,
            session(config.compute, options.max_concurrent or 1),
            track_group(lock.folder, dataset.meta, parameters) as group,
        ):
            folder = lock.folder
            if LANDMARKS not in search.space:
                config = resolve(Run(folder, config), dataset, progress)
            trials = SweepEvents(folder, config, space, objective, dataset, samples, group, progress)
            run_trials(
                partial(_trial, config, objective, group.parent, folder.guard), search, trials,
                name=run_name, compute=partial(_compute, config), max_concurrent=options.max_concurrent,
                folder=folder / "tune", progress=progress,
            )  # fmt: skip
            results = trials.publish()
    if results["best"] is None:
        errors = [trial["error"] for trial in results["trials"] if trial["error"]]
        raise RunError(f"{folder}: no trial finished; {errors[0] if errors else 'none has an objective'}")
    return results


def _search(config: Config, space: Space, options: SweepOptions) -> Search:
    """Return what Tune is to do.

    Raises:
        ConfigError: It cannot be searched so.
    """
    algorithm = options.search or (GRID if space.is_listed else RANDOM)
    if algorithm == GRID:
        for values in space.grid():
            configured(config, values)
    if algorithm == TPE:
        import_optuna()
    lists = "grid_search" if algorithm == GRID else "choice"
    domains = {
        d.path: (lists, list(d.values)) if isinstance(d, Choice) else (d.distribution, d.low, d.high)
        for d in space.dimensions
    }
    samples = 1 if algorithm == GRID else options.samples
    return Search(domains, algorithm, samples, options.seed, OBJECTIVE, options.halving)


def _definition(config: Config, space: Space, search: str, objective: str, options: SweepOptions) -> dict[str, Any]:
    """Return what must not change while a sweep continues.

    The number of samples may change, and how work is laid out as far as it may in a run.
    """
    layout = {f"compute.{name}" for name in asdict(config.compute)} - {f"compute.{name}" for name in LAYOUT}
    fixed = {path: value for path, value in config.flat().items() if path not in {"run", *layout}}
    halving = asdict(options.halving) if options.halving else {}
    how = {"--search": search, "--objective": objective, "--seed": options.seed}
    return {
        **fixed,
        **{f"--over {path}": what for path, what in space.to_dict().items()},
        **how,
        "--grace-rounds": halving.get("grace"),
        "--reduction": halving.get("reduction"),
    }


def _begin(folder: Folder, definition: Mapping[str, Any]) -> None:
    """Write what the sweep is, or make sure that it is the one that was begun here.

    Raises:
        RunError: It is not; the message names what changed.
    """
    if not folder.is_file(_DEFINITION):
        if folder.names() or folder.folders():
            raise RunError(f"{folder}: is not empty and no sweep; set run= to a new folder")
        folder.write_json(_DEFINITION, dict(definition))
        return
    if (folder / "trials").exists():
        raise RunError(
            f"{folder}: was begun by a version that kept trials in trials/ and drew HIGH of randint too; set run= to a new "
            "folder"
        )
    found = folder.read_object(_DEFINITION)
    changes = [
        f"{key} was {found.get(key)!r}, is {definition.get(key)!r}"
        for key in sorted({*found, *definition})
        if found.get(key) != definition.get(key)
    ]
    if changes:
        raise RunError(
            f"{folder}: is another sweep: {'; '.join(changes)}. Set run= to a new folder, or restore the value"
        )


def _compute(config: Config, values: Values) -> ComputeConfig:
    """Return how the run of some values is laid out; of impossible values, which fail at once, as the others'."""
    with suppress(ConfigError):
        return configured(config, values).compute
    return config.compute


def _trial(
    base: Config,
    objective: str,
    parent: ParentRun,
    guard: Guard | None,
    name: str,
    values: Values,
    progress: ProgressCallback,
    report: Report,
) -> dict[str, Any]:
    """Run a trial, in an actor on any node, and report the objective of each round, infinite where it is not measurable."""
    config, below = configured(base, values, f"{base.run}/{name}"), Folder.at(base.run)
    siblings = [keypoints_folder(config, Dataset.open(config.dataset))]
    siblings += [below / folder for folder in below.folders() if folder[0].isdigit()]

    def after_round(executor: Executor, finished: int) -> None:
        value = measure_round(objective, executor.run, finished)
        if value is not None:
            executor.track_round(finished, {f"sweep/{objective}": value})
        report({OBJECTIVE: _reported(value), ROUND: finished})

    with Patrol(guard, on_loss=end_process):
        run = discover_with_reuse(siblings, config, progress, parent, after_round)
        value, figures, metrics = measure_run(objective, run, progress)
        if metrics:
            add_evaluation(run, metrics)
    return {OBJECTIVE: _reported(value), "figures": figures}


def _reported(value: float | None) -> float:
    """Return an objective as Tune compares it: what could not be measured is the worst."""
    return math.inf if value is None or not math.isfinite(value) else value
