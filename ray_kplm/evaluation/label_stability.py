"""Agreement of the pseudo-labels of two training rounds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.evaluation.mutual_information import normalised_mutual_information

SAME_PLACE = 0.05
"""Points of two rounds count as one point if they are closer than this share of the image's longer side."""
_CHUNK = 128
"""Number of images whose pairwise distances are held in memory at once."""


def dense(
    images: int, labels: int, image: NDArray[np.integer], label: NDArray[np.integer], xy: NDArray[Any]
) -> NDArray[np.float32]:
    """Arrange labelled points in an array by image and label.

    Args:
        images: Number of images, N.
        labels: Number of labels, L.
        image: (P,), index of each point's image.
        label: (P,), label of each point; a label occurs at most once in an image.
        xy: (P, 2), coordinates.

    Returns:
        (N, L, 2), NaN where an image has no point of a label.
    """
    out = np.full((images, labels, 2), np.nan, np.float32)
    out[image, label] = xy
    return out


def label_stability(
    earlier: NDArray[np.floating], last: NDArray[np.floating], sides: NDArray[np.floating]
) -> tuple[float | None, float | None]:
    """Return how well an earlier round's labels predict the last round's, and the share of points found in both.

    Args:
        earlier: (N, A, 2), the point of each of the earlier round's labels in N images; NaN for none.
        last: (N, B, 2), the same of the last round.
        sides: (N,), longer sides of the images, in the unit of the points.

    Returns:
        Two percentages. The first is the normalised mutual information of the labels of points that both rounds have (100:
        equal up to renaming, 0: independent), None if there are no such points. The second is the share of the last round's
        points that the earlier round has too, None if the last round has no points.
    """
    chunks = [slice(start, start + _CHUNK) for start in range(0, len(last), _CHUNK)]
    pairs = [_paired_labels(earlier[chunk], last[chunk], sides[chunk]) for chunk in chunks]
    points = int(np.isfinite(last).all(axis=2).sum())
    if not points:
        return None, None
    before, now = (np.concatenate(labels) for labels in zip(*pairs, strict=True))
    agreement = 100 * normalised_mutual_information(now, before) if len(now) else None
    return agreement, 100 * len(now) / points


def _paired_labels(
    earlier: NDArray[np.floating], last: NDArray[np.floating], sides: NDArray[np.floating]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the labels (earlier, last) of the last round's points that have an earlier point at the same place.

    Each of the last round's points is paired with the nearest earlier point; an earlier point may be in several pairs.
    """
    distance = np.linalg.norm(last[:, :, None] - earlier[:, None], axis=3) / sides[:, None, None]
    distance = np.where(np.isnan(distance), np.inf, distance)
    image, now = np.nonzero(distance.min(axis=2, initial=np.inf) < SAME_PLACE)
    return distance[image, now].argmin(axis=1), now
