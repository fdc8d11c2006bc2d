"""Annotated points of images, in whatever file they came."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Labels:
    """L annotated points of N objects.

    Attributes:
        names: Of the points, L.
        images: The image of each object, N: a path or URI that can be opened. One with several objects occurs several times.
        xy: float64 (N, L, 2), source frame: pixels with pixel centres at integers; NaN where not annotated.
        visible: bool (N, L); False with a position: annotated as hidden.
        boxes: float64 (N, 4), x0, y0, x1, y1 of the objects in source pixels; NaN where the file says none.
        skeleton: Pairs of points that the file joins, indices from 0.
        rejected: Images, objects or points that could not be used, with the reason: they are reported, and the others are used.
        notes: What was left out without being wrong, such as images that nobody annotated, a line each.
    """

    names: tuple[str, ...]
    images: tuple[str, ...]
    xy: NDArray[np.float64]
    visible: NDArray[np.bool_]
    boxes: NDArray[np.float64]
    skeleton: tuple[tuple[int, int], ...] = ()
    rejected: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)
