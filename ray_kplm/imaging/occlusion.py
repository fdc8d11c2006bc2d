"""Synthetic occluders: patches of other pictures that hide some landmarks of an image, whose places are known."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

_REACH = (0.07, 0.18)
"""Half of an occluder's width and height, shares of the picture's side."""
_MOST = 3
"""Occluders of a picture at most."""
_INSIDE = 0.03
"""Share of the side by which a landmark must lie within an occluder to be hidden, and outside of all of them to be clear."""
_PLAIN_SHARE = 0.4
"""Share of occluders of one colour with noise; the others show a part of another picture."""
_NOISE = 25.0
"""Largest standard deviation of the noise, of 255."""
_SOFT = 0.7
"""Standard deviation of the Gaussian that softens an occluder's border, pixels."""


class Occluded(NamedTuple):
    """A picture with occluders.

    Attributes:
        picture: uint8 (S, S, 3).
        hidden: bool (K,), landmarks that an occluder hides.
        clear: bool (K,), landmarks that no occluder touches.
    """

    picture: NDArray[np.uint8]
    hidden: NDArray[np.bool_]
    clear: NDArray[np.bool_]


def occlude(
    picture: NDArray[np.uint8], other: NDArray[np.uint8], xy: NDArray[np.floating], rng: np.random.Generator
) -> Occluded:
    """Hide some landmarks of a picture.

    Each occluder is an ellipse or a rectangle around a place near a landmark. It shows a part of another picture, upside down
    and from another place, so that a landmark is not covered by the same landmark of another object; or one colour with noise.

    Args:
        picture: (S, S, 3).
        other: (S, S, 3), another picture.
        xy: (K, 2), landmarks, pixels of the picture; NaN where not detected.
        rng: Of the draws.
    """
    side, count = len(picture), len(xy)
    y, x = np.indices((side, side), dtype=np.float32)
    covered, hidden, touched = picture.copy(), np.zeros(count, bool), np.zeros(count, bool)
    known = np.flatnonzero(np.isfinite(xy).all(axis=1))
    for target in rng.choice(known, min(len(known), int(rng.integers(1, _MOST + 1))), replace=False):
        half = rng.uniform(*_REACH, 2) * side
        centre = xy[target] + rng.uniform(-0.5, 0.5, 2) * half
        round_ = bool(rng.random() < 0.5)
        weight = _weight(x, y, centre, half, round_)[..., None]
        covered = np.rint(weight * _filling(other, rng) + (1 - weight) * covered).astype(np.uint8)
        hidden |= _within(xy, centre, half - _INSIDE * side, round_)
        touched |= _within(xy, centre, half + _INSIDE * side, round_)
    return Occluded(covered, hidden, ~touched)


def _within(
    xy: NDArray[np.floating], centre: NDArray[np.floating], half: NDArray[np.floating], round_: bool
) -> NDArray[np.bool_]:
    """Return which points (K, 2) lie in an ellipse or a rectangle; NaN does not."""
    distance = np.abs(xy - centre) / np.maximum(half, 1e-6)
    inside: NDArray[np.bool_] = (np.square(distance).sum(axis=1) <= 1) if round_ else (distance.max(axis=1) <= 1)
    return inside


def _weight(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    centre: NDArray[np.floating],
    half: NDArray[np.floating],
    round_: bool,
) -> NDArray[np.float32]:
    """Return the soft mask (S, S) of an ellipse or a rectangle."""
    points = np.stack([x, y], axis=-1).reshape(-1, 2)
    inside = _within(points, centre, half, round_).reshape(x.shape).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(inside, (0, 0), _SOFT), np.float32)


def _filling(other: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return what an occluder shows, (S, S, 3): the other picture moved and upside down, or a colour of it with noise."""
    side = len(other)
    if rng.random() < _PLAIN_SHARE:
        colour = other[tuple(rng.integers(0, side, 2))].astype(np.float64)
        noise = rng.normal(0, rng.uniform(0, _NOISE), other.shape)
        return np.asarray(np.clip(colour + noise, 0, 255), np.float64)
    shift = rng.integers(side // 4, max(side // 4 + 1, 3 * side // 4), 2)
    return np.roll(other[::-1], tuple(shift), axis=(0, 1)).astype(np.float64)
