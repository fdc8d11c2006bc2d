"""Pictures as a browser is sent them: small ones for the grid, and large ones of a bounded size."""

from __future__ import annotations

import cv2

from ray_kplm.datasets.file_kinds import SIGNATURE_BYTES, kind_of_content
from ray_kplm.datasets.image_io import encode_jpeg
from ray_kplm.view.gallery import Gallery

SMALL, LARGE = 240, 2400
"""Longest side of a picture in the grid, and of a picture alone, pixels."""
_SHOWN_AS_STORED = {".jpg": "image/jpeg", ".png": "image/png"}


def picture(gallery: Gallery, index: int, *, small: bool) -> tuple[bytes, str]:
    """Return a picture of the gallery as a file, and its media type.

    Raises:
        DataError: It cannot be read.
    """
    stored = gallery.stored(index)
    item = gallery.items[index]
    kind = kind_of_content(stored[:SIGNATURE_BYTES]) if stored else ""
    longest = SMALL if small else LARGE
    if stored is not None and kind in _SHOWN_AS_STORED and max(item.width, item.height) <= longest:
        return stored, _SHOWN_AS_STORED[kind]
    rgb = gallery.rgb(index)
    scale = longest / max(rgb.shape[:2])
    if scale < 1:
        size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
        rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    return encode_jpeg(rgb), _SHOWN_AS_STORED[".jpg"]
