"""What is wrong with labels that points are to be fitted to: too few, twice the same, or not to be told apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.errors import DataError
from ray_kplm.evaluation.completion import observed_means
from ray_kplm.points.fit import LEAST_IMAGES
from ray_kplm.points.regressor import Floats

_CONFUSED = 0.8
"""Error of the offset of two points, relative to the offset, from which on they are not told apart: 1 if their labels are
swapped in half of the images."""
_SAME_PLACE = 0.002
"""Points that are never farther apart than this share of the object's size are one point."""


def check_names(names: Sequence[str]) -> None:
    """Raise DataError unless the names of points are different, and none is empty."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{', '.join(twice)}: several points have this name, and cannot be told apart; rename them")
    if not all(name.strip() for name in names):
        raise DataError("a point has no name; name it in the labels")


def enough_labels(
    targets: NDArray[np.floating[Any]], groups: NDArray[np.integer[Any]], names: Sequence[str]
) -> tuple[NDArray[np.bool_], list[str]]:
    """Return which points (L,) are labelled in enough images, and a line about each of the others.

    Raises:
        DataError: None is.
    """
    labelled = np.isfinite(targets).all(axis=-1)
    images, counts = labelled.sum(axis=0), np.array([len(np.unique(groups[rows])) for rows in labelled.T])
    enough: NDArray[np.bool_] = np.asarray(counts >= LEAST_IMAGES)
    if not enough.any():
        most, different = int(images.max(initial=0)), int(counts.max(initial=0))
        alike = f", {different} of them different" if different < most else ""
        raise DataError(
            f"no point is labelled in more than {most} images{alike}: {LEAST_IMAGES} are needed; label more"
        )
    lines = [
        f"{names[n]}: labelled in {images[n]} images, {counts[n]} of them different, and {LEAST_IMAGES} are needed: left out"
        for n in np.flatnonzero(~enough).tolist()
    ]
    return enough, lines


def check_places(targets: NDArray[np.floating[Any]], sizes: Floats, names: Sequence[str]) -> None:
    """Raise DataError if two points are labelled at the same place in all images that have both.

    Args:
        targets: (N, L, 2).
        sizes: (N,), of the objects.
        names: L.
    """
    for a in range(len(names)):
        apart = np.linalg.norm(targets[:, a + 1 :] - targets[:, a : a + 1], axis=-1) / sizes[:, None]
        both = np.isfinite(apart).sum(axis=0)
        farthest = np.nanmax(np.where(np.isfinite(apart), apart, 0.0), axis=0)
        same = np.flatnonzero((both >= LEAST_IMAGES) & (farthest < _SAME_PLACE))
        if len(same):
            raise DataError(
                f"{names[a]} and {names[a + 1 + same[0]]}: are at the same place in all {both[same[0]]} images that have both, "
                "and cannot be told apart; leave one of them out"
            )


def confused_points(predicted: Floats, targets: Floats, sizes: Floats) -> list[tuple[int, int]]:
    """Return the pairs of points that predictions do not tell apart: the error of their offset is about as large as it.

    Of neighbours that move together the offset is known far better than the places.

    Args:
        predicted: (N, L, 2), cross-validated.
        targets: (N, L, 2).
        sizes: (N,).
    """
    pairs = []
    for a in range(targets.shape[1]):
        offset = targets[:, a + 1 :] - targets[:, a : a + 1]
        wrong = predicted[:, a + 1 :] - predicted[:, a : a + 1] - offset
        length = observed_means(np.linalg.norm(offset, axis=-1) / sizes[:, None])
        error = observed_means(np.linalg.norm(wrong, axis=-1) / sizes[:, None])
        pairs += [(a, a + 1 + int(b)) for b in np.flatnonzero(error >= _CONFUSED * length)]
    return pairs
