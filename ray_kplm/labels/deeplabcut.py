"""DeepLabCut: `CollectedData_<scorer>.csv` or `.h5` of a video's labelled frames, of one animal or of several."""

from __future__ import annotations

import importlib
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ray_kplm.datasets.readers.tables import CsvRows, number_in
from ray_kplm.errors import DataError
from ray_kplm.extras import check_installed
from ray_kplm.labels.annotation_file import AnnotatedObject, AnnotationFile

_LEVELS = ("scorer", "individuals", "bodyparts", "coords")
_COORDINATES = ("x", "y", "likelihood")
_LEAST_LIKELIHOOD = 0.5
"""A predicted point of a lower likelihood is no label."""


def read(content: CsvRows, where: str) -> AnnotationFile:
    """Return the labelled animals of a CSV: pixels with pixel centres at integers, as DeepLabCut's labels are.

    Empty cells are points that are not labelled. Of predictions, points of a likelihood below 0.5 are not used.

    Args:
        content: The lines of the file.
        where: The file, for messages.

    Raises:
        DataError: Its header is not DeepLabCut's.
    """
    header: dict[str, list[str]] = {}
    rows = iter(content.rows)
    for _, cells in rows:
        level = cells[0].lower()
        header[level] = cells
        if level == "coords":
            break
    names = ", ".join(name or "an empty cell" for name in header)
    if not {"scorer", "bodyparts", "coords"} <= header.keys() <= set(_LEVELS):
        raise DataError(f"{where}: the first lines must be scorer, bodyparts and coords; they are {names[:200]}")
    wide = len(header["coords"])
    index = next((n for n in range(1, wide) if header["coords"][n].lower() in _COORDINATES), wide)
    columns = list(
        zip(
            header.get("individuals", [""] * wide)[index:],
            header["bodyparts"][index:],
            [name.lower() for name in header["coords"][index:]],
            strict=False,
        )
    )
    if len({len(cells) for cells in header.values()}) > 1 or not columns:
        raise DataError(f"{where}: the lines of its header have different numbers of cells; export it again")
    return _objects(columns, [(cells[:index], cells[index:], f"line {n}") for n, cells in rows], content, where)


def read_h5(content: bytes, where: str) -> AnnotationFile:
    """Return what `read` does, of the HDF5 file with the same table.

    Raises:
        ConfigError: pandas or tables is not installed.
        DataError: The file is none of DeepLabCut's.
    """
    check_installed("pandas", "tables")
    pandas: Any = importlib.import_module("pandas")
    with tempfile.TemporaryDirectory(prefix="ray_kplm-") as folder:
        path = Path(folder) / "labels.h5"
        path.write_bytes(content)
        try:
            table = pandas.read_hdf(path)
            levels = [str(name).lower() for name in table.columns.names]
            places = [levels.index(name) if name in levels else None for name in _LEVELS[1:]]
        except Exception as error:  # pandas and tables raise exceptions of many kinds
            raise DataError(f"{where}: no table of DeepLabCut ({' '.join(str(error).split())[:200]})") from None
    if places[1] is None or places[2] is None:
        raise DataError(
            f"{where}: its columns must have the levels bodyparts and coords; they have {', '.join(levels)}"
        )
    columns = [tuple("" if n is None else str(column[n]) for n in places) for column in table.columns]
    indices = [[str(part) for part in (row if isinstance(row, tuple) else (row,))] for row in table.index]
    values = [[str(value) for value in row] for row in table.to_numpy().tolist()]
    rows = [(index, cells, f"row {n}") for n, (index, cells) in enumerate(zip(indices, values, strict=True), start=1)]
    return _objects(columns, rows, CsvRows([], ",", []), where)


def _objects(
    columns: list[Any], rows: list[tuple[list[str], list[str], str]], content: CsvRows, where: str
) -> AnnotationFile:
    """Return the objects of rows: their index, their cells and what they are called.

    Args:
        columns: Individual, body part and coordinate of each column of cells.
        rows: The rows.
        content: The file, for its separator.
        where: The file, for messages.
    """
    if len(set(columns)) < len(columns):
        twice = next(column for column in columns if columns.count(column) > 1)
        raise DataError(f"{where}: the column {' '.join(filter(None, twice))} stands twice; keep one of them")
    names = tuple(dict.fromkeys(part for _, part, _ in columns))
    individuals = list(dict.fromkeys(individual for individual, _, _ in columns))
    file, empty = AnnotationFile(names, notes=list(content.notes)), 0
    for index, cells, row_name in rows:
        image = "/".join(part for part in index if part).replace("\\", "/")
        if image.isdecimal():
            raise DataError(f"{where}: its rows are frames of a video; name images, as labeled-data/video/img001.png")
        if not image or len(cells) != len(columns):
            said = f"{len(cells)} cells where the header has {len(columns)}" if image else "it names no image"
            if any(cells) or image:
                file.rejected.append((f"{where} {row_name}", said))
            continue
        try:
            values = [
                number_in(" ".join(filter(None, c)), cell, content.delimiter)
                for c, cell in zip(columns, cells, strict=True)
            ]
        except ValueError as error:
            file.rejected.append((image, str(error)))
            continue
        table = dict(zip(columns, values, strict=True))
        found = [one for name in individuals if (one := _object(image, table, name, names)) is not None]
        file.objects += found
        empty += not found
    if empty:
        file.notes.append(f"{empty} of {len(rows)} images have no labelled point: left out")
    return file


def _object(image: str, table: dict[Any, float], individual: str, names: tuple[str, ...]) -> AnnotatedObject | None:
    """Return an individual of an image; None if no point of it is labelled."""
    xy = np.array([[table.get((individual, name, axis), math.nan) for axis in "xy"] for name in names])
    likely = np.array([table.get((individual, name, "likelihood"), 1.0) for name in names])
    is_labelled = np.isfinite(xy).all(axis=1) & (likely >= _LEAST_LIKELIHOOD)
    xy[~is_labelled] = np.nan
    return AnnotatedObject(image, xy, is_labelled) if is_labelled.any() else None
