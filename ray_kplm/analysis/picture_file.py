"""A picture file that a user names: in the format of its name, and nothing else is written."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import PurePosixPath

from PIL import Image

from ray_kplm.errors import ConfigError, StorageError
from ray_kplm.storage import Folder

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".pdf": "PDF",
}
"""Suffix of a name -> the format."""


@dataclass(frozen=True)
class PictureFile:
    """A file to write, `--out` of a command. Making one writes nothing."""

    folder: Folder
    name: str

    @classmethod
    def at(cls, given: str) -> PictureFile:
        """Return the file of a path or URI.

        Raises:
            ConfigError: its suffix is of no known format, or it is a folder.
        """
        at = Folder.at(given)
        if at.exists() and not at.parent.is_file(at.name):
            raise ConfigError(
                f"--out {given}: is a folder; name a file in it, for example {given.rstrip('/')}/sheet.png"
            )
        if not _is_picture(given.partition("?")[0] if "://" in given else given):
            raise ConfigError(f"--out {given}: names no format of pictures; end it in one of {', '.join(FORMATS)}")
        return cls(at.parent, at.name)

    def write(self, png: bytes) -> None:
        """Write a picture, given as PNG; folders above it are made.

        Raises:
            ConfigError: the format cannot hold a picture of this size.
            StorageError: it cannot be written there.
        """
        kind = FORMATS[PurePosixPath(self.name).suffix.lower()]
        content = png if kind == "PNG" else self._encode(png, kind)
        try:
            self.folder.write_bytes(self.name, content)
        except OSError as error:
            reason = error.strerror or str(error).splitlines()[0]
            raise StorageError(
                f"{self.folder}/{self.name}: cannot be written ({reason}); take another --out"
            ) from error

    def _encode(self, png: bytes, kind: str) -> bytes:
        buffer = io.BytesIO()
        with Image.open(io.BytesIO(png)) as picture:
            try:
                picture.convert("RGB").save(buffer, kind, quality=92)
            except (ValueError, OSError) as error:
                size = f"{picture.width} x {picture.height} pixels"
                raise ConfigError(
                    f"--out {self.name}: {kind} does not hold {size} ({error}); take .png, or a smaller --count or --tile"
                ) from error
        return buffer.getvalue()


def _is_picture(given: str) -> bool:
    return PurePosixPath(given).suffix.lower() in FORMATS
