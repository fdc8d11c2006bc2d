"""The points of one image as the template of all others: which image, and what the others' points are called (thesis 4.2.4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ray_kplm.contracts import NONE
from ray_kplm.correspondence.alignment import Drift, align, identify

Padded = tuple[NDArray[np.float64], NDArray[np.bool_]]
"""Points of images (B, N, 2) in the input frame, and which of them are there (B, N)."""


def padded(points: list[NDArray]) -> Padded:
    """From each image's points (N_i, 2)."""
    most = max((len(p) for p in points), default=0)
    xy, valid = np.zeros((len(points), max(most, 1), 2)), np.zeros((len(points), max(most, 1)), bool)
    for b, p in enumerate(points):
        xy[b, : len(p)], valid[b, : len(p)] = p, True
    return xy, valid


@dataclass(frozen=True)
class Named:
    """Template points in images: xy (B, K, 2) input frame, index (B, K) of the image's own point or NONE where the template's
    stands in for it, usable (B,): whether enough of them are the image's own."""

    xy: NDArray[np.float64]
    index: NDArray[np.int64]
    usable: NDArray[np.bool_]


def name_points(template: NDArray, points: Padded, *, drift: Drift, farthest: float, min_matched: float) -> Named:
    """Align the template (K, 2) with each image's points and name them; what is missing is where the template drifted.

    farthest: pixels of the input; min_matched: share of the template's points.
    """
    xy, valid = points
    placed = align(template, xy, valid, drift)
    index = identify(placed, xy, valid, farthest)
    own = index != NONE
    found = np.where(own[..., None], np.take_along_axis(xy, np.maximum(index, 0)[..., None], axis=1), placed)
    return Named(found, index, own.mean(axis=1) >= min_matched)


def choose_template(
    points: list[NDArray],
    candidates: NDArray[np.int64],
    *,
    drift: Drift,
    farthest: float,
    told: Callable[[float], None] = lambda share: None,
) -> tuple[int, float]:
    """The candidate whose points agree best with the others': its index, and the mean F-score of the matches with it.

    Points that others lack cost as much as points that it lacks: the most central and complete set.
    """
    xy, valid = padded(points)
    counts = valid.sum(axis=1)
    best = (-1, -1.0)
    for done, c in enumerate(candidates.tolist()):
        others = np.arange(len(points)) != c
        index = identify(align(points[c], xy[others], valid[others], drift), xy[others], valid[others], farthest)
        matched = (index != NONE).sum(axis=1)
        score = float(np.mean(2 * matched / np.maximum(len(points[c]) + counts[others], 1)))
        if score > best[1]:
            best = (c, score)
        told((done + 1) / len(candidates))
    return best
