"""Whether landmarks look the same: images warped to each other through their landmarks, and the windows around the landmarks.

A network that tells landmarks by their layout passes every test on views of one image. Here images are compared with each
other, in features that were not trained (`evaluation.appearance`), in the canonical frame of the landmarks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ray_kplm.evaluation.appearance import CELL, CELL_DIMENSIONS, DIMENSIONS, describe, describe_cells
from ray_kplm.evaluation.canonical_frame import fit_to_images, mean_shape, to_canonical
from ray_kplm.imaging.thin_plate import fit_thin_plate, sample_at

Floats = NDArray[np.float64]
Descriptors = NDArray[np.float32]

PICTURE_SIDE = 96
"""Side of the pictures that appearance is measured on, pixels."""
CANVAS = 64
"""Side of the canonical frame, pixels. The window around a landmark is half of it."""
_OTHERS = 4
"""Other images whose landmarks are placed on each image."""
_MARGIN = 1.0
"""Cells of the canonical frame belong to the object up to this distance from the hull of the mean shape, in cells."""
_LEAST_LANDMARKS = 3
"""Landmarks that a thin-plate spline needs."""
_TIE = 0.05
"""Squared distances that differ by less than this share are equal. Through landmarks at fixed places, localised to within a
pixel, an image is warped in nearly the same way each time; without ties such landmarks had 0.47 to 0.53 in place of 0.5."""
_SEED = 29


@dataclass(frozen=True)
class Transfer:
    """How alike images are at their landmarks: shares of trials, NaN where undefined.

    Attributes:
        transfer: Images n and m are warped to the mean shape by thin-plate splines through their landmarks. A trial succeeds if
            n is more like m than if it were warped through the landmarks of a third image. Guessing gives 0.5, and so do
            landmarks at fixed places, through which all images are warped alike.
        mirror_identity: Share of the other images that are less like an image than its own mirror image is, both warped to the
            mean shape. It is low if landmarks are other parts in the mirror image, as the left end of an animal is head or
            tail, and nearly 1 if they are the same parts.
        by_landmark: (K,), as `transfer`, of the window around each landmark: image m looks more like image n at its own
            landmark than where a third image has this landmark.
    """

    transfer: float
    mirror_identity: float
    by_landmark: Floats


def measure_transfer(
    pictures: NDArray[np.uint8], xy: NDArray[Any], mirrored_xy: NDArray[Any] | None, *, facing: bool
) -> Transfer:
    """Measure how alike images are at their landmarks.

    Args:
        pictures: (N, S, S, 3), RGB.
        xy: (N, K, 2), landmarks in pixels of the pictures; NaN where not detected.
        mirrored_xy: (N, K, 2), landmarks of the mirror images, in their pixels; None if unknown.
        facing: Whether the category faces one way or the other, so that the landmarks of an image may be a mirrored shape.
    """
    shape = mean_shape(xy, mirrored=facing)
    others = xy[_other_images(len(xy), _OTHERS)]
    object_cells = _object_cells(shape, pictures.shape[1])
    own = _warped(pictures, xy, shape)[:, object_cells]
    wrong = [_warped(pictures, others[:, r], shape)[:, object_cells] for r in range(_OTHERS)]
    pairs = _pairwise(own, own)
    np.fill_diagonal(pairs, np.nan)
    transfer = _mean([_less(pairs, _pairwise(warped, own)) for warped in wrong])
    identity = np.nan
    if mirrored_xy is not None:
        flipped = np.ascontiguousarray(pictures[:, :, ::-1])
        both = np.isfinite(xy + mirrored_xy)  # an image and its mirror image are warped through the same landmarks
        straight, mirrored = (
            _warped(images, np.where(both, points, np.nan), shape)[:, object_cells]
            for images, points in ((pictures, xy), (flipped, mirrored_xy))
        )
        to_mirror = ((straight - mirrored) ** 2).sum(axis=(1, 2))
        identity = _mean([_less(np.broadcast_to(to_mirror[:, None], pairs.shape), pairs)])
    return Transfer(transfer, identity, _by_landmark(pictures, xy, others, shape, facing=facing))


def _warped(pictures: NDArray[np.uint8], xy: NDArray[Any], shape: Floats) -> Descriptors:
    """Return the cells' features (N, cells, d) of the pictures warped so that their landmarks come to the mean shape.

    NaN for a picture with too few landmarks.
    """
    side = pictures.shape[1]
    axis = np.linspace(0, 1, CANVAS)
    places = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    cells = (CANVAS // CELL) ** 2
    out = np.full((len(pictures), cells, CELL_DIMENSIONS), np.nan, np.float32)
    for n, (picture, points) in enumerate(zip(pictures, xy, strict=True)):
        known = np.isfinite(points).all(axis=-1)
        if known.sum() >= _LEAST_LANDMARKS:
            source = fit_thin_plate(shape[known] / (side - 1), points[known], places)
            out[n] = describe_cells(sample_at(picture, source, (CANVAS, CANVAS))).reshape(cells, -1)
    return out


def _object_cells(shape: Floats, side: int) -> NDArray[np.bool_]:
    """Return which cells of the canonical frame lie in the hull of the mean shape or near it."""
    cells = CANVAS // CELL
    hull = cv2.convexHull((shape * (cells / side) - 0.5).astype(np.float32))
    centres = [(float(x), float(y)) for y in range(cells) for x in range(cells)]
    near = np.array([cv2.pointPolygonTest(hull, centre, True) for centre in centres])
    return np.asarray(near >= min(-_MARGIN, near.max()), np.bool_)


def _by_landmark(
    pictures: NDArray[np.uint8], xy: NDArray[Any], others: NDArray[Any], shape: Floats, *, facing: bool
) -> Floats:
    """Return `Transfer.by_landmark`, in the frame of the similarity that maps the mean shape to the image."""
    own, wrong = _windows(pictures, xy, others, shape, facing=facing)
    shares = np.full(xy.shape[1], np.nan)
    for k in range(len(shares)):
        pairs = _pairwise(own[:, k], own[:, k])
        np.fill_diagonal(pairs, np.nan)
        shares[k] = _mean([_less(pairs, _pairwise(own[:, k], wrong[:, r, k])) for r in range(wrong.shape[1])])
    return shares


def _windows(
    pictures: NDArray[np.uint8], xy: NDArray[Any], others: NDArray[Any], shape: Floats, *, facing: bool
) -> tuple[Descriptors, Descriptors]:
    """Return descriptors at each image's landmarks (N, K, d), and where other images have them (N, R, K, d).

    NaN where a landmark is not detected.
    """
    images, landmarks = xy.shape[:2]
    similarities = fit_to_images(shape, xy, mirrored=facing)
    places = np.concatenate([xy[:, None], others], axis=1)
    canonical = to_canonical(similarities, places.reshape(images, -1, 2))
    unit = (CANVAS - 1) / (pictures.shape[1] - 1)
    canvas_to_shape = np.diag([1 / unit, 1 / unit, 1])
    out = np.full((images, places.shape[1] * landmarks, DIMENSIONS), np.nan, np.float32)
    for n in range(images):
        known = np.isfinite(canonical[n]).all(axis=-1)
        canvas = cv2.warpAffine(
            pictures[n],
            similarities[n] @ canvas_to_shape,
            (CANVAS, CANVAS),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        out[n, known] = describe(np.asarray(canvas, np.uint8), canonical[n][known] * unit)
    by_place = out.reshape(images, places.shape[1], landmarks, DIMENSIONS)
    return by_place[:, 0], by_place[:, 1:]


def _other_images(images: int, others: int) -> NDArray[np.int64]:
    """Return for each image the numbers of other ones, drawn with a fixed seed: (N, others)."""
    steps = np.random.default_rng(_SEED).integers(1, max(images, 2), (images, others))
    return np.asarray((np.arange(images)[:, None] + steps) % images, np.int64)


def _pairwise(first: Descriptors, second: Descriptors) -> Floats:
    """Return the squared distances of the rows of (N, ...) and (M, ...): (N, M), NaN for rows of NaN."""
    a, b = (rows.reshape(len(rows), -1).astype(np.float64) for rows in (first, second))
    squares: Floats = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    return squares


def _less(near: Floats, far: Floats) -> Floats:
    """Return 1 where near < far, 0.5 where they are equal (`_TIE`), 0 else, and NaN where one is unknown."""
    difference = far - near
    equal = np.abs(difference) <= _TIE * far
    return np.where(np.isfinite(difference), np.where(equal, 0.5, difference > 0), np.nan)


def _mean(shares: list[Floats]) -> float:
    values = np.stack(shares)
    return float(np.nanmean(values)) if np.isfinite(values).any() else np.nan
