"""Columns of any Arrow type become the type that the readers use, or an error that names file, column and type."""

from __future__ import annotations

import datetime
import io
import math
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ray_kplm.datasets import columns as kinds
from ray_kplm.datasets.columns import PointShape, check_column, point_shape, points_array, read_column
from ray_kplm.errors import DataError

NAN = float("nan")


def stored(array) -> tuple[pa.Field, pa.Array]:
    """The field and the values of a column that was written to a Parquet file and read again."""
    stream = io.BytesIO()
    pq.write_table(pa.table({"c": array}), stream)
    table = pq.read_table(io.BytesIO(stream.getvalue()))
    return table.schema.field("c"), table["c"]


def read(array, kind) -> list:
    field, column = stored(array)
    check_column(field, kind, "f.parquet")
    return read_column(field, column, kind, "f.parquet").to_pylist()


def tensor(rows) -> pa.Array:
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.array(rows))


POINTS = [[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]]
NESTED = [
    pa.list_(pa.list_(pa.float32())),
    pa.large_list(pa.large_list(pa.int8())),
    pa.list_(pa.list_(pa.float64(), 2), 2),
    pa.list_(pa.list_(pa.int32(), 2)),
    pa.list_view(pa.list_view(pa.uint64())),
    pa.large_list_view(pa.list_(pa.float32())),
    pa.list_(pa.large_list_view(pa.float64())),
]


@pytest.mark.parametrize("kind", NESTED, ids=str)
def test_points_of_any_lists_are_pairs(kind):
    assert read(pa.array([*POINTS], kind), kinds.POINTS) == POINTS
    if not pa.types.is_fixed_size_list(kind):
        assert read(pa.array([POINTS[0], None, []], kind), kinds.POINTS) == [POINTS[0], None, []]


@pytest.mark.parametrize(
    "array",
    [
        tensor(POINTS),
        pa.array([[{"x": x, "y": y} for x, y in row] for row in POINTS]),
        pa.array([[{"y": y, "x": x} for x, y in row] for row in POINTS]),
        pa.array([[[Decimal(int(v)) for v in point] for point in row] for row in POINTS]),
        pa.array([[[np.float16(v) for v in point] for point in row] for row in POINTS]),
    ],
    ids=["tensor", "structs", "structs of y and x", "decimals", "half floats"],
)
def test_points_of_other_types_are_pairs(array):
    assert read(array, kinds.POINTS) == POINTS


def test_a_tensor_whose_extension_is_not_known_is_read_by_its_shape():
    flat = pa.array([[1.0, 2.0, 3.0, 4.0], None], pa.list_(pa.float64()))
    for shape in (b"[2, 2]", b'{"shape": [2, 2]}'):
        field = pa.field("c", flat.type, metadata={b"ARROW:extension:metadata": shape})
        assert read_column(field, flat, kinds.POINTS, "f").to_pylist() == [POINTS[0], None]
    with pytest.raises(DataError, match="must be lists of pairs"):
        read_column(pa.field("c", flat.type, metadata={b"ARROW:extension:metadata": b"?"}), flat, kinds.POINTS, "f")


@pytest.mark.parametrize(
    ("array", "kind", "values"),
    [
        (pa.array(["0", None], pa.string_view()), kinds.NAME, ["0", None]),
        (pa.array(["a", None, "a"]).dictionary_encode(), kinds.NAME, ["a", None, "a"]),
        (pa.array(["a"], pa.large_string()).dictionary_encode(), kinds.LABEL, ["a"]),
        (pa.array([0, 2**63], pa.uint64()), kinds.NAME, ["0", "9223372036854775808"]),
        (pa.nulls(2), kinds.NAME, [None, None]),
        (pa.array([0.0, 1.0, 2.5, NAN, None]), kinds.LABEL, ["0", "1", "2.5", None, None]),
        (pa.array([True, False]), kinds.LABEL, ["true", "false"]),
        (pa.array([b"a", b"\xff", b""]), kinds.LABEL, ["a", "ff", ""]),
        (pa.array([datetime.date(2020, 1, 2)]), kinds.LABEL, ["2020-01-02"]),
        (pa.array([1, 2], pa.int8()).dictionary_encode(), kinds.LABEL, ["1", "2"]),
        (pa.array([1.0, NAN, None]), kinds.WHOLE, [1, None, None]),
        (pa.array([Decimal("3.0")]), kinds.WHOLE, [3]),
        (pa.array([[1, 2, 3, 4], None], pa.list_(pa.int64(), 4)).cast(pa.list_(pa.int64())), kinds.BOX, [[1, 2, 3, 4], None]),
        (pa.array([{"x": 1, "y": 2, "w": 9, "h": 8}, None]), kinds.BOX, [[1, 2, 10, 10], None]),
        (pa.array([{"x": 1, "y": 2, "width": 9, "height": 8}]), kinds.BOX, [[1, 2, 10, 10]]),
        (pa.array([{"ymax": 4, "xmax": 3, "ymin": 2, "xmin": 1}]), kinds.BOX, [[1, 2, 3, 4]]),
        (pa.array([[0, 1, 2], None]), kinds.FLAGS, [[False, True, True], None]),
        (pa.array([[True, None]]), kinds.FLAGS, [[True, False]]),
        (pa.array([b"x", None], pa.binary_view()), kinds.PICTURE, [b"x", None]),
        (pa.array([b"x"], pa.large_binary()), kinds.PICTURE, [b"x"]),
        (pa.array([{"bytes": b"x", "path": "p"}, {"bytes": None, "path": "q"}, None]), kinds.PICTURE, [b"x", None, None]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)  # fmt: skip
def test_columns_of_any_type_are_read(array, kind, values):
    assert read(array, kind) == values


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (pa.array([1.5]), kinds.NAME),
        (pa.array([b"a"]), kinds.NAME),
        (pa.array([[1, 2]]), kinds.LABEL),
        (pa.array([{"a": 1}]), kinds.LABEL),
        (pa.array(["1"]), kinds.WHOLE),
        (pa.array([1.5]), kinds.WHOLE),
        (pa.array([2**63], pa.uint64()), kinds.WHOLE),
        (pa.array([True]), kinds.NUMBER),
        (pa.array([[1.0, 2.0, 3.0, 4.0]]), kinds.POINTS),
        (pa.array([[["1", "2"]]]), kinds.POINTS),
        (pa.array([[{"x": 1, "z": 2}]]), kinds.POINTS),
        (tensor([[[[1.0]]]]), kinds.POINTS),
        (pa.array(["1 2 3 4"]), kinds.BOX),
        (pa.array([{"x": 1, "y": 2}]), kinds.BOX),
        (pa.array([{"x0": "1", "y0": "2", "x1": "3", "y1": "4"}]), kinds.BOX),
        (pa.array([True]), kinds.FLAGS),
        (pa.array([["yes"]]), kinds.FLAGS),
        (pa.array(["a.jpg"]), kinds.PICTURE),
        (pa.array([[255, 216]]), kinds.PICTURE),
        (pa.array([{"path": "a.jpg"}]), kinds.PICTURE),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_another_type_is_one_line_with_file_column_and_both_types(array, kind):
    field, column = stored(array)
    with pytest.raises(DataError) as caught:
        read_column(field, column, kind, "folder/f.parquet")
    assert str(caught.value).startswith(f"folder/f.parquet: column c must be {kind.wanted}, is {field.type}")
    assert "\n" not in str(caught.value)


def test_labels_are_equal_if_and_only_if_their_values_are():
    for values in ([0, 1, 0], [0.0, 0.5, 0.0], ["", "0", ""], [b"\xfe", b"fe ", b"\xfe"], [False, True, False]):
        first, second, third = read(pa.array(values), kinds.LABEL)
        assert first == third != second
        assert None not in (first, second)


@pytest.mark.parametrize(
    ("rows", "shape"),
    [
        ([[[1, 2], [3, 4], [5, 6]], None, []], PointShape(3, transposed=False)),
        ([[[1, 2], [3, 4]]], PointShape(2, transposed=False)),
        ([[[1, 2], None]], PointShape(2, transposed=False)),
        ([[[1, 2, 3, 4], [5, 6, 7, 8]], None], PointShape(4, transposed=True)),
    ],
)
def test_the_shape_of_points_is_that_of_all_rows(rows, shape):
    assert point_shape("s", [pa.array([row], kinds.POINTS_TYPE) for row in rows]) == shape


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[[1, 2, 3], [4, 5, 6]]], "found 2 x 3"),  # two points with a third value, or three points turned
        ([[[1, 2, 3]] * 5], "found 5 x 3"),
        ([[[1, 2], [3]]], "found 2 x 1 and 2 x 2"),
        ([[[1, 2]], [[1, 2]] * 2], r"same number of landmarks, found \[1, 2\]"),
        ([[], None], "found none"),
        ([[None, None]], "nothing but nulls"),
    ],
)
def test_a_shape_that_leaves_a_doubt_is_refused(rows, message):
    with pytest.raises(DataError, match=f"^s: every .*{message}"):
        point_shape("s", [pa.array(rows, kinds.POINTS_TYPE)])


def test_points_of_a_row_are_an_array_with_nan_for_what_is_missing():
    plain, turned = PointShape(2, transposed=False), PointShape(4, transposed=True)
    np.testing.assert_array_equal(points_array([[1, None], None], plain), [[1, NAN], [NAN, NAN]])
    np.testing.assert_array_equal(points_array([[1, 2, 3, 4], None], turned), [[v, NAN] for v in (1, 2, 3, 4)])
    assert points_array(None, plain) is None
    assert points_array([], plain) is None
    assert math.isclose(points_array([[1, 2.5], [3, 4]], plain)[0, 1], 2.5)
