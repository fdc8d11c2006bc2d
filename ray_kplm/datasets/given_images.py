"""Images that a program is given: arrays, PIL images, encoded bytes and paths, all of them as upright RGB."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from ray_kplm.datasets.deep_values import deep_to_rgb
from ray_kplm.datasets.image_io import decode_image_file, read_image_bytes
from ray_kplm.datasets.image_orientation import upright
from ray_kplm.datasets.limits import DEFAULT_LIMITS, Limits
from ray_kplm.datasets.pillow_pixels import orientation_of, to_rgb
from ray_kplm.errors import DataError
from ray_kplm.storage import Folder

Image: TypeAlias = NDArray[Any] | PILImage.Image | bytes | bytearray | memoryview | str | os.PathLike[str]
"""One image: see `rgb_of`."""

KINDS = "a path, an array (H, W, 3) or (H, W), a PIL image, encoded bytes, or a list of these"
_CHANNELS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def as_images(images: Image | Iterable[Image]) -> Iterable[Image]:
    """Return one image as a list of it, and several as they are. An array (N, H, W, 3) or (N, H, W) is N images.

    Raises:
        DataError: It is neither an image nor several.
    """
    if isinstance(images, (PILImage.Image, bytes, bytearray, memoryview, str, os.PathLike)):
        return [images]
    if isinstance(images, np.ndarray):
        return [images] if images.ndim == 2 or (images.ndim == 3 and images.shape[2] in _CHANNELS) else _stack(images)
    if isinstance(images, dict) or not isinstance(images, Iterable):
        raise DataError(f"images of type {type(images).__name__}: give {KINDS}")
    return images


def _stack(images: NDArray[Any]) -> Iterable[NDArray[Any]]:
    if images.ndim == 3 and images.shape[0] in (1, 3, 4):
        raise DataError(f"an array of shape {images.shape}: channels come last; give (H, W, 3), (H, W) or (N, H, W, 3)")
    if images.ndim not in (3, 4):
        raise DataError(f"an array of shape {images.shape}: give (H, W, 3) or (H, W), or (N, H, W, 3) for several")
    return images


def rgb_of(image: Image, limits: Limits = DEFAULT_LIMITS) -> NDArray[np.uint8]:
    """Return one image as RGB (H, W, 3), on white where it is transparent.

    Args:
        image: A path or URI, or the bytes of an image file, upright by its EXIF; a PIL image, likewise; or an array (H, W),
            (H, W, 1) grey, (H, W, 2) grey and alpha, (H, W, 3) RGB or (H, W, 4) RGBA. Bytes are taken as they are; arrays of
            other numbers are scaled by the range that occurs in them, as files are (`deep_values`).
        limits: Of the file and of the picture.

    Raises:
        DataError: It is no image, or cannot be used.
    """
    if isinstance(image, (str, os.PathLike)):
        at = Folder.at(image)
        return decode_image_file(read_image_bytes(at.parent, at.name, limits), limits).rgb
    if isinstance(image, (bytes, bytearray, memoryview)):
        return decode_image_file(bytes(image), limits).rgb
    if isinstance(image, PILImage.Image):
        limits.check_size(*image.size)
        return _of_pil(image)
    try:
        array = np.asarray(image)
    except Exception as error:  # of objects that pretend to be arrays, such as tensors on a GPU
        raise DataError(f"an image of type {type(image).__name__}: {' '.join(str(error).split())}") from None
    if array.dtype.kind not in "buif" or isinstance(image, (list, tuple, dict, set)):
        raise DataError(f"an image of type {type(image).__name__}: give {KINDS}")
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in _CHANNELS or not array.size:
        raise DataError(f"an array of shape {array.shape} and type {array.dtype}: give (H, W, 3) or (H, W)")
    limits.check_size(array.shape[1], array.shape[0])
    if array.dtype != np.uint8:
        return deep_to_rgb(array)
    if channels == 3:
        return np.ascontiguousarray(array)
    flat = array[:, :, 0] if array.ndim == 3 and channels == 1 else array
    return to_rgb(PILImage.fromarray(np.ascontiguousarray(flat)))


def _of_pil(image: PILImage.Image) -> NDArray[np.uint8]:
    if not image.width * image.height:
        raise DataError("an image without pixels")
    try:
        rgb = to_rgb(image)
    except DataError:
        raise
    except Exception as error:  # of files that are decoded only now
        raise DataError(f"unreadable: {' '.join(str(error).split())}") from None
    return upright(rgb, orientation_of(image))
