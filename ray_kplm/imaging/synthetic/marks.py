"""Marks at fixed places of synthetic images, which a detector must not take for landmarks of the object."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ray_kplm.errors import ConfigError
from ray_kplm.imaging.synthetic.scene import Colour, Image, hsv

MARK = 0.09  # x and y of the static mark, share of the side; few creatures reach so far into the corner
SHIFT = 4  # binary digits after the point of cv2's fixed-point coordinates
BLACK: Colour = (10.0, 10.0, 10.0)
MARK_RADIUS = 0.06  # of a background mark, share of the side
# Background marks, share of the side: along the border, where objects cover them seldom; the first are far apart.
PLACES: tuple[tuple[float, float], ...] = (
    (0.08, 0.08),
    (0.92, 0.30),
    (0.22, 0.92),
    (0.92, 0.08),
    (0.08, 0.50),
    (0.78, 0.92),
    (0.36, 0.08),
    (0.92, 0.70),
    (0.08, 0.80),
    (0.64, 0.08),
)


def draw_mark(image: Image) -> None:
    """Draw the static mark, a disc in a ring, over an image (S, S, 3), in place."""
    side = len(image)
    centre = (round(MARK * side), round(MARK * side))
    for radius, shade in ((0.06, 20), (0.045, 235), (0.02, 20)):
        cv2.circle(image, centre, max(1, round(radius * side)), (shade, shade, shade), cv2.FILLED, cv2.LINE_AA)


def check_marks(marks: int) -> None:
    """Raise ConfigError unless `marks` is a number of background marks."""
    if not 0 <= marks <= len(PLACES):
        raise ConfigError(f"background_marks {marks}: there are {len(PLACES)} places; pass 0 to {len(PLACES)}")


def mark_centres(marks: int, size: int) -> NDArray[np.float64]:
    """Return the centres (marks, 2) of the background marks of an image of `size` pixels, (x, y), image pixels."""
    check_marks(marks)
    return np.array(PLACES[:marks], np.float64).reshape(-1, 2) * (size - 1)


def draw_background_marks(canvas: Image, centres: NDArray[np.float64]) -> None:
    """Draw background marks around centres (marks, 2), pixels of a canvas (S, S, 3), before the object is painted over them.

    Each mark is a disc whose pattern of sectors and whose two colours are its own: a patch with corners that looks the same
    in every image and unlike the other marks.
    """
    radius = MARK_RADIUS * len(canvas)
    for number, xy in enumerate(centres):
        centre = np.rint(xy * (1 << SHIFT)).astype(int).tolist()
        dark, bright = hsv(0.37 * number, 0.9, 0.12), hsv(0.37 * number + 0.5, 0.4, 1.0)
        count, turn = (1, 3, 4)[number % 3], 25.0 * number
        disc(canvas, centre, radius, dark)
        sectors(canvas, centre, 0.85 * radius, (count, turn), bright)
        disc(canvas, centre, 0.45 * radius, BLACK)
        sectors(canvas, centre, 0.45 * radius, (count, turn + 180 / count), bright)


def disc(canvas: Image, centre: list[int], radius: float, colour: Colour) -> None:
    """Fill a disc around a fixed-point centre; the radius is in pixels."""
    cv2.circle(canvas, centre, round(radius * (1 << SHIFT)), colour, cv2.FILLED, cv2.LINE_AA, SHIFT)


def sectors(canvas: Image, centre: list[int], radius: float, pattern: tuple[int, float], colour: Colour) -> None:
    """Fill every second sector of a disc; `pattern` is the number of filled sectors and the turn of the first, degrees."""
    count, turn = pattern
    axes = [round(radius * (1 << SHIFT))] * 2
    for start in turn + np.arange(count) * 360 / count:
        cv2.ellipse(canvas, centre, axes, 0, start, start + 180 / count, colour, cv2.FILLED, cv2.LINE_AA, SHIFT)
