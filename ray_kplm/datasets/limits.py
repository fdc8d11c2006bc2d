"""What a picture may have at most. Larger ones are refused, with their size, before they are read or decoded."""

from __future__ import annotations

from typing import NamedTuple

from ray_kplm.errors import DataError


class Limits(NamedTuple):
    """Limits of one picture.

    Attributes:
        pixels: Width times height; decoding takes 7 bytes a pixel. The default is a square of 8192 pixels.
        file_bytes: Size of the image file. The default is 256 MiB.
    """

    pixels: int = 1 << 26
    file_bytes: int = 1 << 28

    def check_size(self, width: int, height: int) -> None:
        """Raise DataError if a picture has too many pixels."""
        if width * height > self.pixels:
            raise DataError(
                f"too large: {width} x {height} = {width * height / 1e6:.1f} million pixels; "
                f"max_pixels is {self.pixels / 1e6:.4g} million"
            )

    def check_bytes(self, size: int) -> None:
        """Raise DataError if an image file has too many bytes."""
        if size > self.file_bytes:
            raise DataError(f"too large: a file of {size / 1e6:.1f} MB; max_bytes is {self.file_bytes / 1e6:.4g} MB")


DEFAULT_LIMITS = Limits()
