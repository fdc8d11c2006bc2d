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
_LEAST_WEIGHT = 1e-3
"""Weight of known pixels that a filled pixel must have at a level of the pyramid."""


def box_mask(box: NDArray[Any], side: int) -> Floats:
    """Return the soft mask (side, side) of a box: 1 inside, 0 outside."""
    y, x = np.indices((side, side), dtype=np.float32)
    inside = (x >= box[0]) & (x <= box[2]) & (y >= box[1]) & (y <= box[3])
    return _feathered(inside, side)


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
    known = (1 - _grown(mask))[..., None]
    return np.asarray(np.rint(_fill(picture * known, known)), np.uint8)


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


def random_placement(box: NDArray[Any], side: int, shift: float, rng: np.random.Generator) -> coordinates.Affine:
    """Return a random placement of an object, in which its box stays inside the picture: the map (2, 3) of its points.

    Args:
        box: (4,), the object.
        side: Side of the picture, pixels.
        shift: Most that the object's centre moves in each direction, share of the side.
        rng: Of the draw.
    """
    centre, half = (box[:2] + box[2:]) / 2, np.maximum((box[2:] - box[:2]) / 2, 1)
    target = np.clip(centre + rng.uniform(-shift, shift, 2) * side, 0.2 * side, 0.8 * side)
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


def _feathered(inside: NDArray[np.bool_], side: int) -> Floats:
    return np.asarray(cv2.GaussianBlur(inside.astype(np.float32), (0, 0), FEATHER * side), np.float32)


def _grown(mask: Floats) -> Floats:
    """Return a mask that is 1 wherever the given one is above a twentieth, so that the fill does not see the object."""
    return (mask > 0.05).astype(np.float32)


def _fill(weighted: NDArray[np.floating[Any]], weight: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Return values (S, S, 3) from weighted values and their weights (S, S, 1), filled from a pyramid where the weight is 0."""
    mean: NDArray[np.floating[Any]] = weighted / np.maximum(weight, _LEAST_WEIGHT)
    if (weight >= 1).all() or min(weight.shape[:2]) <= 1:
        return mean
    half = (max(1, weight.shape[1] // 2), max(1, weight.shape[0] // 2))
    smaller = _fill(
        cv2.resize(weighted.astype(np.float32), half, interpolation=cv2.INTER_AREA),
        cv2.resize(weight.astype(np.float32), half, interpolation=cv2.INTER_AREA)[..., None],
    )
    below = cv2.resize(smaller.astype(np.float32), (weight.shape[1], weight.shape[0]), interpolation=cv2.INTER_LINEAR)
    share = np.minimum(weight, 1)
    filled: NDArray[np.floating[Any]] = share * mean + (1 - share) * below
    return filled
