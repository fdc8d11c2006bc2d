"""Label-free quality of landmarks: measures on images, on known views and mirror images of them, and between images.

Errors and distances are in percent of the side of the network's square input; rates, sharpness and compactness are shares.
A view is a known geometric transform of an image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.correspondence.static import Positions, positions
from ray_kplm.evaluation.json_numbers import json_number, json_numbers
from ray_kplm.evaluation.label_free_score import score_of
from ray_kplm.evaluation.layout_reliance import MovedObjects, measure_layout_reliance
from ray_kplm.evaluation.transfer import Transfer, measure_transfer
from ray_kplm.imaging import coordinates
from ray_kplm.schemas import NONE

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

USUAL = 0.9
"""Quantile of a landmark's peaks that counts as its usual peak. It is high so that a landmark that most images hide is judged
by those that show it."""
DETECTED = 0.5
"""A landmark that is an argmax has a position in every image. It counts as detected where its peak is at least this share of
its own usual peak. The reference is its own, as the height of a landmark's peaks depends on how evenly it was labelled."""
ONE_PLACE = 2.5
"""Two landmarks closer than this on average lie at one place, % of the side: less than two cells of a 64 x 64 heatmap."""
ONE_PATCH = 10.0
"""Landmarks with less coverage lie in one patch of the object, % of the side. Annotated points of whole objects cover 26 to
31 % on average and at least 18 % in any image (faces, cattle, people, X-rays of heads); those of a single eye, brow, nose or
mouth 4 to 9 %."""
MOST_ARE_SAME = 0.75
"""Share of landmarks that are their own mirror partner above which images face one way or the other. In a frontal category
only the landmarks on the axis of symmetry are their own partners."""
BOX_MARGIN = 0.1
"""A landmark counts as inside the object's box up to this share of the box's sides beside it: boxes around annotated points
exclude parts of the object, as ears and hair of a face."""
NOWHERE = 100 * math.sqrt(1 / 6)
"""Standard deviation of a position drawn uniformly from the whole square, % of the side: 41."""


@dataclass(frozen=True)
class Observations:
    """Outputs of a detector of K landmarks on N images, on V known views of each and on their mirror images.

    Points are (x, y) in pixels of the network's input, NaN where not detected.
    """

    side: int
    """Side of the network's input, pixels."""
    xy: Floats
    """(N, K, 2), landmarks of the images."""
    confidence: Floats
    """(N, K), heights of the peaks."""
    sharpness: Floats
    """(N, K), 0 to 1, how far the heatmap falls around the peak (`network.heatmaps.sharpness`)."""
    separation: Floats | None
    """(N, K), -1 to 1, see `separation`; None if the detector has no descriptors."""
    expected: Floats
    """(N, V, K, 2), positions of the images' landmarks in the views; NaN where outside of the view or not detected."""
    found: Floats
    """(N, V, K, 2), landmarks detected in the views."""
    view_confidence: Floats
    """(N, V, K), heights of their peaks."""
    alone: Floats
    """(N, K, 2), landmarks of the images without averaging over the mirror image, which would make both agree."""
    mirrored: Floats
    """(N, K, 2), likewise of the mirror images, mapped back to the images."""
    partners: NDArray[np.int16]
    """(K,), the landmark that each becomes in the mirror image; `NONE` for no partner."""
    always: bool
    """Whether each landmark is an argmax with a position in every image, so that only its peak tells if it is detected."""
    pictures: NDArray[np.uint8] | None = None
    """(N, s, s, 3), the images as RGB pictures of any side s, for the measures of appearance; None: these are unknown."""
    objects: MovedObjects | None = None
    """Landmarks of composites of the images; None: layout reliance is unknown."""
    boxes: Floats | None = None
    """(N, 4), x0, y0, x1, y1 of the objects, NaN where not given; None: no box is given."""

    @property
    def facing(self) -> bool:
        """Whether most landmarks are the same landmark in the mirror image, as in a category seen from the side."""
        return bool((self.partners == np.arange(len(self.partners))).mean() > MOST_ARE_SAME)


PER_LANDMARK = {
    "equivariance_error": "equivariance_per_landmark",
    "flip_error": "flip_per_landmark",
    "detection_rate": "detection_rate_per_landmark",
    "repeatability": "repeatability_per_landmark",
    "peak_sharpness": "sharpness_per_landmark",
    "cluster_compactness": "compactness_per_landmark",
    "positional_spread": "spread_per_landmark",
    "view_motion": "view_motion_per_landmark",
    "inside_box": "inside_box_per_landmark",
    "landmark_transfer": "transfer_per_landmark",
    "shift_error": "shift_error_per_landmark",
}
"""Name of each measure's mean over landmarks -> name of its list by landmark."""


# Over 60 lines by its docstring, which lists the measures.
def measure(seen: Observations) -> dict[str, Any]:
    """Compute all label-free measures.

    A landmark is measured in the images in which it is detected.

    Returns:
        A dictionary for JSON, None where a number is undefined:

        - `images`, `landmarks`: N and K.
        - `equivariance_error`: distance between the expected and the detected position of a landmark in a view, % of the side.
        - `view_motion`: the error of a detector that would ignore the view, % of the side.
        - `repeatability`: share of the views showing a landmark in which it is detected.
        - `flip_error`: distance between a landmark and its partner in the mirror image, % of the side; None without partner.
        - `detection_rate`: share of the images in which a landmark is detected.
        - `peak_sharpness`: 0 to 1.
        - `cluster_compactness`: mean of `separation`, -1 to 1; None without descriptors.
        - `positional_spread`: standard deviation of a landmark's position over the images, % of the side.
        - `static_landmarks`, `static_share`: the landmarks that do not move with the object (`is_static`), and their share.
        - `coverage`: standard deviation of an image's landmarks about their mean, % of the side. It excludes landmarks that
          are static, at the place of another one, or as far off in the views as if the detector ignored these. None if less
          than two remain.
        - `inside_box`: share of the landmarks that lie in the object's box; None without boxes.
        - `box_coverage`: share of the box's sides that the landmarks span, 0 to 1, without useless ones; None without boxes.
        - `min_landmark_distance`: distance of the two closest landmarks, % of the side.
        - `landmarks_on_one_place`: pairs [i, j] of landmarks closer than `ONE_PLACE`.
        - `partners`: the flip map, -1 for no partner.
        - `transfer`, `landmark_transfer`, `mirror_identity`: shares, see `transfer.Transfer`; None without pictures.
        - the measures of `layout_reliance.measure_layout_reliance`; None without composites.
        - `expected_distance`: see `expected_distance`.
        - `score`: see `label_free_score`.

        The measures in `PER_LANDMARK` are means over the landmarks for which they are defined, and are also listed by
        landmark.
    """
    landmarks, unit = seen.xy.shape[1], 100 / seen.side
    least_peak = DETECTED * usual_peak(seen.confidence) if seen.always else np.zeros(landmarks)
    detected = is_detected(seen.xy, seen.confidence, least_peak)
    detected_in_view = is_detected(seen.found, seen.view_confidence, least_peak)
    in_view = detected[:, None] & np.isfinite(seen.expected).all(axis=-1)
    xy = np.where(detected[..., None], seen.xy, np.nan)
    error = unit * mean_distance(seen.expected, seen.found, in_view & detected_in_view)
    rate, repeatability = detected.mean(axis=0), mean_of(detected_in_view, in_view)
    motion = unit * mean_distance(seen.expected, seen.xy[:, None], in_view)
    over_images = positions_of(xy, seen.side)
    spread = 100 * over_images.spread()
    static = is_static(over_images, error, motion)
    distances = unit * landmark_distances(xy)
    one_place = np.triu(distances < ONE_PLACE)
    useless = static | one_place.any(axis=0)
    covered = unit * coverage(xy[:, ~useless & ~(error > motion)])
    transfer = _transfer(seen, xy)
    values = {
        "equivariance_error": error,
        "flip_error": unit * flip_error(seen.alone, seen.mirrored, seen.partners),
        "detection_rate": rate,
        "repeatability": repeatability,
        "peak_sharpness": mean_of(seen.sharpness, detected),
        "cluster_compactness": None if seen.separation is None else mean_of(seen.separation, detected),
        "positional_spread": spread,
        "view_motion": motion,
        "inside_box": None if seen.boxes is None else inside_box(xy, seen.boxes, BOX_MARGIN),
        "landmark_transfer": None if transfer is None else transfer.by_landmark,
    }
    measures = {
        "images": len(seen.xy),
        "landmarks": landmarks,
        **{name: None if v is None else json_number(mean_over_landmarks(v)) for name, v in values.items()},
        **{PER_LANDMARK[name]: None if v is None else json_numbers(v) for name, v in values.items()},
        "partners": seen.partners.tolist(),
        "static_landmarks": np.flatnonzero(static).tolist(),
        "static_share": float(static.mean()),
        "min_landmark_distance": json_number(distances.min(initial=math.inf)),
        "landmarks_on_one_place": np.argwhere(one_place).tolist(),
        "coverage": json_number(covered),
        "box_coverage": None if seen.boxes is None else json_number(box_coverage(xy[:, ~useless], seen.boxes)),
        "expected_distance": expected_distance(error, rate * repeatability, spread, useless, covered),
        "transfer": None if transfer is None else json_number(transfer.transfer),
        "mirror_identity": None if transfer is None else json_number(transfer.mirror_identity),
        **measure_layout_reliance(seen.objects, xy, seen.side, facing=seen.facing),
    }
    return {**measures, "score": score_of(measures)}


def _transfer(seen: Observations, xy: Floats) -> Transfer | None:
    """Return how alike the images are at their landmarks, None without pictures."""
    if seen.pictures is None:
        return None
    scale = coordinates.scaling(seen.pictures.shape[1] / seen.side)
    in_mirror = coordinates.mirrored(seen.mirrored, seen.side)
    own, mirrored = (coordinates.apply(scale, points) for points in (xy, in_mirror))
    return measure_transfer(seen.pictures, own, mirrored, facing=seen.facing)


def expected_distance(error: Floats, found: Floats, spread: Floats, useless: Bools, covered: float) -> float:
    """Return the expected distance of a landmark from its place in an image, % of the side: lower is better.

    Views of one image alone tell the place, so a landmark that is another part in another image does not show here.

    In the share of images and views in which a landmark is found, its distance is its equivariance error. In the others its
    place can only be guessed, which costs the mean spread, or `NOWHERE` if all landmarks are useless.

    Two rules exclude degenerate optima. A useless landmark (static, or at the place of another one) counts as never found;
    otherwise marks on the background would score best. Landmarks that lie in one patch count as found in the share of the
    object's area that the patch covers; otherwise a grid on one distinctive spot would score best.

    Args:
        error: (K,), equivariance error, % of the side.
        found: (K,), share of images and views in which the landmark is found.
        spread: (K,), standard deviation of the position over the images, % of the side.
        useless: (K,), which landmarks are static or at the place of another one.
        covered: The `coverage`, % of the side; NaN if it is unknown.
    """
    share = min(1.0, covered / ONE_PATCH) ** 2 if math.isfinite(covered) else 1.0
    found = np.where(useless, 0.0, np.nan_to_num(found)) * share
    guess = mean_over_landmarks(np.where(useless, np.nan, spread))
    return float(np.mean(found * np.nan_to_num(error) + (1 - found) * (guess if math.isfinite(guess) else NOWHERE)))


def is_static(over_images: Positions, error: Floats, motion: Floats) -> Bools:
    """Return which landmarks do not move with the object: (K,).

    Such a landmark keeps its place (`Positions.static`), or its spread over the images is no more than its error between
    views of one image, so that the spread is due to localisation and not to the object. A landmark at a fixed place, localised
    with a 2-D Gaussian error, has a spread of 0.8 times its error in the views. A landmark that spreads more than the views
    move it (`motion`) is unstable, not static.

    Args:
        over_images: Sums of the positions over the images.
        error: (K,), equivariance error, % of the side.
        motion: (K,), motion of the landmark in the views, % of the side.
    """
    scatter = np.minimum(error, motion)
    return over_images.static() | (over_images.is_known() & (100 * over_images.spread() <= scatter))


def coverage(xy: Floats) -> float:
    """Return the standard deviation of an image's landmarks (N, K, 2) about their mean, in their unit.

    It is averaged over the images that show two or more landmarks; NaN if no image does.
    """
    count = np.isfinite(xy).all(axis=-1).sum(axis=1)
    xy, count = xy[count > 1], count[count > 1]
    if not len(xy):
        return math.nan
    centred = xy - np.nanmean(xy, axis=1, keepdims=True)
    return float(np.sqrt(np.nansum(centred**2, axis=(1, 2)) / (count - 1)).mean())


def inside_box(xy: Floats, boxes: Floats, margin: float) -> Floats:
    """Return the share of the images in which each landmark (N, K, 2) lies in the image's box (N, 4): (K,), NaN for none.

    Args:
        xy: Landmarks.
        boxes: x0, y0, x1, y1.
        margin: Width by which boxes are enlarged on each side, share of the side.
    """
    border = margin * (boxes[:, None, 2:] - boxes[:, None, :2])
    low, high = boxes[:, None, :2] - border, boxes[:, None, 2:] + border
    inside = np.asarray(((xy >= low) & (xy <= high)).all(axis=-1), np.bool_)
    return mean_of(inside, np.asarray(np.isfinite(xy + low).all(axis=-1), np.bool_))


def box_coverage(xy: Floats, boxes: Floats) -> float:
    """Return the root of the share of the box's area (N, 4) that the box around the landmarks (N, K, 2) inside it covers.

    It is the mean over the images with a box; an image with less than two landmarks has 0. NaN if no image has a box.
    """
    given = np.isfinite(boxes).all(axis=-1)
    if not given.any():
        return math.nan
    xy, boxes = xy[given], boxes[given]
    clipped = np.clip(xy, boxes[:, None, :2], boxes[:, None, 2:])
    known = np.isfinite(clipped).all(axis=-1, keepdims=True)
    low = np.where(known, clipped, np.inf).min(axis=1, initial=np.inf)
    high = np.where(known, clipped, -np.inf).max(axis=1, initial=-np.inf)
    extent = np.maximum(high - low, 0) / np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-9)
    return float(np.sqrt(extent.prod(axis=1)).mean())


def usual_peak(confidence: Floats) -> Floats:
    """Return the peak that each landmark exceeds in one image of ten: (K,), from confidences (N, K)."""
    return np.quantile(confidence, USUAL, axis=0)


def is_detected(xy: Floats, confidence: Floats, least: Floats) -> Bools:
    """Return which points (..., K, 2) are not NaN and have a confidence (..., K) of at least (K,)."""
    return np.isfinite(xy).all(axis=-1) & (confidence >= least)


def mean_of(values: NDArray[Any], chosen: Bools) -> Floats:
    """Return the mean (K,) of the chosen (..., K) values (..., K) of each landmark; NaN for one without any."""
    axes = tuple(range(chosen.ndim - 1))
    count = chosen.sum(axis=axes)
    return np.asarray(np.where(chosen, values, 0.0).sum(axis=axes) / np.where(count, count, np.nan), np.float64)


def mean_distance(first: Floats, second: Floats, chosen: Bools) -> Floats:
    """Return the mean distance (K,) of the chosen (..., K) points (..., K, 2) of each landmark; NaN for one without any."""
    return mean_of(np.linalg.norm(first - second, axis=-1), chosen)


def mean_over_landmarks(values: Floats) -> float:
    """Return the mean of the finite values of (K,); NaN if there are none."""
    return float(values[np.isfinite(values)].mean()) if np.isfinite(values).any() else math.nan


def flip_error(xy: Floats, mirrored: Floats, partners: NDArray[np.integer]) -> Floats:
    """Return the mean distance of each landmark to its partner in the mirror image.

    Args:
        xy: (N, K, 2), landmarks of the images.
        mirrored: (N, K, 2), landmarks of the mirror images, mapped back to the images.
        partners: (K,), the flip map.

    Returns:
        (K,), in the points' unit, over the images in which both are detected; NaN for a landmark without a partner.
    """
    other = mirrored[:, np.maximum(partners, 0)]
    both = np.isfinite(xy).all(axis=-1) & np.isfinite(other).all(axis=-1) & (partners != NONE)
    return mean_distance(xy, other, both)


def positions_of(xy: Floats, side: int) -> Positions:
    """Return the sums of the positions of landmarks (N, K, 2), in pixels of an input of that side; NaN is left out."""
    image, landmark = np.nonzero(np.isfinite(xy).all(axis=-1))
    return positions(landmark, coordinates.in_square(xy[image, landmark], np.array([side, side])), xy.shape[1])


def landmark_distances(xy: Floats) -> Floats:
    """Return the mean distance (K, K) of each pair of landmarks over the images of (N, K, 2) that show both.

    It is infinite for pairs that no image shows, and of a landmark to itself.
    """
    landmarks = xy.shape[1]
    out = np.full((landmarks, landmarks), np.inf)
    for landmark in range(landmarks - 1):  # one landmark at a time: all pairs at once need K times the memory
        distance = np.linalg.norm(xy[:, landmark + 1 :] - xy[:, landmark, None], axis=-1)
        mean = mean_of(distance, np.isfinite(distance))
        out[landmark, landmark + 1 :] = out[landmark + 1 :, landmark] = np.where(np.isnan(mean), np.inf, mean)
    return out


def separation(
    descriptors: NDArray[np.floating], centroids: NDArray[np.floating], own: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the simplified silhouette (b - a) / max(a, b) of descriptors (Hruschka et al. 2004).

    a is the distance to the descriptor's own centroid, b that to the nearest other one.

    Args:
        descriptors: (N, d).
        centroids: (K, d).
        own: (N,), index of each descriptor's own centroid.

    Returns:
        (N,): 1 on the own centroid, 0 half-way, negative if another centroid is nearer.
    """
    points, centres = np.asarray(descriptors, np.float64), np.asarray(centroids, np.float64)
    squared = (points**2).sum(axis=1)[:, None] - 2 * points @ centres.T + (centres**2).sum(axis=1)
    distance = np.sqrt(squared.clip(min=0))
    rows = np.arange(len(points))
    near = distance[rows, own].copy()
    distance[rows, own] = np.inf
    other = distance.min(axis=1)
    return np.asarray((other - near) / np.maximum(np.maximum(near, other), 1e-12), np.float32)
