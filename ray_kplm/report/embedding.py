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
    """Return the t-SNE embedding (P, 2) of descriptors (P, d), P > 3."""
    perplexity = min(_PERPLEXITY, (len(descriptors) - 1) / 3)
    fit = TSNE(2, perplexity=perplexity, init="pca", random_state=seed)
    with threadpool_limits(1):  # its threads synchronise in every small step, which is slow on a busy machine
        return np.asarray(fit.fit_transform(descriptors.astype(np.float32)), np.float32)


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
