"""Labels to look at again after a fit: what does not look like a label of its point, and images seen the wrong way round."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ray_kplm.analysis.label_views import LabelledViews
from ray_kplm.evaluation.completion import observed_means
from ray_kplm.labels.labels import Labels
from ray_kplm.points.fit import PointFit, distances, object_sizes

_FAR = 5.0
"""Cross-validated errors above this multiple of the median of their point, and of all points, are looked at again."""
_STILL_PX = 0.25
"""Standard deviation, source pixels, below which a point is at the same place in all pictures."""
_MIRRORED = 0.5
"""An object is seen facing the wrong way if its mirrored labels have less than this share of its error."""
_SHOWN = 3


def label_doubts(fit: PointFit, seen: LabelledViews, labels: Labels, names: Sequence[str]) -> list[str]:
    """Return lines on labels that may be wrong.

    Args:
        fit: Of the labels.
        seen: The labelled images.
        labels: As they were given.
        names: Of the points that were fitted.
    """
    return [*_far(fit, seen, labels, names), *_still(seen, labels, names), *_mirrored(fit, seen, labels)]


def _far(fit: PointFit, seen: LabelledViews, labels: Labels, names: Sequence[str]) -> list[str]:
    usual = np.maximum(np.nanmedian(fit.errors, axis=0), np.nanmedian(fit.errors))
    times = np.nan_to_num(fit.errors / np.maximum(usual, 1e-9))
    rows, points = np.nonzero(times > _FAR)
    pixels = fit.errors * (object_sizes(seen.xy) * seen.pixels)[:, None]
    worst = np.argsort(-times[rows, points], kind="stable")[:_SHOWN]
    lines = [
        f"look at {names[n]} in {labels.images[seen.rows[row]]}: {pixels[row, n]:.0f} px from where the other images put it"
        for row, n in zip(rows[worst].tolist(), points[worst].tolist(), strict=True)
    ]
    return lines if len(rows) <= _SHOWN else [*lines, f"{len(rows) - _SHOWN} more labels are as far off"]


def _still(seen: LabelledViews, labels: Labels, names: Sequence[str]) -> list[str]:
    lines = []
    for name in names:
        xy = labels.xy[seen.rows, labels.names.index(name)]
        if np.nanstd(xy, axis=0).max() < _STILL_PX:
            lines.append(f"{name}: is labelled at the same place in all pictures; was it moved to the object?")
    return lines


def _mirrored(fit: PointFit, seen: LabelledViews, labels: Labels) -> list[str]:
    """Return a line on objects that are taken to face the other way than they do."""
    if not seen.is_turned.any():
        return []
    sizes = object_sizes(seen.xy)
    mirrored = seen.targets * [-1, 1] + [1, 0]  # up to a pixel
    error, other = (observed_means(distances(fit.predicted, xy, sizes).T) for xy in (seen.targets, mirrored))
    wrong = np.flatnonzero(other < _MIRRORED * error)
    if not len(wrong):
        return []
    rest = 100 * float(observed_means(np.delete(fit.errors, wrong, axis=0)).mean())
    return [
        f"{len(wrong)} of {len(error)} objects are taken to face the other way, e.g. in {labels.images[seen.rows[wrong[0]]]}; "
        f"without them the error is {rest:.2f} %"
    ]
