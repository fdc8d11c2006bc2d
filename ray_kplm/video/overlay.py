"""Landmarks drawn on the frames of a video: points in the colours of the pictures, their names, edges, and whence they came."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ray_kplm.imaging.draw import OUTLINE, SHIFT, draw_disc, draw_edge, draw_ring, draw_text, palette

Image = NDArray[np.uint8]
_RADIUS = 0.0075
"""Of a point, share of the frame's longer side."""
_LEAST_RADIUS = 2.5
_LEAST_RING = 4.5
_FAINT = 0.45
"""Opacity of a landmark that is not found, and of a trail."""
_FAR = 20
"""Sides of the picture, beyond which nothing is drawn: OpenCV's coordinates are 32 bits."""
_LEAST_TEXT = 9.0
"""Height of a label, pixels; smaller ones cannot be read."""


class Overlay:
    """Draws the objects of a video's frames, one frame after the other.

    A found landmark is a disc, one that is not found is a faint ring. Thin lines join the found landmarks of an edge. A trail
    leads to each landmark from where it was in the last frames; it ends where the landmark was not found.
    """

    def __init__(
        self, landmarks: int, *, trail: int = 10, labels: Sequence[str] = (), edges: Sequence[tuple[int, int]] = ()
    ) -> None:
        """Start before the first frame of a video.

        Args:
            landmarks: K.
            trail: Number of earlier frames in a trail.
            labels: What stands beside each landmark, K texts; none: nothing does.
            edges: Pairs of landmarks that are joined.
        """
        self._colours: list[list[int]] = palette(landmarks).tolist()
        self._trail, self._labels, self._edges = trail, labels, edges
        self._past: dict[int, deque[NDArray[np.float64]]] = {}

    def __call__(self, rgb: Image, objects: dict[int, tuple[NDArray[np.float64], NDArray[np.bool_]]]) -> Image:
        """Return a copy of a frame (H, W, 3) with its objects: number -> places (K, 2), pixels, and which are found (K,)."""
        canvas = np.ascontiguousarray(rgb).copy()
        radius = max(_LEAST_RADIUS, _RADIUS * max(canvas.shape[:2]))
        for number in self._past.keys() - objects.keys():
            self._past[number].append(np.full((len(self._colours), 2), np.nan))
        for number, (xy, found) in objects.items():
            past = self._past.setdefault(number, deque(maxlen=self._trail + 1))
            past.append(np.where(found[:, None], xy, np.nan))
            self._draw_faint(canvas, xy, found, list(past), radius)
        for xy, found in objects.values():
            self._draw_found(canvas, xy, found, radius)
        return canvas

    def _draw_faint(
        self,
        canvas: Image,
        xy: NDArray[np.float64],
        found: NDArray[np.bool_],
        past: list[NDArray[np.float64]],
        radius: float,
    ) -> None:
        """Draw trails, and the landmarks that are not found, on a layer of the part of the canvas that they need."""
        hidden = [k for k in np.flatnonzero(~found) if _is_near(xy[k], canvas)]
        points = np.concatenate([*past, xy[hidden]])
        points = points[[_is_near(point, canvas) for point in points]]
        if not len(points):
            return
        margin, (height, width) = math.ceil(2 * max(_LEAST_RING, radius)) + 2, canvas.shape[:2]
        left, top = np.clip(np.floor(points.min(axis=0)).astype(int) - margin, 0, [width, height])
        right, bottom = np.clip(np.ceil(points.max(axis=0)).astype(int) + margin + 1, 0, [width, height])
        if left >= right or top >= bottom:
            return
        part, offset = canvas[top:bottom, left:right], np.array([left, top], np.float64)
        layer = part.copy()
        self._draw_trails(layer, [places - offset for places in past], radius)
        for k in hidden:
            draw_ring(layer, xy[k] - offset, max(_LEAST_RING, radius), self._colours[k])
        part[:] = cv2.addWeighted(layer, _FAINT, part, 1 - _FAINT, 0)

    def _draw_trails(self, canvas: Image, past: list[NDArray[np.float64]], radius: float) -> None:
        """Draw the ways of the landmarks, thinner the longer ago."""
        for age in range(len(past) - 1, 0, -1):
            width = max(1, round(1.4 * radius * (1 - age / len(past))))
            before, after = past[-age - 1], past[-age]
            for k in range(len(before)):
                if not (_is_near(before[k], canvas) and _is_near(after[k], canvas)):
                    continue
                ends = np.rint(np.stack([before[k], after[k]]) * (1 << SHIFT)).astype(int)
                cv2.line(canvas, ends[0].tolist(), ends[1].tolist(), self._colours[k], width, cv2.LINE_AA, SHIFT)

    def _draw_found(self, canvas: Image, xy: NDArray[np.float64], found: NDArray[np.bool_], radius: float) -> None:
        shown = [k for k in np.flatnonzero(found) if _is_near(xy[k], canvas)]
        for a, b in self._edges:
            if a in shown and b in shown:
                draw_edge(canvas, xy[a], xy[b], max(1, round(0.3 * radius)))
        for k in shown:
            draw_disc(canvas, xy[k], radius + max(1.0, 0.2 * radius), OUTLINE)
            draw_disc(canvas, xy[k], radius, self._colours[k])
        if self._labels:
            for k in shown:
                at = xy[k] + np.array([1.4 * radius, -0.8 * radius])
                draw_text(canvas, self._labels[int(k)], at, height=max(_LEAST_TEXT, 2.2 * radius))


def _is_near(point: NDArray[np.float64], canvas: Image) -> bool:
    """Return whether a point is one, and not so far outside that it has no coordinates for a drawing."""
    return bool(np.isfinite(point).all() and np.abs(point).max() <= _FAR * max(canvas.shape[:2]))
