"""Many runs through Ray Tune, one beside the other or one after the other."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from typing import Any

from ray import tune

from ray_kplm.config import Config
from ray_kplm.errors import KplmError
from ray_kplm.steps.progress import listening

_CPUS = 0.01
"""A trial only waits for the run that it starts, whose actors reserve what they need: a whole CPU would starve them."""

Trial = Callable[[Config, Callable[[str], None]], dict[str, Any]]
"""Runs a configuration, tells lines of progress, and returns its figures."""


class _Lines:
    """A text stream whose lines go to the driver, under the trial's name."""

    def __init__(self, board: Any, name: str) -> None:
        self._board, self._name, self._count = board, name, 0

    def __call__(self, line: str) -> None:
        self._count += 1
        self._board.post.remote((self._count, self._name), line)


def run_trials(
    trial: Trial, configs: Mapping[str, Config], *, at_once: int, told: Callable[[str, str], None]
) -> dict[str, dict[str, Any]]:
    """The figures of each configuration by its name; of one that failed {"error": what it said}. The others go on.

    Ray must be initialised. told: a trial's name and a line of its progress.
    """
    with listening(lambda place, line: told(place[1], line)) as board, tempfile.TemporaryDirectory() as folder:

        def work(parameters: dict[str, str]) -> None:
            name = parameters["name"]
            try:
                figures = trial(configs[name], _Lines(board, name))
            except KplmError as error:
                figures = {"error": str(error)}
            tune.report({"figures": figures})

        tuner = tune.Tuner(
            tune.with_resources(work, {"CPU": _CPUS}),
            param_space={"name": tune.grid_search(list(configs))},
            tune_config=tune.TuneConfig(max_concurrent_trials=at_once),
            run_config=tune.RunConfig(storage_path=folder, name="trials", verbose=0),
        )
        results = tuner.fit()
    found: dict[str, dict[str, Any]] = {}
    for result in results:
        name = str((result.config or {})["name"])
        if result.metrics and "figures" in result.metrics:
            found[name] = result.metrics["figures"]
        else:
            found[name] = {"error": str(result.error).strip().splitlines()[-1]}
    return {name: found[name] for name in configs}
