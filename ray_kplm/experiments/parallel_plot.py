"""Parallel coordinates as SVG: an axis for each searched path and one for the objective, and a line for each trial.

Colours are classes of the page's style sheet: `q0` for the best fifth of the lines to `q4` for the worst, `best`, `stopped`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from ray_kplm.experiments.space import read_interval, shown
from ray_kplm.experiments.sweep_results import short_names

_GAP, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 170, 320, 70, 70, 46, 16
_CLASSES = 5
_TICKS = 5

Trials = Sequence[Mapping[str, Any]]
"""As results.json has them."""


@dataclass(frozen=True)
class Axis:
    """A vertical axis. Places go from 0, the bottom, to 1, the top."""

    title: str
    ticks: tuple[tuple[float, str], ...]
    places: tuple[float | None, ...]
    """Of the trials; None: a trial has no value on this axis."""


def parallel_coordinates(space: Mapping[str, str], title: str, trials: Trials) -> str:
    """Return an SVG of all trials that have an objective, the best on top.

    Args:
        space: Path -> spelling of its list or distribution.
        title: Name of the objective; lower is better.
        trials: Those of results.json; one that was stopped early is drawn at its last objective.
    """
    measured = [trial for trial in trials if last(trial) is not None]
    if not measured:
        return '<p class="quiet">No trial has an objective yet.</p>'
    names = short_names(list(space))
    axes = [value_axis(names[path], what, [t["values"][path] for t in measured]) for path, what in space.items()]
    axes.append(_objective_axis(title, [float(last(t) or 0.0) for t in measured]))
    width = _LEFT + _GAP * (len(axes) - 1) + _RIGHT
    pieces = [_axis(axis, _LEFT + _GAP * number) for number, axis in enumerate(axes)]
    order = sorted(
        range(len(measured)), key=lambda i: (measured[i]["state"] == "finished", -float(last(measured[i]) or 0))
    )
    ranks = {index: len(order) - 1 - rank for rank, index in enumerate(order)}
    lines = [_line(measured[i], axes, i, ranks[i], len(order)) for i in order]  # the best last, on top of the others
    box = f"0 0 {width} {_TOP + _HEIGHT + _BOTTOM}"
    return (
        f'<svg class="parallel" role="img" viewBox="{box}" style="min-width:{width * 2 // 3}px;max-width:{width * 3 // 2}px">'
        f"<title>Parallel coordinates of {len(measured)} trials over {escape(', '.join(space))} and {escape(title)}; the best "
        f"line is the thick one</title>{''.join(lines)}{''.join(pieces)}</svg>"
    )


def value_axis(title: str, what: str, values: Sequence[Any]) -> Axis:
    """Return the axis of a dimension: evenly spaced values of a list, or a linear or logarithmic scale of a distribution."""
    interval = read_interval(title, what)
    if interval is not None:
        low, high = interval.low, interval.largest
        to_place = _log if interval.is_log else _linear
        marks = {i / (_TICKS - 1): _between(low, high, i / (_TICKS - 1), log=interval.is_log) for i in range(_TICKS)}
        if interval.is_whole:
            marks = {to_place(float(round(mark)), low, high): round(mark) for mark in marks.values()}
        ticks = tuple((place, f"{mark:.3g}" if not interval.is_whole else str(mark)) for place, mark in marks.items())
        return Axis(title, ticks, tuple(to_place(float(value), low, high) for value in values))
    texts = {shown(value): value for value in values}
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    ordered = sorted(texts, key=lambda text: texts[text]) if numbers else sorted(texts)
    places = {text: (i + 0.5) / len(ordered) for i, text in enumerate(ordered)}
    return Axis(title, tuple((places[text], text) for text in ordered), tuple(places[shown(v)] for v in values))


def last(trial: Mapping[str, Any]) -> float | None:
    """Return the newest objective of a trial of results.json, where the keys of `reports` may be text."""
    objective: float | None = trial["objective"]
    if trial["state"] == "finished" or not trial["reports"]:
        return objective
    reports: Mapping[Any, float | None] = trial["reports"]
    return reports[max(reports, key=int)]


def _objective_axis(title: str, values: Sequence[float]) -> Axis:
    """Return the axis of the objective, reversed: lower values, which are better, are higher up."""
    low, high = min(values), max(values)
    if low == high:
        return Axis(title, ((0.5, f"{low:.3g}"),), (0.5,) * len(values))
    ticks = tuple((1 - i / (_TICKS - 1), f"{low + (high - low) * i / (_TICKS - 1):.3g}") for i in range(_TICKS))
    return Axis(title, ticks, tuple((high - value) / (high - low) for value in values))


def _linear(value: float, low: float, high: float) -> float:
    """Return where a value lies from low, 0, to high, 1; in the middle of a range of one value."""
    return (value - low) / (high - low) if high > low else 0.5


def _log(value: float, low: float, high: float) -> float:
    return _linear(math.log(value), math.log(low), math.log(high))


def _between(low: float, high: float, place: float, *, log: bool) -> float:
    return low * (high / low) ** place if log else low + (high - low) * place


def _y(place: float) -> float:
    return round(_TOP + (1 - place) * _HEIGHT, 1)


def _axis(axis: Axis, x: int) -> str:
    ticks = "".join(
        f'<line x1="{x - 4}" x2="{x}" y1="{_y(place)}" y2="{_y(place)}"/>'
        f'<text x="{x - 8}" y="{_y(place) + 4}" text-anchor="end">{escape(text)}</text>'
        for place, text in axis.ticks
    )
    head = f'<text class="head" x="{x}" y="{_TOP - 20}" text-anchor="middle">{escape(axis.title)}</text>'
    return f'<g class="axis"><line x1="{x}" x2="{x}" y1="{_y(1)}" y2="{_y(0)}"/>{ticks}{head}</g>'


def _line(trial: Mapping[str, Any], axes: Sequence[Axis], index: int, rank: int, count: int) -> str:
    places = [axis.places[index] for axis in axes]
    points = " ".join(f"{_LEFT + _GAP * i},{_y(p)}" for i, p in enumerate(places) if p is not None)
    quality = min(rank * _CLASSES // count, _CLASSES - 1)
    classes = [f"q{quality}", *(["stopped"] if trial["state"] != "finished" else []), *(["best"] if rank == 0 else [])]
    values = ", ".join(f"{path} = {shown(value)}" for path, value in trial["values"].items())
    text = f"trial {trial['number']}, {trial['state']}: {values}; {last(trial):.4g}"
    return f'<polyline class="{" ".join(classes)}" points="{points}"><title>{escape(text)}</title></polyline>'
