"""Which of many images to label: pure functions of numbers of each image.

N images, D numbers of each. K-centre: Sener & Savarese, ICLR 2018. One image of each cluster of K-means: TypiClust (Hacohen et
al., ICML 2022) finds that typical images help more than extreme ones when few are labelled.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Strategy = Literal["diverse", "spread", "uncertain", "both", "random"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
"""diverse: the middle image of each of so many clusters. spread: the farthest from those chosen, again and again (k-centre).
uncertain: those whose landmarks are least sure. both: diverse among the less sure half. random: any."""
DEFAULT: Strategy = "diverse"
LAYOUT_SHARE = 0.5
"""Share of the squared distance between images that is of their landmarks; the rest is of the descriptors."""
_COMPONENTS = 20
"""Directions in which descriptors vary most, which are kept."""
_ROUNDS, _STARTS = 25, 4
"""Iterations of K-means at most, and how often it begins anew; the best result counts."""


def select(
    features: NDArray[np.floating[Any]],
    uncertainty: NDArray[np.floating[Any]],
    count: int,
    strategy: Strategy = DEFAULT,
    seed: int = 0,
) -> NDArray[np.int64]:
    """Return which images to label, `count` different ones or all if there are fewer.

    Args:
        features: (N, D), in which distances say how different images are.
        uncertainty: (N,), how unsure the landmarks of each image are.
        count: Number of images.
        strategy: How they are chosen.
        seed: Of what is drawn.
    """
    given: Floats = np.asarray(features, np.float64)
    number = len(given)
    rng = np.random.default_rng(seed)
    if count >= number:
        return np.arange(number)
    match strategy:
        case "random":
            return np.sort(rng.permutation(number)[:count])
        case "uncertain":
            return np.sort(_least_sure(uncertainty, count))
        case "spread":
            return np.sort(k_centre(given, count))
        case "diverse":
            return np.sort(cluster_middles(given, count, rng))
        case "both":
            unsure = np.sort(_least_sure(uncertainty, max(count, number // 2)))
            return np.sort(unsure[cluster_middles(given[unsure], count, rng)])


def image_features(xy: NDArray[np.floating[Any]], descriptors: NDArray[np.floating[Any]]) -> Floats:
    """Return the numbers (N, D) by which images are told apart: where their landmarks are, and what is seen there.

    Of both, numbers keep their relative scale, so that what varies more counts more.

    Args:
        xy: (N, K, 2) landmarks, shares of the image's side; NaN where not detected.
        descriptors: (N, P), of all landmarks of an image, in one row.
    """
    layout = np.asarray(xy, np.float64).reshape(len(xy), -1)
    known = np.isfinite(layout)
    means = np.where(known, layout, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    seen = principal_components(np.asarray(descriptors, np.float64), _COMPONENTS)
    both = zip((np.where(known, layout, means), seen), (LAYOUT_SHARE, 1 - LAYOUT_SHARE), strict=True)
    return np.concatenate([_of_variance(values, share) for values, share in both], axis=1)


def principal_components(values: Floats, count: int) -> Floats:
    """Return the coordinates (N, `count` or fewer) of rows in the directions in which they vary most."""
    centred = values - values.mean(axis=0)
    covariance = centred.T @ centred / len(centred)
    _, directions = np.linalg.eigh(covariance)
    return np.asarray(centred @ directions[:, ::-1][:, :count], np.float64)


def _of_variance(values: Floats, variance: float) -> Floats:
    """Return rows about their mean, scaled to a mean squared length."""
    centred = values - values.mean(axis=0)
    now = float((centred**2).sum(axis=1).mean())
    return np.asarray(centred * np.sqrt(variance / now) if now > 0 else centred, np.float64)


def _least_sure(uncertainty: NDArray[np.floating[Any]], count: int) -> NDArray[np.int64]:
    return np.argsort(-np.asarray(uncertainty), kind="stable")[:count]


def k_centre(features: Floats, count: int) -> NDArray[np.int64]:
    """Return the middle image and then, one by one, the image that is farthest from those chosen (greedy k-centre)."""
    chosen = [int(_squared(features, features.mean(axis=0)[None])[:, 0].argmin())]
    nearest = _squared(features, features[chosen])[:, 0]
    while len(chosen) < count:
        nearest[chosen] = -1  # images that are the same as a chosen one have the distance 0
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, _squared(features, features[chosen[-1:]])[:, 0])
    return np.array(chosen)


def cluster_middles(features: Floats, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the image nearest to the centre of each of `count` clusters of K-means, all different."""
    starts = [_k_means(features, count, rng) for _ in range(_STARTS)]
    _, centres = min(starts, key=lambda result: result[0])
    distances, chosen = _squared(features, centres), list[int]()
    for column in distances.T:
        column[chosen] = np.inf
        chosen.append(int(column.argmin()))
    return np.array(chosen)


def _k_means(features: Floats, count: int, rng: np.random.Generator) -> tuple[float, Floats]:
    """Return the sum of squared distances and the centres of K-means that begins as K-means++ does."""
    chosen = [int(rng.integers(len(features)))]
    nearest = _squared(features, features[chosen])[:, 0]
    for _ in range(count - 1):
        total = nearest.sum()
        chosen.append(int(rng.choice(len(features), p=nearest / total if total > 0 else None)))
        nearest = np.minimum(nearest, _squared(features, features[chosen[-1:]])[:, 0])
    centres, before = features[chosen], None
    for _ in range(_ROUNDS):
        of_image = _squared(features, centres).argmin(axis=1)
        if before is not None and (of_image == before).all():
            break
        members = np.bincount(of_image, minlength=count)
        sums = np.zeros_like(centres)
        np.add.at(sums, of_image, features)
        centres = np.where(members[:, None] > 0, sums / np.maximum(members, 1)[:, None], centres)
        before = of_image
    return float(_squared(features, centres).min(axis=1).sum()), centres


def _squared(features: Floats, centres: Floats) -> Floats:
    """Return the squared distances (N, C) of rows to centres."""
    squares = (features**2).sum(axis=1)[:, None] - 2 * features @ centres.T + (centres**2).sum(axis=1)
    return np.asarray(np.maximum(squares, 0), np.float64)
