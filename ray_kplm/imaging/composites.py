"""Composites of an object and a background: the object cut out with soft borders, moved, or put on another background.

Boxes are x0, y0, x1, y1 in pixels of a square picture, pixel centres at integers.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ray_kplm.imaging import coordinates

Floats = NDArray[np.float32]

FEATHER = 0.04
"""Width of the soft border of a cut-out, share of the picture's side (standard deviation of a Gaussian)."""
_DIRECTIONS = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], np.float64)
"""Right, left, down, up."""
_FULL_SIZE = 0.8
"""Scale of the object from which on a direction is drawn at random; below it, the direction with the largest scale is taken."""
_LEAST_COVERED = 0.05
"""Mask above which a pixel counts as covered: the fill does not see the object's soft border."""
_LEAST_WEIGHT_3 = (1e-3,) * 4
"""Weight of known pixels that a filled pixel must have at a level of the pyramid."""


def box_mask(box: NDArray[Any], side: int) -> Floats:
    """Return the soft mask (side, side) of a box: 1 inside, 0 outside."""
    at = np.arange(side, dtype=np.float32)
    across, down = (_feathered(((at >= box[i]) & (at <= box[i + 2]))[None], side) for i in range(2))
    # A box and a Gaussian are products of a function of x and one of y.
    return np.asarray(down.T * across, np.float32)


def ellipse_mask(points: NDArray[Any], side: int, margin: float = 1.5) -> tuple[Floats, NDArray[np.float64]]:
    """Return the soft mask of the ellipse around points, and its box.

    Args:
        points: (P, 2), pixels, P >= 1.
        side: Side of the picture, pixels.
        margin: Half-axes of the ellipse, in half-widths and half-heights of the points' box.

    Returns:
        The mask (side, side), and the ellipse's box (4,) within the picture.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    centre = (low + high) / 2
    half = np.maximum(margin * (high - low) / 2, FEATHER * side)
    y, x = np.indices((side, side), dtype=np.float32)
    inside = ((x - centre[0]) / half[0]) ** 2 + ((y - centre[1]) / half[1]) ** 2 <= 1
    box = np.clip(np.concatenate([centre - half, centre + half]), 0, side - 1)
    return _feathered(inside, side), box


def fill_background(picture: NDArray[np.uint8], mask: Floats) -> NDArray[np.uint8]:
    """Replace what a mask covers by a smooth continuation of the rest.

    A covered pixel takes the mean of the pixels that are not covered, at the finest level of a pyramid that has any near it.

    Args:
        picture: (S, S, 3).
        mask: (S, S), 1: covered.
    """
    known = (mask <= _LEAST_COVERED).astype(np.uint8)
    if known.all():
        return picture.copy()
    side = len(picture)
    weight = known.astype(np.float32)
    weighted = cv2.copyTo(picture, known).astype(np.float32)
    filled = np.rint(_fill_from_below(weighted, weight, (side, side))).astype(np.uint8)
    return np.asarray(cv2.copyTo(picture, known, filled), np.uint8)


def placements(
    box: NDArray[Any], side: int, distance: float, rng: np.random.Generator
) -> tuple[coordinates.Affine, coordinates.Affine]:
    """Return two placements of an object whose distance is a share of the side, both inside the picture if possible.

    The object keeps its centre in the first placement. It is smaller in both than in the picture if there is no room.

    Args:
        box: (4,), the object.
        side: Side of the picture, pixels.
        distance: Of the placements, share of the side.
        rng: Draws the direction.

    Returns:
        The maps (2, 3) of the picture's points to the first and to the second placement.
    """
    centre, half = (box[:2] + box[2:]) / 2, np.maximum((box[2:] - box[:2]) / 2, 1)
    moves = _DIRECTIONS * distance * side
    moved = centre + moves
    room = np.minimum(np.minimum(moved, side - 1 - moved), np.minimum(centre, side - 1 - centre))
    scales = np.clip((room / half).min(axis=1), 0.5, 1.0)
    fitting = np.flatnonzero(scales >= min(_FULL_SIZE, scales.max()))
    chosen = int(rng.choice(fitting))
    scale = scales[chosen]
    first = np.array([[scale, 0, centre[0] * (1 - scale)], [0, scale, centre[1] * (1 - scale)]])
    return first, coordinates.compose(coordinates.translation(*moves[chosen]), first)


def moved_placement(box: NDArray[Any], side: int, shift: NDArray[Any]) -> coordinates.Affine:
    """Return the placement of an object that moves, in which its box stays inside the picture: the map (2, 3) of its points.

    Args:
        box: (4,), the object.
        side: Side of the picture, pixels.
        shift: (2,), of the object's centre, share of the side. It moves less where it would come near the border.
    """
    centre, half = (box[:2] + box[2:]) / 2, np.maximum((box[2:] - box[:2]) / 2, 1)
    target = np.clip(centre + shift * side, 0.2 * side, 0.8 * side)
    room = (np.minimum(target, side - 1 - target) / half).min()
    scale = float(np.clip(room, 0.6, 1.0))
    return np.array([[scale, 0, target[0] - scale * centre[0]], [0, scale, target[1] - scale * centre[1]]])


def paste(
    picture: NDArray[np.uint8], mask: Floats, background: NDArray[np.uint8], placement: coordinates.Affine
) -> NDArray[np.uint8]:
    """Put the masked part of a picture on a background.

    Args:
        picture: (S, S, 3), shows the object.
        mask: (S, S), 1: the object.
        background: (S, S, 3).
        placement: The map (2, 3) of the picture's points to the composite.
    """
    size = (len(picture), len(picture))
    moved = cv2.warpAffine(picture, placement, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    weight = cv2.warpAffine(mask, placement, size, flags=cv2.INTER_LINEAR, borderValue=0)[..., None]
    return np.asarray(np.rint(weight * moved + (1 - weight) * background), np.uint8)


def cut_out(picture: NDArray[np.uint8], mask: Floats) -> NDArray[np.uint8]:
    """Return the masked part of a picture as red, green and blue times alpha, and alpha: (S, S, 4).

    Alpha is 0 at the picture's border, so that nothing of the object is repeated beyond it.

    Args:
        picture: (S, S, 3).
        mask: (S, S), 1: the object.
    """
    alpha = cv2.convertScaleAbs(mask, alpha=255)
    alpha[[0, -1]] = alpha[:, [0, -1]] = 0
    covered = cv2.multiply(picture, cv2.merge((alpha, alpha, alpha)), scale=1 / 255)
    cut = cv2.cvtColor(covered, cv2.COLOR_RGB2RGBA)
    return np.asarray(cv2.insertChannel(alpha, cut, 3), np.uint8)


def put_over(background: NDArray[np.uint8], cut: NDArray[np.uint8]) -> None:
    """Put a cut-out over a background, in place.

    Args:
        background: (S, S, 3).
        cut: (S, S, 4), as `cut_out` returns it.
    """
    rest = cv2.bitwise_not(cv2.extractChannel(cut, 3))
    cv2.multiply(background, cv2.merge((rest, rest, rest)), background, 1 / 255)
    cv2.add(background, cv2.cvtColor(cut, cv2.COLOR_RGBA2RGB), background)


def _feathered(inside: NDArray[np.bool_], side: int) -> Floats:
    return np.asarray(cv2.GaussianBlur(inside.astype(np.float32), (0, 0), FEATHER * side), np.float32)


def _fill_from_below(weighted: Floats, weight: Floats, size: tuple[int, int]) -> Floats:
    """Return values (h, w, 3) of a size (w, h) from the coarser levels of a pyramid.

    Args:
        weighted: (h, w, 3), values times their weights.
        weight: (h, w), 0 where nothing is known.
        size: w, h.
    """
    half = (max(1, size[0] // 2), max(1, size[1] // 2))
    weighted, weight = (cv2.resize(of, half, interpolation=cv2.INTER_AREA) for of in (weighted, weight))
    share = cv2.merge((weight, weight, weight))
    mean = cv2.divide(weighted, cv2.max(share, _LEAST_WEIGHT_3))
    if min(half) > 1 and weight.min() < 1:
        below = _fill_from_below(weighted, weight, half)
        mean = below + share * (mean - below)
    return np.asarray(cv2.resize(mean, size, interpolation=cv2.INTER_LINEAR), np.float32)
