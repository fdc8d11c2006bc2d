"""Columns of a user's table, whatever Arrow type holds them: text, numbers, points, boxes, flags, pictures.

Tools write the same values as many types: `string_view` (polars), dictionaries (categories of pandas), lists of fixed size,
structs (`datasets` of Hugging Face), decimals, tensors. `read_column` converts a column to the one type that the readers use.
A type that leaves a doubt is an error of one line, which names the file, the column, the type wanted and the type found.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ray_kplm.errors import DataError

POINTS_TYPE = pa.list_(pa.list_(pa.float64()))
"""(L, 2) of one row."""
_CASTABLE = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
_LISTS = (*_CASTABLE, pa.types.is_list_view, pa.types.is_large_list_view)
_CORNERS = (("x0", "y0", "x1", "y1"), ("xmin", "ymin", "xmax", "ymax"), ("left", "top", "right", "bottom"))
_SIZES = (("x", "y", "w", "h"), ("x", "y", "width", "height"))


class Kind(NamedTuple):
    """What a column holds.

    Attributes:
        wanted: The type in words, for errors.
        convert: Converts an array, or returns None if its type does not hold such values.
    """

    wanted: str
    convert: Callable[[pa.Array], pa.Array | None]


def read_column(field: pa.Field, column: pa.Array | pa.ChunkedArray, kind: Kind, where: str) -> pa.Array:
    """Return a column as the type of its kind.

    Args:
        field: Name and type of the column.
        column: Its values.
        kind: What it holds.
        where: The file, for errors.

    Raises:
        DataError: The column is of another type, or holds a value that is none of its kind.
    """
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    try:
        converted = kind.convert(_stored(field, values))
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{where}: column {field.name} must be {kind.wanted}, is {field.type} with a value that is none ({reason})"
        ) from None
    if converted is None:
        raise DataError(f"{where}: column {field.name} must be {kind.wanted}, is {field.type}")
    return converted


def check_column(field: pa.Field, kind: Kind, where: str) -> None:
    """Raise DataError if the type of a column does not hold values of a kind."""
    if isinstance(field.type, pa.BaseExtensionType):
        empty = pa.ExtensionArray.from_storage(field.type, pa.array([], field.type.storage_type))
    else:
        empty = pa.array([], field.type)
    read_column(field, empty, kind, where)


def is_number(kind: pa.DataType) -> bool:
    """Return whether values of an Arrow type are numbers, true and false not among them."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def is_text(kind: pa.DataType) -> bool:
    """Return whether values of an Arrow type are text, as dictionaries of text are."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
    return bool(binary or pa.types.is_fixed_size_binary(kind))


def _is_list(kind: pa.DataType) -> bool:
    return any(test(kind) for test in _LISTS)


def _stored(field: pa.Field, values: pa.Array) -> pa.Array:
    """Return the storage of an extension type; that of a tensor as nested lists of its shape."""
    shape = _tensor_shape(field)
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if len(shape) != 2 or not _is_list(values.type) or _is_list(values.type.value_type):
        return values
    rows, width = shape
    nested = [row and [row[i * width : (i + 1) * width] for i in range(rows)] for row in values.to_pylist()]
    return pa.array(nested, pa.list_(pa.list_(values.type.value_type)))


def _tensor_shape(field: pa.Field) -> tuple[int, ...]:
    """Return the shape of a tensor column, also of one whose extension is not registered; () for other columns."""
    shape = getattr(field.type, "shape", None)
    if shape is None and field.metadata and b"ARROW:extension:metadata" in field.metadata:
        try:
            described = json.loads(field.metadata[b"ARROW:extension:metadata"] or b"null")
        except ValueError:
            return ()
        shape = described.get("shape") if isinstance(described, dict) else described
    if not isinstance(shape, (list, tuple)) or not all(isinstance(side, int) for side in shape):
        return ()
    return tuple(shape)


def _text(values: pa.Array) -> pa.Array | None:
    """Text of any kind; the null type is text that is missing."""
    if pa.types.is_null(values.type) or pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        return _valid(values.cast(pa.string()))
    return pa.array(values.to_pylist(), pa.string()) if is_text(values.type) else None  # Arrow casts not all of these


def _valid(text: pa.StringArray) -> pa.StringArray:
    """Return text as UTF-8, which Arrow does not check when it reads; bytes that are none become escapes."""
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        raw = text.cast(pa.binary()).to_pylist()
        return pa.array([None if value is None else value.decode("utf-8", "backslashreplace") for value in raw])
    return text


def _name(values: pa.Array) -> pa.Array | None:
    """Text, or whole numbers as text."""
    return values.cast(pa.string()) if pa.types.is_integer(values.type) else _text(values)


def _label(values: pa.Array) -> pa.Array | None:
    """Values of any simple type as text: equal values are equal text, and only a missing value is null."""
    if pa.types.is_nested(values.type):
        return None
    plain = _text(values) if is_text(values.type) else values
    return pa.array([_spelled(value) for value in plain.to_pylist()], pa.string()) if plain is not None else None


def _spelled(value: Any) -> str | None:
    """Return a value as text. A whole float is the integer, as pandas makes floats of integers among missing values."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.hex()
    if isinstance(value, (float, Decimal)):
        if math.isnan(value):
            return None
        return str(int(value)) if math.isfinite(value) and value == int(value) else str(value)
    if isinstance(value, bool):
        return str(value).lower()
    return None if value is None else str(value)


def _whole(values: pa.Array) -> pa.Array | None:
    """Whole numbers; also floats without a fraction, NaN for missing ones."""
    if pa.types.is_null(values.type) or pa.types.is_integer(values.type):
        return values.cast(pa.int64())
    if not is_number(values.type):
        return None
    numbers = values.cast(pa.float64())
    return pc.if_else(pc.is_nan(numbers), None, numbers).cast(pa.int64())


def _number(values: pa.Array) -> pa.Array | None:
    """Numbers. Integers and floats stay as they are, so that attributes keep their values."""
    if pa.types.is_null(values.type) or pa.types.is_decimal(values.type) or values.type == pa.float16():
        return values.cast(pa.float64())
    return values if is_number(values.type) else None


def _coordinate(values: pa.Array) -> pa.Array | None:
    numbers = _number(values)
    return None if numbers is None else numbers.cast(pa.float64())


def _points(values: pa.Array) -> pa.Array | None:
    """Lists of lists of numbers, or lists of structs of x and y."""
    kind = values.type
    if pa.types.is_null(kind):
        return values.cast(POINTS_TYPE)
    if not _is_list(kind):
        return None
    inner = kind.value_type
    if pa.types.is_struct(inner) and {field.name for field in inner} == {"x", "y"}:
        return pa.array(
            [None if row is None else [_pair(point) for point in row] for row in values.to_pylist()], POINTS_TYPE
        )
    if pa.types.is_null(inner):
        return pa.array(values.to_pylist(), POINTS_TYPE)
    if not _is_list(inner) or not (is_number(inner.value_type) or pa.types.is_null(inner.value_type)):
        return None
    if any(test(kind) for test in _CASTABLE) and any(test(inner) for test in _CASTABLE):
        return values.cast(POINTS_TYPE)
    return pa.array(values.to_pylist(), POINTS_TYPE)  # Arrow's cast of nested views loses values


def _pair(point: dict[str, Any] | None) -> list[Any] | None:
    return None if point is None else [point["x"], point["y"]]


def _numbers(values: pa.Array) -> pa.Array | None:
    """Lists of numbers."""
    kind = values.type
    if pa.types.is_null(kind):
        return values.cast(pa.list_(pa.float64()))
    if not _is_list(kind) or not (is_number(kind.value_type) or pa.types.is_null(kind.value_type)):
        return None
    return pa.array(values.to_pylist(), pa.list_(pa.float64()))


def _box(values: pa.Array) -> pa.Array | None:
    """Lists of x0, y0, x1, y1, or structs whose names say what is what."""
    if not pa.types.is_struct(values.type):
        return _numbers(values)
    names = tuple(field.name for field in values.type)
    if not all(is_number(field.type) or pa.types.is_null(field.type) for field in values.type):
        return None
    corners = next((known for known in _CORNERS if set(known) == set(names)), None)
    sizes = next((known for known in _SIZES if set(known) == set(names)), None)
    if corners is None and sizes is None:
        return None
    rows = []
    for row in values.to_pylist():
        box = None if row is None else [math.nan if row[n] is None else float(row[n]) for n in corners or sizes or ()]
        if box is not None and corners is None:
            box = [box[0], box[1], box[0] + box[2], box[1] + box[3]]
        rows.append(box)
    return pa.array(rows, pa.list_(pa.float64()))


def _flags(values: pa.Array) -> pa.Array | None:
    """Lists of true and false, or of numbers: 0 is false, as COCO's v."""
    kind = values.type
    if pa.types.is_null(kind):
        return values.cast(pa.list_(pa.bool_()))
    if not _is_list(kind):
        return None
    inner = kind.value_type
    if not (pa.types.is_boolean(inner) or is_number(inner) or pa.types.is_null(inner)):
        return None
    rows = values.to_pylist()
    return pa.array([None if row is None else [bool(flag) for flag in row] for row in rows], pa.list_(pa.bool_()))


def _picture(values: pa.Array) -> pa.Array | None:
    """Encoded pictures as bytes, or as Hugging Face's struct of bytes and path."""
    kind = values.type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        return _picture(pc.struct_field(values, "bytes"))
    if pa.types.is_null(kind) or pa.types.is_binary(kind):
        return values.cast(pa.binary())
    if pa.types.is_dictionary(kind):
        return _picture(pa.array(values.to_pylist(), kind.value_type))
    return pa.array(values.to_pylist(), pa.binary()) if _is_bytes(kind) else None


TEXT = Kind("text", _text)
NAME = Kind("text or whole numbers", _name)
LABEL = Kind("text, a number, true or false, or a date", _label)
WHOLE = Kind("an integer", _whole)
NUMBER = Kind("a number", _number)
COORDINATE = Kind("a number", _coordinate)
POINTS = Kind("lists of pairs x, y", _points)
NUMBERS = Kind("lists of numbers", _numbers)
BOX = Kind("lists of four numbers x0, y0, x1, y1", _box)
FLAGS = Kind("lists of true and false, one for each landmark", _flags)
PICTURE = Kind("binary (encoded pictures) or a struct of bytes and path", _picture)


class PointShape(NamedTuple):
    """The shape of all annotated rows of a points column.

    Attributes:
        landmarks: L.
        transposed: Whether the rows are (2, L) in place of (L, 2).
        halves: Number of points with one coordinate, which are taken as not annotated.
    """

    landmarks: int
    transposed: bool
    halves: int = 0

    def lines(self, name: str) -> list[str]:
        """Return what a user is told of the points of a source, a line each."""
        lines = []
        if self.transposed:
            lines.append(f"{name}: landmarks are stored as 2 x {self.landmarks}: all x, then all y")
        if self.halves:
            lines.append(f"{name}: {self.halves} landmarks have one coordinate: they are taken as not annotated")
        return lines


def point_shape(name: str, columns: Iterable[pa.Array]) -> PointShape:
    """Return the shape of points, which must be the same in all annotated rows.

    Args:
        name: The source, for errors.
        columns: Slices of the column, list<list<double>>.

    Raises:
        DataError: The numbers of landmarks differ, or a landmark is no pair.
    """
    lengths: set[int] = set()
    widths: set[int] = set()
    halves = 0
    for column in columns:
        lengths.update(length for length in pc.unique(pc.list_value_length(column)).to_pylist() if length)
        inner = pc.unique(pc.list_value_length(pc.list_flatten(column))).to_pylist()
        widths.update(width for width in inner if width is not None)
        if widths == {2}:
            finite = np.isfinite(pc.list_flatten(pc.list_flatten(column)).to_numpy(zero_copy_only=False).reshape(-1, 2))
            halves += int((finite.sum(axis=1) == 1).sum())
    numbers = sorted(lengths)
    if len(numbers) != 1:
        raise DataError(f"{name}: every image must have the same number of landmarks, found {numbers or 'none'}")
    if widths == {2}:
        return PointShape(numbers[0], transposed=False, halves=halves)
    if numbers == [2] and len(widths) == 1 and (count := next(iter(widths))) > 3:
        return PointShape(count, transposed=True)
    found = " and ".join(f"{numbers[0]} x {width}" for width in sorted(widths)) or "nothing but nulls"
    raise DataError(
        f"{name}: every landmark must be a pair x, y, found {found}; NaN, NaN where it is not annotated, and whether it is "
        f"visible in a column visible"
    )


def points_array(row: Iterable[Any] | None, shape: PointShape) -> NDArray[np.float64] | None:
    """Return the points of one row, (L, 2); NaN where a point or a coordinate is missing. None: the row has no points."""
    lists = list(row or ())
    if not lists:
        return None
    width = shape.landmarks if shape.transposed else 2
    rows = [[math.nan] * width if values is None else values for values in lists]
    points = np.array(rows, dtype=np.float64)  # None becomes NaN
    return points.T if shape.transposed else points
