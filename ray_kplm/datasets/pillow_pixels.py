"""Pixels of pictures that Pillow has opened. Rows are converted in bands: a large picture is in memory once, not five times."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ray_kplm.datasets.deep_values import deep_to_rgb
from ray_kplm.datasets.image_containers import PixelFile, jpeg_scans_are_complete, jpeg_with_tail
from ray_kplm.datasets.image_orientation import ORIENTATION, UPRIGHT
from ray_kplm.errors import DataError

_BAND_PIXELS = 1 << 18
_CORNER = 4
_GREY = (126, 129)
"""Values of a corner that a JPEG decoder may have had no data for; it is 128 then."""


def is_deep(image: Image.Image) -> bool:
    """Return whether the values of a picture are integers of more than 8 bits, or floats."""
    return image.mode[0] in "IF"


def to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Return a picture of any mode as RGB (H, W, 3), on white.

    Raises:
        DataError: Every pixel is transparent, or the values are of no use (`deep_values.deep_to_rgb`).
    """
    image.load()
    if is_deep(image):
        return deep_to_rgb(np.asarray(image))
    has_alpha = image.has_transparency_data
    rgb, visible = np.empty((image.height, image.width, 3), np.uint8), not has_alpha
    for top, band in _bands(image):
        if has_alpha:
            band = band.convert("RGBA")
            visible |= band.getchannel("A").getbbox() is not None
            band = Image.alpha_composite(Image.new("RGBA", band.size, "white"), band)
        rgb[top : top + band.height] = np.asarray(band if band.mode == "RGB" else band.convert("RGB"))
    if not visible:
        raise DataError("transparent: no pixel is visible")
    return rgb


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yield the rows of a picture in pieces, with the number of the first row of each."""
    rows = max(1, _BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def orientation_of(image: Image.Image) -> int:
    """Return the orientation, 1 to 8, of a picture; 1 if its metadata is broken."""
    try:
        value: Any = image.getexif().get(ORIENTATION, UPRIGHT)
    except Exception:  # of broken metadata Pillow raises exceptions of many kinds
        return UPRIGHT
    return value if value in range(1, 9) else UPRIGHT


def jpeg_is_whole(file: PixelFile, image: Image.Image) -> bool:
    """Return whether the data of a JPEG file has all rows of its picture.

    libjpeg only warns where data is missing, and leaves the rest grey. So a file without its end marker, or with a grey corner,
    is decoded once more with other data after its own: the picture is the same if its own data was enough.
    """
    if file.ended:
        corner = image.crop((max(0, image.width - _CORNER), max(0, image.height - _CORNER), *image.size))
        values = np.asarray(corner)
        if values.min() < _GREY[0] or values.max() > _GREY[1]:
            return True
    elif not jpeg_scans_are_complete(file.content):
        return False
    with Image.open(io.BytesIO(jpeg_with_tail(file.content)), formats=["JPEG"]) as other:
        other.load()
        pairs = zip(_bands(image), _bands(other), strict=True)
        return all(mine.tobytes() == others.tobytes() for (_, mine), (_, others) in pairs)
