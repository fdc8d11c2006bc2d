"""Rows of a COCO file, checked one by one: a row that cannot be used is refused with its field."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ray_kplm.datasets.dataset import printable
from ray_kplm.datasets.ingest_source import Box
from ray_kplm.errors import DataError

_STATES = (0.0, 1.0, 2.0)
_SHOWN = 60  # characters of a value in a message


class RowError(DataError):
    """A row cannot be used. The message names the field; `kind` is the kind of reason."""

    def __init__(self, message: str, kind: str = "bad annotation") -> None:
        super().__init__(message)
        self.kind = kind


class ImageRow(NamedTuple):
    """A row of `images`. `size` is the width and height that the annotation is of, if known."""

    id: str
    file_name: str
    size: tuple[int, int] | None


class ObjectRow(NamedTuple):
    """A row of `annotations`: landmarks (L, 2), source frame, NaN where not labelled, and whether they are visible."""

    landmarks: NDArray[np.float64]
    visible: list[bool]
    box: Box


@dataclass(frozen=True)
class Categories:
    """The categories of a file.

    Attributes:
        known: Ids of all.
        with_keypoints: Ids of those with keypoints.
        names: The keypoints, which are the same in all of those.
    """

    known: frozenset[str]
    with_keypoints: frozenset[str]
    names: tuple[str, ...]


def row_id(value: Any) -> str | None:
    """Return an id as text, the same for 7, 7.0 and "7"; None if the value is no id."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, float):
        return str(int(value)) if math.isfinite(value) and value == int(value) else None
    if isinstance(value, int):
        return str(value)
    return value.strip() or None if isinstance(value, str) else None


def show(value: Any) -> str:
    """Return a value of a row for a message, on one line and not long."""
    text = " ".join(repr(value).split()) if value is not None else "null"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def rows_of(content: dict[str, Any], field: str, file: str) -> list[Any]:
    """Return the rows of `images`, `annotations` or `categories`.

    Raises:
        DataError: They are no list.
    """
    rows = content[field]
    if not isinstance(rows, list):
        kind = {dict: "an object", type(None): "null"}.get(type(rows), type(rows).__name__)
        raise DataError(
            f"{file}: {field} must be a list of objects with an id each, but is {kind}; export it as COCO does"
        )
    return rows


def read_image(row: Any) -> ImageRow:
    """Check a row of `images`, or raise RowError."""
    row = _object(row)
    identity = _id(row, "id")
    name = row.get("file_name")
    if not isinstance(name, str) or not name.strip():
        others = f"; it has {', '.join(sorted(map(str, row)))}" if name is None else ""
        raise RowError(f"file_name is {show(name) if 'file_name' in row else 'missing'}{others}")
    if printable(name) != name:
        raise RowError(f"file_name is {show(name)}, which is no text")
    return ImageRow(identity, name, _size(row))


def _size(row: dict[str, Any]) -> tuple[int, int] | None:
    """Return width and height of a row of `images`; None if it does not have both."""
    sides = []
    for field in ("width", "height"):
        value = row.get(field)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 1:
            return None
        sides.append(round(value))
    return sides[0], sides[1]


def read_object(row: dict[str, Any], count: int) -> ObjectRow | None:
    """Check the keypoints and the box of a row of `annotations`.

    Args:
        row: The row.
        count: Number of keypoints.

    Returns:
        The object; None if no keypoint is labelled.

    Raises:
        RowError: A field cannot be used.
    """
    points = read_keypoints(row, count)
    return None if points is None else ObjectRow(*points, _box(row))


def read_keypoints(row: dict[str, Any], count: int) -> tuple[NDArray[np.float64], list[bool]] | None:
    """Return points (L, 2), NaN where not labelled, and whether they are visible; None and errors as `read_object`."""
    if "keypoints" not in row:
        return None
    values = _numbers(row["keypoints"], "keypoints", "x, y, v of each keypoint in one list")
    if len(values) != 3 * count:
        raise RowError(f"keypoints has {len(values)} numbers, {count} keypoints need {3 * count}")
    points = np.asarray(values).reshape(count, 3)
    xy, states = points[:, :2].copy(), points[:, 2]
    if not np.isin(states, _STATES).all():
        odd = states[~np.isin(states, _STATES)][0]
        raise RowError(f"keypoints has v = {odd:g}, which must be 0, 1 or 2")
    if not states.any():
        return None
    if not np.isfinite(xy[states > 0]).all():
        raise RowError("keypoints has a labelled point that is no finite number")
    xy[states == 0] = np.nan
    return xy, (states == 2).tolist()


def read_box(row: dict[str, Any]) -> Box | None:
    """Return the box of a row of `annotations`; None if it has none, or one without area, as of a single point.

    Raises:
        RowError: It cannot be used.
    """
    if row.get("bbox") in (None, []):
        return None
    try:
        return _box(row)
    except RowError as error:
        if error.kind == "box without area":
            return None
        raise


def _box(row: dict[str, Any]) -> Box:
    """Return the box of a row of `annotations`, or raise RowError."""
    given = row.get("bbox")
    if given is None or given == []:
        raise RowError(f"bbox is {show(given) if 'bbox' in row else 'missing'}", "no box")
    values = _numbers(given, "bbox", "x, y, width, height")
    if len(values) != 4:
        raise RowError(f"bbox has {len(values)} numbers, it needs x, y, width, height", "bad box")
    x, y, width, height = values
    if not all(map(math.isfinite, values)):
        raise RowError(f"bbox is {show(given)}", "bad box")
    if width <= 0 or height <= 0:
        raise RowError(f"bbox is {show(given)}", "box without area")
    return x, y, x + width, y + height


def _numbers(values: Any, field: str, wanted: str) -> list[float]:
    """Return a list of numbers, or raise RowError."""
    kind = "bad box" if field == "bbox" else "bad annotation"
    if not isinstance(values, list):
        raise RowError(f"{field} is {show(values)}, it must be {wanted}", kind)
    try:
        if any(isinstance(value, (bool, str, list)) or value is None for value in values):
            raise TypeError
        return [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        raise RowError(f"{field} holds more than numbers, {show(values)}; it must be {wanted}", kind) from None


def _object(row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise RowError(f"it is no object but {show(row)}")
    return row


def _id(row: dict[str, Any], field: str) -> str:
    identity = row_id(row.get(field))
    if identity is None:
        raise RowError(f"{field} is {show(row[field]) if field in row else 'missing'}")
    return identity


def read_categories(rows: list[Any], file: str) -> tuple[Categories, list[tuple[str, str]]]:
    """Check the categories.

    Args:
        rows: The rows of `categories`.
        file: The file, for messages.

    Returns:
        The categories, and the rows that cannot be used with the reasons.

    Raises:
        DataError: Their keypoints differ, or there are none.
    """
    known, with_keypoints, lists, faults = set(), set(), dict[tuple[str, ...], str](), list[tuple[str, str]]()
    for number, row in enumerate(rows):
        try:
            names = _object(row).get("keypoints") or ()
            if not isinstance(names, (list, tuple)) or not all(isinstance(name, (str, int)) for name in names):
                raise RowError(f"keypoints is {show(names)}, it must be a list of names")
            if names:
                lists.setdefault(tuple(map(str, names)), f"{row.get('name', 'unnamed')} {len(names)}")
            identity = _id(row, "id")
        except RowError as error:
            faults.append((f"row {number} of categories", str(error)))
            continue
        known.add(identity)
        with_keypoints |= {identity} if names else set()
    if len(lists) != 1:
        which = f" ({', '.join(lists.values())} keypoints)" if lists else ""
        raise DataError(
            f"{file}: {len(lists)} lists of keypoints in its categories{which}; all that have keypoints must have the same: "
            "export one category alone"
        )
    return Categories(frozenset(known), frozenset(with_keypoints), *lists), faults


def named(row: Any, number: int, field: str) -> str:
    """Return what a row of images or annotations is called in messages: by its id, or by its place, from 0."""
    identity = row_id(row.get("id")) if isinstance(row, dict) else None
    return f"row {number} of {field}" if identity is None else f"{field[:-1]} {identity}"
