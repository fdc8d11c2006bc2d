"""Records of files, SHA-256 and size, and the manifests that hold them: see `integrity`."""

from __future__ import annotations

import hashlib
import io
import posixpath
import zlib
from typing import Any

import pyarrow as pa

from ray_kplm.errors import DamageError
from ray_kplm.storage import Folder
from ray_kplm.storage.arrow_file import arrow_footer
from ray_kplm.storage.file_content import check_seal, parquet_footer

MANIFEST = "manifest.json"
CLAIM = "claim.json"
OUTPUTS = "outputs"
"""Key of the records in a manifest: the path of a file, relative to the unit, -> its record."""
WRITTEN = ".written"
"""Folder of the records of a unit that is not published yet."""

Record = dict[str, Any]
"""`sha256`, `size` in bytes and, of Parquet and Arrow files, `footer`: the CRC-32 of the footer."""


class HashingStream(io.RawIOBase):
    """A stream that hashes what goes through it."""

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream, self._sha256, self._size, self._last = stream, hashlib.sha256(), 0, b""

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any) -> int:
        """Write and hash some content."""
        self._stream.write(data)
        self._sha256.update(data)
        self._size += len(data)
        self._last = data
        return len(data)

    def flush(self) -> None:
        """Flush the stream below, unless it is closed."""
        if not self._stream.closed:
            self._stream.flush()

    def record(self, name: str) -> Record:
        """Return the record of what was written."""
        return {"sha256": self._sha256.hexdigest(), "size": self._size, **_footer(name, self._last)}


def record_of(name: str, content: bytes) -> Record:
    """Return the record of a file."""
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), **_footer(name, content)}


def _footer(name: str, content: Any) -> dict[str, int]:
    """Return the CRC-32 of the footer of a Parquet or an Arrow file; nothing of other files."""
    for suffix, footer in ((".parquet", parquet_footer), (".arrow", arrow_footer)):
        if name.endswith(suffix):
            return {"footer": zlib.crc32(footer(content))}
    return {}


def difference(record: Record, content: bytes) -> str:
    """Return how the content of a file differs from its record; empty if it does not."""
    if len(content) != record["size"]:
        return f"it has {len(content)} bytes instead of {record['size']}"
    if hashlib.sha256(content).hexdigest() != record["sha256"]:
        return "its SHA-256 is not that of what was published"
    return ""


def read_manifest(folder: Folder, name: str = MANIFEST) -> dict[str, Any]:
    """Return the manifest, or the claim, in a folder.

    Raises:
        DamageError: it is no JSON object, or its content is not what was written.
    """
    value = folder.read_object(name)
    with folder.parsing(name):
        check_seal(value)
    return value


def unit_of(path: str) -> str | None:
    """Return the folder of the unit that a file tells of: its manifest, its claim, or a record. None for other files."""
    folder, name = posixpath.split(path)
    if posixpath.basename(folder) == WRITTEN:
        return posixpath.dirname(folder)
    return folder if name in (MANIFEST, CLAIM) else None


def read_record(folder: Folder, name: str) -> Record | None:
    """Return the record in a file, None if it is not there or was cut by a crash."""
    try:
        record = folder.read_object(name)
    except (FileNotFoundError, DamageError):
        return None
    return record if {"sha256", "size"} <= record.keys() else None


def is_own(name: str) -> bool:
    """Return whether a file is no output but says the state of the unit."""
    return name in (MANIFEST, CLAIM)


def is_hidden(name: str) -> bool:
    """Return whether a file, or a folder that it is in, is hidden."""
    return any(piece.startswith(".") and piece != ".." for piece in name.split("/"))
