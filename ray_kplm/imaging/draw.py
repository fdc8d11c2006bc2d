"""Landmarks drawn over images: single pictures and contact sheets. Images are uint8 (H, W, 3), RGB."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from ray_kplm.errors import DataError
from ray_kplm.imaging import coordinates

# cv2 takes fixed-point coordinates: this many binary digits after the point.
SHIFT = 4
OUTLINE = (16, 16, 16)
PAPER = 255
INK = (30, 30, 30)
FONT = cv2.FONT_HERSHEY_SIMPLEX
TITLE_HEIGHT = 32
LEGEND_CELL = (44, 24)  # width, height
KEYPOINT = (255, 214, 10)
"""RGB of points without identity."""


def palette(k: int) -> np.ndarray:
    """uint8 (k, 3): bright RGB colours, each as far from those before it as can be, in Lab distance.

    Up to 36 colours a longer palette begins with the shorter one, so that a landmark keeps its colour.
    """
    if k < 1:
        raise DataError(f"palette of {k} colours: needs 1 or more; pass the number of landmarks")
    candidates = bright_colours(hues=max(36, k))
    lab = cv2.cvtColor(np.float32(candidates[None]) / 255, cv2.COLOR_RGB2LAB)[0]
    chosen = [0]
    nearest = np.linalg.norm(lab - lab[0], axis=1)
    while len(chosen) < k:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(lab - lab[chosen[-1]], axis=1))
    return candidates[chosen]


def bright_colours(hues: int) -> np.ndarray:
    """uint8 (4 * hues, 3): hues round the circle from red on, full and pale, at two brightnesses."""
    hue, saturation, value = np.meshgrid(360 * np.arange(hues) / hues, [1.0, 0.5], [1.0, 0.75], indexing="ij")
    hsv = np.stack([hue, saturation, value], axis=-1).reshape(1, -1, 3).astype(np.float32)
    return np.rint(255 * cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0]).astype(np.uint8)


def draw_landmarks(
    image: np.ndarray,
    xy: np.ndarray,
    *,
    confidence: np.ndarray | None = None,
    scale: int = 1,
    numbers: bool = False,
    hollow_below: float = 0.25,
) -> np.ndarray:
    """The image (H, W, 3), `scale` times as large, with its landmarks: uint8 (H*scale, W*scale, 3).

    xy: float32 (K, 2), pixels of the given image, (x, y), pixel centres at integers; NaN points are left out.
    confidence: float32 (K,); landmarks below `hollow_below` are rings in place of discs. None: all discs.
    """
    if scale < 1:
        raise DataError(f"scale {scale}: images are only enlarged here; pass a whole number from 1")
    enlarged = enlarge(image, scale)
    points = coordinates.apply(coordinates.scaling(scale), checked(xy))
    mark(enlarged, points, hollow(confidence, len(xy), hollow_below), numbers)
    return enlarged


def contact_sheet(
    images: Sequence[np.ndarray],
    xy: Sequence[np.ndarray],
    *,
    confidence: Sequence[np.ndarray] | None = None,
    keypoints: Sequence[np.ndarray] | None = None,
    columns: int = 8,
    tile: int = 160,
    title: str | None = None,
) -> np.ndarray:
    """A grid of letterboxed tiles with their landmarks, over a legend of landmark numbers in their colours.

    images: N of uint8 (H, W, 3), each of any size; xy: N of float32 (K, 2), pixels of its own image;
    confidence: N of float32 (K,); keypoints: N of float32 (P, 2), points without identity, drawn in one colour on a second
    tile above each image's own. Returns uint8 (H', columns' * tile, 3).
    """
    if not images or len(images) != len(xy) or (confidence is not None and len(confidence) != len(images)):
        counts = f"{len(images)} images, {len(xy)} point sets"
        raise DataError(f"{counts}: a sheet takes one point set (and confidence) per image; match them")
    columns = min(columns, len(images))
    height = tile if keypoints is None else 2 * tile
    sheet = np.full((math.ceil(len(images) / columns) * height, columns * tile, 3), PAPER, np.uint8)
    for i, image in enumerate(images):
        tiles = [letterboxed(image, xy[i], None if confidence is None else confidence[i], tile)]
        if keypoints is not None:
            tiles.insert(0, letterboxed(image, keypoints[i], None, tile, colour=KEYPOINT))
        top, left = i // columns * height, i % columns * tile
        sheet[top : top + height, left : left + tile] = np.concatenate(tiles)
    strips = [sheet, legend(max(len(points) for points in xy), sheet.shape[1])]
    return np.concatenate(strips if title is None else [headline(title, sheet.shape[1]), *strips])


def encode_png(image: np.ndarray) -> bytes:
    """PNG file content of an image (H, W, 3)."""
    _, encoded = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return encoded.tobytes()


def save_png(path_or_file: str | Path | BinaryIO, image: np.ndarray) -> None:
    """Writes an image (H, W, 3) as PNG to a path or an open binary file."""
    content = encode_png(image)
    if isinstance(path_or_file, str | Path):
        Path(path_or_file).write_bytes(content)
    else:
        path_or_file.write(content)


def letterboxed(
    image: np.ndarray,
    xy: np.ndarray,
    confidence: np.ndarray | None,
    tile: int,
    colour: Sequence[int] | None = None,
) -> np.ndarray:
    """Return one tile (tile, tile, 3): the image scaled to fit, centred on grey, with its points, in one colour if given."""
    height, width = image.shape[:2]
    affine = coordinates.crop_to_input(width, height, tile)
    # Shrinking by interpolation alone aliases; area averaging enlarges badly.
    method = cv2.INTER_AREA if tile < max(height, width) else cv2.INTER_LINEAR
    fitted = (max(1, round(width * affine[0, 0])), max(1, round(height * affine[1, 1])))
    canvas = np.full((tile, tile, 3), 128, np.uint8)
    left, top = (tile - fitted[0]) // 2, (tile - fitted[1]) // 2
    canvas[top : top + fitted[1], left : left + fitted[0]] = cv2.resize(image, fitted, interpolation=method)
    # The picture lies on whole pixels, half a pixel from the exact letterbox where the margin is odd.
    scaled = coordinates.scaling(fitted[0] / width, fitted[1] / height)
    points = coordinates.apply(coordinates.compose(coordinates.translation(left, top), scaled), checked(xy))
    mark(canvas, points, hollow(confidence, len(xy), 0.25), numbers=False, colour=colour)
    return canvas


def enlarge(image: np.ndarray, scale: int) -> np.ndarray:
    """A copy (H*scale, W*scale, 3); cv2 maps borders to borders, as `frames.scaling` does."""
    if scale == 1:
        return np.ascontiguousarray(image).copy()
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)


def checked(xy: np.ndarray) -> np.ndarray:
    """float64 (K, 2), or an error that names the shape."""
    points = np.asarray(xy, np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise DataError(f"landmarks of shape {points.shape}: a picture takes (K, 2), x before y; reshape")
    return points


def hollow(confidence: np.ndarray | None, k: int, below: float) -> np.ndarray:
    """bool (K,): which landmarks to draw as rings."""
    if confidence is None:
        return np.zeros(k, bool)
    confidence = np.asarray(confidence)
    if confidence.shape != (k,):
        raise DataError(f"confidence of shape {confidence.shape}: {k} landmarks take ({k},); one value each")
    return confidence < below


def mark(
    canvas: np.ndarray, xy: np.ndarray, rings: np.ndarray, numbers: bool, colour: Sequence[int] | None = None
) -> None:
    """Draw points (K, 2), pixels of the canvas, into it; a disc where `rings` (K,) is False. colour: of all; None: one each."""
    if not len(xy):
        return
    radius = max(2.0, 0.018 * max(canvas.shape[:2]))
    colours = palette(len(xy)).tolist() if colour is None else [colour] * len(xy)
    for k, (point, paint) in enumerate(zip(xy, colours, strict=True)):
        if not np.isfinite(point).all():
            continue
        if rings[k]:
            ring(canvas, point, radius, paint)
        else:
            disc(canvas, point, radius + 1, OUTLINE)
            disc(canvas, point, radius, paint)
        if numbers:
            label(canvas, str(k), point + np.array([radius + 2, -radius]), height=2.2 * radius)


def disc(canvas: np.ndarray, point: np.ndarray, radius: float, colour: Sequence[int]) -> None:
    centre, fixed_radius = fixed(point), round(radius * (1 << SHIFT))
    cv2.circle(canvas, centre, fixed_radius, colour, -1, cv2.LINE_AA, SHIFT)


def ring(canvas: np.ndarray, point: np.ndarray, radius: float, colour: Sequence[int]) -> None:
    """A coloured circle on a wider dark one; what lies inside stays visible."""
    width, reach = max(1, round(0.4 * radius)), round((radius + 1) * (1 << SHIFT))
    for stroke, paint in ((width + 2, OUTLINE), (width, colour)):
        cv2.circle(canvas, fixed(point), reach, paint, stroke, cv2.LINE_AA, SHIFT)


def fixed(point: np.ndarray) -> list[int]:
    return np.rint(np.asarray(point) * (1 << SHIFT)).astype(int).tolist()


def label(canvas: np.ndarray, text: str, at: np.ndarray, height: float) -> None:
    """White text with a dark rim, its lower left corner at the pixel `at`."""
    size = max(0.3, height / 22)  # Hershey capitals stand 22 px at size 1.
    corner = np.rint(at).astype(int).tolist()
    for stroke, colour in ((3, OUTLINE), (1, (255, 255, 255))):
        cv2.putText(canvas, text, corner, FONT, size, colour, stroke, cv2.LINE_AA)


def headline(title: str, width: int) -> np.ndarray:
    """Strip (TITLE_HEIGHT, width, 3); a long title is set smaller to fit."""
    strip = np.full((TITLE_HEIGHT, width, 3), PAPER, np.uint8)
    (full, _), _ = cv2.getTextSize(title, FONT, 0.6, 1)
    size = 0.6 * min(1.0, (width - 16) / max(full, 1))
    cv2.putText(strip, title, (8, 22), FONT, size, INK, 1, cv2.LINE_AA)
    return strip


def legend(k: int, width: int) -> np.ndarray:
    """Strip (H, width, 3): a disc and a number for each of `k` landmarks, in as many lines as needed."""
    cell_width, cell_height = LEGEND_CELL
    per_line = max(1, (width - 8) // cell_width)
    strip = np.full((max(1, math.ceil(k / per_line)) * cell_height + 8, width, 3), PAPER, np.uint8)
    for i, colour in enumerate(palette(k).tolist() if k else []):
        left, middle = 8 + i % per_line * cell_width, 4 + i // per_line * cell_height + cell_height // 2
        disc(strip, np.array([left + 6, middle]), 7, OUTLINE)
        disc(strip, np.array([left + 6, middle]), 6, colour)
        cv2.putText(strip, str(i), (left + 16, middle + 5), FONT, 0.42, INK, 1, cv2.LINE_AA)
    return strip
