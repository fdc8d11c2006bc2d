"""Charts as SVG, coloured by the page's style sheet: `currentColor` and the classes s0, s1, ... and k0, k1, ..."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import ArrayLike, NDArray

from ray_kplm.schemas import NONE

Points = Sequence[tuple[float, float | None]]
"""Points (x, y) of a line; a y of None is a gap."""

WIDTH, HEIGHT = 320, 200
"""Size of a line chart without its legend, pixels."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 18, 10, 34
"""Margins of a line chart, pixels."""
_TICKS = 4
"""Approximate number of ticks of the y axis."""
_MAX_DOTS = 40
"""A line of more points is drawn without dots."""
_MARGIN, _MAX_ASPECT = 12, 1.1
"""Margin of a scatter plot in pixels, and its largest height relative to its width."""


@dataclass(frozen=True)
class Axes:
    """Map from values to positions in a line chart.

    Attributes:
        x: Least and greatest x.
        y: Least and greatest y.
        step: Distance of two ticks of the y axis.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    step: float

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return the position of a point in the picture, pixels from its upper left corner."""
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
    """Return a line chart as SVG, or a paragraph that says so if there is no point to draw.

    Args:
        series: Name -> points of a line; a y of None or NaN is a gap. x are integers, as rounds or landmarks.
        title: Title, for screen readers.
        x_label: Label of the x axis.
        x_names: Texts to print at the x axis in place of numbers.
        from_zero: Whether the y axis begins at 0 if no value is negative.
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
    for index, (name, points) in enumerate(known.items()):
        pieces.append(_line(axes, points, index))
        if len(known) > 1:
            pieces.append(_legend_entry(name, index, len(known)))
    return _svg(pieces, f"{title}. {_description(known)}", WIDTH, HEIGHT + (18 if len(known) > 1 else 0))


def _axes(xs: list[float], ys: list[float], from_zero: bool) -> Axes:
    left, right = min(xs), max(xs)
    if left == right:
        left, right = left - 0.5, right + 0.5
    low, high = (0.0 if from_zero and min(ys) >= 0 else min(ys)), max(ys)
    step = _step((high - low) or abs(high) or 1.0)
    bottom, top = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return Axes((left, right), (bottom * step, max(top, bottom + 1) * step), step)


def _step(extent: float) -> float:
    """Return a round distance of ticks, so that about `_TICKS` of them cover the extent."""
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
    for value in _integer_ticks(axes.x):
        x, _ = axes.place(value, low)
        anchor = "end" if value in x_names and value == axes.x[1] else "middle"
        x += _RIGHT if anchor == "end" else 0
        pieces.append(
            f'<text x="{x}" y="{base + 14}" text-anchor="{anchor}">{escape(x_names.get(value, value))}</text>'
        )
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    pieces.append(f'<text class="label" x="{middle}" y="{base + 28}" text-anchor="middle">{escape(x_label)}</text>')
    return "".join(pieces)


def _integer_ticks(extent: tuple[float, float]) -> list[int]:
    """Return the integers of an axis that are labelled."""
    first, last = math.ceil(extent[0]), math.floor(extent[1])
    step = max(1, math.ceil(_step((last - first) or 1))) if last - first > 8 else 1
    return [value for value in range(first, last + 1) if value % step == 0 or last - first <= 8]


def _line(axes: Axes, points: list[tuple[float, float]], index: int) -> str:
    places = [axes.place(x, y) for x, y in points]
    if not places:
        return ""
    path = "M" + "L".join(f"{x} {y}" for x, y in places)
    line = f'<path class="line s{index}" d="{path}"/>'
    if len(places) > _MAX_DOTS:
        return line
    dots = "".join(f"M{x} {y}h0" for x, y in places)
    return f'{line}<path class="dots s{index}" d="{dots}"/>'


def _legend_entry(name: str, index: int, entries: int) -> str:
    left = _LEFT + index * (WIDTH - _LEFT - _RIGHT) / entries
    return (
        f'<path class="line s{index}" d="M{left:.0f} {HEIGHT + 8}h14"/><text x="{left + 19:.0f}" y="{HEIGHT + 12}">'
        f"{escape(name)}</text>"
    )


def _description(known: Mapping[str, list[tuple[float, float]]]) -> str:
    """Return the first and the last value of each line, for screen readers."""
    return " ".join(
        f"{name}: {format_number(points[0][1])} at first, {format_number(points[-1][1])} at last."
        for name, points in known.items()
        if points
    )


def format_number(value: float) -> str:
    """Return a number with three significant digits; integers and numbers from 1000 on as integers."""
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".").replace("e-0", "e-") if value else "0"


def _tick(value: float) -> str:
    """Return a tick's label, short enough for the margin: 7.5e-4 in place of 0.00075."""
    if 0 < abs(value) < 0.01:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:,.6g}" if abs(value) < 1e6 else f"{value:.3g}"


def scatter(xy: ArrayLike, groups: ArrayLike, *, title: str, width: int = 420) -> Markup:
    """Return a scatter plot as SVG, with the number of each group at its medoid.

    Args:
        xy: (N, 2), points in any unit; those that are not finite are left out.
        groups: (N,), group of each point from 0, coloured by the classes k0, k1, ...; points of group `NONE` are grey.
        title: Title, for screen readers.
        width: Width in pixels.
    """
    points, group = np.asarray(xy, np.float64).reshape(-1, 2), np.asarray(groups)
    finite = np.isfinite(points).all(axis=1)
    points, group = points[finite], group[finite]
    if not len(points):
        return _svg([], title, width, 2 * _MARGIN)
    low, high = points.min(axis=0), points.max(axis=0)
    scale = (width - 2 * _MARGIN) / max(float(high[0] - low[0]), float(high[1] - low[1]) / _MAX_ASPECT, 1e-9)
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


def _medoid(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the point nearest to the median, which lies on the group even if that is in several pieces."""
    offsets = points - np.median(points, axis=0)
    return np.asarray(points[np.argmin((offsets**2).sum(axis=1))])


def _svg(pieces: Sequence[str], label: str, width: int, height: int) -> Markup:
    return Markup(
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">{"".join(pieces)}</svg>'
    )
