"""Descriptors in the plane (thesis Fig. 6.4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from ray_kplm.schemas import NONE

MOST_POINTS = 1500
"""Of a t-SNE: more make a picture no clearer."""
_PERPLEXITY = 30.0


@dataclass(frozen=True)
class Described:
    """P keypoints of some images: image int (P,), xy (P, 2) in image sides, descriptors (P, d), cluster int (P,)."""

    image: NDArray
    xy: NDArray
    descriptors: NDArray
    cluster: NDArray


def tsne(descriptors: NDArray, seed: int) -> NDArray[np.float32]:
    """Descriptors (P, d), P > 3, in the plane: float32 (P, 2)."""
    perplexity = min(_PERPLEXITY, (len(descriptors) - 1) / 3)
    fit = TSNE(2, perplexity=perplexity, init="pca", random_state=seed)
    with threadpool_limits(1):  # its threads meet in every small step: on a busy machine they wait for each other
        return np.asarray(fit.fit_transform(descriptors.astype(np.float32)), np.float32)


def sampled(points: Described, seed: int, most: int = MOST_POINTS) -> Described:
    """A seeded sample of the points."""
    if len(points.image) <= most:
        return points
    chosen = np.sort(np.random.default_rng(seed).choice(len(points.image), most, replace=False))
    return Described(points.image[chosen], points.xy[chosen], points.descriptors[chosen], points.cluster[chosen])


def names_by_place(first: Described, last: Described, landmarks: int, near: float = 0.05) -> NDArray[np.int64]:
    """For each cluster of `first` the cluster below `landmarks` of `last` that most often lies at the same place, one-to-one as
    far as there are enough: (clusters,); NONE: none. Both are of the same images."""
    counts = np.zeros((int(first.cluster.max(initial=0)) + 1, landmarks))
    for image in np.unique(first.image):
        a, b = first.image == image, (last.image == image) & (last.cluster >= 0) & (last.cluster < landmarks)
        close = np.linalg.norm(first.xy[a][:, None] - last.xy[b][None], axis=2) < near
        one, other = np.nonzero(close)
        np.add.at(counts, (first.cluster[a][one], last.cluster[b][other]), 1)
    names = np.full(len(counts), NONE, np.int64)
    rows, columns = linear_sum_assignment(-counts)
    together = counts[rows, columns] > 0
    names[rows[together]] = columns[together]
    return names
