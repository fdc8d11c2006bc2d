"""The HTML page of `kplm drift`: one self-contained file that loads nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from numpy.typing import NDArray

from ray_kplm.imaging.draw import palette
from ray_kplm.report.charts import format_number, line_chart
from ray_kplm.report.drift_table import Compared, began_text, change_text, reasons_text, value_text, verdict
from ray_kplm.report.pictures import Thumbnail, hex_colours, thumbnail
from ray_kplm.screening.drift import Change
from ray_kplm.screening.drift_statistics import NAMES

_BINS = 24
_WIDTH, _HEIGHT, _BASE = 320, 130, 112
_SIDE = 160
"""Of a picture, pixels."""


class Shown(NamedTuple):
    """An image with its landmarks: (H, W, 3) and (K, 2), pixels of it."""

    image: NDArray[np.uint8]
    xy: NDArray[np.float64]


class _Card(NamedTuple):
    picture: Thumbnail
    points: list[tuple[int, float, float]]
    name: str
    text: str


def drift_page(
    found: Compared, unusual: Sequence[Shown], typical: Sequence[Shown], series: Sequence[float] | None
) -> str:
    """Return the page.

    Args:
        found: The comparison.
        unusual: The most unusual new images, in the order of `Drift.worst`.
        typical: Some training images.
        series: How unusual the images are in order of time; None if this is not known.
    """
    environment = Environment(
        loader=PackageLoader("ray_kplm.report", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    drift = found.drift
    landmarks = len(unusual[0].xy)
    worst = drift.worst(len(unusual))
    changes = [
        (c, value_text(c.statistic, c.before), value_text(c.statistic, c.after), change_text(c), _is_clear(found, c))
        for c in drift.changes
    ]
    chart = None
    if series is not None:
        points = [(i, float(value)) for i, value in enumerate(series)]
        title = "How unusual the images are"
        chart = line_chart({"unusual": points}, title=title, x_label="image, in order of time")
    return environment.get_template("drift.html").render(
        f=found,
        verdict=verdict(found),
        count=format_number(len(found.ids)),
        colours=hex_colours(palette(landmarks)),
        changes=changes,
        histograms=[(c.statistic.title, _histogram(found, c), _is_clear(found, c)) for c in drift.changes],
        began=None if found.began is None else began_text(found.began),
        series=chart,
        worst=[
            _card(shown, found.ids[u.row], f"{100 * u.share:.1f} % · {reasons_text(u)}")
            for shown, u in zip(unusual, worst, strict=True)
        ],
        typical=[_card(shown, "training image", "") for shown in typical],
    )


def _is_clear(found: Compared, change: Change) -> bool:
    return found.drift.is_drift and change.is_significant


def _card(shown: Shown, name: str, text: str) -> _Card:
    picture = thumbnail(shown.image, _SIDE)
    points = [(k, x, y) for k, (x, y) in enumerate(picture.points(shown.xy).round(1).tolist()) if np.isfinite(x + y)]
    return _Card(picture, points, name, text)


def _histogram(found: Compared, change: Change) -> Markup:
    """Return the distributions of a statistic in the training and in the new images, as SVG."""
    column = NAMES.index(change.statistic.name)
    sets = [table[:, column] for table in (found.drift.reference, found.drift.new)]
    sets = [values[np.isfinite(values)] for values in sets]
    both = np.concatenate(sets)
    low, high = np.quantile(both, [0.005, 0.995])
    if high <= low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, _BINS + 1)
    pieces, tallest = [], 1e-9
    shares = [np.histogram(np.clip(values, low, high), edges)[0] / len(values) for values in sets]
    tallest = max(float(share.max()) for share in shares)
    for index, share in enumerate(shares):
        step = _WIDTH / _BINS
        path = f"M0 {_BASE}"
        for place, value in enumerate(share):
            top = round(_BASE - (_BASE - 8) * float(value) / tallest, 1)
            path += f"V{top}H{round((place + 1) * step, 1)}"
        pieces.append(f'<path class="line s{index}" d="{path}V{_BASE}"/>')
    for x, value, anchor in ((0, low, "start"), (_WIDTH, high, "end")):
        text = escape(value_text(change.statistic, float(value)))
        pieces.append(f'<text x="{x}" y="{_HEIGHT - 4}" text-anchor="{anchor}">{text}</text>')
    unit = escape(change.statistic.unit)
    pieces.append(f'<text class="label" x="{_WIDTH / 2}" y="{_HEIGHT - 4}" text-anchor="middle">{unit}</text>')
    label = escape(f"{change.statistic.title}: distributions over the training images and the new images")
    return Markup(
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(pieces)}</svg>'
    )
