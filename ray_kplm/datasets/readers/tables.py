"""Tables of the user's own beside a folder of images: CSV as spreadsheets write it, or Parquet.

A CSV is read by its heading. Its cells are text until a column says that they are numbers, so that ids such as `007`, `1e5` or
`true` stay what they are. Rows that cannot be read are returned as faults, and the others are used.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ray_kplm.datasets.columns import COORDINATE, WHOLE, Kind, check_column, is_number, read_column
from ray_kplm.errors import DataError
from ray_kplm.storage import Folder

_PARQUET = b"PAR1"
_TEXT_ENDINGS = (".csv", ".tsv", ".txt", ".tab")
_DELIMITERS = (",", ";", "\t", "|")
_MISSING = frozenset({"", "na", "n/a", "nan", "none", "null", "-"})
"""Cells of a column of numbers that hold none, in lower case. In a column of text only an empty cell is missing."""
_SHOWN = 200
"""Characters of a heading that an error shows."""
_OTHER_KINDS = {
    b"PK\x03\x04": "an Excel or ZIP file; save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel file; save the sheet as CSV",
    b"\x1f\x8b": "compressed; unpack it",
    b"ARROW1": "an Arrow or Feather file; write it as Parquet",
    b"PARE": "an encrypted Parquet file; write it without encryption",
}


@dataclass(frozen=True)
class UserTable:
    """A table of the user's.

    Attributes:
        table: The columns that were asked for, and further numbers of a Parquet file.
        digest: Hash of the file's content.
        faults: (row or image, reason) of rows that are left out.
        notes: What was taken for granted, a line each.
    """

    table: pa.Table
    digest: str
    faults: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_user_table(uri: str, columns: Mapping[str, Kind], optional: Mapping[str, Kind] | None = None) -> UserTable:
    """Read a CSV or Parquet file of the user.

    Args:
        uri: Path or URI of the file.
        columns: Columns that the file must have.
        optional: Columns that it may have.

    Raises:
        DataError: There is no such file, it is of another kind, or a column is missing or of another type.
    """
    at = Folder.at(uri)
    folder, name = Folder(at.filesystem, at.path.rpartition("/")[0]), at.name
    if not folder.is_file(name):
        raise DataError(f"{uri}: no such file")
    content = folder.read_bytes(name)
    digest = hashlib.sha256(content).hexdigest()
    kinds = {**columns, **(optional or {})}
    if not content.strip():
        raise DataError(f"{uri}: is empty; it needs the columns {', '.join(columns)}")
    if content.startswith(_PARQUET):
        return UserTable(_read_parquet(uri, content, columns, kinds), digest)
    for magic, what in _OTHER_KINDS.items():
        if content.startswith(magic):
            raise DataError(f"{uri}: is {what}")
    if not name.lower().endswith(_TEXT_ENDINGS):
        raise DataError(f"{uri}: is no Parquet file; a table of text is named .csv or .tsv")
    return _read_text(uri, content, digest, columns, kinds)


def check_names(uri: str, names: Sequence[str], columns: Mapping[str, Kind]) -> None:
    """Raise DataError if a column that must be there is missing, or one that is read stands twice."""
    missing = [column for column in columns if column not in names]
    if missing:
        has = ", ".join(names)[:_SHOWN] or "none"
        raise DataError(f"{uri}: no column {', '.join(missing)}; it has {has if has.isprintable() else 'no text'}")
    twice = [column for column in columns if names.count(column) > 1]
    if twice:
        raise DataError(f"{uri}: column {', '.join(twice)} stands twice in the heading; keep one of them")


def _read_parquet(uri: str, content: bytes, columns: Mapping[str, Kind], kinds: Mapping[str, Kind]) -> pa.Table:
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        schema = file.schema_arrow
        check_names(uri, schema.names, columns)
        used = [f for f in schema if f.name in kinds or (is_number(f.type) and not f.name.startswith("__index_level_"))]
        for column in (f for f in used if f.name in kinds):
            check_column(column, kinds[column.name], uri)
        table = file.read([f.name for f in used])
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{uri}: {' '.join(str(error).split())}") from None
    arrays = {
        f.name: read_column(f, table[f.name], kinds[f.name], uri) if f.name in kinds else table[f.name] for f in used
    }
    return pa.table(arrays)


def _read_text(
    uri: str, content: bytes, digest: str, columns: Mapping[str, Kind], kinds: Mapping[str, Kind]
) -> UserTable:
    text, notes = _decoded(uri, content)
    delimiter, text = _delimiter(text)
    try:
        rows = _rows(text, delimiter)
        heading = [cell.strip() for cell in next(rows, (0, [""]))[1]]
        check_names(uri, heading, columns)
        places = {name: heading.index(name) for name in kinds if name in heading}
        faults: list[tuple[str, str]] = []
        kept, repeated = _cells(uri, rows, heading, places, faults)
    except csv.Error as error:
        raise DataError(f"{uri}: not readable as CSV ({error})") from None
    if repeated:
        notes.append(f"{uri}: the heading stands {repeated + 1} times; its repetitions are left out")
    table, unread = _typed(uri, kept, {name: kinds[name] for name in places}, delimiter)
    faults += unread
    if faults and not table.num_rows:
        raise DataError(f"{faults[0][0]}: {faults[0][1]}; no row can be read")
    return UserTable(table, digest, faults, notes)


class CsvRows(NamedTuple):
    """A CSV file as text.

    Attributes:
        rows: Number, from 1, and cells of each line that is not empty.
        delimiter: What separates cells.
        notes: What was taken for granted, a line each.
    """

    rows: list[tuple[int, list[str]]]
    delimiter: str
    notes: list[str]


def csv_rows(uri: str, content: bytes) -> CsvRows:
    """Return the lines of a CSV file as spreadsheets write it. Raises DataError if it is none."""
    for magic, what in {_PARQUET: "a Parquet file; write it as CSV", **_OTHER_KINDS}.items():
        if content.startswith(magic):
            raise DataError(f"{uri}: is {what}")
    text, notes = _decoded(uri, content)
    delimiter, text = _delimiter(text)
    try:
        return CsvRows(
            [(line, [cell.strip() for cell in cells]) for line, cells in _rows(text, delimiter)], delimiter, notes
        )
    except csv.Error as error:
        raise DataError(f"{uri}: not readable as CSV ({error})") from None


def number_in(name: str, cell: str, delimiter: str) -> float:
    """Return the number in a cell of a column `name`; NaN if it says that there is none. Raises ValueError for a text."""
    value = _value(name, cell, COORDINATE, delimiter)
    return math.nan if value is None else float(value)


def _decoded(uri: str, content: bytes) -> tuple[str, list[str]]:
    """Return the text of a file: by its byte order mark, as UTF-16 where every other byte is 0, as UTF-8, or as Latin-1."""
    start = content[:200]
    encoding = "utf-8-sig"
    if content.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        encoding = "utf-32"
    elif content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif start[1::2].count(0) > len(start) // 4:
        encoding = "utf-16-le"
    elif start[0::2].count(0) > len(start) // 4:
        encoding = "utf-16-be"
    try:
        return content.decode(encoding), []
    except UnicodeDecodeError as error:
        if encoding != "utf-8-sig":
            raise DataError(f"{uri}: is cut off or no text ({error.reason}); save it as UTF-8") from None
    return content.decode("cp1252", errors="replace"), [f"{uri}: is no UTF-8; it is read as Latin-1 (Windows-1252)"]


def _delimiter(text: str) -> tuple[str, str]:
    """Return what separates cells, and the text from its heading on. Excel's first line `sep=;` says it."""
    said = re.match(r"\s*sep=(.)\r?\n", text)
    if said:
        return said[1], text[said.end() :]
    heading = next((line for line in text.splitlines() if line.strip()), "")
    unquoted = re.sub(r'"[^"]*"', "", heading)
    return max(_DELIMITERS, key=unquoted.count), text


def _rows(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the lines that are not empty, with their numbers from 1 on. Quoted cells may hold line ends."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    for cells in reader:
        if any(cell.strip() for cell in cells):
            yield reader.line_num, cells


def _cells(
    uri: str,
    rows: Iterator[tuple[int, list[str]]],
    heading: list[str],
    places: Mapping[str, int],
    faults: list[tuple[str, str]],
) -> tuple[list[tuple[int, dict[str, str]]], int]:
    """Return line and cells of the rows, and how often the heading is repeated; rows of another length are faults."""
    kept, repeated = [], 0
    for line, row in rows:
        cells = [cell.strip() for cell in row]
        if cells == heading:
            repeated += 1
            continue
        while len(cells) > len(heading) and not cells[-1]:  # separators at the end of a line
            cells.pop()
        if len(cells) != len(heading):
            faults.append((f"{uri} line {line}", f"bad row: {len(cells)} cells where the heading has {len(heading)}"))
            continue
        kept.append((line, {name: cells[place] for name, place in places.items()}))
    return kept, repeated


def _typed(
    uri: str, rows: list[tuple[int, dict[str, str]]], kinds: Mapping[str, Kind], delimiter: str
) -> tuple[pa.Table, list[tuple[str, str]]]:
    """Return the rows as columns of their kinds, and the rows with a cell that is no number as faults."""
    values: dict[str, list[Any]] = {name: [] for name in kinds}
    faults = []
    for line, cells in rows:
        try:
            read = {name: _value(name, cell, kinds[name], delimiter) for name, cell in cells.items()}
        except ValueError as error:
            faults.append((f"{uri} line {line}", f"bad row: {error}"))
            continue
        for name, value in read.items():
            values[name].append(value)
    arrays = {}
    for name, kind in kinds.items():
        column = pa.array(values[name], {COORDINATE: pa.float64(), WHOLE: pa.int64()}.get(kind, pa.string()))
        arrays[name] = read_column(pa.field(name, column.type), column, kind, uri)
    return pa.table(arrays), faults


def _value(name: str, cell: str, kind: Kind, delimiter: str) -> str | float | int | None:
    """Return a cell as a value of its column, or raise ValueError."""
    if kind not in (COORDINATE, WHOLE):
        return cell or None
    if cell.lower() in _MISSING:
        return None
    plain = cell.replace(",", ".") if delimiter != "," and re.fullmatch(r"[-+]?\d+,\d+", cell) else cell
    try:
        number = float(plain)
        if kind is COORDINATE:
            return number
        if number == int(number) and abs(number) < 2**63:
            return int(plain) if re.fullmatch(r"[-+]?\d+", plain) else int(number)
    except (ValueError, OverflowError):
        pass
    wanted = "number" if kind is COORDINATE else "whole number"
    raise ValueError(f"column {name} holds {cell[:40]!r}, which is no {wanted}")
