"""Access to storage: a `Folder` on any filesystem that pyarrow opens (a local path, s3://, gs://, ...).

Every write is published atomically: on a file system by a rename, on an object store by the end of the upload, which begins
when the content is complete. So every file that can be read is complete. On a file system the content is on the medium before
it has its name, so that this holds after a loss of power too.

Requests to storage that does not answer are repeated for about half a minute, in addition to the retries of its own client.
Full storage is a `StorageError` at once. After either error the same command continues the run.

The endpoint and the credentials of an object store are read from the environment, under the names that its own tools use
(AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...), or from the URI: `s3://bucket/key?endpoint_override=http://127.0.0.1:9000&scheme=http`.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs as pafs

from ray_kplm.errors import DamageError, DataError, StorageError
from ray_kplm.file_content import encode_table, parsing

_T = TypeVar("_T")
NO_SPACE = "no space is left; free some, and the same command continues with what is finished"
"""What an error says about full storage."""
_MEMORY_BYTES = 64 * 2**20
"""Files for an object store that are larger than this are buffered on disk before they are uploaded."""
_CHUNK_BYTES = 16 * 2**20
_READERS = 16
"""Tables that are read concurrently."""
_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Pauses before a failed request is repeated, seconds."""
_LOGGED_PAUSE_S = _PAUSES_S[2]
"""At this pause a line is printed for the user."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSALS = ("ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "EXPIRED_TOKEN")
"""Error codes of object stores for requests that would fail again."""
_TRANSIENT = (errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ETIMEDOUT, errno.ECONNRESET, errno.EREMOTEIO)
"""Error codes of a shared file system whose server does not answer."""
_UNSYNCED = (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM, errno.EISDIR)
"""Error codes of file systems that cannot flush a file or a folder to the medium."""
_UNREADABLE = ("CRC checksum", "thrift", "Parquet", "Unexpected end of stream", "decompress", "Corrupt", "page header")
"""Words of pyarrow's errors about the content of a Parquet file, which a repeated request would not change."""


@dataclass(frozen=True)
class Folder:
    """A folder on a filesystem. It need not exist; the object is cheap to make and picklable.

    Its methods raise StorageError if the storage is full, refuses access or does not answer, and FileNotFoundError for a file
    that does not exist.
    """

    filesystem: pafs.FileSystem
    path: str

    @classmethod
    def at(cls, uri: str | os.PathLike[str]) -> Folder:
        """Return the folder of a local path or of a URI (`s3://bucket/key`).

        Raises:
            DataError: the URI names no known kind of storage.
        """
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
        """Whether the folder is on a file system of this machine, which includes mounted network file systems."""
        return isinstance(self.filesystem, pafs.LocalFileSystem)

    @property
    def parent(self) -> Folder:
        """The folder that contains this one."""
        return Folder(self.filesystem, self.path.rsplit("/", 1)[0])

    @property
    def name(self) -> str:
        """The last component of the path."""
        return self.path.rsplit("/", 1)[-1]

    def exists(self, name: str = "") -> bool:
        """Return whether a file or folder in this folder exists, or this folder itself."""
        return bool(self._info(name).type != pafs.FileType.NotFound)

    def is_file(self, name: str) -> bool:
        """Return whether there is a file of this name."""
        return bool(self._info(name).type == pafs.FileType.File)

    def is_whole(self, name: str) -> bool:
        """Return whether there is a file of this name that can be used, where an interrupted step may have written it."""
        return self.is_file(name)

    def size(self, name: str) -> int:
        """Return the size of a file in bytes."""
        return int(self._info(name).size or 0)

    def _info(self, name: str) -> pafs.FileInfo:
        path = f"{self.path}/{name}" if name else self.path
        return self._retry(lambda: self.filesystem.get_file_info(path))

    def names(self, *, suffix: str = "") -> list[str]:
        """Return the sorted names of the files directly in this folder, none if it does not exist."""
        infos = self._list()
        return sorted(i.base_name for i in infos if i.type == pafs.FileType.File and i.base_name.endswith(suffix))

    def folders(self) -> list[str]:
        """Return the sorted names of the folders directly in this folder, none if it does not exist."""
        infos = self._list()
        return sorted(i.base_name for i in infos if i.type == pafs.FileType.Directory)

    def walk(self) -> list[str]:
        """Return the sorted paths, relative to this folder, of all files in it and below, none if it does not exist."""
        infos = self._list(recursive=True)
        paths = (i.path for i in infos if i.type == pafs.FileType.File and i.extension != "partial")
        return sorted(path.removeprefix(f"{self.path}/") for path in paths)

    def _list(self, *, recursive: bool = False) -> list[pafs.FileInfo]:
        selector = pafs.FileSelector(self.path, allow_not_found=True, recursive=recursive)
        try:
            return list(self._retry(lambda: self.filesystem.get_file_info(selector)))
        except NotADirectoryError:
            raise StorageError(f"{self}: is a file; name a folder") from None

    def parts(self) -> list[str]:
        """Return the sorted names of a table's parts, `part-00000.parquet` and so on."""
        return [n for n in self.names(suffix=".parquet") if n.startswith("part-")]

    def delete(self) -> None:
        """Remove the folder with everything in it; nothing happens if it does not exist."""
        if self.exists():
            self.filesystem.delete_dir(self.path)

    def delete_file(self, name: str) -> None:
        """Remove a file; nothing happens if it does not exist, or if another process removes it at the same time."""
        if self.exists(name):
            with suppress(FileNotFoundError):
                self.filesystem.delete_file(f"{self.path}/{name}")

    @contextmanager
    def writing(self, name: str, *, durable: bool = True) -> Iterator[pa.NativeFile]:
        """Open a binary stream whose content is published under `name` when the block ends without an error.

        Args:
            name: of the file; one of this name is replaced.
            durable: whether the content is on the medium of a file system before it is published.
        """
        if self.is_local:
            with self._writing_by_rename(name, durable) as stream:
                yield stream
            return
        with tempfile.SpooledTemporaryFile(_MEMORY_BYTES) as buffer:
            # If an error closes an object store's stream, the part that was written is published (pyarrow 25). So it is opened
            # when the content is complete.
            yield pa.PythonFile(buffer, mode="w")
            buffer.seek(0)
            stream = self.filesystem.open_output_stream(f"{self.path}/{name}", compression=None)
            while chunk := buffer.read(_CHUNK_BYTES):
                stream.write(chunk)
            stream.close()

    @contextmanager
    def _writing_by_rename(self, name: str, durable: bool) -> Iterator[pa.NativeFile]:
        target = f"{self.path}/{name}"
        parent = target.rsplit("/", 1)[0]
        self.filesystem.create_dir(parent, recursive=True)
        partial = f"{parent}/.{uuid.uuid4().hex}.partial"
        try:
            with self.filesystem.open_output_stream(partial, compression=None) as stream:
                yield stream
            if durable:
                _sync(partial)
            self.filesystem.move(partial, target)
        except BaseException:
            if self.filesystem.get_file_info(partial).type == pafs.FileType.File:
                self.filesystem.delete_file(partial)
            raise

    def sync(self, names: Iterable[str] = ("",)) -> None:
        """Bring the entries of folders to the medium of a file system: of this folder, or of folders relative to it.

        What was published in a folder before then survives a loss of power. Object stores do so at the end of an upload.
        """
        if self.is_local:
            for name in names:
                self._retry(partial(_sync, os.path.normpath(f"{self.path}/{name}")))

    def write_bytes(self, name: str, content: bytes | pa.Buffer, *, durable: bool = True) -> None:
        """Write a file; one of this name is replaced. For `durable`, see `writing`."""

        def write() -> None:
            with self.writing(name, durable=durable) as stream:
                stream.write(content)

        self._retry(write)

    def read_bytes(self, name: str) -> bytes:
        """Return the content of a file."""

        def read() -> bytes:
            with self.filesystem.open_input_file(f"{self.path}/{name}") as file:
                # With the size this is one request; a stream of unknown length makes one for each 64 KiB.
                return bytes(file.read(file.size()))

        return self._retry(read)

    def write_json(self, name: str, value: Any) -> None:
        """Write a value as JSON with sorted keys."""
        self.write_bytes(name, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())

    def read_json(self, name: str) -> Any:
        """Return the value in a JSON file. Raises DamageError if it holds none."""
        with self.parsing(name):
            return json.loads(self.read_bytes(name))

    def read_object(self, name: str) -> dict[str, Any]:
        """Return the object in a JSON file, as a dictionary. Raises DamageError if it holds none."""
        value = self.read_json(name)
        if not isinstance(value, dict):
            raise self.damage(name, f"is no JSON object but {type(value).__name__}")
        return value

    def parsing(self, name: str) -> AbstractContextManager[None]:
        """Return a context in which errors in making sense of the content of a file become DamageError."""
        return parsing(f"{self}/{name}", self.way_out(name))

    def damage(self, name: str, what: str) -> DamageError:
        """Return the error about a damaged file: its path, what is wrong, the way out."""
        return DamageError(f"{self}/{name}: {what}; {self.way_out(name)}")

    def way_out(self, name: str) -> str:
        """Return what to do about a damaged file."""
        return "restore it from a copy, or remove it"

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write a table as Parquet, compressed with zstd, with checksums of its pages."""
        self.write_bytes(name, encode_table(table))

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """Return a Parquet file as a table, with all columns or these. Raises DamageError if it is none, or lacks them."""
        path = f"{self.path}/{name}"
        options: dict[str, Any] = {"columns": columns, "page_checksum_verification": True}
        with self.parsing(name):
            return self._retry(lambda: pq.read_table(path, filesystem=self.filesystem, **options))

    def read_tables(self, names: Sequence[str], columns: list[str] | None = None) -> list[pa.Table]:
        """Return several tables in the order of `names`, read concurrently: a request to an object store takes about 30 ms."""
        if len(names) <= 1:
            return [self.read_table(name, columns) for name in names]
        with ThreadPoolExecutor(min(_READERS, len(names)), thread_name_prefix="read") as readers:
            return list(readers.map(lambda name: self.read_table(name, columns), names))

    def rows(self, name: str) -> int:
        """Return the number of rows of a Parquet file, read from its footer."""

        def read() -> int:
            with self.filesystem.open_input_file(f"{self.path}/{name}") as stream:
                return int(pq.ParquetFile(stream).metadata.num_rows)

        with self.parsing(name):
            return self._retry(read)

    def _retry(self, request: Callable[[], _T]) -> _T:
        """Make a request, and repeat it after transient errors.

        Raises:
            StorageError: the storage is full, refuses access, or does not answer after all attempts.
            OSError: another error, for example FileNotFoundError.
        """
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
                if not self._is_transient(error):
                    raise
                if (pause := next(pauses, None)) is None:
                    raise StorageError(
                        f"{self}: does not answer ({reason}); the same command continues when it does"
                    ) from error
                if pause == _LOGGED_PAUSE_S:
                    print(f"kplm: {self} does not answer ({reason}): trying again", file=sys.stderr, flush=True)
                time.sleep(pause)

    def _is_refusal(self, error: OSError) -> bool:
        return isinstance(error, PermissionError) or (
            not self.is_local and any(word in str(error) for word in _REFUSALS)
        )

    def _is_transient(self, error: OSError) -> bool:
        """Return whether a request may succeed when it is repeated.

        pyarrow says little about the kind of an object store's error, so each counts as transient unless it says that something
        does not exist.
        """
        if self.is_local:
            return error.errno in _TRANSIENT
        if isinstance(error, (FileNotFoundError, NotADirectoryError, IsADirectoryError)):
            return False
        return not any(word in str(error) for word in _UNREADABLE)


def _sync(path: str) -> None:
    """Bring a file's content, or a folder's entries, to the medium."""
    try:
        opened = os.open(path, os.O_RDONLY)
    except OSError as error:
        if error.errno in (*_UNSYNCED, errno.ENOENT):  # Windows opens no folders
            return
        raise
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in _UNSYNCED:
            raise
    finally:
        os.close(opened)


def copy_file(source: Folder, target: Folder, name: str) -> None:
    """Copy a file from one folder to another, possibly on another filesystem."""
    read = source.filesystem.open_input_stream(f"{source.path}/{name}", compression=None)
    with read as stream, target.writing(name) as out:
        while chunk := stream.read(_CHUNK_BYTES):
            out.write(chunk)
