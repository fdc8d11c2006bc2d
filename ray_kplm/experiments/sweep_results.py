"""The trials of a sweep: their states, ranking and names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray_kplm.experiments.space import Values, shown

RUNNING, FINISHED, STOPPED, FAILED = "running", "finished", "stopped", "failed"
"""States of a trial. RUNNING includes interrupted; STOPPED is by successive halving, for good."""

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
    """Round -> objective of its landmarks, lower is better; None: not measurable."""
    objective: float | None = None
    """At the end."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """Other figures at the end."""
    error: str = ""
    final: bool = False
    """Of a failed trial: whether it would fail again."""
    seconds: float = 0.0
    """Of work, over all interruptions."""

    @property
    def last(self) -> float | None:
        """The newest objective."""
        if self.state == FINISHED or not self.reports:
            return self.objective
        return self.reports[max(self.reports)]

    @property
    def is_over(self) -> bool:
        """Whether the trial has nothing left to do when the sweep continues."""
        return self.final if self.state == FAILED else self.state != RUNNING


def best(trials: Sequence[Trial]) -> Trial | None:
    """Return the finished trial of the lowest objective; of two alike, the earlier one."""
    measured = [t for t in trials if t.state == FINISHED and t.objective is not None]
    return min(measured, key=lambda t: t.objective or 0.0, default=None)


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """Return finished trials, best first; then stopped ones, latest round first; then the rest."""

    def place(trial: Trial) -> tuple[int, int, bool, float]:
        kind = (FINISHED, STOPPED, RUNNING, FAILED).index(trial.state)
        rounds = 0 if trial.state == FINISHED else -len(trial.reports)
        return kind, rounds, trial.last is None, trial.last or 0.0

    return sorted(trials, key=place)


def run_name(number: int, values: Mapping[str, Any]) -> str:
    """Return the name of a trial and of its folder: `003,batch_size=16,learning_rate=0.0004`."""
    names = short_names(list(values))
    pieces = [f"{number:03d}", *(f"{names[path]}={shown(value)}" for path, value in values.items())]
    return re.sub(r"[^\w.,=+-]+", "_", ",".join(pieces))[:_NAME_LENGTH]


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Return the last part of each path, or the whole path where two last parts are alike."""
    last = [path.rsplit(".", 1)[-1] for path in paths]
    return {path: name if last.count(name) == 1 else path for path, name in zip(paths, last, strict=True)}


def from_dict(tree: Mapping[str, Any]) -> Trial:
    """Return a trial of results.json."""
    return Trial(**{**tree, "reports": {int(number): value for number, value in tree["reports"].items()}})
