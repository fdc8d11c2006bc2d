"""A folder of this machine that counts what is read of its files, as an object store would bill it."""

from __future__ import annotations

import io
from collections import Counter
from typing import Any

import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-not-found,import-untyped,unused-ignore]
from pyarrow import fs as pafs

from ray_kplm.storage import Folder


class CountedStorage(pafs.FSSpecHandler):
    """A file system that counts the bytes, and the requests for them, by path. To pyarrow it is no local one."""

    def __init__(self) -> None:
        """Count nothing yet."""
        super().__init__(LocalFileSystem(auto_mkdir=True))
        self.read_bytes: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()

    def folder(self, path: str) -> Folder:
        """Return a folder on it."""
        return Folder(pafs.PyFileSystem(self), path)

    def open_input_file(self, path: str) -> pa.NativeFile:
        """Open a file whose reads are counted."""
        return pa.PythonFile(_CountedFile(path, self), mode="r")


class _CountedFile(io.FileIO):
    def __init__(self, path: str, storage: CountedStorage) -> None:
        super().__init__(path)
        self._path, self._storage = path, storage

    def read(self, size: int | None = -1, /) -> Any:
        content = super().read(size)
        self._storage.read_bytes[self._path] += len(content)
        self._storage.requests[self._path] += 1
        return content
