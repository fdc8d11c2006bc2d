"""How the points of a detector are drawn: their names or numbers, their colours, and the edges between them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ray_kplm.imaging.draw import Marks, palette
from ray_kplm.points.layout import Layout
from ray_kplm.points.point_set import PointSet


def marks_of(layout: Layout, points: PointSet | None = None, *, beside: bool = False) -> Marks:
    """Return how points are drawn.

    Args:
        layout: Their names and edges. Without names they have their numbers.
        points: How they are made of landmarks. A point of an edit has the colour of its first landmark, so that it looks the
            same whatever an edit drops.
        beside: Whether the names stand beside the points, too.
    """
    labels = layout.names if layout.is_named else [str(k) for k in range(len(layout))]
    return Marks(labels, _colours(points, len(layout)), layout.skeleton, beside)


def _colours(points: PointSet | None, count: int) -> NDArray[np.uint8]:
    """Return the colours (L, 3) of points."""
    if points is None or ((points.shares > 0).sum(axis=0) > 1).any():
        return palette(count)
    colours: NDArray[np.uint8] = palette(points.landmarks)[(points.shares > 0).argmax(axis=1)]
    return colours
