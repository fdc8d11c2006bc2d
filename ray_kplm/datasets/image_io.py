"""Image files: decoding to upright RGB, cropping of the object, encoding.

The source frame is the upright picture as a viewer displays it, after the EXIF rotation; a user's boxes and landmarks are in
that frame. A picture that cannot be used raises `DataError` with a reason of the form `kind` or `kind: detail`, so that reports
can count by kind.
"""

from __future__ import annotations

import io
import math
import warnings
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ray_kplm.datasets.deep_files import deep_file
from ray_kplm.datasets.deep_values import SCALED, deep_to_rgb
from ray_kplm.datasets.file_kinds import further_formats
from ray_kplm.datasets.image_containers import PixelFile, header_size, is_known, without_metadata
from ray_kplm.datasets.image_orientation import TRANSPOSED, UPRIGHT, upright
from ray_kplm.datasets.limits import DEFAULT_LIMITS, Limits
from ray_kplm.datasets.pillow_pixels import is_deep, jpeg_is_whole, orientation_of, to_rgb
from ray_kplm.datasets.source_files import read_file
from ray_kplm.errors import DataError
from ray_kplm.imaging import coordinates
from ray_kplm.imaging.crops import letterbox
from ray_kplm.storage import Folder

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
"""File name extensions of image files, in lower case."""

MAX_ENLARGEMENT = 4
"""Longest side of a crop, as a multiple of the picture's longer side; a longer crop would be mostly replicated border."""

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
_JPEG_QUALITY = 95


class Picture(NamedTuple):
    """A decoded image file.

    Attributes:
        rgb: (H, W, 3), upright.
        plain: Whether `content` is a JPEG or PNG that any decoder decodes to these pixels. It may be stored.
        content: The file without its metadata, if it is plain.
        notes: What was decided about the values, a line each.
    """

    rgb: NDArray[np.uint8]
    plain: bool
    content: bytes = b""
    notes: tuple[str, ...] = ()


class Window(NamedTuple):
    """A rectangle of whole source pixels; it may extend beyond the picture's border."""

    left: int
    top: int
    width: int
    height: int


def read_image_bytes(folder: Folder, name: str, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Return the content of an image file. The size of a file that is too large is all that is read of it.

    Raises:
        DataError: The file is too large, unreadable or does not exist.
    """
    return read_file(folder, name, check_size=limits.check_bytes)


def decode_image_file(content: bytes, limits: Limits = DEFAULT_LIMITS) -> Picture:
    """Decode an image file to upright RGB.

    Transparent pixels become white; of several frames the first is used. Pictures of more than 8 bits a value are scaled by the
    range that occurs (`deep_values`). Metadata is not read, save for the orientation, so broken metadata is no fault.

    Args:
        content: The file.
        limits: Of the file and of the picture.

    Raises:
        DataError: The file cannot be used.
    """
    if not content:
        raise DataError("empty file")
    if len(content) > limits.file_bytes:
        raise DataError(
            f"too large: a file of {len(content) / 1e6:.1f} MB; max_bytes is {limits.file_bytes / 1e6:g} MB"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _decode(content, limits)
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError("unreadable: cut or damaged" if is_known(content) else "not an image") from None
    except Exception as error:  # on damaged files Pillow's decoders raise exceptions of many kinds
        message = " ".join(str(error).split()) or type(error).__name__
        raise DataError("truncated" if "truncated" in message.lower() else f"unreadable: {message}") from None


def upright_size(content: bytes, limits: Limits = DEFAULT_LIMITS) -> tuple[int, int]:
    """Return width and height of an image file as it is displayed, from its header where that says it.

    Raises:
        DataError: The file cannot be used.
    """
    file = without_metadata(content) or PixelFile(content)
    if not file.size or not all(file.size):
        height, width = decode_image_file(content, limits).rgb.shape[:2]
        return width, height
    limits.check_size(*file.size)
    return file.size if file.orientation < TRANSPOSED else (file.size[1], file.size[0])


def _decode(content: bytes, limits: Limits) -> Picture:
    """Check and decode a file."""
    file = without_metadata(content) or PixelFile(content, size=header_size(content))
    if file.size:
        limits.check_size(*file.size)
    deep = deep_file(file.content)
    if deep is not None:
        limits.check_size(*deep.size)
        rgb = deep_to_rgb(deep.values(), white_is_low=deep.white_is_low)
        return Picture(upright(rgb, file.orientation), plain=False, notes=(SCALED,))
    with Image.open(io.BytesIO(file.content), formats=(*_FORMATS, *further_formats())) as image:
        limits.check_size(*image.size)
        image.load()
        if image.format == "JPEG" and not jpeg_is_whole(file, image):
            raise DataError("truncated")
        plain = image.format in ("JPEG", "PNG") and image.mode == "RGB" and not image.has_transparency_data
        notes = (SCALED,) if is_deep(image) else ()
        rgb = to_rgb(image)
        turned = orientation_of(image) if file.content is content else file.orientation
    plain = plain and turned == UPRIGHT
    return Picture(upright(rgb, turned), plain, file.content if plain else b"", notes)


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
    if side > MAX_ENLARGEMENT * max(picture.width, picture.height) or side * side > DEFAULT_LIMITS.pixels:
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


def network_input(rgb: NDArray[np.uint8], window: Window, size: int) -> tuple[NDArray[np.uint8], coordinates.Affine]:
    """Return a window of the picture as the network's input: the one way from a new picture to its landmarks.

    Args:
        rgb: (H, W, 3), the picture.
        window: The window.
        size: S, side of the input, pixels.

    Returns:
        The input (S, S, 3), and the affine map of its points to the source frame.
    """
    cut, crop_to_source = crop(rgb, window, max(window.width, window.height))
    view, crop_to_input = letterbox(cut, size)
    return view, coordinates.compose(crop_to_source, coordinates.invert(crop_to_input))


def check_side(rgb: NDArray[np.uint8], min_side: int) -> None:
    """Raise DataError if the shorter side of a picture, as it would be stored, is below `min_side` pixels."""
    height, width = rgb.shape[:2]
    if min(width, height) < min_side:
        raise DataError(f"too small: {width} x {height} px when stored, a side below {min_side}")


def encode_png(rgb: NDArray[np.uint8]) -> bytes:
    """Return an RGB picture (H, W, 3) as the content of a PNG file, which holds it exactly."""
    done, png = cv2.imencode(".png", rgb[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert done
    content: bytes = png.tobytes()
    return content


def encode_jpeg(rgb: NDArray[np.uint8]) -> bytes:
    """Return an RGB picture (H, W, 3) as the content of a JPEG file."""
    done, jpeg = cv2.imencode(".jpg", rgb[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    assert done
    content: bytes = jpeg.tobytes()
    return content
