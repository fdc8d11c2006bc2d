"""Charts as SVG that takes its colours from the page: `currentColor` and the classes s0, s1, ... of its style sheet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import ArrayLike, NDArray

from ray_kplm.schemas import NONE

Points = Sequence[tuple[float, float | None]]

WIDTH, HEIGHT = 320, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 18, 10, 34
_TICKS, _MOST_DOTS = 4, 40
_MARGIN, _TALLEST = 12, 1.1
"""Of a scatter: px around the points, and its height at most, widths."""


@dataclass(frozen=True)
class Axes:
    """Which values lie where in the picture: x and y are (least, most), step the distance of two ticks of y."""

    x: tuple[float, float]
    y: tuple[float, float]
    step: float

    def place(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return (
            round(_LEFT + across * (WIDTH - _LEFT - _RIGHT), 1),
            round(HEIGHT - _BOTTOM - up * (HEIGHT - _TOP - _BOTTOM), 1),
        )


def line_chart(
    series: Mapping[str, Points],
    *,
    title: str,
    x_label: str,
    x_names: Mapping[int, str] | None = None,
    from_zero: bool = True,
) -> Markup:
    """An SVG of one line per series: name -> (x, y) points, None or NaN being a gap. x are whole numbers: rounds, landmarks.

    x_names: what stands at the axis in place of a number. Without any point it says so.
    """
    known = {
        name: [(float(x), float(y)) for x, y in points if y is not None and math.isfinite(y)]
        for name, points in series.items()
    }
    everything = [point for points in known.values() for point in points]
    if not everything:
        return Markup('<p class="quiet">No figures.</p>')
    axes = _axes([float(x) for points in series.values() for x, _ in points], [y for _, y in everything], from_zero)
    pieces = [_grid(axes, x_label, x_names or {})]
    for number, (name, points) in enumerate(known.items()):
        pieces.append(_line(axes, points, number))
        if len(known) > 1:
            pieces.append(_key(name, number, len(known)))
    return _svg(pieces, f"{title}. {_spoken(known)}", WIDTH, HEIGHT + (18 if len(known) > 1 else 0))


def _axes(xs: list[float], ys: list[float], from_zero: bool) -> Axes:
    left, right = min(xs), max(xs)
    if left == right:
        left, right = left - 0.5, right + 0.5
    low, high = (0.0 if from_zero and min(ys) >= 0 else min(ys)), max(ys)
    step = _step((high - low) or abs(high) or 1.0)
    bottom, top = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return Axes((left, right), (bottom * step, max(top, bottom + 1) * step), step)


def _step(extent: float) -> float:
    """A round number of which a few cover the extent."""
    raw = extent / _TICKS
    unit = 10.0 ** math.floor(math.log10(raw))
    return next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw - 1e-12)


def _grid(axes: Axes, x_label: str, x_names: Mapping[int, str]) -> str:
    low, high = axes.y
    pieces = []
    for index in range(round((high - low) / axes.step) + 1):
        value = low + index * axes.step
        x, y = axes.place(axes.x[0], value)
        pieces.append(f'<path class="grid" d="M{x} {y}H{WIDTH - _RIGHT}"/>')
        pieces.append(f'<text x="{x - 6}" y="{y + 3.5}" text-anchor="end">{_tick(value)}</text>')
    base = HEIGHT - _BOTTOM
    for value in _whole(axes.x):
        x, _ = axes.place(value, low)
        anchor = "end" if value in x_names and value == axes.x[1] else "middle"
        x += _RIGHT if anchor == "end" else 0
        pieces.append(
            f'<text x="{x}" y="{base + 14}" text-anchor="{anchor}">{escape(x_names.get(value, value))}</text>'
        )
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    pieces.append(f'<text class="label" x="{middle}" y="{base + 28}" text-anchor="middle">{escape(x_label)}</text>')
    return "".join(pieces)


def _whole(extent: tuple[float, float]) -> list[int]:
    """The whole numbers of an axis that get a name."""
    first, last = math.ceil(extent[0]), math.floor(extent[1])
    step = max(1, math.ceil(_step((last - first) or 1))) if last - first > 8 else 1
    return [value for value in range(first, last + 1) if value % step == 0 or last - first <= 8]


def _line(axes: Axes, points: list[tuple[float, float]], number: int) -> str:
    places = [axes.place(x, y) for x, y in points]
    if not places:
        return ""
    path = "M" + "L".join(f"{x} {y}" for x, y in places)
    line = f'<path class="line s{number}" d="{path}"/>'
    if len(places) > _MOST_DOTS:
        return line
    dots = "".join(f"M{x} {y}h0" for x, y in places)
    return f'{line}<path class="dots s{number}" d="{dots}"/>'


def _key(name: str, number: int, of: int) -> str:
    left = _LEFT + number * (WIDTH - _LEFT - _RIGHT) / of
    return (
        f'<path class="line s{number}" d="M{left:.0f} {HEIGHT + 8}h14"/><text x="{left + 19:.0f}" y="{HEIGHT + 12}">'
        f"{escape(name)}</text>"
    )


def _spoken(known: Mapping[str, list[tuple[float, float]]]) -> str:
    """What a screen reader says of the lines: from where to where each goes."""
    return " ".join(
        f"{name}: {number(points[0][1])} at first, {number(points[-1][1])} at last."
        for name, points in known.items()
        if points
    )


def number(value: float) -> str:
    """Three figures; whole numbers as they are."""
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".").replace("e-0", "e-") if value else "0"


def _tick(value: float) -> str:
    """Short enough for the margin: 7.5e-4, not 0.00075."""
    if 0 < abs(value) < 0.01:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:,.6g}" if abs(value) < 1e6 else f"{value:.3g}"


def scatter(xy: ArrayLike, groups: ArrayLike, *, title: str, width: int = 420) -> Markup:
    """An SVG of points (N, 2) coloured by group (N,) from 0 (classes k0, k1, ... of the page), numbered at their middles; those
    of group -1 are grey."""
    points, group = np.asarray(xy, np.float64), np.asarray(groups)
    low, high = points.min(axis=0), points.max(axis=0)
    scale = (width - 2 * _MARGIN) / max(float(high[0] - low[0]), float(high[1] - low[1]) / _TALLEST, 1e-9)
    height = round((high[1] - low[1]) * scale + 2 * _MARGIN)
    placed = np.array([width, height]) / 2 + (points - (low + high) / 2) * scale
    pieces, names = [], []
    for value in np.unique(group).tolist():
        own = placed[group == value]
        path = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in own)
        colour = "none" if value == NONE else f"k{value}"
        pieces.append(f'<path class="rim" d="{path}"/><path class="{colour}" d="{path}"/>')
        if value != NONE:
            x, y = _medoid(own)
            names.append(f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle">{value}</text>')
    return _svg(['<g class="scatter">', *pieces, *names, "</g>"], title, width, height)


def _medoid(points: NDArray) -> NDArray:
    """The point nearest to the median: a name there lies on its group, also where that is in several pieces."""
    offsets = points - np.median(points, axis=0)
    return np.asarray(points[np.argmin((offsets**2).sum(axis=1))])


def _svg(pieces: Sequence[str], spoken: str, width: int, height: int) -> Markup:
    return Markup(
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(spoken)}">{"".join(pieces)}</svg>'
    )
