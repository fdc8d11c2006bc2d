"""What the landmarks of many images say about a set of points: a skeleton, mirror partners, and what one may leave out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.correspondence.static import positions
from ray_kplm.evaluation.label_free import ONE_PLACE
from ray_kplm.evaluation.label_free_warnings import OUTSIDE, RARE
from ray_kplm.points.layout import minimum_spanning_forest

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_NUMBERS = 8_000_000
"""Distances that are in memory at most: of more images, so many that are evenly spaced."""
_LEAST_IMAGES = 5
"""Images that must show two landmarks before anything is said of their distance."""
_SIZE_ERROR = 0.05
"""Error of an object's size in an image, as a share of it. With it the trees of annotated people, cattle and faces have as many
bones as without, or more."""
_TO_DEVIATION = 1.4826
"""Median absolute deviation of a Gaussian -> its standard deviation."""


@dataclass(frozen=True)
class Suggestion:
    """What N images say of K landmarks.

    Attributes:
        images: N.
        partners: (K,), mirror partners; itself for none.
        edges: A forest of pairs of landmarks that move together. Landmarks in doubt are in none.
        variation: By how much the distance of each pair varies, % of the object's size, mean with its mirror image.
        found: (K,), share of the images in which a landmark is found.
        probability: (K,), its mean probability of being there, NaN where the detector gives none.
        spread: (K,), standard deviation of its place over the images, % of the image's side; NaN where it was never found.
        doubts: Landmark -> why one may leave it out, in words.
        on_one_place: Pairs of landmarks that one may merge, and their median distance, % of the image's side.
        all_static: Whether no landmark moves, so that standing still says nothing.
    """

    images: int
    partners: tuple[int, ...]
    edges: tuple[tuple[int, int], ...]
    variation: tuple[float, ...]
    found: Floats
    probability: Floats
    spread: Floats
    doubts: Mapping[int, Sequence[str]]
    on_one_place: Sequence[tuple[int, int, float]] = ()
    all_static: bool = False


def suggest(
    places: Floats,
    found: Bools,
    probability: NDArray[np.floating[Any]],
    flip_map: Sequence[int],
    quality: Mapping[str, Any] | None = None,
) -> Suggestion:
    """Return what the landmarks of images say.

    Args:
        places: (N, K, 2), shares of the side of the square that an image fills; NaN where not detected.
        found: (N, K), whether a landmark is there.
        probability: (N, K), of being there, or NaN.
        flip_map: (K,), mirror partner of each landmark, or NONE.
        quality: The label-free measures of the run, if it has any: `evaluation.label_free.measure`.
    """
    xy: Floats = np.where(found[..., None], places, np.nan)
    images, landmarks = found.shape
    where, which = np.nonzero(np.isfinite(xy).all(axis=2))
    sums = positions(which, xy[where, which], landmarks)
    static = sums.static()
    if quality and quality.get("landmarks") == landmarks:
        static |= np.isin(np.arange(landmarks), quality["static_landmarks"])
    doubts = _doubts(found.mean(axis=0), static, 100 * sums.spread(), quality or {})
    usable = np.array([k not in doubts for k in range(landmarks)])
    pairs, apart = _distances(xy)
    partners = tuple(p if p >= 0 and flip_map[p] == k else k for k, p in enumerate(flip_map))
    edges, variation = rigid_skeleton(pairs, apart, usable, partners)
    known = np.isfinite(probability)
    mean = np.where(known, probability, 0).sum(axis=0) / np.where(known.any(axis=0), known.sum(axis=0), np.nan)
    return Suggestion(
        images, partners, edges, variation, found.mean(axis=0), mean, 100 * sums.spread(), doubts,
        _on_one_place(pairs, apart), bool(static.all()),
    )  # fmt: skip


def rigid_skeleton(
    pairs: NDArray[np.int64], apart: Floats, usable: Bools, partners: Sequence[int]
) -> tuple[tuple[tuple[int, int], ...], tuple[float, ...]]:
    """Return the forest of landmark pairs whose distances vary least, and by how much each varies, % of the object's size.

    Distances are taken relative to the size of the object in an image. This is the factor by which the median pair of
    landmarks is farther apart there than usual: it needs no landmark in all images. How much a distance varies is the median
    absolute deviation, scaled to a standard deviation, which a few wrong places do not move. To its square the tree adds that
    of `_SIZE_ERROR` of the distance, as the size is no better known; so of pairs that vary alike it takes the nearer one.

    The spread of the logarithm of the distance would not do: it is least for pairs that are far apart, whatever lies between
    them. Of 13 bones between the annotated joints of people at sports, that tree has none and this one 12.

    Args:
        pairs: (P, 2), landmarks.
        apart: (N, P), their distances, any unit, NaN where one is not there.
        usable: (K,), the landmarks that may be joined.
        partners: (K,), mirror partners, itself for none: a pair and its mirror image vary alike, by their mean.
    """
    is_wanted = usable[pairs].all(axis=1) & (np.isfinite(apart).sum(axis=0) >= _LEAST_IMAGES)
    pairs, apart = pairs[is_wanted], apart[:, is_wanted]
    if not len(pairs):
        return (), ()
    usual = np.nanmedian(apart, axis=0)
    relative = apart / _median(apart / np.maximum(usual, 1e-9), axis=1)[:, None]
    size = max(
        float(np.sqrt((usual**2).mean())), 1e-9
    )  # root mean square distance of the landmarks of the usual object
    deviation = _TO_DEVIATION * np.nanmedian(np.abs(relative - np.nanmedian(relative, axis=0)), axis=0)
    deviations, distances = (_symmetric(pairs, values / size, partners) for values in (deviation, usual))
    edges = minimum_spanning_forest(np.hypot(deviations, _SIZE_ERROR * distances))
    return edges, tuple(float(100 * deviations[edge]) for edge in edges)


def _symmetric(pairs: NDArray[np.int64], values: Floats, partners: Sequence[int]) -> Floats:
    """Return values of pairs as a matrix (K, K), each the mean with that of its mirror image; infinite for other pairs."""
    matrix = np.full((len(partners), len(partners)), np.inf)
    matrix[pairs[:, 0], pairs[:, 1]] = matrix[pairs[:, 1], pairs[:, 0]] = values
    there = matrix[np.ix_(partners, partners)]
    return np.where(np.isfinite(there), (matrix + there) / 2, matrix)


def _distances(xy: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Return all pairs of landmarks (P, 2), and their distances (N', P) in evenly spaced images, NaN where one is not there."""
    images, landmarks = xy.shape[:2]
    pairs = np.argwhere(np.triu(np.ones((landmarks, landmarks), bool), 1))
    most = max(_LEAST_IMAGES, _NUMBERS // max(len(pairs), 1))
    chosen = xy if images <= most else xy[np.linspace(0, images - 1, most).round().astype(int)]
    difference = chosen[:, pairs[:, 0]] - chosen[:, pairs[:, 1]]
    return pairs, np.hypot(difference[..., 0], difference[..., 1])


def _on_one_place(pairs: NDArray[np.int64], apart: Floats) -> list[tuple[int, int, float]]:
    enough = np.isfinite(apart).sum(axis=0) >= _LEAST_IMAGES
    middle = 100 * _median(apart[:, enough], axis=0)
    return [(int(a), int(b), float(d)) for (a, b), d in zip(pairs[enough], middle, strict=True) if d < ONE_PLACE]


def _median(values: Floats, axis: int) -> Floats:
    """Return medians without NaN, 1 where there is none."""
    empty = ~np.isfinite(values).any(axis=axis, keepdims=True)
    return np.asarray(np.nanmedian(np.where(empty, 1.0, values), axis=axis), np.float64)


def _doubts(found: Floats, static: Bools, spread: Floats, quality: Mapping[str, Any]) -> dict[int, list[str]]:
    inside = quality.get("inside_box_per_landmark") or []
    doubts: dict[int, list[str]] = {}
    for k in range(len(found)):
        reasons = []
        if static[k] and not static.all():
            reasons.append(f"static, moves {spread[k]:.1f} % of the image's side")
        if found[k] < RARE:
            reasons.append(f"found in {100 * found[k]:.0f} % of the images")
        if k < len(inside) and inside[k] is not None and inside[k] < OUTSIDE:
            reasons.append(f"beside the object in {100 * (1 - inside[k]):.0f} % of the images")
        if reasons:
            doubts[k] = reasons
    return doubts
