"""Parquet files of encoded images as a source, and tables of the user's own.

Columns: image_id, image (encoded bytes); optional bbox (x0, y0, x1, y1), landmarks (L x 2), visible, group, all in the image's
own pixels, and sequence and frame for images of videos; further numbers become attributes. The images are crops of objects
already: the source frame is the crop frame, and they are stored as they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ray_kplm import schemas
from ray_kplm.datasets import image_io
from ray_kplm.datasets.dataset import (
    ANNOTATION,
    IngestOptions,
    Listing,
    PartBuilder,
    PartTables,
    count_landmarks,
    split_of,
)
from ray_kplm.errors import DataError
from ray_kplm.imaging import coordinates
from ray_kplm.storage import Folder

_REQUIRED = ("image_id", "image")
_STRINGS, _BYTES = (pa.string(), pa.large_string()), (pa.binary(), pa.large_binary())
_BATCH = 64  # rows in memory while a part is read


class Row(NamedTuple):
    """An entry: one row of one file."""

    file: str
    number: int


@dataclass(frozen=True)
class ParquetReader:
    """Builds parts of a dataset from rows of Parquet files.

    Attributes:
        source: Folder of the files.
        landmarks: Annotated landmarks of each image; 0: none.
        options: How pictures are stored.
        columns: Columns to read.
    """

    source: Folder
    landmarks: int
    options: IngestOptions
    columns: tuple[str, ...]

    def read_part(self, entries: Sequence[Row]) -> PartTables:
        """Return the tables of a part; rows that cannot be used are rejected."""
        part = PartBuilder(self.landmarks)
        for row in read_rows(self.source, entries, self.columns):
            try:
                self._add(part, row)
            except DataError as error:
                part.reject(row["image_id"], str(error))
        return part.tables()

    def _add(self, part: PartBuilder, row: dict[str, Any]) -> None:
        """Add a row to the part, or raise DataError with the reason."""
        picture = image_io.decode_image_file(row["image"] or b"", self.options.limits)
        image_io.check_side(picture.rgb, self.options.min_side)
        box = None if row.get("bbox") is None else np.array(row["bbox"], dtype=np.float64)
        if box is not None and not (box.shape == (4,) and np.isfinite(box).all()):
            raise DataError("bad box: it must be four numbers x0, y0, x1, y1")
        stored = self._stored(picture)
        if self.options.input_size and box is not None:
            box = coordinates.apply(coordinates.invert(stored.to_source), box.reshape(2, 2)).ravel()
        size = image_io.full_window(picture.rgb)[2:]
        frame = frame_of(row.get("sequence"), row.get("frame"))
        part.add(row["image_id"], stored.content, stored.rgb, box, stored.to_source, row, frame, size)
        for note in picture.notes:
            part.note(row["image_id"], note)

    def _stored(self, picture: image_io.Picture) -> _Stored:
        """Return what is stored of a picture: all of it, as its file has it if that is possible."""
        if self.options.input_size:
            window = image_io.full_window(picture.rgb)
            view, to_source = image_io.network_input(picture.rgb, window, self.options.input_size)
            return _Stored(image_io.encode_png(view), view, to_source)
        content = picture.content if picture.plain else image_io.encode_jpeg(picture.rgb)
        return _Stored(content, picture.rgb, coordinates.translation(0, 0))


class _Stored(NamedTuple):
    """An encoded picture, its pixels, and the map of its points to the source frame."""

    content: bytes
    rgb: NDArray[np.uint8]
    to_source: coordinates.Affine


def list_parquet(source: Folder, files: dict[str, str | None], options: IngestOptions) -> Listing:
    """List Parquet files.

    Args:
        source: Their folder.
        files: The split of each file by its name; None: the split is drawn by `options.test_share`.
        options: How pictures are stored.

    Raises:
        DataError: A file is not of this layout, or the options name annotation files.
    """
    if options.boxes or options.landmarks or options.sequences:
        raise DataError(
            f"{source}: --boxes, --landmarks and --sequences are for a folder of images; here they are columns"
        )
    splits: dict[str, list[Row]] = {schemas.TRAIN: [], schemas.TEST: []}
    rejected: list[tuple[str, str]] = []
    seen: set[str] = set()
    identity = hashlib.sha256()
    columns = {name: _check_columns(source, name) for name in files}
    annotated = [name for name in files if "landmarks" in columns[name]]
    sequences = any({"sequence", "frame"} <= columns[name] for name in files)
    for name, split in files.items():
        rows = 0
        for row in _iterate(source, name, ("image_id", "group", "sequence")):
            image_id, where = row["image_id"], Row(name, rows)
            rows += 1
            if image_id is None or image_id in seen:
                reason = "no image_id" if image_id is None else "image_id repeated"
                rejected.append((image_id or f"{name} row {where.number}", reason))
                continue
            seen.add(image_id)
            splits[split or split_of(row.get("group") or row.get("sequence") or image_id, options)].append(where)
        identity.update(f"{name}\0{source.size(name)}\0{rows}\n".encode())
    landmarks = 0
    if annotated:
        landmarks = count_landmarks(str(source), _landmark_columns(source, annotated))
    used = tuple(sorted(set().union(*columns.values())))
    reader = ParquetReader(source, landmarks, options, used)
    meta = read_meta(source, landmarks)
    return Listing(splits, reader.read_part, identity.hexdigest(), meta, landmarks, sequences, rejected)


def frame_of(sequence: Any, frame: Any) -> tuple[str, int] | None:
    """Return a frame's sequence and its time there, if both are known."""
    return None if sequence is None or frame is None else (str(sequence), int(frame))


def _check_columns(source: Folder, name: str) -> set[str]:
    """Return the columns of a file that are used, or raise DataError if it is not of this layout."""
    with _open(source, name) as file:
        schema = file.schema_arrow
    missing = [column for column in _REQUIRED if column not in schema.names]
    if missing:
        raise DataError(f"{source}/{name}: no column {', '.join(missing)}; it has {', '.join(schema.names)}")
    for column, accepted in (("image_id", _STRINGS), ("image", _BYTES)):
        kind = schema.field(column).type
        if kind not in accepted:
            raise DataError(f"{source}/{name}: column {column} must be {accepted[0]}, is {kind}")
    if "frame" in schema.names and not pa.types.is_integer(schema.field("frame").type):
        raise DataError(f"{source}/{name}: column frame must be an integer, is {schema.field('frame').type}")
    return {field.name for field in schema if field.name in ANNOTATION or _is_number(field.type)}


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def read_meta(source: Folder, landmarks: int) -> dict[str, Any]:
    """Return the metadata from the source's own dataset.json, with defaults for what it lacks."""
    meta = source.read_json("dataset.json") if source.is_file("dataset.json") else {}
    names = meta.get("landmark_names") or [f"landmark_{i}" for i in range(landmarks)]
    if landmarks and len(names) != landmarks:
        raise DataError(f"{source}/dataset.json: {len(names)} landmark_names, but images have {landmarks} landmarks")
    return {
        "name": meta.get("name", source.name),
        "landmark_names": names,
        "swap_pairs": meta.get("swap_pairs", []),
        "nme": meta.get("nme", {}),
        "licence": meta.get("licence", ""),
    }


def read_user_table(uri: str, columns: dict[str, pa.DataType]) -> tuple[pa.Table, str]:
    """Read a CSV or Parquet file of the user, and a hash of its content.

    Args:
        uri: Path or URI of the file.
        columns: Columns that the file must have, with the types to cast them to.

    Raises:
        DataError: There is no such file, or a column is missing or of another type.
    """
    at = Folder.at(uri)
    folder, name = Folder(at.filesystem, at.path.rpartition("/")[0]), at.name
    if not folder.is_file(name):
        raise DataError(f"{uri}: no such file")
    content = folder.read_bytes(name)
    try:
        stream = pa.BufferReader(content)
        table = pacsv.read_csv(stream) if name.lower().endswith(".csv") else pq.read_table(stream)
        missing = [column for column in columns if column not in table.column_names]
        if missing:
            raise DataError(f"{uri}: no column {', '.join(missing)}; it has {', '.join(table.column_names)}")
        for column, kind in columns.items():
            position = table.column_names.index(column)
            table = table.set_column(position, column, table[column].cast(kind))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{uri}: {str(error).splitlines()[0]}") from None
    return table, hashlib.sha256(content).hexdigest()


def read_rows(source: Folder, rows: Sequence[Row], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield rows of Parquet files, with a few rows at a time in memory.

    A row group is decoded from its start up to the last wanted row, so reading is fastest if a row group has about the rows of
    one part.

    Args:
        source: Folder of the files.
        rows: Rows to read, ascending within a file.
        columns: Columns to read; those that a file lacks are left out.
    """
    for name in dict.fromkeys(row.file for row in rows):
        wanted = np.array([row.number for row in rows if row.file == name])
        with _open(source, name) as file:
            first = 0
            for group in range(file.num_row_groups):
                last = first + file.metadata.row_group(group).num_rows
                inside = wanted[np.searchsorted(wanted, first) : np.searchsorted(wanted, last)]
                for batch in _batches(file, columns, group) if len(inside) else ():
                    in_batch = inside[(inside >= first) & (inside < first + batch.num_rows)] - first
                    yield from batch.take(pa.array(in_batch)).to_pylist()
                    first += batch.num_rows
                    if first > inside[-1]:
                        break
                first = last


def _iterate(source: Folder, name: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield all rows of a file."""
    with _open(source, name) as file:
        for group in range(file.num_row_groups):
            for batch in _batches(file, columns, group):
                yield from batch.to_pylist()


def _landmark_columns(source: Folder, names: Iterable[str]) -> Iterator[pa.Array]:
    """Yield the landmarks of files, batch by batch."""
    for name in names:
        with _open(source, name) as file:
            for group in range(file.num_row_groups):
                for batch in _batches(file, ("landmarks",), group):
                    yield batch.column("landmarks")


def _batches(file: pq.ParquetFile, columns: Sequence[str], group: int) -> Iterator[pa.RecordBatch]:
    """Yield a row group in batches, with those of the columns that the file has."""
    known = [column for column in columns if column in file.schema_arrow.names]
    batches: Iterator[pa.RecordBatch] = file.iter_batches(_BATCH, row_groups=[group], columns=known, use_threads=False)
    return batches


def _open(source: Folder, name: str) -> pq.ParquetFile:
    """Open a Parquet file, or raise DataError if it is none."""
    try:
        stream = source.filesystem.open_input_file(f"{source.path}/{name}")
        return pq.ParquetFile(stream, buffer_size=1 << 20, pre_buffer=False)
    except pa.ArrowInvalid as error:
        raise DataError(f"{source}/{name}: {str(error).splitlines()[0]}") from None
