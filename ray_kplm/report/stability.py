"""Whether rounds agree on what they call their points."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import normalized_mutual_info_score

SAME_PLACE = 0.05
"""Points of two rounds are one where they are closer than this share of the image's longer side."""
_CHUNK = 128
"""Images whose distances are held at once."""


def dense(images: int, labels: int, image: NDArray, label: NDArray, xy: NDArray) -> NDArray[np.float32]:
    """Labelled points (P,), (P,), (P, 2), each label at most once an image -> float32 (images, labels, 2), NaN: none."""
    out = np.full((images, labels, 2), np.nan, np.float32)
    out[image, label] = xy
    return out


def label_stability(earlier: NDArray, last: NDArray, sides: NDArray) -> tuple[float | None, float | None]:
    """How far an earlier round's labels tell the last round's, and how many of the last round's points it had.

    earlier (N, A, 2), last (N, B, 2): the places of the labels in the same N images, NaN: none. sides: (N,), longer sides, in
    the same unit. Returns, percent, the normalised mutual information of the labels of points that both have (thesis 5.4.2;
    100: the same up to names, 0: unrelated) and the share of the last round's points that are among them; None: no points.
    """
    pairs = [_pairs(earlier[s], last[s], sides[s]) for s in (slice(i, i + _CHUNK) for i in range(0, len(last), _CHUNK))]
    points = int(np.isfinite(last).all(axis=2).sum())
    if not points:
        return None, None
    before, now = (np.concatenate(labels) for labels in zip(*pairs, strict=True))
    agreement = 100 * float(normalized_mutual_info_score(now, before)) if len(now) else None
    return agreement, 100 * len(now) / points


def _pairs(earlier: NDArray, last: NDArray, sides: NDArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Labels of points at one place, one-sided: each of the last round's points with the nearest earlier one."""
    apart = np.linalg.norm(last[:, :, None] - earlier[:, None], axis=3) / sides[:, None, None]
    apart = np.where(np.isnan(apart), np.inf, apart)
    image, now = np.nonzero(apart.min(axis=2, initial=np.inf) < SAME_PLACE)
    return apart[image, now].argmin(axis=1), now
