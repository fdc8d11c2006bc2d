"""Parquet files of encoded images as a source.

Columns: image (encoded bytes, or a struct of bytes and path); optional image_id, bbox (x0, y0, x1, y1), landmarks (L x 2),
visible, group, all in the image's own pixels, and sequence and frame for images of videos; further numbers become attributes.
`datasets.columns` has the types that they may have. The images are crops of objects already: the source frame is the crop
frame, and they are stored as they are.

Without a column image_id an image is called as its struct's path says, if all paths differ; else `row-000012` by its place in
its file, with the file's name before it if there are several.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ray_kplm import schemas
from ray_kplm.datasets import image_io
from ray_kplm.datasets.columns import PointShape, point_shape, points_array
from ray_kplm.datasets.dataset import IngestOptions, Listing, PartBuilder, PartTables, split_of
from ray_kplm.datasets.description import NAME, landmark_description, read_description
from ray_kplm.datasets.readers.parquet_files import (
    PATH,
    FileColumns,
    Row,
    file_columns,
    iterate,
    read_points,
    read_rows,
)
from ray_kplm.errors import DataError
from ray_kplm.imaging import coordinates
from ray_kplm.storage import Folder


@dataclass(frozen=True)
class ParquetReader:
    """Builds parts of a dataset from rows of Parquet files.

    Attributes:
        source: Folder of the files.
        points: Shape of each image's annotated landmarks; None: none.
        options: How pictures are stored.
        columns: Columns to read.
    """

    source: Folder
    points: PointShape | None
    options: IngestOptions
    columns: tuple[str, ...]

    def read_part(self, entries: Sequence[Row]) -> PartTables:
        """Return the tables of a part; rows that cannot be used are rejected."""
        part = PartBuilder(self.points.landmarks if self.points else 0)
        for entry, row in zip(entries, read_rows(self.source, entries, self.columns), strict=True):
            image_id = row["image_id"] if entry.image_id is None else entry.image_id
            try:
                self._add(part, image_id, row)
            except DataError as error:
                part.reject(image_id, str(error))
        return part.tables()

    def _add(self, part: PartBuilder, image_id: str, row: dict[str, Any]) -> None:
        """Add a row to the part, or raise DataError with the reason."""
        content = row["image"]
        if content is None:
            raise DataError("empty file: no bytes; a path alone is not read")
        picture = image_io.decode_image_file(content, self.options.limits)
        image_io.check_side(picture.rgb, self.options.min_side)
        box = None if row.get("bbox") is None else np.array(row["bbox"], dtype=np.float64)
        if box is not None and not (box.shape == (4,) and np.isfinite(box).all()):
            raise DataError("bad box: it must be four numbers x0, y0, x1, y1")
        annotation = {**row, "landmarks": points_array(row.get("landmarks"), self.points)} if self.points else row
        stored = self._stored(picture)
        if self.options.input_size and box is not None:
            box = coordinates.apply(coordinates.invert(stored.to_source), box.reshape(2, 2)).ravel()
        size = image_io.full_window(picture.rgb)[2:]
        frame = frame_of(row.get("sequence"), row.get("frame"))
        part.add(image_id, stored.content, stored.rgb, box, stored.to_source, annotation, frame, size)
        for note in picture.notes:
            part.note(image_id, note)

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


@dataclass
class _Rows:
    """The rows of all files as they are listed."""

    options: IngestOptions
    splits: dict[str, list[Row]] = field(default_factory=lambda: {schemas.TRAIN: [], schemas.TEST: []})
    rejected: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    groups: dict[str, str | None] = field(default_factory=dict)
    """Split of each group; None: it is in both."""

    def add(self, where: Row, row: Mapping[str, Any], made: str | None, split: str | None) -> None:
        """Add a row, called `made` if its file has no ids, to the split of its file, or to one that is drawn."""
        image_id = row.get("image_id") if made is None else made
        if not image_id or image_id in self.seen:
            reason = "image_id repeated" if image_id else "no image_id"
            self.rejected.append((image_id or f"{where.file} row {where.number}", reason))
            return
        self.seen.add(image_id)
        group = first_known(row.get("group"), row.get("sequence"))
        chosen = split or split_of(first_known(group, image_id) or "", self.options)
        if group is not None and self.groups.setdefault(group, chosen) != chosen:
            self.groups[group] = None
        self.splits[chosen].append(where._replace(image_id=made))


def list_parquet(
    source: Folder, files: Mapping[str, str | None], options: IngestOptions, notes: Sequence[str] = ()
) -> Listing:
    """List Parquet files.

    Args:
        source: Their folder.
        files: The split of each file by its path; None: the split is drawn by `options.test_share`.
        options: How pictures are stored.
        notes: What was said of the choice of the files.

    Raises:
        DataError: A file is not of this layout, or the options name annotation files.
    """
    if options.boxes or options.landmarks or options.sequences:
        raise DataError(
            f"{source}: --boxes, --landmarks and --sequences are for a folder of images; here they are columns"
        )
    rows = _Rows(options, notes=list(notes))
    columns = _columns(source, files, rows)
    identity = hashlib.sha256()
    made = _made_ids(source, columns, rows.notes)
    for name, has in columns.items():
        number = 0
        ids = ("image_id", "group", "sequence") if has.has_ids else ("group", "sequence", _cheapest(has))
        for row in iterate(source, name, ids):
            rows.add(Row(name, number), row, None if has.has_ids else made.of(name, number, row), files[name])
            number += 1
        identity.update(f"{name}\0{source.size(name)}\0{number}\n".encode())
    torn = [group for group, split in rows.groups.items() if split is None]
    if torn:
        rows.notes.append(f"{len(torn)} groups are in train and test, as their files say, e.g. {torn[0]!r}")
    annotated = [name for name, has in columns.items() if "landmarks" in has.used]
    points = point_shape(str(source), read_points(source, annotated)) if annotated else None
    rows.notes += points.lines(annotated[0]) if points else []
    used = tuple(sorted({"image_id", "image"}.union(*(has.used for has in columns.values()))))
    landmarks = points.landmarks if points else 0
    reader = ParquetReader(source, points, options, used)
    meta = landmark_description(read_description(source), landmarks, f"{source}/{NAME}", source.name)
    sequences = any({"sequence", "frame"} <= has.used for has in columns.values())
    return Listing(
        rows.splits,
        reader.read_part,
        identity.hexdigest(),
        meta,
        landmarks,
        sequences,
        rows.rejected,
        notes=tuple(rows.notes),
    )


def frame_of(sequence: Any, frame: Any) -> tuple[str, int] | None:
    """Return a frame's sequence and its time there, if both are known."""
    return None if sequence is None or frame is None else (str(sequence), int(frame))


def first_known(*values: str | None) -> str | None:
    """Return the first value that is not None: a group that is called 0 or "" is a group."""
    return next((value for value in values if value is not None), None)


def _columns(source: Folder, files: Mapping[str, str | None], rows: _Rows) -> dict[str, FileColumns]:
    """Return the columns of the files. Of several files, one that cannot be read is rejected."""
    columns, faults = {}, []
    for name in files:
        try:
            columns[name] = file_columns(source, name)
        except DataError as error:
            if "not readable" not in str(error) or len(files) == 1:
                raise
            faults.append(error)
            rows.rejected.append((name, f"unreadable: {str(error).removeprefix(f'{source}/{name}: ')}"))
    if not columns:
        raise faults[0]
    whole = [name for name, has in columns.items() if has.whole_ids]
    if whole:
        rows.notes.append(f"image_id is of whole numbers in {whole[0]}: they are read as text")
    return columns


def _cheapest(has: FileColumns) -> str:
    """Return a column by which rows are counted where there may be no group and no ids."""
    return PATH if has.has_paths else min(has.used - {"image"}, default="image")


@dataclass(frozen=True)
class _MadeIds:
    """Names of images in files without a column image_id."""

    by_path: bool
    several: bool

    def of(self, name: str, number: int, row: Mapping[str, Any]) -> str:
        """Return the name of a row."""
        if self.by_path:
            return str(row[PATH])
        place = f"row-{number:06d}"
        return f"{name.removesuffix('.parquet')}/{place}" if self.several else place


def _made_ids(source: Folder, columns: Mapping[str, FileColumns], notes: list[str]) -> _MadeIds:
    """Decide how images without ids are called: by their paths if all have one and all differ, else by their rows."""
    without = [name for name, has in columns.items() if not has.has_ids]
    by_path = bool(without) and all(columns[name].has_paths for name in without) and _differ(source, without)
    if without:
        how = "the paths of their pictures" if by_path else "their rows, as row-000000"
        notes.append(f"{without[0]} has no column image_id: images are called by {how}")
    return _MadeIds(by_path, len(columns) > 1)


def _differ(source: Folder, names: Sequence[str]) -> bool:
    seen: set[str] = set()
    for path in _paths(source, names):
        if not path or path in seen:
            return False
        seen.add(path)
    return True


def _paths(source: Folder, names: Sequence[str]) -> Iterator[str | None]:
    for name in names:
        for row in iterate(source, name, (PATH,)):
            yield row[PATH]
