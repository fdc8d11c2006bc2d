"""How good landmarks are by what they do, without annotation: on images, on known views of them and on their mirror images.

Errors and distances are in percent of the side of the network's square input; rates, sharpness and compactness are shares.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.correspondence.static import Positions, positions
from ray_kplm.imaging import coordinates
from ray_kplm.schemas import NONE

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

USUAL = 0.9
"""Quantile of a landmark's peaks that is its usual one: what most images hide is still known by those that show it."""
DETECTED = 0.5
"""A landmark that is an argmax, and so in every image, counts as detected where its peak is this share of its usual one. Its
own: how high a landmark's peaks are tells how evenly it was labelled more than whether it is there."""
ONE_PLACE = 2.5
"""Landmarks closer than this on average stand on one place, % of the side: less than two cells of a 64 x 64 heatmap."""
ONE_PATCH = 10.0
"""Landmarks with less coverage lie in one patch of the object, % of the side. Annotated points of whole objects cover 26 to
31 % on average and 18 % at least in any image (faces, cattle, people, X-rays of heads); those of an eye, a brow, a nose or a
mouth alone 4 to 9 %."""
NOWHERE = 100 * math.sqrt(1 / 6)
"""Standard deviation of a place drawn from the whole square, % of the side: 41."""


@dataclass(frozen=True)
class Observations:
    """What a detector of K landmarks said of N images, of V known views of each and of their mirror images.

    Points are (x, y), pixels of the network's input; NaN: not detected.
    """

    side: int
    """Of the input, pixels."""
    xy: Floats
    """(N, K, 2), in the images."""
    confidence: Floats
    """(N, K): heights of the peaks."""
    sharpness: Floats
    """(N, K), 0..1: how far the heatmap falls around the peak."""
    separation: Floats | None
    """(N, K), -1..1: of the descriptors, see `separation`; None: there are none."""
    expected: Floats
    """(N, V, K, 2): where the views show the images' points; NaN: outside of the view, or not detected."""
    found: Floats
    """(N, V, K, 2): the landmarks of the views."""
    view_confidence: Floats
    """(N, V, K)"""
    alone: Floats
    """(N, K, 2): in the images, by the detector without an average over the mirror image (which would agree with itself)."""
    mirrored: Floats
    """(N, K, 2): likewise in the mirror images, turned back to the images."""
    partners: NDArray[np.int16]
    """(K,): which landmark each is in the mirror image, NONE: no one."""
    always: bool
    """Whether every image has every landmark, an argmax, and only its peak tells whether it is there."""


PER_LANDMARK = {
    "equivariance_error": "equivariance_per_landmark",
    "flip_error": "flip_per_landmark",
    "detection_rate": "detection_rate_per_landmark",
    "repeatability": "repeatability_per_landmark",
    "peak_sharpness": "sharpness_per_landmark",
    "cluster_compactness": "compactness_per_landmark",
    "positional_spread": "spread_per_landmark",
    "view_motion": "view_motion_per_landmark",
}
"""A measure's name in total, the mean over the landmarks that have one, and its name per landmark."""


def measure(seen: Observations) -> dict[str, Any]:
    """All measures, ready for JSON: None where there is no number. A landmark counts in the images in which it is detected.

    images, landmarks: N and K.
    equivariance_error: between where a known view must show a landmark and where it is found there, % of the side.
    view_motion: the same of a detector that takes no notice of the view, % of the side.
    repeatability: share of the views that must show a landmark in which it is detected.
    flip_error: between a landmark and its partner in the mirror image, % of the side; None where it has no partner.
    detection_rate: share of the images.
    peak_sharpness: 0..1. cluster_compactness: mean of `separation`, -1..1; None without descriptors.
    positional_spread: standard deviation of a landmark's place over the images, % of the side.
    static_landmarks, static_share: those that do not move with the object (`is_static`).
    coverage: standard deviation of an image's landmarks about their middle, % of the side, of those that tell of the object:
    not static, not where another one is, and not as far off in the views as if they took no notice of them. None: under two.
    min_landmark_distance: of the two closest landmarks, % of the side. landmarks_on_one_place: pairs [i, j].
    partners: the flip map, -1: none. score: see `score`.
    """
    landmarks, unit = seen.xy.shape[1], 100 / seen.side
    least = DETECTED * usual_peak(seen.confidence) if seen.always else np.zeros(landmarks)
    detected = is_detected(seen.xy, seen.confidence, least)
    again = is_detected(seen.found, seen.view_confidence, least)
    due = detected[:, None] & np.isfinite(seen.expected).all(axis=-1)
    places = np.where(detected[..., None], seen.xy, np.nan)
    error = unit * mean_distance(seen.expected, seen.found, due & again)
    rate, repeated = detected.mean(axis=0), mean_of(again, due)
    motion = unit * mean_distance(seen.expected, seen.xy[:, None], due)
    over_images = places_of(places, seen.side)
    spread = 100 * over_images.spread()
    static = is_static(over_images, error, motion)
    distances = unit * landmark_distances(places)
    one_place = np.triu(distances < ONE_PLACE)
    useless = static | one_place.any(axis=0)
    covered = unit * coverage(places[:, ~useless & ~(error > motion)])
    values = {
        "equivariance_error": error,
        "flip_error": unit * flip_error(seen.alone, seen.mirrored, seen.partners),
        "detection_rate": rate,
        "repeatability": repeated,
        "peak_sharpness": mean_of(seen.sharpness, detected),
        "cluster_compactness": None if seen.separation is None else mean_of(seen.separation, detected),
        "positional_spread": spread,
        "view_motion": motion,
    }
    return {
        "images": len(seen.xy),
        "landmarks": landmarks,
        **{name: None if v is None else _number(total(v)) for name, v in values.items()},
        **{PER_LANDMARK[name]: None if v is None else [_number(x) for x in v] for name, v in values.items()},
        "partners": seen.partners.tolist(),
        "static_landmarks": np.flatnonzero(static).tolist(),
        "static_share": float(static.mean()),
        "min_landmark_distance": _number(distances.min(initial=math.inf)),
        "landmarks_on_one_place": np.argwhere(one_place).tolist(),
        "coverage": _number(covered),
        "score": score(error, rate * repeated, spread, useless, covered),
    }


def score(error: Floats, found: Floats, spread: Floats, useless: Bools, covered: float) -> float:
    """Return how far a landmark is from its place in an image, on average, % of the side: lower is better.

    Where it is found, in a share of the images and views, that is its equivariance error; elsewhere its place can only be
    guessed, which costs the mean spread, and where nothing is known of the object, that of a place anywhere in the image. A
    useless landmark, that stands still or where another one does, is found nowhere: or the best score would be that of marks on
    the background. Landmarks in one patch are found in the share of the object that the patch is, by area: or the best score
    would be that of a grid on one clear spot. error, found, spread and useless (K,); covered: `coverage`, NaN: not known.
    """
    share = min(1.0, covered / ONE_PATCH) ** 2 if math.isfinite(covered) else 1.0
    there = np.where(useless, 0.0, np.nan_to_num(found)) * share
    guess = total(np.where(useless, np.nan, spread))
    return float(np.mean(there * np.nan_to_num(error) + (1 - there) * (guess if math.isfinite(guess) else NOWHERE)))


def is_static(over_images: Positions, error: Floats, motion: Floats) -> Bools:
    """Return which landmarks do not move with the object: (K,).

    They stand still (`Positions.static`), or their spread over the images is no more than they are off between views of one
    image, and so is theirs and not the object's. A landmark at one place has 0.8 of its error in the views as spread, if it is
    off as a 2-D Gaussian. One that spreads more than the views move (`motion`) does not stand still but wander. error and
    motion: (K,), % of the side.
    """
    scatter = np.minimum(error, motion)
    return over_images.static() | (over_images.is_known() & (100 * over_images.spread() <= scatter))


def coverage(xy: Floats) -> float:
    """Return the standard deviation of an image's landmarks (N, K, 2) about their middle, mean over the images that show two or
    more; in their unit, NaN: none does."""
    there = np.isfinite(xy).all(axis=-1)
    count = there.sum(axis=1)
    places, count = xy[count > 1], count[count > 1]
    if not len(places):
        return math.nan
    apart = places - np.nanmean(places, axis=1, keepdims=True)
    return float(np.sqrt(np.nansum(apart**2, axis=(1, 2)) / (count - 1)).mean())


def usual_peak(confidence: Floats) -> Floats:
    """The peak that a landmark exceeds in one image of ten: (K,). confidence: (N, K)."""
    return np.quantile(confidence, USUAL, axis=0)


def is_detected(xy: Floats, confidence: Floats, least: Floats) -> Bools:
    """Which points (..., K, 2) are there, with a peak (..., K) of at least (K,)."""
    return np.isfinite(xy).all(axis=-1) & (confidence >= least)


def mean_of(values: NDArray, chosen: Bools) -> Floats:
    """Mean of the chosen (..., K) values (..., K) of each landmark: (K,); NaN: none is chosen."""
    axes = tuple(range(chosen.ndim - 1))
    count = chosen.sum(axis=axes)
    return np.where(chosen, values, 0.0).sum(axis=axes) / np.where(count, count, np.nan)


def mean_distance(first: Floats, second: Floats, chosen: Bools) -> Floats:
    """Mean distance of the chosen (..., K) points (..., K, 2) of each landmark: (K,), in their unit; NaN: none is chosen."""
    return mean_of(np.linalg.norm(first - second, axis=-1), chosen)


def total(values: Floats) -> float:
    """Mean over the landmarks that have a number (K,); NaN: none has."""
    return float(values[np.isfinite(values)].mean()) if np.isfinite(values).any() else math.nan


def flip_error(xy: Floats, mirrored: Floats, partners: NDArray) -> Floats:
    """Mean distance of landmarks (N, K, 2) to their partners (K,) in the mirror images, turned back (N, K, 2): (K,), in their
    unit, over the images in which both are detected; NaN without a partner."""
    other = mirrored[:, np.maximum(partners, 0)]
    both = np.isfinite(xy).all(axis=-1) & np.isfinite(other).all(axis=-1) & (partners != NONE)
    return mean_distance(xy, other, both)


def places_of(xy: Floats, side: int) -> Positions:
    """Return the sums over the places of landmarks (N, K, 2), pixels of an input of that side; NaN: not there."""
    image, landmark = np.nonzero(np.isfinite(xy).all(axis=-1))
    return positions(landmark, coordinates.in_square(xy[image, landmark], np.array([side, side])), xy.shape[1])


def landmark_distances(xy: Floats) -> Floats:
    """Mean distance of each pair of landmarks over the images (N, K, 2) that show both: (K, K), in their unit; infinite where
    no image does, and of a landmark to itself."""
    landmarks = xy.shape[1]
    out = np.full((landmarks, landmarks), np.inf)
    for landmark in range(landmarks - 1):  # all pairs at once would take K times the points' memory
        apart = np.linalg.norm(xy[:, landmark + 1 :] - xy[:, landmark, None], axis=-1)
        mean = mean_of(apart, np.isfinite(apart))
        out[landmark, landmark + 1 :] = out[landmark + 1 :, landmark] = np.where(np.isnan(mean), np.inf, mean)
    return out


def separation(descriptors: NDArray, centroids: NDArray, own: NDArray[np.int64]) -> NDArray[np.float32]:
    """How much nearer descriptors are to their own centroid than to any other: float32 (N,), 1: on it, 0: half-way, below 0:
    nearer to another one.

    The simplified silhouette (b - a) / max(a, b) (Hruschka et al. 2004). descriptors: (N, d); centroids: (K, d); own: (N,).
    """
    points, centres = np.asarray(descriptors, np.float64), np.asarray(centroids, np.float64)
    squared = (points**2).sum(axis=1)[:, None] - 2 * points @ centres.T + (centres**2).sum(axis=1)
    distance = np.sqrt(squared.clip(min=0))
    rows = np.arange(len(points))
    near = distance[rows, own].copy()
    distance[rows, own] = np.inf
    other = distance.min(axis=1)
    return ((other - near) / np.maximum(np.maximum(near, other), 1e-12)).astype(np.float32)


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
