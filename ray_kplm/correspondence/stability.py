"""Evidence for the number of landmarks: agreement of clusterings of two halves of the images, over K.

The images are split into two halves at random. The descriptors of each half are clustered to K, and both clusterings label the
points of all images. Their adjusted Rand index (Hubert & Arabie 1985) is high where K clusters are found again in other
images (stability of clusterings: Ben-Hur et al. 2002, Lange et al. 2004).

The index alone favours the smallest K: any long direction of the data is cut in two at the same place. So it is compared with
the index of points without structure, which have the same distribution along each principal axis, independent of the others.
The difference is the evidence: about 0 at every K without structure. A landmark must also have a keypoint in most images. The
chosen K is the largest of these whose evidence is within one standard error, over splits, of the best (the rule of Breiman et
al. 1984).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from ray_kplm.correspondence.assignment import Assigner
from ray_kplm.correspondence.in_memory import InMemoryPoints, Rows
from ray_kplm.correspondence.kmeans import fit
from ray_kplm.correspondence.starts import draw, plus_plus

MIN_LANDMARKS = 6
"""The smallest K that is considered. Of fewer clusters the agreement by chance varies too much between splits (standard errors
of 0.1 to 0.2 with 4 and 5 clusters, of 0.02 to 0.05 from 10 on), and so few points hardly describe a shape."""
_CANDIDATES = (6, 8, 10, 12, 15, 20, 25, 30, 40, 50)
"""Values of K that are compared. Neighbours differ by a fifth or more: closer ones cannot be told apart."""
DIMENSIONS = 32
"""Principal components of the descriptors that are clustered. They hold most of the variance, and K-means takes less time."""
_STARTS, _ITERATIONS, _TOLERANCE = 3, 25, 1e-3
_RESAMPLES = 400
"""Resamples of the splits from which the range of K results."""
_RANGE = (0.1, 0.9)
"""Quantiles of K over the resamples."""
_MIN_FOUND = 2 / 3
"""Least share of images in which a landmark has a generic keypoint. Training adds detections: after stage 1 of the thesis, 78
to 86 % of 30 landmarks are detected in an image (T Table 6.4)."""
_SURE_ERRORS = 3.0
"""Evidence of fewer standard errors than this is none."""
_SURE_EVIDENCE = 0.2
"""Evidence below this is weak, however small its standard error. Measured: at most 0.04 without structure, 0.18 for people in
any pose, whose clusters predict no joint, and 0.26 to 0.5 for faces, cattle and X-rays of heads."""
_SURE_RATIO = 2.0
"""A range of K whose ends differ by more than this factor is unsure."""

MAX_CLUSTERS = 100
"""M of the thesis for all categories (T 6.3.3); its Table 6.1 has no gain from more."""
_POINTS_PER_CLUSTER = 50
"""A training cluster has at least this many points in the data set, on average."""


class SplitMeasures(NamedTuple):
    """What one split of the images says of each K.

    Attributes:
        agreement: Adjusted Rand index of the clusterings of both halves.
        chance: The same of points without structure.
        found: Share of images in which a cluster has a point, mean over the clusters of both clusterings.
    """

    agreement: list[float]
    chance: list[float]
    found: list[float]


@dataclass(frozen=True)
class Evidence:
    """Measures over splits and values of K.

    Attributes:
        landmarks: The values of K, ascending.
        agreement: (splits, len(landmarks)), see `SplitMeasures` for these three.
        chance: The same shape.
        found: The same shape.
    """

    landmarks: tuple[int, ...]
    agreement: NDArray[np.float64]
    chance: NDArray[np.float64]
    found: NDArray[np.float64]

    @classmethod
    def of_splits(cls, landmarks: tuple[int, ...], splits: Sequence[SplitMeasures]) -> Evidence:
        """Return the evidence of the measures of splits."""
        return cls(landmarks, *(np.array(values, np.float64) for values in zip(*splits, strict=True)))

    @property
    def excess(self) -> NDArray[np.float64]:
        """Agreement beyond that of points without structure: (splits, len(landmarks))."""
        return np.asarray(self.agreement - self.chance)

    def standard_error(self) -> NDArray[np.float64]:
        """Return the standard error of the mean excess over splits: (len(landmarks),)."""
        return np.asarray(self.excess.std(axis=0, ddof=1) / np.sqrt(len(self.excess)))

    def is_found(self) -> NDArray[np.bool_]:
        """Return for which K the landmarks have keypoints in enough images, the smallest K in any case: (len(landmarks),)."""
        enough = self.found.mean(axis=0) >= _MIN_FOUND
        enough[0] = True
        return np.asarray(enough)


@dataclass(frozen=True)
class LandmarkChoice:
    """The chosen number of landmarks.

    Attributes:
        landmarks: K.
        low: Low end of the range of K over resamples of the splits.
        high: High end.
        doubts: Why the choice is unsure, as sentences without a period; empty if it is sure.
    """

    landmarks: int
    low: int
    high: int
    doubts: tuple[str, ...]


def candidates(points_per_image: float, most: int) -> tuple[int, ...]:
    """Return the values of K to compare.

    Args:
        points_per_image: Mean number of keypoints of an image. A landmark is at most one of them, and K larger than their
            number is not considered.
        most: Largest K allowed.
    """
    limit = max(min(points_per_image, most), 2)
    return tuple(k for k in _CANDIDATES if k <= limit) or (int(min(MIN_LANDMARKS, limit)),)


def principal_components(descriptors: NDArray[np.float32], dimensions: int = DIMENSIONS) -> NDArray[np.float16]:
    """Return the descriptors in the frame of their principal axes, scaled into the unit ball: (N, dimensions).

    Args:
        descriptors: (N, d).
        dimensions: Number of axes that are kept, at most d.
    """
    centred = descriptors - descriptors.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T.astype(np.float64) @ centred)
    turned = centred @ axes[:, ::-1][:, :dimensions].astype(np.float32)
    return np.asarray(turned / max(float(np.linalg.norm(turned, axis=1).max(initial=0.0)), 1e-9)).astype(np.float16)


def without_structure(points: NDArray[np.float16], rng: np.random.Generator) -> NDArray[np.float16]:
    """Return points (N, d) with the values of each column in a random order of their own."""
    return np.ascontiguousarray(rng.permuted(points, axis=0))


def measure_split(
    points: NDArray[np.float16], image: NDArray[np.int64], landmarks: Sequence[int], seed: int
) -> SplitMeasures:
    """Cluster two random halves of the images, and points without structure, and compare.

    Args:
        points: (N, d), descriptors in the unit ball.
        image: (N,), index of each point's image.
        landmarks: Values of K.
        seed: Of the split.
    """
    rng = np.random.default_rng(seed)
    names, image = np.unique(image, return_inverse=True)
    in_first = np.isin(image, rng.permutation(len(names))[: len(names) // 2])
    shuffled = without_structure(points, rng)
    measures = SplitMeasures([], [], [])
    for k in landmarks:
        labels = _label(points, in_first, k, seed)
        measures.agreement.append(float(adjusted_rand_score(*labels)))
        measures.chance.append(float(adjusted_rand_score(*_label(shuffled, in_first, k, seed))))
        pairs = [len(np.unique(image * k + label)) for label in labels]
        measures.found.append(sum(pairs) / (2 * k * len(names)))
    return measures


def _label(
    points: NDArray[np.float16], in_first: NDArray[np.bool_], k: int, seed: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the labels of all points by the clusterings of those in the first half and of the others: (N,) each."""
    labels = []
    for number, half in enumerate((points[in_first], points[~in_first])):
        rngs = [np.random.default_rng([seed, k, number, start]) for start in range(_STARTS)]
        starts = plus_plus(half, [draw(len(half), k, rng) for rng in rngs])
        clustering = fit(InMemoryPoints([Rows.all_of(half)]), starts, iterations=_ITERATIONS, tolerance=_TOLERANCE)
        labels.append(Assigner(clustering.centroids)(points))
    return labels[0], labels[1]


def choose_landmarks(evidence: Evidence, seed: int = 0) -> LandmarkChoice:
    """Return the largest K within one standard error of the best, among those found in most images, and how sure it is.

    Args:
        evidence: Agreement over at least two splits.
        seed: Of the resamples.
    """
    enough = evidence.is_found()
    landmarks, excess = np.array(evidence.landmarks)[enough], evidence.excess[:, enough]
    chosen = int(landmarks[_pick(excess)])
    rng, splits = np.random.default_rng(seed), len(excess)
    resampled = [landmarks[_pick(excess[rng.integers(splits, size=splits)])] for _ in range(_RESAMPLES)]
    low, high = (int(k) for k in np.quantile(resampled, _RANGE, method="nearest"))
    mean, error = excess.mean(axis=0), evidence.standard_error()[enough]
    best = int(mean.argmax())
    doubts = []
    if mean[best] < max(_SURE_EVIDENCE, _SURE_ERRORS * error[best]):
        doubts.append(
            "the halves agree little more than on points without structure: the keypoints hardly show a number of landmarks"
        )
    if high > _SURE_RATIO * low:
        doubts.append(f"other splits of the images choose from {low} to {high} landmarks")
    if evidence.found.mean(axis=0)[0] < _MIN_FOUND:
        doubts.append(f"even {chosen} landmarks have a keypoint in fewer than two thirds of the images")
    elif chosen == evidence.landmarks[-1]:
        doubts.append(f"{chosen} is the largest number compared: more landmarks may be found again too")
    return LandmarkChoice(chosen, low, high, tuple(doubts))


def _pick(excess: NDArray[np.float64]) -> int:
    """Return the index of the largest K whose mean excess (splits, K) is within one standard error of the best."""
    mean = excess.mean(axis=0)
    best = int(mean.argmax())
    error = excess[:, best].std(ddof=1) / np.sqrt(len(excess))
    return int(np.flatnonzero(mean >= mean[best] - error)[-1])


def choose_clusters(landmarks: int, images: int, points_per_image: float) -> int:
    """Return the number of training clusters, M.

    It is that of the thesis where the data set has points enough, fewer where clusters would have too few points, and always at
    least twice the number of landmarks, since one landmark may have several appearances (T 6.3.3).

    Args:
        landmarks: K.
        images: Number of training images.
        points_per_image: Mean number of generic keypoints of an image; at most K of an image are trained on.
    """
    points = images * min(points_per_image, landmarks)
    return int(max(2 * landmarks, min(MAX_CLUSTERS, points // _POINTS_PER_CLUSTER)))
