"""Reading of the rows of Parquet files, a few at a time, with every column as the type that the readers use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ray_kplm.datasets import columns as kinds
from ray_kplm.datasets.columns import Kind, check_column, is_number, read_column
from ray_kplm.errors import DataError
from ray_kplm.storage import Folder

KINDS: dict[str, Kind] = {
    "image_id": kinds.NAME,
    "image": kinds.PICTURE,
    "bbox": kinds.BOX,
    "landmarks": kinds.POINTS,
    "visible": kinds.FLAGS,
    "group": kinds.LABEL,
    "sequence": kinds.LABEL,
    "frame": kinds.WHOLE,
}
"""The columns with a meaning. Other numbers are attributes; other columns are not read."""
PATH = "image.path"
"""The path inside a struct of bytes and path."""
_BATCH = 64  # rows in memory while a part is read


class Row(NamedTuple):
    """An entry: one row of one file."""

    file: str
    number: int
    image_id: str | None = None
    """The name that the row is given where the file has no column image_id."""


class FileColumns(NamedTuple):
    """What a file has.

    Attributes:
        used: The columns that are read.
        has_ids: Whether there is a column image_id.
        has_paths: Whether pictures are structs with a path.
        whole_ids: Whether image_id is of whole numbers.
    """

    used: frozenset[str]
    has_ids: bool
    has_paths: bool
    whole_ids: bool


def file_columns(source: Folder, name: str) -> FileColumns:
    """Return the columns of a file.

    Raises:
        DataError: The file is no Parquet file, it has no pictures, or a column is of another type than its name says.
    """
    where = f"{source}/{name}"
    with open_parquet(source, name) as file, _damage(source, name):
        return _described(file.schema_arrow, where)


def _described(schema: pa.Schema, where: str) -> FileColumns:
    """Check the schema of a file, and return its columns."""
    if "image" not in schema.names:
        raise DataError(f"{where}: no column image; it has {', '.join(schema.names) or 'none'}")
    twice = [column for column in KINDS if schema.names.count(column) > 1]
    if twice:
        raise DataError(f"{where}: column {', '.join(twice)} stands twice; keep one of them")
    for column, kind in KINDS.items():
        if column in schema.names:
            check_column(schema.field(column), kind, where)
    picture = schema.field("image").type
    used = (
        f.name for f in schema if f.name in KINDS or (is_number(f.type) and not f.name.startswith("__index_level_"))
    )
    return FileColumns(
        frozenset(used),
        "image_id" in schema.names,
        pa.types.is_struct(picture) and picture.get_field_index("path") >= 0,
        "image_id" in schema.names and pa.types.is_integer(schema.field("image_id").type),
    )


def read_rows(source: Folder, rows: Sequence[Row], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield rows of Parquet files, with a few rows at a time in memory.

    A row group is decoded from its start up to the last wanted row, so reading is fastest if a row group has about the rows of
    one part.

    Args:
        source: Folder of the files.
        rows: Rows to read, ascending within a file.
        columns: Columns to read; those that a file lacks are left out.

    Raises:
        DataError: A file is damaged.
    """
    for name in dict.fromkeys(row.file for row in rows):
        wanted = np.array([row.number for row in rows if row.file == name])
        with open_parquet(source, name) as file, _damage(source, name):
            first = 0
            for group in range(file.num_row_groups):
                last = first + file.metadata.row_group(group).num_rows
                inside = wanted[np.searchsorted(wanted, first) : np.searchsorted(wanted, last)]
                for batch in _batches(file, columns, group) if len(inside) else ():
                    in_batch = inside[(inside >= first) & (inside < first + batch.num_rows)] - first
                    yield from _normal(batch, f"{source}/{name}").take(pa.array(in_batch)).to_pylist()
                    first += batch.num_rows
                    if first > inside[-1]:
                        break
                first = last


def iterate(source: Folder, name: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield all rows of a file; PATH among the columns is the path inside the pictures' structs.

    Raises:
        DataError: The file is damaged.
    """
    with open_parquet(source, name) as file, _damage(source, name):
        for group in range(file.num_row_groups):
            for batch in _batches(file, columns, group):
                yield from _normal(batch, f"{source}/{name}").to_pylist()


def read_points(source: Folder, names: Iterable[str]) -> Iterator[pa.Array]:
    """Yield the landmarks of files, batch by batch.

    Raises:
        DataError: A file is damaged.
    """
    for name in names:
        with open_parquet(source, name) as file, _damage(source, name):
            for group in range(file.num_row_groups):
                for batch in _batches(file, ("landmarks",), group):
                    yield _normal(batch, f"{source}/{name}").column("landmarks")


@contextmanager
def open_parquet(source: Folder, name: str) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file.

    Raises:
        DataError: It is none, is cut off or encrypted, or cannot be read.
    """
    with _damage(source, name):
        stream = source.filesystem.open_input_file(f"{source.path}/{name}")
        file = pq.ParquetFile(stream, buffer_size=1 << 20, pre_buffer=False)
    with file:
        yield file


@contextmanager
def _damage(source: Folder, name: str) -> Iterator[None]:
    """Turn the errors of pyarrow into one line."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split()).partition(". Detail")[0]
        if "Expected all lists to be of size" in reason:  # Arrow reads no nulls among lists of fixed size
            reason = "a column of lists of fixed size has a missing row; store it as lists of any size"
        raise DataError(f"{source}/{name}: not readable as Parquet: {reason}") from None


def _batches(file: pq.ParquetFile, columns: Sequence[str], group: int) -> Iterator[pa.RecordBatch]:
    """Yield a row group in batches, with those of the columns that the file has."""
    known = [column for column in columns if column.partition(".")[0] in file.schema_arrow.names]
    batches: Iterator[pa.RecordBatch] = file.iter_batches(_BATCH, row_groups=[group], columns=known, use_threads=False)
    return batches


def _normal(batch: pa.RecordBatch, where: str) -> pa.RecordBatch:
    """Return a batch with its columns as the types of KINDS, and attributes as numbers."""
    arrays = {}
    for field, column in zip(batch.schema, batch.columns, strict=True):
        if field.name == "image" and pa.types.is_struct(field.type) and field.type.get_field_index("bytes") < 0:
            paths = column.field("path")
            arrays[PATH] = read_column(pa.field(PATH, paths.type), paths, kinds.TEXT, where)
        else:
            kind = KINDS.get(field.name, kinds.NUMBER)
            arrays[field.name] = read_column(field, column, kind, where)
    return pa.RecordBatch.from_pydict(arrays)
