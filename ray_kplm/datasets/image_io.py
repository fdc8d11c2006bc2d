"""Image files: decoding to upright RGB, cropping of the object, encoding.

The source frame is the upright picture as a viewer displays it, after the EXIF rotation; a user's boxes and landmarks are in
that frame. A picture that cannot be used raises `DataError` with a reason of the form `kind` or `kind: detail`, so that reports
can count by kind.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ray_kplm.datasets.file_kinds import further_formats
from ray_kplm.errors import DataError
from ray_kplm.imaging import coordinates

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
"""File name extensions of image files, in lower case."""

MAX_PIXELS = 1 << 27
"""Larger pictures are refused before they are decoded: 400 MB as RGB, more than any camera has."""

MAX_ENLARGEMENT = 4
"""Longest side of a crop, as a multiple of the picture's longer side; a longer crop would be mostly replicated border."""

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
_ORIENTATION = 0x0112
_JPEG_QUALITY = 95
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


class Picture(NamedTuple):
    """A decoded image file.

    Attributes:
        rgb: (H, W, 3), upright.
        plain: Whether the file is a JPEG or PNG that any decoder decodes to these pixels. It may be stored unchanged.
    """

    rgb: NDArray[np.uint8]
    plain: bool


class Window(NamedTuple):
    """A rectangle of whole source pixels; it may extend beyond the picture's border."""

    left: int
    top: int
    width: int
    height: int


def decode_image_file(content: bytes) -> Picture:
    """Decode an image file to upright RGB. Transparent pixels become white; of several frames the first is used.

    Raises:
        DataError: The file cannot be used.
    """
    if not content:
        raise DataError("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=(*_FORMATS, *further_formats())) as image:
                return _decode(image, content)
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError("not an image") from None
    except Image.DecompressionBombError:
        raise DataError(f"too large: more than {MAX_PIXELS} pixels") from None
    except Exception as error:  # on damaged files Pillow's decoders raise exceptions of many kinds
        message = " ".join(str(error).split()) or type(error).__name__
        raise DataError("truncated" if "truncated" in message.lower() else f"unreadable: {message}") from None


def _decode(image: Image.Image, content: bytes) -> Picture:
    """Check and decode an opened file."""
    if image.width * image.height > MAX_PIXELS:
        raise DataError(f"too large: {image.width} x {image.height} is more than {MAX_PIXELS} pixels")
    if image.format in ("JPEG", "MPO") and not _jpeg_is_complete(content):
        raise DataError("truncated")
    plain = (
        image.format in ("JPEG", "PNG")
        and image.mode == "RGB"
        and not image.has_transparency_data
        and image.getexif().get(_ORIENTATION, 1) == 1
    )
    image.load()
    return Picture(_to_rgb(ImageOps.exif_transpose(image)), plain)


def _jpeg_is_complete(content: bytes) -> bool:
    """Return whether the segments of a JPEG lead to its end marker.

    libjpeg only warns if the data ends early and other bytes follow, such as the zeros of a broken download; the rest of the
    picture is grey then.
    """
    position = 2
    while found := _JPEG_MARKER.search(content, position):
        marker, position = found.group()[1], found.end()
        if marker == 0xD9:
            return True
        position += int.from_bytes(content[position : position + 2], "big")
    return False


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Convert an image of any mode to RGB (H, W, 3), on white."""
    if image.mode.startswith(("I", "F")):
        return _deep_grey_to_rgb(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.asarray(image.convert("RGB"))


def _deep_grey_to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Convert grey integers of 16 bits by their full range and floats by 0 to 1; Pillow's own conversion clips both."""
    white = 1.0 if image.mode == "F" else 65535.0
    values = np.asarray(image, dtype=np.float32)
    if not (values.min() >= 0 and values.max() <= white):
        raise DataError(f"unreadable: grey values {values.min():g}..{values.max():g} outside 0..{white:g}")
    grey = np.rint(values * np.float32(255 / white)).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def full_window(rgb: NDArray[np.uint8]) -> Window:
    """Return the window of the whole picture."""
    return Window(0, 0, rgb.shape[1], rgb.shape[0])


def window_around(box: tuple[float, float, float, float], margin: float, picture: Window) -> Window:
    """Return the square window around a box.

    Args:
        box: x0, y0, x1, y1, source frame, ends included.
        margin: Added on each side, share of the box's longer side.
        picture: Window of the whole picture.

    Raises:
        DataError: The box is outside of the picture or too large.
    """
    x0, y0, x1, y1 = box
    if x1 < 0 or y1 < 0 or x0 > picture.width - 1 or y0 > picture.height - 1:
        raise DataError(f"box outside the image: {_text(box)} in {picture.width} x {picture.height}")
    side = math.ceil((max(x1 - x0, y1 - y0) + 1) * (1 + 2 * margin) - 1e-6)
    if side > MAX_ENLARGEMENT * max(picture.width, picture.height) or side * side > MAX_PIXELS:
        raise DataError(f"box too large: {_text(box)} in {picture.width} x {picture.height}")
    return Window(round((x0 + x1 - side + 1) / 2), round((y0 + y1 - side + 1) / 2), side, side)


def _text(box: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in box)


def crop(rgb: NDArray[np.uint8], window: Window, size: int) -> tuple[NDArray[np.uint8], coordinates.Affine]:
    """Crop a window of the picture, and shrink it if it is too large.

    Where the window leaves the picture, the border is replicated. Pixels are averaged by area, which avoids aliasing.

    Args:
        rgb: (H, W, 3), the picture.
        window: The window.
        size: Greatest longer side of the crop, pixels. A smaller window is not enlarged.

    Returns:
        The crop, and the affine map of its points to the source frame.
    """
    height, width = rgb.shape[:2]
    left, top = max(0, window.left), max(0, window.top)
    right, bottom = min(width, window.left + window.width), min(height, window.top + window.height)
    inside: NDArray[Any] = rgb[top:bottom, left:right]
    over = (
        top - window.top,
        window.top + window.height - bottom,
        left - window.left,
        window.left + window.width - right,
    )
    if any(over):
        inside = cv2.copyMakeBorder(inside, *over, cv2.BORDER_REPLICATE)
    scale = min(1.0, size / max(window.width, window.height))
    new_width, new_height = max(1, round(window.width * scale)), max(1, round(window.height * scale))
    if scale < 1:
        inside = cv2.resize(inside, (new_width, new_height), interpolation=cv2.INTER_AREA)
    scaled = coordinates.scaling(window.width / new_width, window.height / new_height)
    return inside, coordinates.compose(coordinates.translation(window.left, window.top), scaled)


def check_side(rgb: NDArray[np.uint8], min_side: int) -> None:
    """Raise DataError if the shorter side of a picture, as it would be stored, is below `min_side` pixels."""
    height, width = rgb.shape[:2]
    if min(width, height) < min_side:
        raise DataError(f"too small: {width} x {height} px when stored, a side below {min_side}")


def encode_jpeg(rgb: NDArray[np.uint8]) -> bytes:
    """Return an RGB picture (H, W, 3) as the content of a JPEG file."""
    done, jpeg = cv2.imencode(".jpg", rgb[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    assert done
    content: bytes = jpeg.tobytes()
    return content
