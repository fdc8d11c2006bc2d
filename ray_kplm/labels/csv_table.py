"""Plain CSV, long (a line for each point) or wide (a line for each object), and what `kplm predict --to csv` writes."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ray_kplm.datasets.readers.tables import CsvRows, number_in
from ray_kplm.errors import DataError
from ray_kplm.labels.annotation_file import AnnotatedObject, AnnotationFile
from ray_kplm.storage.csv_cells import from_cell

_IMAGE = ("image", "image_id", "file_name", "filename", "file", "path")
_NAME = ("name", "landmark", "point", "keypoint", "bodypart", "label")
_OBJECT = ("object", "individual", "instance")
_NO, _YES = ("0", "0.0", "false", "no", "hidden"), ("1", "1.0", "2", "2.0", "true", "yes", "visible", "")
_LAYOUTS = "image,name,x,y[,visible] with a line for each point, or image,nose_x,nose_y,... with a line for each image"
_NUMBERED = re.compile(r"(.+)#(\d+)")
"""Ids of several objects in one image, as `kplm predict` writes them."""


class _Cells(NamedTuple):
    """A line of the file: its name for messages, its cells by lower-case heading, and the separator of the file."""

    name: str
    cells: dict[str, str]
    delimiter: str

    def number(self, column: str) -> float:
        return number_in(column, self.cells[column], self.delimiter)

    def flag(self, column: str) -> bool:
        text = self.cells.get(column, "").lower()
        if text not in (*_NO, *_YES):
            raise ValueError(f"column {column} holds {text[:40]!r}, which is neither true nor false")
        return text in _YES


def read(content: CsvRows, where: str) -> AnnotationFile:
    """Return the annotated objects of a CSV: pixels with pixel centres at integers.

    The heading decides. A column `object` tells several objects of an image apart; `visible` (`nose_visible`) says whether a
    point is visible or hidden, `v` (`nose_v`) also that it is missing, as COCO's. A point that `kplm predict` did not find
    (column `found`) is none. Empty cells and NaN are missing points.

    Args:
        content: The lines of the file.
        where: The file, for messages.

    Raises:
        DataError: The heading is neither of the two.
    """
    rows = iter(content.rows)
    written = next(rows, (0, [""]))[1]
    heading = [name.lower() for name in written]
    twice = sorted({name for name in heading if name and heading.count(name) > 1})
    if twice:
        raise DataError(f"{where}: column {twice[0]} stands twice in the heading; keep one of them")
    image = next((name for name in _IMAGE if name in heading), None)
    if image is None:
        raise DataError(f"{where}: has no column image, but {', '.join(heading)[:200]}; write {_LAYOUTS}")
    lines, faults = list[_Cells](), list[tuple[str, str]]()
    for number, cells in rows:
        while len(cells) > len(heading) and not cells[-1]:
            cells = cells[:-1]
        if len(cells) == len(heading):
            lines.append(_Cells(f"{where} line {number}", dict(zip(heading, cells, strict=True)), content.delimiter))
        else:
            faults.append((f"{where} line {number}", f"{len(cells)} cells where the heading has {len(heading)}"))
    name = next((name for name in _NAME if name in heading), None)
    is_long = name is not None and {"x", "y"} <= set(heading)
    file = _long(lines, image, name) if is_long and name else _wide(lines, image, written, where)
    file.rejected += faults
    file.notes += content.notes
    return file


def _long(lines: list[_Cells], image: str, name: str) -> AnnotationFile:
    file = AnnotationFile(())
    points: dict[tuple[str, str], dict[str, tuple[float, float, bool]]] = {}
    repeated: dict[tuple[str, str], str] = {}
    names: dict[str, None] = {}
    for line in lines:
        point = from_cell(line.cells[name])
        point = f"landmark_{int(point)}" if point.isdecimal() else point
        picture, number = _split(from_cell(line.cells[image]))
        number = next((line.cells[column] for column in _OBJECT if column in line.cells), number)
        if not point or not picture:
            file.rejected.append((line.name, f"the cell of {name if picture else image} is empty"))
            continue
        try:
            xy, flag = (line.number("x"), line.number("y")), _state(line, "")
        except ValueError as error:
            file.rejected.append((f"{picture}: {point}", str(error)))
            continue
        names[point] = None
        of_object = points.setdefault((picture, number), {})
        if point in of_object:
            repeated[picture, number] = point
        of_object[point] = (*(xy if flag is not None else (math.nan, math.nan)), bool(flag))
    file.names = _ordered(list(names))
    for (picture, number), of_object in points.items():
        if (picture, number) in repeated:
            reason = f"has several points named {repeated[picture, number]}; tell its objects apart by a column object"
            file.rejected.append((picture, reason))
            continue
        rows = np.array([of_object.get(point, (math.nan, math.nan, False)) for point in file.names], np.float64)
        file.objects.append(_annotated(picture, rows[:, :2], rows[:, 2] > 0))
    return file


def _wide(lines: list[_Cells], image: str, written: list[str], where: str) -> AnnotationFile:
    heading = [name.lower() for name in written]
    names = [name[:-2] for name in written if name.lower().endswith("_x")]
    lonely = [name for name in heading if name.endswith("_y") and f"{name[:-2]}_x" not in heading]
    lonely += [f"{name}_x" for name in names if f"{name.lower()}_y" not in heading]
    if lonely:
        raise DataError(f"{where}: column {lonely[0]} has no partner; a point has two, such as nose_x and nose_y")
    if not names:
        raise DataError(f"{where}: has the columns {', '.join(heading)[:200]}; write {_LAYOUTS}")
    file = AnnotationFile(tuple(names))
    for line in lines:
        picture, _ = _split(from_cell(line.cells[image]))
        if not picture:
            file.rejected.append((line.name, f"the cell of {image} is empty"))
            continue
        try:
            xy = np.array([[line.number(f"{name.lower()}_{axis}") for axis in "xy"] for name in names])
            states = [_state(line, f"{name.lower()}_") for name in names]
        except ValueError as error:
            file.rejected.append((picture, str(error)))
            continue
        xy[[state is None for state in states]] = np.nan
        file.objects.append(_annotated(picture, xy, np.array([bool(state) for state in states])))
    return file


def _state(line: _Cells, prefix: str) -> bool | None:
    """Return whether a point is visible; None if it is missing."""
    if f"{prefix}v" in line.cells:
        state = line.number(f"{prefix}v")
        if state not in (0, 1, 2):
            raise ValueError(f"column {prefix}v holds {line.cells[f'{prefix}v'][:40]!r}, which must be 0, 1 or 2")
        return None if state == 0 else state == 2
    if f"{prefix}found" in line.cells and not line.flag(f"{prefix}found"):
        return None
    return line.flag(f"{prefix}visible")


def _annotated(picture: str, xy: NDArray[np.float64], visible: NDArray[np.bool_]) -> AnnotatedObject:
    is_there = np.isfinite(xy).all(axis=1)
    xy[~is_there] = np.nan
    return AnnotatedObject(picture, xy, visible & is_there)


def _split(image_id: str) -> tuple[str, str]:
    """Return the image of an id and the number of the object in it, empty if the id has none."""
    match = _NUMBERED.fullmatch(image_id)
    return (match[1], match[2]) if match else (image_id, "")


def _ordered(names: list[str]) -> tuple[str, ...]:
    """Return names in their order; those of numbered landmarks by number."""
    numbers = [re.fullmatch(r"landmark_(\d+)", name) for name in names]
    if all(numbers):
        return tuple(sorted(names, key=lambda name: int(name.rpartition("_")[2])))
    return tuple(names)
