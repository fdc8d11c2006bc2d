"""What a sweep knows of its trials, on storage: a file a trial, each written whole.

    <sweep>/sweep.json            what is searched, and how
    <sweep>/trials/00000.json     a trial: its values, its objective after each round, how it ended

Written by the sweep's own process; read by its trials, for whether to go on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ray_kplm.errors import RunError
from ray_kplm.experiments.halving import Halving
from ray_kplm.experiments.space import Values, shown
from ray_kplm.storage import Folder

RUNNING, FINISHED, STOPPED, FAILED = "running", "finished", "stopped", "failed"
"""A trial's states. Running: or interrupted. Stopped: by its objective, and so for good."""

_DEFINITION = "sweep.json"
_NAME_LENGTH = 120


@dataclass(frozen=True)
class Trial:
    """One configuration of a sweep."""

    number: int
    name: str
    """Of its run directory, in the sweep's folder."""
    values: Values
    state: str = RUNNING
    reports: Mapping[int, float | None] = field(default_factory=dict)
    """Round -> objective of its landmarks, lower is better; None: it could not be measured."""
    objective: float | None = None
    """At the end."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """What else was measured at the end."""
    error: str = ""
    final: bool = False
    """Of a failed one: it would fail again."""
    seconds: float = 0.0
    """Of work, over all interruptions."""

    @property
    def last(self) -> float | None:
        """The newest objective."""
        if self.state == FINISHED or not self.reports:
            return self.objective
        return self.reports[max(self.reports)]


class Journal:
    """The trials of a sweep's folder, by their numbers."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder / "trials"
        self._root = folder
        names = self._folder.names(suffix=".json")
        self.trials = [_from_dict(self._folder.read_json(name)) for name in names]

    def begin(self, definition: Mapping[str, Any]) -> None:
        """Note what the sweep is, or make sure that it is the one that was begun here.

        definition: flat, ready for JSON. Raises RunError naming what changed, or if the folder holds something else.
        """
        if not self._root.is_file(_DEFINITION):
            if self._root.names() or self._root.folders():
                raise RunError(f"{self._root}: is not empty and no sweep; set run= to a new folder")
            self._root.write_json(_DEFINITION, dict(definition))
            return
        found = self._root.read_json(_DEFINITION)
        changes = [
            f"{key} was {found.get(key)!r}, is {definition.get(key)!r}"
            for key in sorted({*found, *definition})
            if found.get(key) != definition.get(key)
        ]
        if changes:
            raise RunError(
                f"{self._root}: is another sweep: {'; '.join(changes)}. Set run= to a new folder, or restore the value"
            )

    def add(self, values: Values) -> Trial:
        """A new trial."""
        number = len(self.trials)
        trial = Trial(number, run_name(values, f"{number:03d}"), dict(values))
        self.trials.append(trial)
        self._write(trial)
        return trial

    def named(self, name: str) -> Trial:
        return next(trial for trial in self.trials if trial.name == name)

    def unfinished(self) -> list[Trial]:
        """Trials to go on with: interrupted ones, and those whose failure may have been bad luck."""
        return [t for t in self.trials if t.state == RUNNING or (t.state == FAILED and not t.final)]

    def update(self, trial: Trial, **changes: Any) -> Trial:
        """The trial with changes, on storage when this returns."""
        changed = replace(trial, **changes)
        self.trials[trial.number] = changed
        self._write(changed)
        return changed

    def report(self, trial: Trial, number: int, value: float | None, rounds: int, halving: Halving | None) -> Trial:
        """Keep the objective of a finished round and, in the same act, whether the trial goes on. What was reported before, or
        by a trial that is over, changes nothing."""
        if number in trial.reports or trial.state != RUNNING:
            return trial
        others = [t.reports[number] for t in self.trials if number in t.reports]
        stops = halving is not None and number in halving.rungs(rounds) and halving.stops(value, others)
        return self.update(trial, reports={**trial.reports, number: value}, state=STOPPED if stops else RUNNING)

    def _write(self, trial: Trial) -> None:
        self._folder.write_json(_file(trial.number), asdict(trial))


def read_trial(sweep: Folder, number: int) -> Trial:
    """One trial as it stands now, from any process."""
    return _from_dict((sweep / "trials").read_json(_file(number)))


def best(trials: Sequence[Trial]) -> Trial | None:
    """The finished trial of the lowest objective; the earlier one of two alike."""
    measured = [t for t in trials if t.state == FINISHED and t.objective is not None]
    return min(measured, key=lambda t: t.objective or 0.0, default=None)


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """Finished ones, best first; then those that were stopped, the farthest first; then the rest."""

    def place(trial: Trial) -> tuple[int, int, bool, float]:
        kind = (FINISHED, STOPPED, RUNNING, FAILED).index(trial.state)
        rounds = 0 if trial.state == FINISHED else -len(trial.reports)
        return kind, rounds, trial.last is None, trial.last or 0.0

    return sorted(trials, key=place)


def run_name(values: Mapping[str, Any], *before: str) -> str:
    """A folder's name: `003,batch_size=16,learning_rate=0.0004`, by `short_names`."""
    names = short_names(list(values))
    pieces = [f"{names[path]}={shown(value)}" for path, value in values.items()]
    return re.sub(r"[^\w.,=+-]+", "_", ",".join([*before, *pieces]))[:_NAME_LENGTH]


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """The last part of each path, or the whole where two would be alike."""
    last = [path.rsplit(".", 1)[-1] for path in paths]
    return {path: name if last.count(name) == 1 else path for path, name in zip(paths, last, strict=True)}


def _file(number: int) -> str:
    return f"{number:05d}.json"


def _from_dict(tree: dict[str, Any]) -> Trial:
    return Trial(**{**tree, "reports": {int(number): value for number, value in tree["reports"].items()}})
