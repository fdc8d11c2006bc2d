"""Many runs as trials of Ray Tune, side by side as far as the cluster has room.

Searcher, scheduler, retries and the experiment's state on storage are Tune's own. A trial has an actor of its own; the workers
of its run are placed outside of what Tune reserves for the trial.

The experiment is started by `tune.run`, which `Tuner.fit` calls too. `Tuner.restore` would take searcher, scheduler, callbacks
and number of samples from a pickle of the first start (Ray 2.60), but a sweep that continues may have more samples, and its
callbacks hold what belongs to this process.
"""

from __future__ import annotations

import logging
import math
import os
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Protocol

import ray
from ray import cloudpickle, tune
from ray.exceptions import RayActorError
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import BasicVariantGenerator, SearchAlgorithm, SearchGenerator

from ray_kplm.config import ComputeConfig
from ray_kplm.errors import ConfigError, StorageError
from ray_kplm.progress import ProgressCallback
from ray_kplm.ranges import REDUCTIONS, ROUNDS, check_ranges
from ray_kplm.runtime.progress_channel import open_channel
from ray_kplm.runtime.remote_errors import unwrap_user_error
from ray_kplm.runtime.session import needed_cpus
from ray_kplm.runtime.trial_actor import ERROR, FINAL, TrialActor, TrialFunction, Values
from ray_kplm.storage import Folder, Guard

OBJECTIVE, ROUND = "objective", "round"
"""Metrics of a sweep's trials: what Tune minimises, and the number of the finished round."""
GRID, RANDOM, TPE = "grid", "random", "tpe"

_RESTARTS = 2
"""Times that Tune starts a trial again after an error, or after its process or its node died."""
_CHECK_S = 1.0
"""Between two looks whether the folder still belongs to this driver."""
_MAX_ROUNDS = 10_000
"""More rounds than a run has: the largest rung of successive halving is below."""
_HEAD_NODE = "node:__internal_head__"
"""A resource of which every cluster has 1, on its head node."""
_USABLE = 0.99
"""Share of it for trials: an actor of Ray Train reserves 0.001 where its state is tracked (Ray 2.60)."""
_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the newer output prints tables at verbosity 0 too (Ray 2.60)
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # JSON alone: storage gets a copy of all their files every ten seconds
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C raises KeyboardInterrupt, as in all commands
    "TUNE_MAX_PENDING_TRIALS_PG": "1",  # a trial is suggested when there is room for it, or will be next
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # `Events.ended` has them
}


@dataclass(frozen=True)
class Halving:
    """Asynchronous successive halving (Li et al. 2018, arXiv 1810.05934), as Tune's `ASHAScheduler` does it."""

    grace: Annotated[int, ROUNDS] = 1
    """First round at whose end trials are compared; the next ones are each `reduction` times as late."""
    reduction: Annotated[float, REDUCTIONS] = 3.0
    """The best 1 / `reduction` of the trials go on."""

    def __post_init__(self) -> None:
        check_ranges(self, "asha: ")


@dataclass(frozen=True)
class Search:
    """What Tune searches, and how."""

    space: Mapping[str, tuple[Any, ...]]
    """Name -> a function of `ray.tune` and its arguments: ("loguniform", 1e-4, 2e-3), ("grid_search", [8, 16])."""
    algorithm: str = GRID
    """GRID, RANDOM or TPE."""
    samples: int = 1
    """Trials in all; of a grid, times that all combinations are tried."""
    seed: int = 0
    metric: str | None = None
    """What is minimised; None: nothing is compared."""
    halving: Halving | None = None


class Events(Protocol):
    """Follows an experiment in the driver, one call at a time. Tune keeps its `state` with the experiment's."""

    state: Any
    """What a process that continues the experiment starts with; can be pickled."""

    def began(self) -> None:
        """The experiment begins, or continues with `state`."""

    def started(self, name: str, values: Values) -> None:
        """A trial's process is about to work, for the first time or again."""

    def reported(self, name: str, metrics: Mapping[str, Any]) -> None:
        """A trial reported metrics; after a restart it may repeat some."""

    def ended(self, name: str, metrics: Mapping[str, Any] | None, error: str) -> None:
        """A trial ended.

        Args:
            name: The trial's name.
            metrics: What it returned; None: it failed, or the scheduler ended it.
            error: One line about an error, else empty. With `metrics` it would fail again; without, a process that continues
                the experiment tries it again.
        """


def run_trials(
    trial: TrialFunction,
    search: Search,
    events: Events,
    *,
    name: Callable[[int, Values], str],
    compute: Callable[[Values], ComputeConfig],
    max_concurrent: int | None,
    folder: Folder,
    progress: ProgressCallback,
) -> tune.ResultGrid:
    """Run all trials of a search, or continue where an earlier process stopped. Ray must be initialised.

    Args:
        trial: What a trial does; can be pickled, as can `name` and `compute`.
        search: The space and how it is searched.
        events: Gets what happens.
        name: Name of a trial by its number and values, also of its folder in Tune's experiment.
        compute: How the run of some values is laid out.
        max_concurrent: Trials side by side; None: as many as fit by what their runs reserve, and at least one.
        folder: The experiment's folder, reachable from all nodes.
        progress: Gets the trials' progress, with their names.
    """
    os.environ.update(_ENVIRONMENT)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    first = 1 if search.algorithm == TPE else 0  # Tune's number of the first trial
    scheduler = _scheduler(search.halving)
    is_known = any(file.startswith("experiment_state-") for file in folder.names(suffix=".json"))
    with open_channel(lambda place, message: progress(message[0], f"{place[1]}: {message[1]}")) as channel:
        analysis = tune.run(
            tune.with_resources(
                tune.with_parameters(TrialActor, trial=trial, channel=channel, metric=search.metric),
                lambda values: _reservation(compute(values), max_concurrent),
            ),
            config={path: getattr(tune, function)(*given) for path, (function, *given) in search.space.items()},
            metric=search.metric,
            mode="min",
            search_alg=_searcher(search),
            scheduler=scheduler,
            num_samples=search.samples,
            name=folder.name,
            storage_path=folder.parent.path,
            storage_filesystem=folder.filesystem,
            resume_config=tune.ResumeConfig(errored=tune.ResumeConfig.ResumeType.RESUME) if is_known else None,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # runs have their own
            max_failures=_RESTARTS,
            callbacks=[tune.logger.JsonLoggerCallback(), _Callback(events, scheduler, folder.guard)],
            trial_name_creator=partial(_trial_name, name=name, first=first),
            trial_dirname_creator=str,
            raise_on_failed_trial=False,
            verbose=0,
        )
    return tune.ResultGrid(analysis)


def _trial_name(trial: TuneTrial, name: Callable[[int, Values], str], first: int) -> str:
    return name(int(trial.experiment_tag.partition("_")[0]) - first, trial.config)


def _reservation(compute: ComputeConfig, max_concurrent: int | None) -> tune.PlacementGroupFactory:
    """Return what Tune reserves for a trial: the share of the cluster that its run will need.

    The run's own actors reserve its CPUs and GPUs, so the trial must not. Its actor reserves its share of the head node's own
    resource instead, so that Tune starts no more trials than fit.
    """
    if max_concurrent is None:
        total = ray.cluster_resources()
        shared = 1  # the CPU beside the workers serves all runs
        cpus = (needed_cpus(compute) - shared) / max(total.get("CPU", 0) - shared, 0.01)
        wanted = compute.gpus_per_worker * max(compute.worker_range.min, compute.extract_workers)
        gpus = wanted / total.get("GPU", 0.01) if wanted else 0.0
        share = min(max(cpus, gpus, 0.01), 1.0)
    else:
        share = 1 / max_concurrent
    return tune.PlacementGroupFactory([{_HEAD_NODE: math.floor(share * _USABLE * 1e4) / 1e4}])  # Ray counts in 1e-4


def _scheduler(halving: Halving | None) -> ASHAScheduler | None:
    if halving is None:
        return None
    return ASHAScheduler(
        time_attr=ROUND,
        max_t=max(_MAX_ROUNDS, halving.grace),
        grace_period=halving.grace,
        reduction_factor=halving.reduction,
        stop_last_trials=False,  # a trial goes on to stage 2 after its last round
    )


def _searcher(search: Search) -> SearchAlgorithm:
    if search.algorithm != TPE:
        return _Variants(search.samples, random_state=search.seed)
    optuna = import_optuna()
    from ray.tune.search.optuna import OptunaSearch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant_liar, which takes running trials for bad ones, is experimental
        sampler = optuna.samplers.TPESampler(seed=search.seed, constant_liar=True)
    return _Suggestions(search.samples, OptunaSearch(sampler=sampler))


def import_optuna() -> Any:
    """Return the module `optuna`.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise ConfigError(
            '--search tpe: needs Optuna; pip install "ray-kplm[sweep]", or take --search random'
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings(
        "ignore", "The reported value is ignored"
    )  # a trial that continues reports its rounds again
    return optuna


class _Suggestions(SearchGenerator):
    """A searcher of Tune, which a process that continues may ask for more samples than it began with."""

    def __init__(self, samples: int, searcher: Any) -> None:
        super().__init__(searcher)
        self._samples = samples

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state({**state, "total_samples": self._samples, "finished": False})


class _Variants(BasicVariantGenerator):
    """Tune's grid and random search, which a process that continues may ask for more samples than it began with."""

    def __init__(self, samples: int, **settings: Any) -> None:
        super().__init__(**settings)
        self._samples = samples

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state({**state, "_samples": self._samples, "_finished": False})
        for iterator in self._iterators:
            iterator.num_samples_left += self._samples - iterator.num_samples
            iterator.num_samples = self._samples


class _Callback(tune.Callback):
    """Forwards Tune's events, and keeps the scheduler's state, which Tune does not (Ray 2.60)."""

    def __init__(self, events: Events, scheduler: ASHAScheduler | None, guard: Guard | None = None) -> None:
        self._events, self._scheduler, self._guard = events, scheduler, guard
        self._started: set[str] = set()
        self._next_check = 0.0

    def setup(self, **info: Any) -> None:
        self._events.began()

    def on_step_begin(self, iteration: int, trials: list[TuneTrial], **info: Any) -> None:
        # Tune itself writes its state to the folder, and does not ask whether it is still this driver's.
        if self._guard is not None and time.monotonic() >= self._next_check:
            with suppress(OSError, StorageError):  # which shows nothing
                self._guard.check()
            self._next_check = time.monotonic() + _CHECK_S

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self._started.add(str(trial))
        self._events.started(str(trial), dict(trial.config))

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **info: Any
    ) -> None:
        if FINAL not in result:
            self._events.reported(str(trial), result)

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        result = trial.last_result
        self._events.ended(str(trial), result if FINAL in result else None, result.get(ERROR, ""))

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        if str(trial) not in self._started:  # its actor could not be made
            self.on_trial_start(iteration, trials, trial)
        with open(trial.pickled_error_file, "rb") as stream:
            self._events.ended(str(trial), None, _line(cloudpickle.load(stream)))

    def get_state(self) -> dict[str, Any]:
        return {"events": self._events.state, "scheduler": self._scheduler and vars(self._scheduler)}

    def set_state(self, state: dict[str, Any]) -> None:
        self._events.state = state["events"]
        if self._scheduler is not None and state["scheduler"]:
            vars(self._scheduler).update(state["scheduler"])


def _line(error: BaseException) -> str:
    """Return one line about an error that ended a trial."""
    if isinstance(error, RayActorError):
        return f"its process or its node died {_RESTARTS + 1} times"
    user_error = unwrap_user_error(error)
    return str(user_error) if user_error else str(error).strip().splitlines()[-1]
