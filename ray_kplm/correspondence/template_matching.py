"""The points of one image as the template of all others: which image and points, and what the others' are called (thesis
4.2.4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ray_kplm.correspondence.alignment import Drift, align, identify
from ray_kplm.progress import ProgressCallback, ignore_progress
from ray_kplm.schemas import NONE

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


@dataclass(frozen=True)
class Repeatable:
    """Points of a template that other images have too: xy (K, 2) in the template's order, and score: the share of the wanted
    points of all images that was found."""

    xy: NDArray[np.float64]
    score: float


def most_repeatable(template: NDArray, points: Padded, count: int, *, drift: Drift, farthest: float) -> Repeatable:
    """The `count` points of the template (N, 2) that most of the images have; all where it has no more than these.

    Chance decides how many keypoints an image has, not how many landmarks the category has. A wanted point that the template
    itself lacks is found in no image.
    """
    xy, valid = points
    found = (identify(align(template, xy, valid, drift), xy, valid, farthest) != NONE).sum(axis=0)
    kept = np.sort(np.argsort(-found, kind="stable")[:count])
    return Repeatable(np.asarray(template, np.float64)[kept], float(found[kept].sum() / (count * max(len(xy), 1))))


def choose_template(
    points: list[NDArray],
    candidates: NDArray[np.int64],
    count: int,
    *,
    drift: Drift,
    farthest: float,
    progress: ProgressCallback = ignore_progress,
) -> tuple[int, Repeatable]:
    """The candidate whose `count` most repeatable points are found most often in the other images: its index, and these."""
    xy, valid = padded(points)
    best: tuple[int, Repeatable] | None = None
    for done, c in enumerate(candidates.tolist()):
        others = np.arange(len(points)) != c
        kept = most_repeatable(points[c], (xy[others], valid[others]), count, drift=drift, farthest=farthest)
        if best is None or kept.score > best[1].score:
            best = (c, kept)
        progress((done + 1) / len(candidates), "")
    assert best is not None, "there are candidates"
    return best
