"""Tables as Arrow IPC files: not compressed, columns in the order in which they are read, with a checksum of each.

A file has one record batch. The CRC-32 of a column, of its type and its buffers, is in the schema's metadata, hence in the
footer, and is compared when the column is read. So the columns that are not wanted are neither read nor checked, and damage to
what is used is noticed.
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Mapping, Sequence

import pyarrow as pa

_CHECKSUMS = b"crc32"
"""Key of the checksums in the metadata, by column."""
_END = 10
"""Bytes at the end of a file: the length of the footer, int32, and a mark of six bytes."""
_MARK = b"ARROW1"
_WINDOW, _TAIL = 2**18, 2**14
"""Bytes that are asked of an object store at least, and at the end of a file: the buffers of small columns, which lie together,
and the footer come in one request each."""


def encode_arrow(table: pa.Table) -> pa.Buffer:
    """Return a table as an Arrow IPC file with checksums."""
    columns = [_packed(column) for column in table.columns]
    names, given = table.column_names, table.schema.metadata or {}
    checksums = {name: _checksum(name, column, given) for name, column in zip(names, columns, strict=True)}
    metadata = {**given, _CHECKSUMS: json.dumps(checksums).encode()}
    batch = pa.RecordBatch.from_arrays(columns, schema=table.schema.with_metadata(metadata))
    encoded = pa.BufferOutputStream()
    with pa.ipc.new_file(encoded, batch.schema) as writer:
        writer.write_batch(batch)
    return encoded.getvalue()


def _packed(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array whose buffers hold nothing else."""
    array = column.combine_chunks()
    return array.take(pa.array(range(len(array)), pa.int64())) if array.offset else array


def _checksum(name: str, column: pa.Array, metadata: Mapping[bytes, bytes]) -> int:
    """Return the CRC-32 of what gives a column its meaning, and of its buffers, one after the other."""
    found = zlib.crc32(repr((name, str(column.type), sorted(metadata.items()))).encode())
    for buffer in column.buffers():
        found = found if buffer is None else zlib.crc32(buffer, found)
    return found


def decode_arrow(source: pa.NativeFile | pa.Buffer, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the columns, by default all, of an Arrow IPC file. What is in memory or mapped is not copied.

    Raises:
        ValueError: A column is not there, or not as its checksum says.
        pa.ArrowException, OSError: It is no such file.
    """
    schema = pa.ipc.open_file(source).schema
    wanted = schema.names if columns is None else [name for name in schema.names if name in columns]
    if columns is not None and (lacking := sorted(set(columns) - set(wanted))):
        raise ValueError(f"it has no column {lacking[0]}")
    metadata = dict(schema.metadata or {})
    checksums = json.loads(metadata.pop(_CHECKSUMS, b"{}"))
    options = pa.ipc.IpcReadOptions(included_fields=[schema.names.index(name) for name in wanted])
    batch = pa.ipc.open_file(source, options=options).get_batch(0)
    for name, column in zip(wanted, batch.columns, strict=True):
        if _checksum(name, column, metadata) != checksums.get(name):
            raise ValueError(f"column {name} is not what was written")
        column.validate()
    return pa.Table.from_batches([batch]).replace_schema_metadata(metadata)


def read_arrow_footer(file: pa.NativeFile | WindowedFile) -> bytes:
    """Return the footer of an Arrow IPC file, with its length and the closing mark: what readers look at first.

    Raises:
        ValueError: It is no such file.
    """
    size = file.size()
    end = bytes(file.read_at(min(_END, size), max(size - _END, 0)))
    length = int.from_bytes(end[:4], "little") + _END
    if end[4:] != _MARK or length > size:
        raise ValueError("it does not end as an Arrow file")
    return bytes(file.read_at(length, size - length))


def arrow_footer(content: bytes | pa.Buffer) -> bytes:
    """Return the footer of an Arrow IPC file in memory: see `read_arrow_footer`. Nothing is checked."""
    view = memoryview(content)
    return bytes(view[-_END - int.from_bytes(view[-_END : -len(_MARK)], "little") :])


class WindowedFile(io.RawIOBase):
    """A file of an object store, of which each byte that is asked for is requested once, and small neighbours with it."""

    def __init__(self, file: pa.NativeFile) -> None:
        """Read nothing yet."""
        self._file, self._size, self._at = file, int(file.size()), 0
        self._start, self._window = 0, b""

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to an offset."""
        start: int = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        """Return the offset."""
        return self._at

    def size(self) -> int:
        """Return the number of bytes of the file."""
        return self._size

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        wanted = self._size - self._at if size < 0 else max(0, min(size, self._size - self._at))
        content = self.read_at(wanted, self._at)
        self._at += len(content)
        return content

    def read_at(self, size: int, offset: int) -> bytes:
        """Return bytes at an offset."""
        known = self._window[offset - self._start :][:size] if offset >= self._start else b""
        if len(known) == size:
            return known
        start = offset + len(known)
        # The footer is asked for in two pieces, from the end.
        first = start if self._window else max(0, min(start, self._size - _TAIL))
        fetched = bytes(
            self._file.read_at(max(start - first + size - len(known), min(_WINDOW, self._size - first)), first)
        )
        if len(fetched) > size:  # small neighbours; large columns are not kept
            self._start, self._window = first, fetched
        return known + fetched[start - first :][: size - len(known)]
