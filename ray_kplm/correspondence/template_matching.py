"""Chapter 4's correspondence: choose one image's points as the template and match it with all other images (thesis 4.2.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.correspondence.alignment import DriftOptions, align, match_points
from ray_kplm.progress import ProgressCallback, ignore_progress
from ray_kplm.schemas import NONE

PaddedPoints = tuple[NDArray[np.float64], NDArray[np.bool_]]
"""Points of images (B, N, 2) in the input frame, and which of them exist (B, N)."""


def pad_points(points: list[NDArray[Any]]) -> PaddedPoints:
    """Pad each image's points (N_i, 2) to the largest number among the images."""
    most = max((len(p) for p in points), default=0)
    xy, valid = np.zeros((len(points), max(most, 1), 2)), np.zeros((len(points), max(most, 1)), bool)
    for b, p in enumerate(points):
        xy[b, : len(p)], valid[b, : len(p)] = p, True
    return xy, valid


@dataclass(frozen=True)
class TemplateMatches:
    """The template's K points in each of B images.

    Attributes:
        xy: (B, K, 2), input frame.
        index: (B, K), the image's own point, or NONE where the aligned template point stands in for a missing one.
        usable: (B,), whether enough of the points are the image's own.
    """

    xy: NDArray[np.float64]
    index: NDArray[np.int64]
    usable: NDArray[np.bool_]


def match_template(
    template: NDArray[Any], points: PaddedPoints, *, options: DriftOptions, max_distance: float, min_matched: float
) -> TemplateMatches:
    """Align the template (K, 2) with each image's points and match them.

    Args:
        template: (K, 2), input frame.
        points: The images' points.
        options: Parameters of the alignment.
        max_distance: Greatest distance of a match, pixels of the input.
        min_matched: Least share of the template's points that must be matched in a usable image.
    """
    xy, valid = points
    aligned = align(template, xy, valid, options)
    index = match_points(aligned, xy, valid, max_distance)
    own = index != NONE
    positions = np.where(own[..., None], np.take_along_axis(xy, np.maximum(index, 0)[..., None], axis=1), aligned)
    return TemplateMatches(positions, index, own.mean(axis=1) >= min_matched)


@dataclass(frozen=True)
class RepeatablePoints:
    """Points of a template that other images have too.

    Attributes:
        xy: (K, 2), input frame, in the template's order.
        score: Mean share of the wanted number of points that is matched in an image.
    """

    xy: NDArray[np.float64]
    score: float


def most_repeatable(
    template: NDArray[Any], points: PaddedPoints, count: int, *, options: DriftOptions, max_distance: float
) -> RepeatablePoints:
    """Return the `count` points of the template (N, 2) that are matched in the most images, or all N if N is smaller.

    The number of keypoints in an image is random and differs from the number of landmarks of the category. A template with
    fewer than `count` points scores lower: its missing points count as unmatched in every image.
    """
    xy, valid = points
    matched = match_points(align(template, xy, valid, options), xy, valid, max_distance)
    images = (matched != NONE).sum(axis=0)
    kept = np.sort(np.argsort(-images, kind="stable")[:count])
    return RepeatablePoints(
        np.asarray(template, np.float64)[kept], float(images[kept].sum() / (count * max(len(xy), 1)))
    )


def choose_template(
    points: list[NDArray[Any]],
    candidates: NDArray[np.int64],
    count: int,
    *,
    options: DriftOptions,
    max_distance: float,
    progress: ProgressCallback = ignore_progress,
) -> tuple[int, RepeatablePoints]:
    """Return the image with the best score of `most_repeatable` in the other images, and its points.

    Args:
        points: Each image's points (N_i, 2), input frame.
        candidates: Indices of the images that may become the template.
        count: Number of points that the template shall have.
        options: Parameters of the alignment.
        max_distance: Greatest distance of a match, pixels of the input.
        progress: Called after each candidate.
    """
    xy, valid = pad_points(points)
    best: tuple[int, RepeatablePoints] | None = None
    for done, c in enumerate(candidates.tolist()):
        others = np.arange(len(points)) != c
        kept = most_repeatable(
            points[c], (xy[others], valid[others]), count, options=options, max_distance=max_distance
        )
        if best is None or kept.score > best[1].score:
            best = (c, kept)
        progress((done + 1) / len(candidates), "")
    assert best is not None, "there are candidates"
    return best
