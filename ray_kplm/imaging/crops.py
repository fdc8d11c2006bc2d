"""Stored crops: decoding, sizes, and the letterbox to the network's input."""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_kplm.imaging import coordinates


def decode_crop(encoded: pa.BinaryScalar) -> NDArray[np.uint8]:
    """Decode a stored crop to RGB (H, W, 3). `ingest` has checked that it can be decoded."""
    image = cv2.imdecode(np.frombuffer(encoded.as_buffer(), np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    rgb: NDArray[np.uint8] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return rgb


def crop_sizes(images: pa.Table) -> NDArray[np.int32]:
    """Return the width and height of each crop of a table of images (schemas.IMAGES), pixels: (N, 2)."""
    return np.stack([images["width"].to_numpy(), images["height"].to_numpy()], axis=1)


def letterbox(image: NDArray[np.uint8], size: int) -> tuple[NDArray[np.uint8], coordinates.Affine]:
    """Return the network's input from a crop, and the map of points to it.

    Args:
        image: (H, W, 3), the crop.
        size: Side of the input, pixels.

    Returns:
        The input, uint8 (size, size, 3), and `coordinates.crop_to_input`.
    """
    height, width = image.shape[:2]
    to_input = coordinates.crop_to_input(width, height, size)
    if (height, width) == (size, size):
        return image, to_input
    image, crop_to_picture = shrunk(image, size)
    placed = coordinates.compose(to_input, coordinates.invert(crop_to_picture))
    view = cv2.warpAffine(image, placed, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return view, to_input


def shrunk(image: NDArray[np.uint8], size: int) -> tuple[NDArray[np.uint8], coordinates.Affine]:
    """Return a crop whose longer side is at most `size` pixels, made smaller by area, and the map of points to it.

    Warping samples single pixels, so what is larger than the network's input is made smaller before.

    Args:
        image: (H, W, 3), the crop.
        size: Side of the input, pixels.
    """
    height, width = image.shape[:2]
    scale = size / max(height, width)
    if scale >= 1:
        return image, coordinates.scaling(1.0)
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    smaller: NDArray[np.uint8] = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    return smaller, coordinates.scaling(small[0] / width, small[1] / height)
