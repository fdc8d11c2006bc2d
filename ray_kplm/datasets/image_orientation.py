"""The orientation that a camera noted in a picture's metadata. Metadata that cannot be read is no orientation, and no error."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

UPRIGHT = 1
"""The value of a picture that is stored as it is displayed."""
TRANSPOSED = 5
"""Values from here on are of pictures whose width is stored as their height."""
ORIENTATION = 0x0112
"""Tag of the orientation in EXIF and TIFF."""

_EXIF_HEADER = b"Exif\0\0"
_FIELDS = {1: "B", 3: "H", 4: "I", 16: "Q"}
"""Formats of the types of unsigned integers in TIFF: BYTE, SHORT, LONG and BigTIFF's LONG8."""
_MAX_COUNT = 1 << 20
_XMP = re.compile(rb"tiff:Orientation\s*(?:=\s*[\"']|>)\s*([1-8])\b")


def orientation(exif: bytes, xmp: bytes = b"") -> int:
    """Return the orientation, 1 to 8, that EXIF or else XMP says; 1 if none is readable.

    Args:
        exif: A TIFF structure, with or without EXIF's header.
        xmp: An XML packet.
    """
    found = read_integers(exif.removeprefix(_EXIF_HEADER)).get(ORIENTATION, ())
    if len(found) and 1 <= found[0] <= 8:
        return found[0]
    match = _XMP.search(xmp)
    return int(match.group(1)) if match else UPRIGHT


def read_integers(tiff: bytes) -> dict[int, tuple[int, ...]]:
    """Return the tags of unsigned integers in the first directory of a TIFF or BigTIFF structure, as far as it is readable."""
    try:
        return dict(_entries(tiff))
    except struct.error:
        return {}


def _entries(tiff: bytes) -> Iterator[tuple[int, tuple[int, ...]]]:
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return
    big = struct.unpack_from(order + "H", tiff, 2)[0] == 43
    word, count_of_entries, size = ("Q", "Q", 20) if big else ("I", "H", 12)
    (start,) = struct.unpack_from(order + word, tiff, 8 if big else 4)
    (entries,) = struct.unpack_from(order + count_of_entries, tiff, start)
    first = start + struct.calcsize(count_of_entries)
    for at in range(first, min(first + size * entries, len(tiff) - size + 1), size):
        tag, kind = struct.unpack_from(order + "HH", tiff, at)
        (count,) = struct.unpack_from(order + word, tiff, at + 4)
        value = at + 4 + struct.calcsize(word)
        if kind not in _FIELDS or not 1 <= count <= _MAX_COUNT:
            continue
        form = f"{order}{count}{_FIELDS[kind]}"
        if struct.calcsize(form) > struct.calcsize(word):
            (value,) = struct.unpack_from(order + word, tiff, value)
        if value + struct.calcsize(form) <= len(tiff):
            yield tag, struct.unpack_from(form, tiff, value)


def upright(picture: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return a picture (H, W, ...) as it is displayed, from the orientation, 1 to 8, that EXIF says."""
    if orientation >= TRANSPOSED:
        picture = np.swapaxes(picture, 0, 1)
    down, across = {1: (1, 1), 2: (1, -1), 3: (-1, -1), 4: (-1, 1), 5: (1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}[
        orientation
    ]
    return np.ascontiguousarray(picture[::down, ::across])
