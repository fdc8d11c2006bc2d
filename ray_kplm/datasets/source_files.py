"""Listing and reading of the files of a source. One bad file or folder is named with the reason; it never ends the whole."""

from __future__ import annotations

import errno
import heapq
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import BinaryIO, NamedTuple, TypeVar

from pyarrow import fs as pafs

from ray_kplm.datasets import file_kinds
from ray_kplm.errors import DataError, StorageError
from ray_kplm.storage import Folder

_T = TypeVar("_T")
_READERS = 16
_PAUSES_S = (0.5, 1.0, 2.0)
"""Pauses before a folder of a server that does not answer is listed again, seconds."""
_TRANSIENT = (errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ETIMEDOUT)
_CHUNK_PATHS = 32
_SPECIAL = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


class SourceFile(NamedTuple):
    """A file below a source.

    Attributes:
        path: Below the source.
        size: In bytes.
        modified_ns: Time of the last change.
        inode: Device and number of the file, the same for all names of one file; None on an object store.
    """

    path: str
    size: int
    modified_ns: int
    inode: tuple[int, int] | None = None


class Fault(NamedTuple):
    """A file or folder that cannot be used. `path` is printable, and perhaps no path."""

    path: str
    reason: str
    is_folder: bool = False


class FileList(NamedTuple):
    """The files below a folder, sorted by path, without hidden ones, and what cannot be used."""

    files: list[SourceFile]
    faults: list[Fault]


def list_files(source: Folder, folder: str = "") -> FileList:
    """List the files at any depth below a folder of a source.

    A folder is listed once, however many links lead to it, so links to a folder above end. Hidden files do not exist.

    Args:
        source: The source.
        folder: A folder in it; empty: all of it. Paths are below the source in either case.

    Raises:
        DataError: The folder itself cannot be listed.
    """
    at = source / folder if folder else source
    files, faults = _list_local(at.path) if source.is_local else _list_remote(at)
    prefix = f"{folder}/" if folder else ""
    return FileList(
        sorted(file._replace(path=prefix + file.path) for file in files),
        sorted(fault._replace(path=prefix + fault.path) for fault in faults),
    )


def _list_remote(at: Folder) -> FileList:
    try:
        infos = at.filesystem.get_file_info(pafs.FileSelector(at.path, recursive=True))
    except OSError as error:
        raise DataError(f"{at}: cannot be listed: {_line(error)}") from None
    start = len(at.path.rstrip("/")) + 1
    files = [
        SourceFile(info.path[start:], info.size, info.mtime_ns) for info in infos if info.type == pafs.FileType.File
    ]
    return FileList([file for file in files if not file_kinds.is_hidden(file.path)], [])


def _list_local(root: str) -> FileList:
    """List by the names' bytes, as a name need not be UTF-8. Folders come before links to folders, so their own paths win."""
    top, files, faults = os.fsencode(root), list[SourceFile](), list[Fault]()
    seen = {_inode(os.stat(above)) for above in _above(top)}
    folders, links = deque([b""]), list[bytes]()
    while folders or links:
        folder = folders.popleft() if folders else heapq.heappop(links)
        try:
            entries = _again(lambda folder=folder: _entries(top, folder, seen))  # type: ignore[misc]
        except OSError as error:
            if not folder:
                raise DataError(f"{root}: cannot be listed: {_line(error)}") from None
            faults.append(Fault(_printable(folder), f"unreadable: {_why(error)}", is_folder=True))
            continue
        for entry in entries:
            path = folder + b"/" + entry.name if folder else entry.name
            try:
                found = entry.stat()
            except OSError as error:
                faults.append(Fault(_printable(path), f"unreadable: {_why(error, link=entry.is_symlink())}"))
                continue
            if stat.S_ISDIR(found.st_mode):
                if entry.is_symlink():
                    heapq.heappush(links, path)
                else:
                    folders.append(path)
            elif not stat.S_ISREG(found.st_mode):
                faults.append(Fault(_printable(path), f"not a file: {_SPECIAL.get(stat.S_IFMT(found.st_mode), '')}"))
            elif (name := _utf8(path)) is None:
                faults.append(Fault(_printable(path), "name is not UTF-8: rename it"))
            else:
                files.append(SourceFile(name, found.st_size, found.st_mtime_ns, _inode(found)))
    return FileList(files, faults)


def _above(path: bytes) -> Iterator[bytes]:
    """Yield the folders above a folder, by its real path."""
    path = os.path.realpath(path)
    while (parent := os.path.dirname(path)) != path:
        yield parent
        path = parent


def _entries(top: bytes, folder: bytes, seen: set[tuple[int, int]]) -> list[os.DirEntry[bytes]]:
    """Return what a folder holds, sorted, without hidden names; nothing if it was seen already."""
    at = os.path.join(top, folder) if folder else top
    key = _inode(os.stat(at))
    if key in seen:
        return []
    with os.scandir(at) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    seen.add(key)
    return [entry for entry in found if not file_kinds.is_hidden(os.fsdecode(entry.name))]


def _again(request: Callable[[], _T]) -> _T:
    """Make a request, a few times if the server of a shared file system does not answer."""
    for pause in _PAUSES_S:
        try:
            return request()
        except OSError as error:
            if error.errno not in _TRANSIENT:
                raise
        time.sleep(pause)
    return request()


def _inode(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _utf8(path: bytes) -> str | None:
    try:
        return path.decode()
    except UnicodeDecodeError:
        return None


def _printable(path: bytes) -> str:
    return path.decode("utf-8", errors="backslashreplace")


def _why(error: OSError, *, link: bool = False) -> str:
    if link and error.errno == errno.ENOENT:
        return "a link to nothing"
    if link and error.errno == errno.ELOOP:
        return "a link to itself"
    if error.errno == errno.ENOENT:
        return "deleted while the folder was listed"
    return _line(error).lower()


def _line(error: OSError) -> str:
    return " ".join((error.strerror or str(error)).split())


_DELETED = "unreadable: no such file, or deleted since the folder was listed"


def read_file(
    source: Folder, path: str, *, missing: str = _DELETED, check_size: Callable[[int], None] | None = None
) -> bytes:
    """Return the content of a file.

    Args:
        source: The source.
        path: Of the file, below it.
        missing: The reason, if there is no such file.
        check_size: Called with the size in bytes before the file is read; raises DataError for a file that is too large.

    Raises:
        DataError: This file cannot be read, and others can.
        StorageError: The storage does not answer.
    """
    try:
        if check_size is not None:
            check_size(source.size(path))
        return source.read_bytes(path)
    except FileNotFoundError:
        raise DataError(missing) from None
    except OSError as error:
        reason = _line(error).lower()
        raise DataError(f"unreadable: {'a folder' if 'is a directory' in reason else reason}") from None
    except StorageError as error:
        cause = error.__cause__
        if isinstance(cause, PermissionError):
            raise DataError("unreadable: permission denied") from None
        if isinstance(cause, OSError) and cause.errno == errno.EIO and source.is_local and os.path.isdir(source.path):
            raise DataError("unreadable: input/output error") from None  # a bad sector, as the folder answers
        raise


def open_file(source: Folder, path: str) -> BinaryIO:
    """Open a file; of a local disk in a way that takes a third of pyarrow's time."""
    at = f"{source.path}/{path}"
    return open(at, "rb", buffering=0) if source.is_local else source.filesystem.open_input_file(at)


def starts(source: Folder, paths: Iterable[str], size: int) -> Iterator[bytes]:
    """Yield the first `size` bytes of files, in their order; those of a file that cannot be read are b""."""

    def start(path: str) -> bytes:
        try:
            with open_file(source, path) as stream:
                return bytes(stream.read(size))
        except OSError:
            return b""

    yield from map_paths(start, paths)


def map_paths(function: Callable[[str], _T], paths: Iterable[str]) -> Iterator[_T]:
    """Yield a function's results in the order of the paths; a bounded number of them is there at a time."""
    with ThreadPoolExecutor(_READERS, thread_name_prefix="look") as pool:
        for chunks in _batches(_batches(paths, _CHUNK_PATHS), _READERS):
            for results in pool.map(lambda chunk: [function(path) for path in chunk], chunks):
                yield from results


def _batches(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
