"""Drawing of landmarks on images: single images and contact sheets. Images are uint8 (H, W, 3), RGB."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from ray_kplm.errors import DataError
from ray_kplm.imaging import coordinates

Image = NDArray[np.uint8]
Points = NDArray[Any]
Colour = Sequence[int]

SHIFT = 4
"""cv2 takes fixed-point coordinates: binary digits after the point."""
OUTLINE = (16, 16, 16)
PAPER = 255
INK = (30, 30, 30)
FONT = cv2.FONT_HERSHEY_SIMPLEX
TITLE_HEIGHT = 32
LEGEND_CELL = (44, 24)  # width, height
_LEGEND_FONT = 0.42
KEYPOINT = (255, 214, 10)
"""RGB of keypoints, which have no identity."""
EDGE = (245, 245, 245)
"""RGB of the lines between landmarks."""
HOLLOW_BELOW = 0.25
"""Landmarks of a lower confidence are drawn as rings."""


@dataclass(frozen=True, eq=False)
class Marks:
    """How K landmarks are drawn.

    Attributes:
        labels: K texts, for the legend.
        colours: (K, 3), RGB.
        edges: Pairs of landmarks that a line joins where both are drawn as discs.
        beside: Whether the labels stand beside the landmarks, too.
    """

    labels: Sequence[str]
    colours: Image
    edges: Sequence[tuple[int, int]] = ()
    beside: bool = False

    @classmethod
    def numbered(cls, k: int, edges: Sequence[tuple[int, int]] = (), *, beside: bool = False) -> Marks:
        """Return marks whose labels are the numbers of the landmarks, in the colours of the palette."""
        return cls([str(i) for i in range(k)], palette(k) if k else np.zeros((0, 3), np.uint8), edges, beside)


def palette(k: int) -> Image:
    """Return k bright RGB colours, each as far from those before it as possible, in Lab distance: (k, 3).

    Up to 36 colours a longer palette begins with the shorter one, so that a landmark keeps its colour.
    """
    if k < 1:
        raise DataError(f"palette of {k} colours: needs 1 or more; pass the number of landmarks")
    candidates = _bright_colours(hues=max(36, k))
    lab = cv2.cvtColor(np.float32(candidates[None]) / 255, cv2.COLOR_RGB2LAB)[0]
    chosen = [0]
    nearest = np.linalg.norm(lab - lab[0], axis=1)
    while len(chosen) < k:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(lab - lab[chosen[-1]], axis=1))
    return candidates[chosen]


def _bright_colours(hues: int) -> Image:
    """Return hues around the colour circle from red on, saturated and pale, at two brightnesses: (4 * hues, 3)."""
    hue, saturation, value = np.meshgrid(360 * np.arange(hues) / hues, [1.0, 0.5], [1.0, 0.75], indexing="ij")
    hsv = np.stack([hue, saturation, value], axis=-1).reshape(1, -1, 3).astype(np.float32)
    colours: Image = np.rint(255 * cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0]).astype(np.uint8)
    return colours


def draw_landmarks(
    image: Image,
    xy: Points,
    *,
    confidence: NDArray[Any] | None = None,
    scale: int = 1,
    numbers: bool = False,
    hollow_below: float = HOLLOW_BELOW,
    marks: Marks | None = None,
) -> Image:
    """Return an enlarged copy of the image with its landmarks: (H * scale, W * scale, 3).

    Args:
        image: (H, W, 3).
        xy: (K, 2), pixels of the image; NaN points are not drawn.
        confidence: (K,). None: all landmarks are discs.
        scale: Enlargement, at least 1.
        numbers: Whether to write each landmark's number beside it.
        hollow_below: Landmarks of a lower confidence are drawn as rings.
        marks: How they are drawn; None: in the colours of the palette.
    """
    if scale < 1:
        raise DataError(f"scale {scale}: images are only enlarged; pass a whole number from 1")
    enlarged = _enlarge(image, scale)
    points = coordinates.apply(coordinates.scaling(scale), _check_points(xy))
    marks = marks or Marks.numbered(len(xy), beside=numbers)
    _draw_points(enlarged, points, _hollow(confidence, len(xy), hollow_below), marks)
    return enlarged


def contact_sheet(
    images: Sequence[Image],
    xy: Sequence[Points],
    *,
    confidence: Sequence[NDArray[Any]] | None = None,
    keypoints: Sequence[Points] | None = None,
    columns: int = 8,
    tile: int = 160,
    title: str | None = None,
    marks: Marks | None = None,
) -> Image:
    """Return a grid of letterboxed images with their landmarks, and a legend of the landmarks' labels and colours.

    Args:
        images: N images of any size.
        xy: N arrays (K, 2), landmarks in pixels of their own image.
        confidence: N arrays (K,).
        keypoints: N arrays (P, 2), points without identity, drawn in one colour on a second tile above each image's own.
        columns: Tiles in a row.
        tile: Side of a tile, pixels.
        title: Headline of the sheet.
        marks: How landmarks are drawn; None: with their numbers as labels, which only the legend has.

    Returns:
        (H', columns * tile, 3).
    """
    if not images or len(images) != len(xy) or (confidence is not None and len(confidence) != len(images)):
        counts = f"{len(images)} images, {len(xy)} point sets"
        raise DataError(f"{counts}: a sheet takes one point set (and confidence) for each image; pass equally many")
    columns = min(columns, len(images))
    height = tile if keypoints is None else 2 * tile
    sheet = np.full((math.ceil(len(images) / columns) * height, columns * tile, 3), PAPER, np.uint8)
    marks = marks or Marks.numbered(max(len(points) for points in xy))
    for i, image in enumerate(images):
        tiles = [_tile(image, xy[i], None if confidence is None else confidence[i], tile, marks)]
        if keypoints is not None:
            tiles.insert(0, _tile(image, keypoints[i], None, tile, None))
        top, left = i // columns * height, i % columns * tile
        sheet[top : top + height, left : left + tile] = np.concatenate(tiles)
    strips = [sheet, _legend(marks, sheet.shape[1])]
    return np.concatenate(strips if title is None else [_headline(title, sheet.shape[1]), *strips])


def encode_png(image: Image) -> bytes:
    """Return an image (H, W, 3) as the content of a PNG file."""
    _, encoded = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    content: bytes = encoded.tobytes()
    return content


def save_png(path_or_file: str | Path | BinaryIO, image: Image) -> None:
    """Write an image (H, W, 3) as PNG to a path or an open binary file."""
    content = encode_png(image)
    if isinstance(path_or_file, str | Path):
        Path(path_or_file).write_bytes(content)
    else:
        path_or_file.write(content)


def _tile(image: Image, xy: Points, confidence: NDArray[Any] | None, tile: int, marks: Marks | None) -> Image:
    """Return one tile (tile, tile, 3): the image scaled to fit, centred on grey, with its points; see `_draw_points`."""
    height, width = image.shape[:2]
    affine = coordinates.crop_to_input(width, height, tile)
    # Shrinking by interpolation alone aliases; area averaging enlarges badly.
    method = cv2.INTER_AREA if tile < max(height, width) else cv2.INTER_LINEAR
    fitted = (max(1, round(width * affine[0, 0])), max(1, round(height * affine[1, 1])))
    canvas = np.full((tile, tile, 3), 128, np.uint8)
    left, top = (tile - fitted[0]) // 2, (tile - fitted[1]) // 2
    canvas[top : top + fitted[1], left : left + fitted[0]] = cv2.resize(image, fitted, interpolation=method)
    # The image is placed at whole pixels, half a pixel from the exact letterbox where the margin is odd.
    scaled = coordinates.scaling(fitted[0] / width, fitted[1] / height)
    points = coordinates.apply(coordinates.compose(coordinates.translation(left, top), scaled), _check_points(xy))
    _draw_points(canvas, points, _hollow(confidence, len(xy), HOLLOW_BELOW), marks)
    return canvas


def _enlarge(image: Image, scale: int) -> Image:
    """Return an enlarged copy (H * scale, W * scale, 3); cv2 maps borders to borders, as `coordinates.scaling` does."""
    if scale == 1:
        return np.ascontiguousarray(image).copy()
    enlarged: Image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    return enlarged


def _check_points(xy: Points) -> NDArray[np.float64]:
    """Return the points as float64 (K, 2), or raise DataError if their shape is another."""
    points = np.asarray(xy, np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise DataError(f"landmarks of shape {points.shape}: an image takes (K, 2), x before y; reshape")
    return points


def _hollow(confidence: NDArray[Any] | None, k: int, below: float) -> NDArray[np.bool_]:
    """Return which of k landmarks to draw as rings: (k,)."""
    if confidence is None:
        return np.zeros(k, bool)
    confidence = np.asarray(confidence)
    if confidence.shape != (k,):
        raise DataError(f"confidence of shape {confidence.shape}: {k} landmarks take ({k},); pass one value each")
    return confidence < below


def _draw_points(canvas: Image, xy: Points, rings: NDArray[np.bool_], marks: Marks | None) -> None:
    """Draw points into a canvas.

    Args:
        canvas: (H, W, 3).
        xy: (K, 2), pixels of the canvas.
        rings: (K,), which points are rings; the others are discs.
        marks: How they are drawn; None: they are keypoints without identity.
    """
    radius = max(2.0, 0.018 * max(canvas.shape[:2]))
    is_point = np.isfinite(xy).all(axis=1)
    for a, b in () if marks is None else marks.edges:
        if (is_point & ~rings)[[a, b]].all():
            draw_edge(canvas, xy[a], xy[b], max(1, round(0.35 * radius)))
    for k in np.flatnonzero(is_point).tolist():
        point, colour = xy[k], KEYPOINT if marks is None else marks.colours[k].tolist()
        if rings[k]:
            draw_ring(canvas, point, radius, colour)
        else:
            draw_disc(canvas, point, radius + 1, OUTLINE)
            draw_disc(canvas, point, radius, colour)
        if marks is not None and marks.beside:
            draw_text(canvas, marks.labels[k], point + np.array([radius + 2, -radius]), height=2.2 * radius)


def draw_edge(canvas: Image, start: Points, end: Points, width: int) -> None:
    """Draw a thin light line with a dark rim between two points (2,), pixels of the canvas."""
    for stroke, colour in ((width + 2, OUTLINE), (width, EDGE)):
        cv2.line(canvas, _fixed_point(start), _fixed_point(end), colour, stroke, cv2.LINE_AA, SHIFT)


def draw_disc(canvas: Image, point: Points, radius: float, colour: Colour) -> None:
    """Draw a disc around a point (2,), pixels of the canvas."""
    centre, fixed_radius = _fixed_point(point), round(radius * (1 << SHIFT))
    cv2.circle(canvas, centre, fixed_radius, colour, -1, cv2.LINE_AA, SHIFT)


def draw_ring(canvas: Image, point: Points, radius: float, colour: Colour) -> None:
    """Draw a coloured circle on a wider dark one; the inside stays visible."""
    width, outer = max(1, round(0.4 * radius)), round((radius + 1) * (1 << SHIFT))
    for stroke, paint in ((width + 2, OUTLINE), (width, colour)):
        cv2.circle(canvas, _fixed_point(point), outer, paint, stroke, cv2.LINE_AA, SHIFT)


def _fixed_point(point: Points) -> list[int]:
    """Return a point (2,) in the fixed-point coordinates of cv2."""
    fixed: list[int] = np.rint(np.asarray(point) * (1 << SHIFT)).astype(int).tolist()
    return fixed


def draw_text(canvas: Image, text: str, at: Points, height: float) -> None:
    """Draw white text with a dark rim, inside the canvas if it fits there. The font has ASCII only: see `in_ascii`.

    Args:
        canvas: (H, W, 3).
        text: The text.
        at: (2,), where its lower left corner is wanted, pixels of the canvas.
        height: Of a capital, pixels.
    """
    size = max(0.3, height / 22)  # Hershey capitals are 22 px high at size 1
    (width, _), _ = cv2.getTextSize(in_ascii(text), FONT, size, 1)
    x, y = np.rint(at).astype(int).tolist()
    corner = [max(0, min(x, canvas.shape[1] - width - 2)), y] if 0 <= x < canvas.shape[1] else [x, y]
    # The rim is the same text around it: in OpenCV 5 a wider stroke makes wider letters.
    places = [(dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1) if dx or dy]
    for (dx, dy), colour in [*((place, OUTLINE) for place in places), ((0, 0), (255, 255, 255))]:
        cv2.putText(canvas, in_ascii(text), [corner[0] + dx, corner[1] + dy], FONT, size, colour, 1, cv2.LINE_AA)


def _headline(title: str, width: int) -> Image:
    """Return a strip (TITLE_HEIGHT, width, 3) with the title, in a smaller font if it is long."""
    strip = np.full((TITLE_HEIGHT, width, 3), PAPER, np.uint8)
    (full, _), _ = cv2.getTextSize(in_ascii(title), FONT, 0.6, 1)
    size = 0.6 * min(1.0, (width - 16) / max(full, 1))
    cv2.putText(strip, in_ascii(title), (8, 22), FONT, size, INK, 1, cv2.LINE_AA)
    return strip


def in_ascii(text: str) -> str:
    """Return text for a font that has ASCII only: letters without their accents, and ? for other signs."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return plain.encode("ascii", "replace").decode()


def _legend(marks: Marks, width: int) -> Image:
    """Return a strip (H, width, 3) with a disc and a label for each landmark, in as many lines as needed."""
    texts = [in_ascii(label) for label in marks.labels]
    longest = max((cv2.getTextSize(text, FONT, _LEGEND_FONT, 1)[0][0] for text in texts), default=0)
    cell_width, cell_height = max(LEGEND_CELL[0], longest + 26), LEGEND_CELL[1]
    per_line = max(1, (width - 8) // cell_width)
    strip = np.full((max(1, math.ceil(len(texts) / per_line)) * cell_height + 8, width, 3), PAPER, np.uint8)
    for i, (text, colour) in enumerate(zip(texts, marks.colours.tolist(), strict=True)):
        left, middle = 8 + i % per_line * cell_width, 4 + i // per_line * cell_height + cell_height // 2
        draw_disc(strip, np.array([left + 6, middle]), 7, OUTLINE)
        draw_disc(strip, np.array([left + 6, middle]), 6, colour)
        cv2.putText(strip, text, (left + 16, middle + 5), FONT, _LEGEND_FONT, INK, 1, cv2.LINE_AA)
    return strip
