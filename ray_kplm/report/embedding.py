"""Two-dimensional embedding of descriptors (thesis Fig. 6.4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from ray_kplm.schemas import NONE

MAX_POINTS = 1500
"""Number of points above which a t-SNE picture becomes no clearer."""
_PERPLEXITY = 30.0
_FEWEST = 4
"""Number of different descriptors that t-SNE needs."""
_USUAL_SPREAD = (1e-3, 1e3)
"""Range of the values of descriptors that are embedded as they are."""


@dataclass(frozen=True)
class Described:
    """P keypoints of some images with their descriptors.

    Attributes:
        image: (P,), index of each keypoint's image.
        xy: (P, 2), positions in image sides.
        descriptors: (P, d).
        cluster: (P,), index of each keypoint's cluster.
    """

    image: NDArray[np.integer]
    xy: NDArray[np.floating]
    descriptors: NDArray[np.floating]
    cluster: NDArray[np.integer]


def tsne(descriptors: NDArray[np.floating], seed: int) -> NDArray[np.float32]:
    """Return the t-SNE embedding (P, 2) of descriptors (P, d).

    Descriptors with a number that is not finite are left out: their places are NaN. Fewer than four different ones, of which
    t-SNE makes no picture (and equal ones end its process), are projected to their first two principal components.
    """
    values = np.asarray(descriptors, np.float64)
    finite = np.isfinite(values).all(axis=1)
    xy: NDArray[np.float32] = np.full((len(values), 2), np.nan, np.float32)
    if finite.any():
        xy[finite] = _embed(values[finite], seed)
    return xy


def _embed(values: NDArray[np.float64], seed: int) -> NDArray[np.floating]:
    low, high = _USUAL_SPREAD
    spread = float(np.ptp(values, axis=0).max())
    if not low <= spread <= high:  # squares of it in float32 might be 0 or infinite
        values = (values - values.mean(axis=0)) / (spread or 1.0)
    values = values.astype(np.float32)
    if values.shape[1] < 2 or len(np.unique(values, axis=0)) < _FEWEST:
        centred = values - values.mean(axis=0)
        axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
        return np.pad(centred @ axes.T, ((0, 0), (0, 2 - len(axes))))
    fit = TSNE(2, perplexity=min(_PERPLEXITY, (len(values) - 1) / 3), init="pca", random_state=seed)
    with threadpool_limits(1):  # its threads synchronise in every small step, which is slow on a busy machine
        return np.asarray(fit.fit_transform(values))


def sampled(points: Described, seed: int, most: int = MAX_POINTS) -> Described:
    """Return a seeded sample of at most `most` keypoints, in their order."""
    if len(points.image) <= most:
        return points
    chosen = np.sort(np.random.default_rng(seed).choice(len(points.image), most, replace=False))
    return Described(points.image[chosen], points.xy[chosen], points.descriptors[chosen], points.cluster[chosen])


def match_by_place(first: Described, last: Described, landmarks: int, near: float = 0.05) -> NDArray[np.int64]:
    """Match the clusters of two rounds by how often their keypoints lie at the same place.

    Args:
        first: Keypoints of the earlier round.
        last: Keypoints of the later round in the same images.
        landmarks: Clusters of `last` with an index below this are matched.
        near: Distance below which two keypoints lie at the same place, in image sides.

    Returns:
        For each cluster of `first` (C,) its match in `last`, one-to-one and with the most coinciding keypoints in total;
        `NONE` for a cluster without a match.
    """
    counts = np.zeros((int(first.cluster.max(initial=0)) + 1, landmarks))
    for image in np.unique(first.image):
        a, b = first.image == image, (last.image == image) & (last.cluster >= 0) & (last.cluster < landmarks)
        close = np.linalg.norm(first.xy[a][:, None] - last.xy[b][None], axis=2) < near
        row, column = np.nonzero(close)
        np.add.at(counts, (first.cluster[a][row], last.cluster[b][column]), 1)
    match: NDArray[np.int64] = np.full(len(counts), NONE, np.int64)
    rows, columns = linear_sum_assignment(-counts)
    coincide = counts[rows, columns] > 0
    match[rows[coincide]] = columns[coincide]
    return match
