"""Whether landmarks look the same: appearance at the landmarks of one image against that in other images.

A network that tells landmarks by their layout passes every test on views of one image. Here images are compared with each
other, in features that were not trained (`evaluation.appearance`), in the canonical frame of the landmarks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ray_kplm.evaluation.appearance import DIMENSIONS, describe
from ray_kplm.evaluation.canonical_frame import fit_to_images, mean_shape, to_canonical

Floats = NDArray[np.float64]

PICTURE_SIDE = 96
"""Side of the pictures that appearance is measured on, pixels."""
CANVAS = 64
"""Side of the canonical frame, pixels. A descriptor's window is half of it."""
_OTHERS = 4
"""Other images whose landmarks are placed on each image."""
_SEED = 29


@dataclass(frozen=True)
class Transfer:
    """Shares by landmark, (K,), NaN where undefined.

    Attributes:
        transfer: Share of the trials in which image m looks more like image n at its own landmark than where a third image has
            this landmark. Guessing gives 0.5, and so do landmarks at fixed places, which have no other place.
        mirror_identity: Share of the other images that look less like an image, at the landmark, than its mirror image does.
            It is low if the landmark is another part in the mirror image, as the left end of an animal is head or tail. A
            landmark that is the same part has 1, a frontal category about 0.7 to 0.9.
    """

    transfer: Floats
    mirror_identity: Floats


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
    own, others = _descriptors(pictures, xy, shape, facing=facing, others=_OTHERS)
    mirrored = None
    if mirrored_xy is not None:
        flipped = np.ascontiguousarray(pictures[:, :, ::-1])
        mirrored, _ = _descriptors(flipped, mirrored_xy, shape, facing=facing, others=0)
    landmarks = xy.shape[1]
    transfer, identity = np.full(landmarks, np.nan), np.full(landmarks, np.nan)
    for k in range(landmarks):
        pairs = _squared_distances(own[:, k], own[:, k])
        np.fill_diagonal(pairs, np.nan)
        wrong = [_squared_distances(own[:, k], others[:, r, k]) for r in range(_OTHERS)]
        transfer[k] = _mean([_beats(pairs, distances) for distances in wrong])
        if mirrored is not None:
            to_mirror = ((own[:, k] - mirrored[:, k]) ** 2).sum(axis=1)
            identity[k] = _mean([_beats(np.broadcast_to(to_mirror[:, None], pairs.shape), pairs)])
    return Transfer(transfer, identity)


def _descriptors(
    pictures: NDArray[np.uint8], xy: NDArray[Any], shape: Floats, *, facing: bool, others: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return descriptors at each image's landmarks, and where `others` other images have them.

    Returns:
        (N, K, DIMENSIONS) and (N, others, K, DIMENSIONS), NaN where a landmark is not detected.
    """
    images, landmarks = xy.shape[:2]
    side = pictures.shape[1]
    similarities = fit_to_images(shape, xy, mirrored=facing)
    places = np.concatenate([xy[:, None], xy[_other_images(images, others)]], axis=1)
    canonical = to_canonical(similarities, places.reshape(images, -1, 2))
    unit = (CANVAS - 1) / (side - 1)
    canvas_to_shape = np.array([[1 / unit, 0, 0], [0, 1 / unit, 0], [0, 0, 1]])
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


def _squared_distances(first: NDArray[np.float32], second: NDArray[np.float32]) -> Floats:
    """Return the squared distances of the rows of (N, d) and (M, d): (N, M), NaN for rows of NaN."""
    squares = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1)
    return np.asarray(squares - 2 * first @ second.T, np.float64)


def _beats(near: Floats, far: Floats) -> Floats:
    """Return 1 where near < far, 0.5 where they are equal up to rounding, 0 else, and NaN where one is unknown."""
    difference = far - near
    equal = np.abs(difference) < 1e-5
    return np.where(np.isfinite(difference), np.where(equal, 0.5, difference > 0), np.nan)


def _mean(shares: list[Floats]) -> float:
    values = np.stack(shares)
    return float(np.nanmean(values)) if np.isfinite(values).any() else np.nan
