"""Labelled images with their labels and the points that a map predicts there."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ray_kplm.imaging import coordinates
from ray_kplm.imaging.draw import Image, Marks, contact_sheet, draw_ring, encode_png, palette
from ray_kplm.points.layout import Layout
from ray_kplm.points.regressor import Floats

_TILE, _COLUMNS = 208, 6
"""Side of an image on the sheet, pixels, and images in a row."""
_MISS = (255, 255, 255)
"""RGB of the lines from labels to predicted points."""


def draw_labels(views: Sequence[Image], targets: Floats, predicted: Floats, layout: Layout, title: str) -> bytes:
    """Return a sheet as PNG: labels as rings, predicted points as discs of the same colours, joined by lines.

    Args:
        views: N images (S, S, 3).
        targets: (N, L, 2), shares of the side, NaN where not labelled.
        predicted: (N, L, 2), likewise.
        layout: Of the points.
        title: Headline.
    """
    colours = palette(len(layout))
    tiles, places = [], []
    for view, own, guess in zip(views, targets, predicted, strict=True):
        tile: Image = cv2.resize(view, (_TILE, _TILE), interpolation=cv2.INTER_CUBIC)
        enlarge = coordinates.scaling(_TILE / len(view))
        labels, points = (coordinates.apply(enlarge, xy * len(view)) for xy in (own, guess))
        for label, point, colour in zip(labels, points, colours.tolist(), strict=True):
            _draw_label(tile, label, point, colour)
        tiles.append(tile)
        places.append(np.where(np.isfinite(labels), points, np.nan))
    marks = Marks(layout.names, colours)
    return encode_png(contact_sheet(tiles, places, columns=_COLUMNS, tile=_TILE, title=title, marks=marks))


def _draw_label(tile: Image, label: NDArray[np.float64], point: NDArray[np.float64], colour: Sequence[int]) -> None:
    if not np.isfinite(label).all():
        return
    if np.isfinite(point).all():
        ends = [np.rint(end).astype(int).tolist() for end in (label, point)]
        cv2.line(tile, ends[0], ends[1], _MISS, 1, cv2.LINE_AA)
    draw_ring(tile, label, 0.024 * len(tile), colour)
