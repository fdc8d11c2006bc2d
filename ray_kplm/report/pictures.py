"""Small pictures for a page, as data: URIs. Images are uint8 (H, W, 3) RGB; points are in pixels of their image."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

HEAT_CELLS = 48
"""Cells along each side of a heat map."""
_HEAT_BLUR = 1.2
"""Standard deviation of the heat map's Gaussian, cells."""
_GAP = 2
"""Gap between the patches of a montage, pixels."""


@dataclass(frozen=True)
class Thumbnail:
    """A downscaled image: the URI of its JPEG, its size in pixels, and its scale relative to the image."""

    uri: str
    width: int
    height: int
    scale: float

    def points(self, xy: NDArray[Any]) -> NDArray[np.float64]:
        """Map points (K, 2) of the image to the SVG over the thumbnail, whose origin is the upper left corner."""
        return (np.asarray(xy, np.float64) + 0.5) * self.scale


def thumbnail(image: NDArray[np.uint8], side: int, quality: int = 78) -> Thumbnail:
    """Return the image with its longer side shrunk to `side` pixels; a smaller image keeps its size."""
    height, width = image.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = image if scale == 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return Thumbnail(jpeg(small, quality), *size, scale)


def patch(image: NDArray[np.uint8], xy: NDArray[Any], reach: float, side: int) -> NDArray[np.uint8]:
    """Return the square patch (side, side, 3) around a point (2,), `reach` pixels each way; borders are replicated."""
    width = max(2, round(2 * reach))
    cut = cv2.getRectSubPix(image, (width, width), (float(xy[0]), float(xy[1])))
    method = cv2.INTER_AREA if side < width else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(cut, (side, side), interpolation=method), np.uint8)


def montage(patches: Sequence[NDArray[np.uint8]], columns: int) -> Thumbnail:
    """Return one picture of patches (s, s, 3) of equal size, in rows with grey gaps."""
    side = patches[0].shape[0]
    rows = -(-len(patches) // columns)
    sheet = np.full((rows * (side + _GAP) - _GAP, columns * (side + _GAP) - _GAP, 3), 128, np.uint8)
    for index, piece in enumerate(patches):
        top, left = index // columns * (side + _GAP), index % columns * (side + _GAP)
        sheet[top : top + side, left : left + side] = piece
    return Thumbnail(jpeg(sheet, 80), sheet.shape[1], sheet.shape[0], 1.0)


def heat_map(places: NDArray[Any], colour: Sequence[int]) -> str:
    """Return the URI of a PNG that shows the density of points by its opacity.

    Args:
        places: (N, 2), x and y as shares of a square's side; rows with NaN are left out.
        colour: RGB, 0 to 255.
    """
    places = places[np.isfinite(places).all(axis=1)]
    counts, _, _ = np.histogram2d(places[:, 1], places[:, 0], bins=HEAT_CELLS, range=((0, 1), (0, 1)))
    dense = cv2.GaussianBlur(counts, (0, 0), _HEAT_BLUR, borderType=cv2.BORDER_CONSTANT)
    alpha = np.sqrt(dense / max(dense.max(), 1e-9))  # the square root makes rare places visible
    alpha[dense < 0.02 * dense.max()] = 0
    rgba = np.empty((HEAT_CELLS, HEAT_CELLS, 4), np.uint8)
    rgba[..., :3] = colour
    rgba[..., 3] = np.rint(240 * alpha / 16) * 16  # few levels make a small file
    return png(rgba)


def mean_picture(mean: NDArray[np.float64]) -> str:
    """Return the URI of a grey JPEG of the mean (S, S, 3) of letterboxed images, with stretched contrast."""
    grey = mean.mean(axis=2)
    low, high = np.percentile(grey, [1, 99])
    stretched = np.clip((grey - low) / max(high - low, 1e-6), 0, 1)
    return jpeg(np.repeat(np.rint(60 + 150 * stretched).astype(np.uint8)[..., None], 3, axis=2), 70)


def jpeg(image: NDArray[np.uint8], quality: int) -> str:
    """Return the URI of an image as JPEG, quality 0 to 100."""
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data_uri(encoded.tobytes(), "image/jpeg")


def png(rgba: NDArray[np.uint8]) -> str:
    """Return the URI of an image (H, W, 4) as PNG of at most 256 colours."""
    buffer = io.BytesIO()
    Image.fromarray(rgba, "RGBA").quantize(method=Image.Quantize.FASTOCTREE).save(buffer, "PNG", optimize=True)
    return data_uri(buffer.getvalue(), "image/png")


def data_uri(content: bytes, kind: str) -> str:
    """Return content of a MIME type as a data: URI."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def hex_colours(palette: NDArray[np.uint8]) -> list[str]:
    """Return colours (K, 3) as `#rrggbb`."""
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in palette.tolist()]
