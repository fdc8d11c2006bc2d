"""Access to storage: a `Folder` on any filesystem that pyarrow opens (a local path, s3://, gs://, ...).

Every write is published atomically: on a file system by a rename, on an object store by the end of the upload, which begins
when the content is complete. So every file that can be read is complete. On a file system the content is on the medium before
it has its name, so that this holds after a loss of power too.

Requests to storage that does not answer are repeated for a minute, the retries of its own client included; see `LIMIT_S`. Full
storage is a `StorageError` at once. After either error the same command continues the run.

The endpoint and the credentials of an object store are read from the environment, under the names that its own tools use
(AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...). The endpoint may also stand in the URI,
`s3://bucket/key?endpoint_override=http://127.0.0.1:9000&scheme=http`; credentials there are refused.
"""

from __future__ import annotations

import atexit
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
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Any, Protocol, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs as pafs

from ray_kplm.errors import ConfigError, DamageError, DataError, StorageError
from ray_kplm.redaction import has_credentials, redact, way_out
from ray_kplm.storage.arrow_file import WindowedFile, decode_arrow, encode_arrow, read_arrow_footer
from ray_kplm.storage.file_content import encode_table, parsing
from ray_kplm.storage.time_limit import (
    TimeLimit,
    TimeLimitError,
    allow,
    check_wanted,
    end_in_spite_of_stuck_requests,
    is_within_request,
    watched,
)

_T = TypeVar("_T")
NO_SPACE = "no space is left; free some, and the same command continues with what is finished"
"""What an error says about full storage."""
LIMIT_S = 60.0
"""An object store answers within this time, retries included, or the request fails, seconds. It grows with the content, by what
that takes at `time_limit.SLOWEST_BYTES_S`."""
_NOTICE_S, _MOUNTED_NOTICE_S = 5.0, 30.0
"""After this time without an answer, of an object store or of a file system of this machine, a line is printed, seconds."""
_NOTICES_APART_S = 20.0
_SILENT = "does not answer within {:.0f} s; the same command continues when it does"
_MEMORY_BYTES = 64 * 2**20
"""Files for an object store that are larger than this are buffered on disk before they are uploaded."""
_CHUNK_BYTES = 16 * 2**20
_READERS = 16
"""Tables that are read concurrently."""
_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Pauses before a failed request is repeated, seconds."""
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_TOO_LARGE = (
    "a file grows beyond what the file system or `ulimit -f` allows; the same command continues with what is finished"
)
_REFUSALS = ("ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "EXPIRED_TOKEN")
"""Error codes of object stores for requests that would fail again."""
_TRANSIENT_NAMES = ("EIO", "ESTALE", "EAGAIN", "ETIMEDOUT", "ECONNRESET", "EREMOTEIO")
_TRANSIENT = tuple(getattr(errno, name) for name in _TRANSIENT_NAMES if hasattr(errno, name))
"""Error codes of a shared file system whose server does not answer. Not every system has all of them."""
_SYNC_FLAGS = os.O_RDWR if os.name == "nt" else os.O_RDONLY  # Windows syncs what is opened for writing
_UNSYNCED = (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM, errno.EISDIR)
"""Error codes of file systems that cannot flush a file or a folder to the medium."""
_UNREADABLE = ("CRC checksum", "thrift", "Parquet", "Unexpected end of stream", "decompress", "Corrupt", "page header")
"""Words of pyarrow's errors about the content of a Parquet file, which a repeated request would not change."""

# Here, after the import of pyarrow: exit functions run in reverse order.
atexit.register(end_in_spite_of_stuck_requests)


class Guard(Protocol):
    """Who owns a folder and those below: what is asked before each change of them. Picklable. See `locking.fence.Fence`."""

    @property
    def token(self) -> str:
        """What identifies the owner."""

    def check(self, change: str = "", path: str = "") -> None:
        """Raise RunError if the owner is not the owner any more.

        Args:
            change: `publish` a file, or `delete` a file or a folder.
            path: what is changed.
        """


@dataclass(frozen=True)
class Folder:
    """A folder on a filesystem. It need not exist; the object is cheap to make and picklable.

    Its methods raise StorageError if the storage is full, refuses access or does not answer, and FileNotFoundError for a file
    that does not exist.
    """

    filesystem: pafs.FileSystem
    path: str
    guard: Guard | None = field(default=None, compare=False, repr=False, kw_only=True)
    """Asked before each file that is published or deleted here and below; None: nobody owns the folder."""

    @classmethod
    def at(cls, uri: str | os.PathLike[str]) -> Folder:
        """Return the folder of a local path or of a URI (`s3://bucket/key`).

        Raises:
            DataError: the URI names no known kind of storage.
            ConfigError: the URI holds credentials.
        """
        text = os.fspath(uri)
        if "://" in text:
            if has_credentials(text):
                raise ConfigError(f"{text}: {way_out(text)}")
            filesystem, path = _open(text)
            return cls(filesystem, path.rstrip("/"))
        return cls(pafs.LocalFileSystem(), os.path.abspath(os.path.expanduser(text)).replace(os.sep, "/"))

    def __truediv__(self, name: str) -> Folder:
        return Folder(self.filesystem, f"{self.path}/{name}", guard=self.guard)

    def __str__(self) -> str:
        return self.path if self.is_local else f"{self.filesystem.type_name}://{self.path}"

    @property
    def is_local(self) -> bool:
        """Whether the folder is on a file system of this machine, which includes mounted network file systems."""
        return isinstance(self.filesystem, pafs.LocalFileSystem)

    @property
    def parent(self) -> Folder:
        """The folder that contains this one."""
        return Folder(self.filesystem, self.path.rsplit("/", 1)[0], guard=self.guard)

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

    def is_folder(self) -> bool:
        """Return whether this is a folder, and not a file, a pipe or a device."""
        return bool(self._info("").type == pafs.FileType.Directory)

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
            found = self._retry(lambda: self.filesystem.get_file_info(selector))
        except NotADirectoryError:
            raise StorageError(f"{self}: is a file; name a folder") from None
        return [info for info in found if _is_named_in_utf8(info)]

    def parts(self) -> list[str]:
        """Return the sorted names of a table's parts, `part-00000.parquet` and so on."""
        return [n for n in self.names(suffix=".parquet") if n.startswith("part-")]

    def delete(self) -> None:
        """Remove the folder with everything in it; nothing happens if it does not exist."""
        if self.exists():
            self._ask_guard("delete")
            self._retry(lambda: self.filesystem.delete_dir(self.path))

    def delete_file(self, name: str) -> None:
        """Remove a file; nothing happens if it does not exist, or if another process removes it at the same time."""
        if self.exists(name):
            self._ask_guard("delete", name)
            with suppress(FileNotFoundError):
                self._retry(lambda: self.filesystem.delete_file(f"{self.path}/{name}"))

    def _ask_guard(self, change: str, name: str = "") -> None:
        """Raise RunError if the folder's owner, who makes a change, is not the owner any more."""
        if self.guard is not None:
            self.guard.check(change, f"{self.path}/{name}" if name else self.path)

    @contextmanager
    def writing(self, name: str, *, durable: bool = True) -> Iterator[pa.NativeFile]:
        """Open a binary stream whose content is published under `name` when the block ends without an error.

        Args:
            name: of the file; one of this name is replaced.
            durable: whether the content is on the medium of a file system before it is published.

        Raises:
            StorageError: the storage is full.
        """
        with self._naming_full_storage():
            if self.is_local:
                with self._writing_by_rename(name, durable) as stream:
                    yield stream
            else:
                with self._writing_by_upload(name) as stream:
                    yield stream

    @contextmanager
    def _naming_full_storage(self) -> Iterator[None]:
        """Turn errors about full storage into StorageError; the block may read other files, whose errors stay as they are."""
        try:
            yield
        except OSError as error:
            if (what := about_space(error)) is None:
                raise
            where = self if self.is_local else f"{tempfile.gettempdir()}, which buffers what goes to {self}"
            raise StorageError(f"{where}: {what}") from error

    @contextmanager
    def _writing_by_upload(self, name: str) -> Iterator[pa.NativeFile]:
        with tempfile.SpooledTemporaryFile(_MEMORY_BYTES) as buffer:
            # If an error closes an object store's stream, the part that was written is published (pyarrow 25). So it is opened
            # when the content is complete.
            yield pa.PythonFile(buffer, mode="w")
            self._ask_guard("publish", name)
            self._retry(lambda: self._upload(name, buffer))

    def _upload(self, name: str, buffer: IO[bytes]) -> None:
        allow(buffer.seek(0, os.SEEK_END))
        buffer.seek(0)
        check_wanted()
        stream = self.filesystem.open_output_stream(f"{self.path}/{name}", compression=None)
        while chunk := buffer.read(_CHUNK_BYTES):
            stream.write(chunk)
        stream.close()

    @contextmanager
    def _writing_by_rename(self, name: str, durable: bool) -> Iterator[pa.NativeFile]:
        target = f"{self.path}/{name}"
        parent = target.rsplit("/", 1)[0]
        self._retry(lambda: self.filesystem.create_dir(parent, recursive=True))
        unfinished = f"{parent}/.{uuid.uuid4().hex}.partial"
        try:
            with self._retry(lambda: self.filesystem.open_output_stream(unfinished, compression=None)) as stream:
                yield stream
            if durable:
                _sync(unfinished)
            check_wanted()
            self._ask_guard("publish", name)
            self._retry(lambda: self.filesystem.move(unfinished, target))
        except BaseException:
            if self.filesystem.get_file_info(unfinished).type == pafs.FileType.File:
                self.filesystem.delete_file(unfinished)
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
                allow(file.size())
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

        def read() -> pa.Table:
            if not self.is_local:
                allow(self.size(name))
            options: dict[str, Any] = {"columns": columns, "page_checksum_verification": True}
            return pq.read_table(path, filesystem=self.filesystem, **options)

        with self.parsing(name):
            return self._retry(read)

    def read_tables(self, names: Sequence[str], columns: list[str] | None = None) -> list[pa.Table]:
        """Return several tables in the order of `names`, read concurrently: a request to an object store takes about 30 ms."""
        if len(names) <= 1:
            return [self.read_table(name, columns) for name in names]
        with ThreadPoolExecutor(min(_READERS, len(names)), thread_name_prefix="read") as readers:
            return list(readers.map(lambda name: self.read_table(name, columns), names))

    def write_arrow(self, name: str, table: pa.Table) -> None:
        """Write a table as an Arrow IPC file, not compressed, with checksums of its columns."""
        self.write_bytes(name, encode_arrow(table))

    def read_arrow(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Return an Arrow IPC file as a table, with all columns or these, of which alone it reads the bytes.

        A file of this machine is mapped into memory. Raises DamageError if it is none, lacks a column or is damaged.
        """

        def read() -> pa.Table:
            with self._open_arrow(name, columns) as file:
                self._check_footer(name, file.size(), read_arrow_footer(file))
                return decode_arrow(file, columns)

        with self.parsing(name):
            return self._retry(read)

    def _open_arrow(self, name: str, columns: Sequence[str] | None) -> pa.NativeFile:
        path = f"{self.path}/{name}"
        if self.is_local and os.name != "nt":  # Windows deletes no file that is mapped
            return pa.memory_map(path)
        file = self.filesystem.open_input_file(path)
        allow(file.size())
        if columns is None:
            return pa.BufferReader(file.read_at(file.size(), 0))
        return pa.PythonFile(WindowedFile(file), mode="r")

    def _check_footer(self, name: str, size: int, footer: bytes) -> None:
        """Raise DamageError if a file's size or footer is not that of its record; a plain folder has no records."""

    def rows(self, name: str) -> int:
        """Return the number of rows of a Parquet file, read from its footer."""

        def read() -> int:
            with self.filesystem.open_input_file(f"{self.path}/{name}") as stream:
                return int(pq.ParquetFile(stream).metadata.num_rows)

        with self.parsing(name):
            return self._retry(read)

    def _retry(self, request: Callable[[], _T]) -> _T:
        """Make a request, and repeat it after transient errors, all within the time limit.

        Raises:
            StorageError: the storage is full, refuses access, or does not answer within the limit.
            OSError: another error, for example FileNotFoundError.
        """
        if is_within_request():
            return request()
        limit = _time_limit(self)
        pauses = iter(_PAUSES_S)
        while True:
            try:
                return self._in_place(request) if self.is_local else limit.call(request)
            except TimeLimitError as error:
                raise StorageError(f"{self}: {_SILENT.format(limit.limit_s)}") from error
            except OSError as error:
                reason = " ".join(str(error).split())
                if (what := about_space(error)) is not None:
                    raise StorageError(f"{self}: {what}") from error
                if self._is_refusal(error):
                    raise StorageError(f"{self}: {reason}; check that it exists and who may use it") from error
                if not self._is_transient(error):
                    raise
                if (pause := next(pauses, None)) is None or pause >= limit.left_s:
                    raise StorageError(
                        f"{self}: does not answer ({reason}); the same command continues when it does"
                    ) from error
                limit.sleep(pause)

    def _in_place(self, request: Callable[[], _T]) -> _T:
        with watched(_MOUNTED_NOTICE_S, lambda: _say(f"{self} does not answer: waiting until its file system does")):
            return request()

    def _is_refusal(self, error: OSError) -> bool:
        refused = isinstance(error, PermissionError) or error.errno == errno.EROFS
        return refused or (not self.is_local and any(word in str(error) for word in _REFUSALS))

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


def _is_named_in_utf8(info: pafs.FileInfo) -> bool:
    """Return whether a file has a name that pyarrow decodes; none of ours has another one."""
    try:
        return bool(info.base_name)
    except UnicodeDecodeError:
        return False


def _open(uri: str) -> tuple[pafs.FileSystem, str]:
    """Return the filesystem of a URI, and the path in it. The store may be asked for the region of a bucket.

    Raises:
        DataError: it is no URI of a known kind.
        StorageError: the store does not answer, or refuses.
    """
    try:
        filesystem, path = _time_limit(uri).call(lambda: pafs.FileSystem.from_uri(uri))
    except pa.ArrowInvalid as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{uri}: no storage of this kind ({reason}); give a path, s3://bucket/key, gs://...") from None
    except TimeLimitError as error:
        raise StorageError(f"{uri}: {_SILENT.format(LIMIT_S)}") from error
    except OSError as error:
        reason = " ".join(str(error).split())
        raise StorageError(
            f"{uri}: cannot be opened ({reason}); check the bucket, its region and the network"
        ) from error
    return filesystem, path


def _time_limit(where: object) -> TimeLimit:
    return TimeLimit(LIMIT_S, _NOTICE_S, lambda: _say(f"{where} does not answer: waiting for up to {LIMIT_S:.0f} s"))


_last_said: list[float] = []


def _say(text: str) -> None:
    """Print a line, unless one was printed a moment ago: many requests may wait at a time."""
    now = time.monotonic()
    if not _last_said or now - _last_said[-1] > _NOTICES_APART_S:
        _last_said[:] = [now]
        print(redact(f"kplm: {text}"), file=sys.stderr, flush=True)


def about_space(error: OSError) -> str | None:
    """Return what to say about full storage, None for another error."""
    if error.errno in _FULL:
        return NO_SPACE
    return _TOO_LARGE if error.errno == errno.EFBIG else None


def _sync(path: str) -> None:
    """Bring a file's content, or a folder's entries, to the medium."""
    try:
        opened = os.open(path, _SYNC_FLAGS)
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

    def read(stream: pa.NativeFile) -> bytes:
        allow(_CHUNK_BYTES)
        return bytes(stream.read(_CHUNK_BYTES))

    opened = source._retry(lambda: source.filesystem.open_input_stream(f"{source.path}/{name}", compression=None))
    with opened as stream, target.writing(name) as out:
        while chunk := source._retry(lambda: read(stream)):
            out.write(chunk)
