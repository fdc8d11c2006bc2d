"""One way to reach storage: a `Folder` on any filesystem that pyarrow opens (a local path, s3://, gs://, ...).

Every write is published by one atomic act: locally a rename, on object stores the end of the upload, which begins when all
is written. A file that can be read is therefore whole.

A store that does not answer is asked again for half a minute, beside what its own client tries, and a full one is an error
that says so: neither costs a run.

Where a store is and who may open it come from the environment, as its own tools read it (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID,
...), or from the URI: `s3://bucket/key?endpoint_override=http://127.0.0.1:9000&scheme=http`.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs as pafs

from ray_kplm.errors import DataError, StorageError

_T = TypeVar("_T")
_IN_MEMORY = 64 * 2**20
"""Bytes of a file for an object store that are not put on disk before they are uploaded."""
_CHUNK = 16 * 2**20
_READERS = 16
"""Tables that are read at a time."""
_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Before a request that failed is made again."""
_TOLD_S = _PAUSES_S[2]
"""The pause from which on the user is told."""
NO_SPACE = "no space is left; free some, and the same command continues with what is finished"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSALS = ("ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "EXPIRED_TOKEN")
"""What object stores say of requests that need not be made again."""
_PASSING = (errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ETIMEDOUT, errno.ECONNRESET, errno.EREMOTEIO)
"""Of a shared file system whose server is away."""


@dataclass(frozen=True)
class Folder:
    """A folder on a filesystem. Cheap to make, picklable, and it need not exist."""

    filesystem: pafs.FileSystem
    path: str

    @classmethod
    def at(cls, uri: str | os.PathLike[str]) -> Folder:
        """The folder of a local path or of a URI (`s3://bucket/key`). Raises DataError for a URI that is none."""
        text = os.fspath(uri)
        if "://" in text:
            try:
                filesystem, path = pafs.FileSystem.from_uri(text)
            except pa.ArrowInvalid as error:
                reason = str(error).splitlines()[0]
                raise DataError(
                    f"{text}: no storage of this kind ({reason}); give a path, s3://bucket/key, gs://..."
                ) from None
            return cls(filesystem, path.rstrip("/"))
        return cls(pafs.LocalFileSystem(), os.path.abspath(os.path.expanduser(text)))

    def __truediv__(self, name: str) -> Folder:
        return Folder(self.filesystem, f"{self.path}/{name}")

    def __str__(self) -> str:
        return self.path if self.is_local else f"{self.filesystem.type_name}://{self.path}"

    @property
    def is_local(self) -> bool:
        return isinstance(self.filesystem, pafs.LocalFileSystem)

    @property
    def parent(self) -> Folder:
        return Folder(self.filesystem, self.path.rsplit("/", 1)[0])

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]

    def exists(self, name: str = "") -> bool:
        return self._info(name).type != pafs.FileType.NotFound

    def is_file(self, name: str) -> bool:
        return self._info(name).type == pafs.FileType.File

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return int(self._info(name).size or 0)

    def _info(self, name: str) -> pafs.FileInfo:
        path = f"{self.path}/{name}" if name else self.path
        return self._patiently(lambda: self.filesystem.get_file_info(path))

    def names(self, *, suffix: str = "") -> list[str]:
        """Sorted names of the files directly in this folder; none if it does not exist."""
        infos = self._list()
        return sorted(i.base_name for i in infos if i.type == pafs.FileType.File and i.base_name.endswith(suffix))

    def folders(self) -> list[str]:
        """Sorted names of the folders directly in this folder; none if it does not exist."""
        infos = self._list()
        return sorted(i.base_name for i in infos if i.type == pafs.FileType.Directory)

    def walk(self) -> list[str]:
        """Sorted paths, relative to this folder, of all files in it and below; none if it does not exist."""
        infos = self._list(recursive=True)
        found = (i.path for i in infos if i.type == pafs.FileType.File and i.extension != "partial")
        return sorted(path.removeprefix(f"{self.path}/") for path in found)

    def _list(self, *, recursive: bool = False) -> list[pafs.FileInfo]:
        selector = pafs.FileSelector(self.path, allow_not_found=True, recursive=recursive)
        return list(self._patiently(lambda: self.filesystem.get_file_info(selector)))

    def parts(self) -> list[str]:
        """Sorted names of the table's parts, `part-00000.parquet` onwards."""
        return [n for n in self.names(suffix=".parquet") if n.startswith("part-")]

    def delete(self) -> None:
        """Remove the folder and all below it; nothing happens if it does not exist."""
        if self.exists():
            self.filesystem.delete_dir(self.path)

    def delete_file(self, name: str) -> None:
        if self.exists(name):
            self.filesystem.delete_file(f"{self.path}/{name}")

    @contextmanager
    def writing(self, name: str) -> Iterator[pa.NativeFile]:
        """A binary stream whose content appears under `name` when the block ends without an error."""
        if self.is_local:
            with self._renamed(name) as stream:
                yield stream
            return
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as aside:
            # An object store's own stream, closed by an error, publishes the part that was written.
            yield pa.PythonFile(aside, mode="w")
            aside.seek(0)
            stream = self.filesystem.open_output_stream(f"{self.path}/{name}", compression=None)
            while chunk := aside.read(_CHUNK):
                stream.write(chunk)
            stream.close()

    @contextmanager
    def _renamed(self, name: str) -> Iterator[pa.NativeFile]:
        target = f"{self.path}/{name}"
        parent = target.rsplit("/", 1)[0]
        self.filesystem.create_dir(parent, recursive=True)
        aside = f"{parent}/.{uuid.uuid4().hex}.partial"
        try:
            with self.filesystem.open_output_stream(aside, compression=None) as stream:
                yield stream
            self.filesystem.move(aside, target)
        except BaseException:
            if self.filesystem.get_file_info(aside).type == pafs.FileType.File:
                self.filesystem.delete_file(aside)
            raise

    def write_bytes(self, name: str, content: bytes) -> None:
        def write() -> None:
            with self.writing(name) as stream:
                stream.write(content)

        self._patiently(write)

    def read_bytes(self, name: str) -> bytes:
        def read() -> bytes:
            with self.filesystem.open_input_file(f"{self.path}/{name}") as file:
                return bytes(
                    file.read(file.size())
                )  # one request: a stream of unknown length asks for 64 KiB at a time

        return self._patiently(read)

    def write_json(self, name: str, value: Any) -> None:
        self.write_bytes(name, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())

    def read_json(self, name: str) -> Any:
        return json.loads(self.read_bytes(name))

    def write_table(self, name: str, table: pa.Table) -> None:
        def write() -> None:
            with self.writing(name) as stream:
                pq.write_table(table, stream, compression="zstd", use_dictionary=_repeating(table.schema))

        self._patiently(write)

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        path = f"{self.path}/{name}"
        return self._patiently(lambda: pq.read_table(path, columns=columns, filesystem=self.filesystem))

    def read_tables(self, names: Sequence[str], columns: list[str] | None = None) -> list[pa.Table]:
        """Several tables in the order of their names. They are read side by side: a request to an object store takes 30 ms."""
        if len(names) <= 1:
            return [self.read_table(name, columns) for name in names]
        with ThreadPoolExecutor(min(_READERS, len(names)), thread_name_prefix="read") as readers:
            return list(readers.map(lambda name: self.read_table(name, columns), names))

    def rows(self, name: str) -> int:
        """Number of rows of a Parquet file, from its footer."""

        def read() -> int:
            with self.filesystem.open_input_file(f"{self.path}/{name}") as stream:
                return int(pq.ParquetFile(stream).metadata.num_rows)

        return self._patiently(read)

    def _patiently(self, request: Callable[[], _T]) -> _T:
        """Make a request, again where an error may pass. Raises StorageError where the store is full, refuses or stays away,
        and OSError for what is not there."""
        pauses = iter(_PAUSES_S)
        while True:
            try:
                return request()
            except OSError as error:
                reason = " ".join(str(error).split())
                if error.errno in _FULL:
                    raise StorageError(f"{self}: {NO_SPACE}") from error
                if self._is_refusal(error):
                    raise StorageError(f"{self}: {reason}; check that it exists and who may use it") from error
                if not self._may_pass(error):
                    raise
                if (pause := next(pauses, None)) is None:
                    raise StorageError(
                        f"{self}: does not answer ({reason}); the same command continues when it does"
                    ) from error
                if pause == _TOLD_S:
                    print(f"kplm: {self} does not answer ({reason}): trying again", file=sys.stderr, flush=True)
                time.sleep(pause)

    def _is_refusal(self, error: OSError) -> bool:
        return isinstance(error, PermissionError) or (
            not self.is_local and any(word in str(error) for word in _REFUSALS)
        )

    def _may_pass(self, error: OSError) -> bool:
        """Of an object store, which says little about the kind of an error, all may that does not say that something is not
        there."""
        if self.is_local:
            return error.errno in _PASSING
        return not isinstance(error, (FileNotFoundError, NotADirectoryError, IsADirectoryError))


def _repeating(schema: pa.Schema) -> list[str]:
    """Parquet's names of the columns whose values come again: strings and whole numbers.

    A dictionary of the others is built for nothing and given up: descriptors are read 3.7 times as fast without (90 and 331
    MB/s a core), and written twice as fast (46 and 88; 151 without zstd, which saves 8 % of them in storage).
    """
    leaves = [leaf for field in schema for leaf in _leaves(field.name, field.type)]
    return [path for path, kind in leaves if pa.types.is_string(kind) or pa.types.is_integer(kind)]


def _leaves(path: str, kind: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
    """The columns that Parquet makes of one of a table, and their types."""
    if pa.types.is_map(kind):
        yield from _leaves(f"{path}.key_value.key", kind.key_type)
        yield from _leaves(f"{path}.key_value.value", kind.item_type)
    elif pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        yield from _leaves(f"{path}.list.element", kind.value_type)
    else:
        yield path, kind


def copy_file(source: Folder, target: Folder, name: str) -> None:
    """One file from one folder to another, on whichever filesystems they are."""
    read = source.filesystem.open_input_stream(f"{source.path}/{name}", compression=None)
    with read as stream, target.writing(name) as out:
        while chunk := stream.read(_CHUNK):
            out.write(chunk)
