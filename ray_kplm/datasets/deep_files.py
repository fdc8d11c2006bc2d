"""PNG and TIFF files of more than 8 bits a value, of signed numbers or of floats, which Pillow reads in part or not at all."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ray_kplm.datasets.image_orientation import read_integers
from ray_kplm.errors import DataError

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of TIFF and BigTIFF files."""

_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _SAMPLES, _PLANAR, _EXTRA, _FORMAT = 256, 257, 258, 262, 277, 284, 338, 339
_STRIPS, _TILES = (273, 279), (324, 325)
"""Tags of the offsets and of the sizes of strips, and of tiles."""
_OF_A_PLANE = (256, 257, 259, 266, 274, 278, 317, 322, 323)
"""Tags that a plane shares with the picture: size, compression, order of bits, orientation, predictor, layout."""
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2


@dataclass(frozen=True)
class DeepFile:
    """A file whose values are no bytes.

    Attributes:
        content: The file.
        size: Width and height, pixels.
        white_is_low: Whether low values are light.
        has_alpha: Whether the last channel is opacity.
        planes: A file of each channel, if they are stored one after the other.
    """

    content: bytes
    size: tuple[int, int]
    white_is_low: bool = False
    has_alpha: bool = False
    planes: tuple[bytes, ...] = ()

    def values(self) -> NDArray[Any]:
        """Return the values, (H, W) or (H, W, C) with C of 2 to 4, upright as TIFF says, RGB.

        Raises:
            DataError: The file cannot be decoded.
        """
        if self.content.startswith(b"\x89PNG"):
            _check_by_pillow(self.content)
        if self.planes:
            values = np.stack([_decode(plane) for plane in self.planes], axis=2)
            return values if values.shape[2] < 4 or self.has_alpha else values[:, :, :3]
        values = _decode(self.content)
        if values.ndim == 3 and values.shape[2] >= 3:
            values = values[:, :, [2, 1, 0, 3] if values.shape[2] == 4 and self.has_alpha else [2, 1, 0]]
        return values


def _check_by_pillow(png: bytes) -> None:
    """Raise an error if a PNG is damaged or cut: OpenCV only warns."""
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        image.load()


def _decode(content: bytes) -> NDArray[Any]:
    """Return the values of a file as OpenCV orders them: BGR, BGRA."""
    try:
        values: NDArray[Any] | None = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        values = None
    return _values_by_pillow(content) if values is None else values


def _values_by_pillow(content: bytes) -> NDArray[Any]:
    with Image.open(io.BytesIO(content), formats=["PNG", "TIFF"]) as image:
        image.load()
        return np.asarray(image) if image.mode[0] in "IFL" else np.asarray(image.convert("RGB"))[:, :, ::-1]


def deep_file(content: bytes) -> DeepFile | None:
    """Return a PNG or TIFF file as one of values that are no bytes; None for all others.

    Raises:
        DataError: A TIFF file is cut or has a number of channels that is no picture.
    """
    if content.startswith(b"\x89PNG") and len(content) > 26 and content[24] == 16:
        return DeepFile(content, struct.unpack_from(">II", content, 16), has_alpha=True)
    return _deep_tiff(content) if content.startswith(TIFF) else None


def _deep_tiff(content: bytes) -> DeepFile | None:
    tags = read_integers(content)
    kind = tags.get(_PHOTOMETRIC, (_BLACK_IS_ZERO,))[0]
    is_deep = max(tags.get(_BITS, (1,))) > 8 or tags.get(_FORMAT, (1,))[0] != 1
    if not is_deep or kind not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB) or not tags.keys() >= {_WIDTH, _HEIGHT}:
        return None
    channels = tags.get(_SAMPLES, (1,))[0]
    if channels > 4 or (kind == _RGB and channels < 3):
        raise DataError(f"unreadable: {channels} channels, no grey or RGB picture")
    for offsets, sizes in (_STRIPS, _TILES):
        for offset, size in zip(tags.get(offsets, ()), tags.get(sizes, ()), strict=False):
            if offset + size > len(content):
                raise DataError("truncated")
    has_alpha = tags.get(_EXTRA, (0,))[0] in (1, 2)
    if _TILES[0] in tags and max(tags.get(_BITS, (1,))) <= 8:
        raise DataError("unreadable: tiles of signed bytes")  # OpenCV decodes them wrongly
    planes = _planes(content, tags, channels) if channels > 1 and tags.get(_PLANAR, (1,))[0] == 2 else ()
    return DeepFile(content, (tags[_WIDTH][0], tags[_HEIGHT][0]), kind == _WHITE_IS_ZERO, has_alpha, planes)


def _planes(content: bytes, tags: dict[int, tuple[int, ...]], channels: int) -> tuple[bytes, ...]:
    """Return a TIFF file of each channel: OpenCV takes planes one after the other for one of mixed channels."""
    places, sizes = _TILES if _TILES[0] in tags else _STRIPS
    each = len(tags.get(places, ())) // channels
    files = []
    for channel in range(channels):
        mine = slice(channel * each, (channel + 1) * each)
        own = {tag: tags[tag] for tag in _OF_A_PLANE if tag in tags}
        own |= {tag: tags[tag][mine] for tag in (places, sizes) if tag in tags}
        own |= {tag: tags[tag][:1] for tag in (_BITS, _FORMAT) if tag in tags}
        files.append(_with_directory(content, own | {_PHOTOMETRIC: (_BLACK_IS_ZERO,), _SAMPLES: (1,)}))
    return tuple(files)


def _with_directory(content: bytes, tags: dict[int, tuple[int, ...]]) -> bytes:
    """Return a TIFF file with another directory, at its end."""
    order = "<" if content.startswith(b"II") else ">"
    at = len(content) + len(content) % 2
    directory, rest = struct.pack(order + "H", len(tags)), b""
    behind = at + 2 + 12 * len(tags) + 4
    for tag, numbers in sorted(tags.items()):
        value = struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            value, rest = struct.pack(order + "I", behind + len(rest)), rest + value
        directory += struct.pack(order + "HHI", tag, 4, len(numbers)) + value
    head = content[:2] + struct.pack(order + "HI", 42, at)
    return head + content[8:].ljust(at - 8, b"\0") + directory + bytes(4) + rest
