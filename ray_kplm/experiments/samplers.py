"""Where to look next. Each suggestion is a function of the space, the trials so far, its number and the seed, and of nothing
else: a sweep that was interrupted goes on as it would have."""

from __future__ import annotations

import itertools
import json
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ray_kplm.errors import ConfigError
from ray_kplm.experiments.journal import FAILED, FINISHED, RUNNING, Trial
from ray_kplm.experiments.space import Choice, Dimension, Interval, Space, Values

GRID, RANDOM, TPE = "grid", "random", "tpe"
_ATTEMPTS = 100
"""Draws that may break a rule of the configuration, or be known, before a sweep gives up."""

Check = Callable[[Values], object]
"""Raises ConfigError for values that break a rule together."""


class Sampler:
    """Suggests the values of trial after trial, no two alike."""

    def __init__(self, space: Space, search: str, samples: int, seed: int, check: Check) -> None:
        """samples: trials in all, of a grid all there are. Raises ConfigError for what cannot be searched so."""
        self._space, self._search, self._seed, self._check = space, search, seed, check
        if search == GRID:
            ranges = [dimension.path for dimension in space.dimensions if isinstance(dimension, Interval)]
            if ranges:
                raise ConfigError(
                    f"--search grid: {ranges[0]} is no list; take --search random or tpe, or list its values"
                )
            for values in space.grid():
                check(values)
        elif samples < 1:
            raise ConfigError(f"--samples {samples}: must be at least 1")
        if search == TPE:
            _optuna()
        self.samples = int(space.size) if search == GRID else int(min(samples, space.size))

    def suggest(self, trials: Sequence[Trial]) -> Values | None:
        """What the next trial, number len(trials), is to try; None: there are as many as there should be."""
        number = len(trials)
        if number >= self.samples:
            return None
        if self._search == GRID:
            return next(itertools.islice(self._space.grid(), number, None))
        known, refused = {_key(trial.values) for trial in trials}, None
        for attempt in range(_ATTEMPTS):
            seed = int(np.random.SeedSequence([self._seed, number, attempt]).generate_state(1)[0])
            # What is likely to be good may be known already: after half of the attempts, look anywhere.
            guided = self._search == TPE and attempt < _ATTEMPTS // 2
            values = _tpe(self._space, trials, seed) if guided else self._space.draw(np.random.default_rng(seed))
            if _key(values) in known:
                continue
            try:
                self._check(values)
            except ConfigError as error:
                refused = error
                continue
            return values
        if refused and not trials:
            raise ConfigError(f"--over: none of {_ATTEMPTS} draws is a configuration; {refused}")
        return None


def _key(values: Values) -> str:
    return json.dumps(values, sort_keys=True)


def _tpe(space: Space, trials: Sequence[Trial], seed: int) -> Values:
    """By the Tree-structured Parzen Estimator (Bergstra et al. 2011) of Optuna, whose first ten trials are random."""
    optuna = _optuna()
    distributions = {dimension.path: _distribution(optuna, dimension) for dimension in space.dimensions}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant_liar: of trials under way, the worst is expected
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, constant_liar=True))
    for trial in trials:
        study.add_trial(_known(optuna, space, trial, distributions))
    asked = study.ask(distributions).params
    return {d.path: _to_value(d, asked[d.path]) for d in space.dimensions}


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise ConfigError(
            '--search tpe: needs Optuna; pip install "ray-kplm[sweep]", or take --search random'
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _distribution(optuna: Any, dimension: Dimension) -> Any:
    if isinstance(dimension, Choice):
        return optuna.distributions.CategoricalDistribution(
            list(range(len(dimension.values)))
        )  # places: lists are no values
    if dimension.whole:
        return optuna.distributions.IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return optuna.distributions.FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def _to_value(dimension: Dimension, asked: Any) -> Any:
    return dimension.values[asked] if isinstance(dimension, Choice) else dimension.rounded(asked)


def _known(optuna: Any, space: Space, trial: Trial, distributions: dict[str, Any]) -> Any:
    """A trial as Optuna knows trials. One that was stopped early is pruned; one that failed is so too, as the worst of all."""
    states = optuna.trial.TrialState
    state = {FINISHED: states.COMPLETE, RUNNING: states.RUNNING}.get(trial.state, states.PRUNED)
    if state == states.COMPLETE and not _is_number(trial.objective):
        state = states.PRUNED
    reports = {} if trial.state == FAILED else {n: v for n, v in trial.reports.items() if _is_number(v)}
    places = {d.path: d.values.index(trial.values[d.path]) for d in space.dimensions if isinstance(d, Choice)}
    return optuna.trial.create_trial(
        state=state,
        params={path: places.get(path, value) for path, value in trial.values.items()},
        distributions=distributions,
        value=trial.objective if state == states.COMPLETE else None,
        intermediate_values=reports,
    )


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
