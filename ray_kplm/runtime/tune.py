"""Many runs through Ray Tune, side by side as far as there is room.

Tune places a trial's process, starts it again when it dies, and carries its reports. Which runs there are, and what is kept of
them, is the `Source`'s: so it can be on storage, whole, at any time. A trial is never stopped from outside but ends itself:
with Ray's dashboard off, what Tune reserved for a stopped trial is not given back, and the next one waits for ever (Ray 2.60).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import ray
from ray import tune
from ray.tune.search import Searcher

from ray_kplm.config import ComputeConfig, Config, from_dict
from ray_kplm.errors import KplmError
from ray_kplm.progress import ProgressCallback
from ray_kplm.runtime.progress_channel import open_channel
from ray_kplm.runtime.session import needed_cpus
from ray_kplm.storage import Folder

_CPUS = 0.01
"""A trial only waits for the run that it starts, whose actors reserve what they need: a whole CPU would starve them."""
_RESTARTS = 2
"""Times that a trial is started again after its process or its node died."""
_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the newer one prints tables even when told to be silent
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the runs have their own records
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends this process, and does not count as the end of the trials
}

Report = Callable[[Mapping[str, Any]], None]
Trial = Callable[[Config, ProgressCallback, Report], dict[str, Any]]
"""Runs a configuration, tells lines of progress, reports on the way, and returns its figures, ready for JSON. A report returns
when the source has dealt with it."""


class Source(Protocol):
    """Where runs come from, and where their figures go. Used in the driver, one call at a time."""

    def next(self) -> tuple[str, Config] | None:
        """A run to start, with a name of its own; None: there are no more."""

    def reported(self, name: str, report: dict[str, Any]) -> None:
        """What a trial says on the way; after a restart it may say it again."""

    def ended(self, name: str, figures: dict[str, Any]) -> None:
        """Its figures; {"error": text, "error_type": its class's name} of one that failed. The others go on."""


def run_trials(
    trial: Trial,
    source: Source,
    *,
    max_concurrent: int | None,
    scratch: Folder,
    progress: ProgressCallback,
) -> None:
    """All runs of the source. Ray must be initialised.

    max_concurrent: runs side by side; None: as many as the present nodes have room for, by what each
    reserves, and one at least. scratch: where Tune may write while they run, reachable from all nodes.
    progress: gets a trial's share and lines, with its name.
    """
    os.environ.update(_ENVIRONMENT)
    with open_channel(lambda place, message: progress(message[0], f"{place[1]}: {message[1]}")) as channel:

        def work(parameters: dict[str, str]) -> None:
            name, config = parameters["name"], from_dict(json.loads(parameters["config"]))
            try:
                figures = trial(config, _Lines(channel, name), lambda report: _send("report", report))
            except Exception as error:
                figures = {"error": _line(error), "error_type": type(error).__name__}
            _send("figures", figures)

        tuner = tune.Tuner(
            tune.with_resources(work, {"CPU": _CPUS}),
            tune_config=tune.TuneConfig(
                search_alg=_Searcher(source, _Room(max_concurrent)),
                num_samples=-1,
                trial_dirname_creator=lambda made: made.trial_id,
            ),
            run_config=tune.RunConfig(
                name=scratch.name,
                storage_path=scratch.parent.path,
                storage_filesystem=scratch.filesystem,
                failure_config=tune.FailureConfig(max_failures=_RESTARTS),
                verbose=0,
            ),
        )
        scratch.delete()  # of a process that was killed: Tune is not to continue it, the source does
        try:
            tuner.fit()
        finally:
            scratch.delete()


def _send(kind: str, values: Mapping[str, Any]) -> None:
    """To the source. Returns when Tune asks for more, which it does after the searcher has had it."""
    tune.report({kind: json.dumps(dict(values))})  # Tune flattens what is nested


def _line(error: Exception) -> str:
    return (
        str(error) if isinstance(error, KplmError) else f"{type(error).__name__}: {str(error).strip()}".splitlines()[-1]
    )


class _Lines:
    """A trial's lines of progress, to the driver."""

    def __init__(self, channel: Any, name: str) -> None:
        self._channel, self._name, self._count = channel, name, 0

    def __call__(self, share: float, text: str) -> None:
        self._count += 1
        self._channel.send.remote((self._count, self._name), (share, text))


class _Room:
    """Whether one more run fits beside those that run."""

    def __init__(self, max_concurrent: int | None) -> None:
        self._max_concurrent = max_concurrent
        self._running: dict[str, ComputeConfig] = {}

    def has(self, compute: ComputeConfig | None) -> bool:
        """compute: of the run to come; None: not known yet, then it is taken to be as the last one."""
        running = list(self._running.values())
        if not running:
            return True
        if self._max_concurrent is not None:
            return len(running) < self._max_concurrent
        layouts = [*running, compute or running[-1]]
        there = ray.cluster_resources()
        cpus = 1 + sum(needed_cpus(layout) - 1 for layout in layouts)  # the one beside the workers serves all
        gpus = sum(layout.gpus_per_worker * max(layout.worker_range.min, layout.extract_workers) for layout in layouts)
        return cpus <= there.get("CPU", 0) and gpus <= there.get("GPU", 0)

    def take(self, name: str, compute: ComputeConfig) -> None:
        self._running[name] = compute

    def leave(self, name: str) -> None:
        self._running.pop(name, None)


class _Searcher(Searcher):
    """Tune's way to ask the source."""

    def __init__(self, source: Source, room: _Room) -> None:
        super().__init__()
        self._source, self._room = source, room
        self._waiting: tuple[str, Config] | None = None
        self._names: dict[str, str] = {}

    def suggest(self, trial_id: str) -> dict[str, str] | str | None:
        if self._waiting is None:
            if not self._room.has(None):
                return None  # not now
            self._waiting = self._source.next()
            if self._waiting is None:
                return str(Searcher.FINISHED)
        name, config = self._waiting
        if not self._room.has(config.compute):
            return None
        self._waiting = None
        self._room.take(name, config.compute)
        self._names[trial_id] = name
        return {"name": name, "config": json.dumps(config.to_dict())}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if "report" in result:
            self._source.reported(self._names[trial_id], json.loads(result["report"]))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        name = self._names[trial_id]
        self._room.leave(name)
        lost = {"error": f"its process or its node died {_RESTARTS + 1} times", "error_type": "RunError"}
        figures = json.loads(result["figures"]) if result and "figures" in result else lost
        self._source.ended(name, figures)

    def __getstate__(self) -> dict[str, Any]:
        """Tune keeps a copy that nobody reads: the source may hold what cannot be copied."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """The source keeps its own state."""

    def restore(self, checkpoint_path: str) -> None:
        """Never done: a sweep that goes on asks its source."""
